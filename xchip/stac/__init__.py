"""Scenes in: STAC items and raster files become one known form, and a lazy stack."""
