"""A Linux user program: its file, its first stack, its system calls, signals and threads, as Linux defines them."""
