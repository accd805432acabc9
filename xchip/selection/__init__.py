"""Choosing chips by the index table alone: samples, splits that can't leak, and the audit that proves it."""
