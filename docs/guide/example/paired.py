"""Time programs against one another: `python3 paired.py ROUNDS BASE OTHER... [-- ARGUMENTS]`.

They take turns, so that what else the machine does hits all alike; the median of each is printed, and its speed-up.
"""

import statistics
import subprocess
import sys
import time

words = sys.argv[1:]
programs, arguments = words[1:], []
if "--" in words:
    programs, arguments = words[1 : words.index("--")], words[words.index("--") + 1 :]
seconds = {program: [] for program in programs}
for _ in range(int(words[0])):
    for program in programs:
        start = time.perf_counter()
        subprocess.run([program, *arguments], stdout=subprocess.DEVNULL, check=True)
        seconds[program].append(time.perf_counter() - start)
base = statistics.median(seconds[programs[0]])
for program in programs:
    median = statistics.median(seconds[program])
    print(f"{program:24} {median:.3f} s  {base / median:.2f} times as fast")
