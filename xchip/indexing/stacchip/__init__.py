"""Read the tables that stacchip wrote."""
