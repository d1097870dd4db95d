"""The guest room."""
