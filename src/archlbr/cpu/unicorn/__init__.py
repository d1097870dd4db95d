"""The unicorn room."""
