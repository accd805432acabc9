"""Choose chips by the index alone: samples, splits without leaks, audits of splits, and series."""
