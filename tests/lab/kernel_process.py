"""The command line of a node's kernel: User-Mode Linux, a whole kernel as one ordinary process.

Called by `node` for nodes and by `disk` for the kernel that fills the disk. Options: Documentation/virt/uml in Linux.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.node_init import HIDDEN

MEMORY = "2G"  # at most: a kernel takes of the host only what it uses
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel to start. The host's root is its root, read-only."""

    binary: Path
    name: str
    sockets: Path  # a directory of this kernel's own: it deletes what lies there
    init: Path
    disk: str  # FILE, or COPY,BASE: COPY takes what is written, BASE stays as it is
    interfaces: Sequence[tuple[str, str]] = ()  # (veth, hardware address): vec0, vec1, ...
    append: str = ""  # more words for the kernel

    def argv(self, cpu: int) -> list[str]:
        """The command that runs it on one host CPU: pinned, a system call costs a tenth of what it costs otherwise."""
        vectors = [
            f"vec{index}:transport=raw,ifname={veth},depth=64,mac={mac}"
            for index, (veth, mac) in enumerate(self.interfaces)
        ]
        return [
            *("taskset", "-c", str(cpu), str(self.binary)),
            *("seccomp=auto", f"mem={MEMORY}", f"umid={self.name}", f"uml_dir={self.sockets}"),
            *("rootfstype=hostfs", "rootflags=/", "ro", f"init={self.init}", f"ubd0={self.disk}"),
            *vectors,
            *("con=null", "con0=fd:0,fd:1", "quiet", "loglevel=3"),
            *shlex.split(self.append),
        ]


def cpu_for(number: int) -> int:
    """The host CPU of the `number`th kernel: round robin over those that we may use."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[number % len(cpus)]


def write_init(path: Path, module: str, *arguments: str) -> None:
    """Writes the script that the kernel starts first: it runs a module of this repository with Python."""
    command = shlex.join([node_python(), "-B", "-m", module, *arguments])
    path.write_text(f"#!/bin/sh\ncd {shlex.quote(str(REPOSITORY))} && exec {command}\n")
    path.chmod(0o755)


def node_python() -> str:
    """A Python that a node can see: ours, or Debian's where ours lies below a directory that is the node's own."""
    ours = Path(sys.executable).resolve()
    return "/usr/bin/python3" if is_hidden(ours) else str(ours)


def is_hidden(path: Path) -> bool:
    """True when nodes can't see a file of the host, because something of their own is mounted above it."""
    return any(path.is_relative_to(directory) for directory in HIDDEN)
