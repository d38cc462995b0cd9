"""Where the API server's programs lie: in $HAUBERK_LAB_BIN, or among the lab's built parts. Called by `server`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from tests.lab import build
from tests.lab.errors import LabError

BIN_VARIABLE: Final = "HAUBERK_LAB_BIN"


def binary(name: str) -> Path:
    """The program of that name. Raises LabError, with how to get it, when there is none."""
    for directory in _directories():
        candidate = directory / name
        if os.access(candidate, os.X_OK):
            return candidate
    if name in build.KUBERNETES_PROGRAMS or (found := shutil.which(name)) is None:
        raise LabError(f"{name} is missing: run `python -m tests.lab build`, or set {BIN_VARIABLE} to where it lies")
    return Path(found)


def _directories() -> tuple[Path, ...]:
    chosen = os.environ.get(BIN_VARIABLE)
    built = (build.kubernetes_part().path, build.clients_part().path)
    return (Path(chosen).absolute(), *built) if chosen else built
