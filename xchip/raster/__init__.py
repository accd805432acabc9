"""Pixels of a file: its header, and its windows on its own or a coarser grid."""
