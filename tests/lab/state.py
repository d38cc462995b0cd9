"""What a lab remembers on disk, so that any later command, also after a crash, finds all that is its own.

One JSON file in the lab's run directory, replaced whole on every change. Called by `cluster` alone.
"""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.lab import cache
from tests.lab.addresses import Family
from tests.lab.errors import LabError
from tests.lab.parts import Parts
from tests.lab.process import Process


@dataclass(slots=True, kw_only=True)
class NodeState:
    """What is remembered of one node."""

    number: int
    append: str = ""  # words added to its kernel's command line


@dataclass(slots=True, kw_only=True)
class State:
    """What is remembered of one lab."""

    name: str
    family: Family
    disk: str  # the file that all nodes' disks are copies of
    disk_images: list[str]  # the keys of the archives whose images are on it
    parts: Parts  # what it was brought up with, and goes on with
    append: str = ""  # words added to every new node's kernel command line
    nodes: list[NodeState] = field(default_factory=list[NodeState])
    images: list[str] = field(default_factory=list[str])  # archives that every node has imported
    processes: dict[str, Process] = field(default_factory=dict[str, Process])

    @property
    def run_directory(self) -> Path:
        """Where everything of this lab lies."""
        return run_directory(self.name)

    def save(self) -> None:
        """Replaces the file, whole or not at all."""
        content = asdict(self) | {"family": self.family.value, "parts": self.parts.build()}
        temporary = self.run_directory / "state.json.new"
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(self.run_directory / "state.json")

    @classmethod
    def load(cls, name: str) -> "State | None":
        """Reads a lab's state; None when there is none. Errors: LabError when another version of us wrote it."""
        content = _read(name)
        if content is None:
            return None
        if missing := {one.name for one in fields(cls)} - content.keys():
            raise LabError(
                f"the lab {name} was brought up by another version, without {', '.join(missing)}: take it down"
            )
        return cls(
            name=content["name"],
            family=Family(content["family"]),
            disk=content["disk"],
            disk_images=list(content["disk_images"]),
            parts=Parts.parse(content["parts"]),
            append=content["append"],
            nodes=[NodeState(**node) for node in content["nodes"]],
            images=list(content["images"]),
            processes=recorded_processes(name),
        )


def recorded_processes(name: str) -> dict[str, Process]:
    """The processes of a lab, whichever version of us started them; none when there is no lab of that name."""
    content = _read(name) or {"processes": {}}
    return {name: Process(**process) for name, process in content["processes"].items()}


def disk_of(name: str) -> Path | None:
    """What the nodes' disks of a lab are copies of, whichever version of us brought it up."""
    content = _read(name)
    return Path(content["disk"]) if content is not None else None


def _read(name: str) -> dict[str, Any] | None:
    try:
        return json.loads((run_directory(name) / "state.json").read_text())
    except FileNotFoundError:
        return None


def run_directory(name: str) -> Path:
    """The run directory of the lab of that name, which need not be up."""
    return cache.directory() / "run" / name


def names() -> list[str]:
    """The names of all labs that have a run directory."""
    runs = cache.directory() / "run"
    return sorted(entry for entry in os.listdir(runs) if (runs / entry).is_dir()) if runs.is_dir() else []
