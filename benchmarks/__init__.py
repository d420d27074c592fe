"""Measurements. Each runs by itself; docs/benchmarks.md says how to read them."""
