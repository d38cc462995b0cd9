"""One agent a node: a lock on a file in the state directory, held as long as the process lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class AgentLock:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "agent.lock"
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Takes the lock, or returns False when another process has it. Raises OSError."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
