"""The verbs end to end, as a user calls them."""
