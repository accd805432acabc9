"""Explain what a job will take before it runs."""
