"""Draw maps of an index and sheets of chips."""
