"""What must hold, as tables: one file a concern, one row a case."""
