"""Geometry, quality classes and reductions on arrays; opens no file and computes nothing."""
