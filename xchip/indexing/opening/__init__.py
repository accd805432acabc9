"""Open an index: list its files, filter and read them."""
