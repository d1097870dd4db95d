"""What runs for minutes or hours and is no test: fuzzing, mutants, a soak, kills. Results: `docs/reliability.md`."""
