"""Geometry, quality classes and reductions on arrays. The core opens no file and computes nothing."""
