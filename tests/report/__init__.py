"""What a person sees: the report room and its page."""
