"""The native single-stepper that every exact branch test is held against."""
