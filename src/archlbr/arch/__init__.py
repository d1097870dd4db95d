"""The arch room."""
