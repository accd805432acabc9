"""Chips for training: batches, PyTorch datasets and band statistics."""
