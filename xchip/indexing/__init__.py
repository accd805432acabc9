"""From counts and a grid to the index: tables, archives and merged indexes."""
