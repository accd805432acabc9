"""Chips out: the rows of an index as lazy arrays and as batches for training."""
