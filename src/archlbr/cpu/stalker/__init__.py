"""Frida's Stalker as a source of branches: what it adds to the code it translates, and how it gets a program."""
