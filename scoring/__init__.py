"""Nightly batch scoring: models over Parquet partitions, checked, published, watched and replaced."""

from __future__ import annotations

__version__ = "0.1.0"
