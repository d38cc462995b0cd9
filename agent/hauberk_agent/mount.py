"""Whether a directory is on a file system that outlives the kernel's life, as far as the kernel can tell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "rootfs"})
_OF_A_CONTAINER: Final = frozenset({"overlay", "aufs"})
"""What is written there goes with the container."""


def outlives_boot(directory: Path, mounts: str) -> bool:
    """Whether what lies in a directory is there after a reboot. mounts: the content of MOUNTS (proc(5))."""
    kind = _file_system(directory, mounts)
    return kind is not None and kind not in _IN_MEMORY | _OF_A_CONTAINER


def _file_system(directory: Path, mounts: str) -> str | None:
    """The type of the file system that a directory is on: of the last mount on the longest of its parents."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 6 or not after:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        if directory.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), after.split(" ")[0]
    return found[1] if found is not None else None
