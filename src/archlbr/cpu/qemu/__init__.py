"""QEMU user mode as a source of branches: a plugin of ours that writes blocks into shared memory, and who reads it."""
