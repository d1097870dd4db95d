"""A machine that runs: memory, threads, system calls, devices; the only room in which anything runs."""
