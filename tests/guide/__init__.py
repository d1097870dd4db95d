"""The guides, run as they stand."""
