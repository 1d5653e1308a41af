"""Benchmarks: `python -m benchmarks.NAME`; see README.md."""
