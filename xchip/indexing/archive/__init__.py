"""Archives: a part of the index per item, and a ledger of the items that are done."""
