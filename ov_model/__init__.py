"""Codec signals, patch selection, mosaics and the data lake's ledger for codec-based video language models."""

__version__ = "0.1.0"
