"""The profile: branch stacks as files that perf, BOLT and llvm-profgen read, and the checks they must pass."""
