"""Readers of benchmarks: one module a dataset."""
