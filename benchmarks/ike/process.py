"""What a running daemon has cost: CPU time and resident memory, as its kernel accounts for them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.ike.errors import BenchmarkError

_CPU_CLOCK_SCHEDULED = 2
"""CPUCLOCK_SCHED (linux/posix-timers.h): what all threads of a process have run, in nanoseconds."""


class Daemon:
    """A process of ours that speaks IKE; `pid` is the program itself, not what started it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        # As clock_getcpuclockid(3) makes it.
        self._clock = (~process.pid << 3) | _CPU_CLOCK_SCHEDULED

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system time of all its threads. Raises BenchmarkError if it has ended."""
        self.check()
        return time.clock_gettime(self._clock)

    def resident_bytes(self) -> int:
        """Its resident set. Raises BenchmarkError if it has ended."""
        self.check()
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise BenchmarkError(f"{self.name} has no memory any more")

    def check(self) -> None:
        """Raises BenchmarkError, with what it said last, if it has ended."""
        if self._process.poll() is not None:
            raise BenchmarkError(
                f"{self.name} has ended with exit code {self._process.returncode}; {self.last_words()}"
            )

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "it said: " + "\n  ".join(lines[-8:]) if lines else "it said nothing"

    def stop(self) -> None:
        """Ends it, at once."""
        self._process.kill()
        self._process.wait()
