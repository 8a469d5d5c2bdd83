"""Benchmarks that are generated on first use."""
