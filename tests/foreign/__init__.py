"""Questions put to programs that are not ours."""
