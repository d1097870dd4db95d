"""The concrete targets: the only part of this room that knows what it talks to."""
