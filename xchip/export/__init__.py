"""Write the chips of an index as files: npz cubes, a Zarr store, tar shards or GeoTIFFs."""
