"""Estimate the cost of a job before it runs."""
