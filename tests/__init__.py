"""The tests, one package a room, so that equal file names in different rooms do not collide."""
