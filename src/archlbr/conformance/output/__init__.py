"""Results in three forms: a table for people, TAP and JUnit for programs (docs/formats.md)."""
