"""Indexes out: the quality of items, counted from their files, and tables on disk or in a bucket."""
