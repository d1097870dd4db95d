"""The perf.data file, one small module a section: each with its own layout, write and parse."""
