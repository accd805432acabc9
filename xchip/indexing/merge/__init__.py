"""Merge indexes out of core."""
