"""Inputs nobody would write, for every parser: what `campaigns.fuzz` does at length."""
