"""The perfdata room."""
