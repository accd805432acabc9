"""Maps of an index and sheets of chips."""
