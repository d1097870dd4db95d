"""The cpu room."""
