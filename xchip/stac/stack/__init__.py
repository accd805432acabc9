"""Stack scenes lazily with stackstac."""
