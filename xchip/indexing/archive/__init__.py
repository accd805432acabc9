"""Archives: one part of the index per item, and a ledger of finished and failed items."""
