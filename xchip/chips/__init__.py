"""Read the pixels of chips, lazily, and put chips back on the map."""
