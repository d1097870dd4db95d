"""The lbr room."""
