"""The vpmu room."""
