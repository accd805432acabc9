"""Merge indexes that do not fit in memory."""
