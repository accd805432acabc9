"""Write index tables as GeoParquet."""
