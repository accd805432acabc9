"""Reach files and servers: storage, signing, retries, GDAL's settings, workers and progress."""
