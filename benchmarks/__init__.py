"""Benchmarks: ratios measured in one run, both sides taking turns."""
