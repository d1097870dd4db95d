"""Which sources run, by their digest, and the folder where what was compiled from them is kept.

`native` and the plugin of `cpu.qemu` keep compiled code there, so that a change anywhere starts a new folder; `probe`
says which it is; `check.cluster` compares the digests of two machines. Ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

# Folders of other sources that stay: enough for a few checkouts side by side.
_KEPT = 6


@cache
def digest() -> str:
    """Return the SHA-256 of our sources, names and bytes, in hexadecimal."""
    total = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def cache_folder() -> Path:
    """Return the folder that holds these sources' compiled code; a temporary one where the usual cannot be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archlbr"
    folder = home / digest()[:16]
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            others = sorted(
                (other for other in home.iterdir() if other != folder), key=lambda other: other.stat().st_mtime
            )
            for other in others[:-_KEPT]:
                shutil.rmtree(other, ignore_errors=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass  # no home, or one that cannot be written
    return _temporary_folder(f"archlbr-{os.getuid()}-{digest()[:16]}")


def _temporary_folder(name: str) -> Path:
    # What is loaded from it runs: a folder of that name that others could write is not ours to use.
    folder = Path(tempfile.gettempdir()) / name
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="archlbr-"))
