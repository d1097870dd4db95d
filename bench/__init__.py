"""Measures what docs/benchmarks.md reports."""
