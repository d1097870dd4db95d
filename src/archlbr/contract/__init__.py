"""The contract between KVM and perf: the host's parts as a model to explore, its properties, its seeded bugs."""
