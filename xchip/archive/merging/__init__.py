"""One index from many, out of core: read, checked, sorted along a Hilbert curve, and put in place at once."""
