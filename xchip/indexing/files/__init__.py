"""Index tables on disk: write, list, filter and read GeoParquet."""
