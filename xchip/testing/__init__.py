"""Tools for tests and demonstrations: synthetic scenes with known answers."""

from __future__ import annotations

from xchip.testing.synthetic import EXTENSIONS, FILES, SCL_CLASSES, raise_if_dask_computes, synthetic_stack, write_scene

__all__ = ["EXTENSIONS", "FILES", "SCL_CLASSES", "raise_if_dask_computes", "synthetic_stack", "write_scene"]
