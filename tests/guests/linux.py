"""A Linux guest: Debian's unmodified kernel, and a first file system of busybox, perf and two programs.

`python -m tests.guests.linux FOLDER` fetches the packages with apt and writes FOLDER/vmlinuz and FOLDER/guest.cpio; the
tests of `tests/machine/test_linux.py` boot what they find in build/guest.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "guest"
META = "linux-image-cloud-amd64"
APPLETS = ["sh", "mount", "mkdir", "cat", "echo", "sleep", "ls", "head", "grep", "stty", "poweroff", "cut"]
APPLETS += ["tar", "dmesg"]
PROGRAMS = {"program": "kernel.c", "interpreter": "interpreter.c"}
# Linked where nothing else of the guest lies, so that a trace from outside can tell its branches by their addresses.
TEXT_AT, TEXT_END = 0x10000000, 0x20000000
LINKING = ("-static", "-Wl,--emit-relocs", f"-Wl,-Ttext-segment={TEXT_AT:#x}")
# Packages that hold what is missing on this machine.
PACKAGES = {"apt-get": "apt", "dpkg": "dpkg", "gcc": "gcc and libc6-dev"}

# The shell script that the kernel starts.
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp
echo "[depth] $(cat /sys/bus/event_source/devices/cpu/caps/branches)"
echo "[flag] $(grep -o arch_lbr /proc/cpuinfo | head -n 1)"
before=$(cut -d. -f1 /proc/uptime); sleep 1; echo "[slept] $(( $(cut -d. -f1 /proc/uptime) - before ))"
cd /tmp
export HOME=/tmp
stty -F /dev/ttyS1 raw -echo
exec sh
"""


def entry(name: str, mode: int, content: bytes, number: int, device: tuple[int, int] = (0, 0)) -> bytes:
    """Return one member of a newc archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    raw = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def archive(members: dict[str, tuple[int, bytes]]) -> bytes:
    """Return a newc archive of path -> (mode, content), with /dev/console."""
    out = [entry(name, *member, number) for number, (name, member) in enumerate(members.items(), 2)]
    out.append(entry("dev/console", stat.S_IFCHR | 0o600, b"", 1, (5, 1)))
    return b"".join(out) + entry("TRAILER!!!", 0, b"", 0)


def unpacked(package: str, folder: Path) -> Path:
    """Fetch a Debian package and return where its files lie."""
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True, capture_output=True, timeout=300)
    [file] = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg", "-x", file, folder / package], check=True, capture_output=True, timeout=120)
    return folder / package


def libraries(program: Path) -> list[Path]:
    """Return the shared objects that a program loads."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False, timeout=60).stdout
    return [Path(name) for name in re.findall(r"(/\S+) \(0x", listed)]


def build(folder: Path) -> None:
    """Write vmlinuz, guest.cpio and the programs into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in PROGRAMS.items():
        compiled = Path(__file__).parent / source
        subprocess.run(
            ["gcc", "-O1", "-g", *LINKING, "-o", folder / name, compiled], check=True, capture_output=True, timeout=120
        )
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        depends = subprocess.run(
            ["apt-cache", "depends", META], capture_output=True, text=True, check=True, timeout=120
        )
        images = re.findall(r"Depends: (linux-image-\S+)", depends.stdout)
        if not images:
            raise LookupError(f"apt knows no {META}, which is Debian's: apt-get update")
        [image] = images
        [kernel] = (unpacked(image, scratch) / "boot").glob("vmlinuz-*")
        shutil.copyfile(kernel, folder / "vmlinuz")
        busybox = (unpacked("busybox-static", scratch) / "bin" / "busybox").read_bytes()
    executable = stat.S_IFREG | 0o755
    members = dict.fromkeys(("bin", "proc", "sys", "dev"), (stat.S_IFDIR | 0o755, b""))
    members["init"] = (executable, INIT.encode())
    members["bin/busybox"] = (executable, busybox)
    members.update({f"bin/{applet}": (stat.S_IFLNK | 0o777, b"busybox") for applet in APPLETS})
    # The programs lie in the guest where they lie here: what its perf records names files that this machine has.
    placed = {str(path)[1:]: path for path in ((folder / name).resolve() for name in PROGRAMS)}
    members.update({f"bin/{path.name}": (stat.S_IFLNK | 0o777, str(path).encode()) for path in placed.values()})
    perf = shutil.which("perf")
    if perf:
        placed["usr/bin/perf"] = Path(perf)
        placed.update({str(path)[1:]: path for path in libraries(Path(perf))})
    for place, path in placed.items():
        for parent in reversed(Path(place).parents[:-1]):
            members.setdefault(str(parent), (stat.S_IFDIR | 0o755, b""))
        members[place] = (executable, path.resolve().read_bytes())
    written = folder / "guest.cpio.new"
    written.write_bytes(archive(members))
    written.replace(folder / "guest.cpio")


def main(words: list[str]) -> str:
    """Build; return what stood in the way, empty when nothing did."""
    lacking = {package for tool, package in PACKAGES.items() if shutil.which(tool) is None}
    if lacking:
        return f"the Linux guest is not made: install {', '.join(sorted(lacking))}; it is packed from Debian's packages"
    try:
        build(Path(words[0]) if words else FOLDER)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = os.fsdecode(error.stderr or b"").strip().splitlines()[-1:]
        command = " ".join(str(word) for word in error.cmd)
        return f"the Linux guest is not made: {command} failed{': ' if said else ''}{''.join(said)}"
    except LookupError as error:
        return f"the Linux guest is not made: {error}"
    if shutil.which("perf") is None:
        print("There is no perf in it: install linux-perf here, and make guest again.")
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) or 0)
