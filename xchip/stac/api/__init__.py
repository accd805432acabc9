"""Search STAC APIs."""
