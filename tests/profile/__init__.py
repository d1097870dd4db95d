"""The profile room: formats, checks and counts."""  # noqa: A005 - the room it mirrors is named so
