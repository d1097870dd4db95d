"""The embedded engine: Unicorn, with every per-block decision in compiled code."""
