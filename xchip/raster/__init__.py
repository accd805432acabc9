"""Read raster files: headers, and windows of pixels on the file's own grid or on another grid."""
