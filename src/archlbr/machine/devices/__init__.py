"""The board's devices: each a small state machine that ports, MMIO and the clock drive."""
