"""The columns of stacchip's tables: to ours, and from ours."""
