"""Understand a published STAC item as a Scene."""
