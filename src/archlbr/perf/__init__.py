"""The perf room."""
