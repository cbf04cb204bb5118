"""Benchmarks: prepared, precomputed, scored with lmms-eval, every video known to be HIT, MISS or invalid."""
