"""The probe room: what this host has of the chain from silicon to a guest's `perf record -b`."""
