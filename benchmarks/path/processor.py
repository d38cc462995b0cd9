"""How much of the host's processors a kernel takes, over time.

A User-Mode Linux kernel is a process with children, and its own clock is the host's: on a machine that has more to do
it can't tell how long it ran. The host can. So throughput is stated for each second of processor that it took, which no
other work on the machine changes much.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOOK_SECONDS: Final = 0.1
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class ProcessorTime:
    """Looks at a process and its children until closed. Made with the process id of the kernel."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._times: list[float] = []
        self._used: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join()

    def between(self, began: float, ended: float) -> float:
        """Seconds of processor taken from the one moment to the other, both since the epoch.

        Raises ValueError when it was not looked at then.
        """
        return self._at(ended) - self._at(began)

    def _at(self, moment: float) -> float:
        index = bisect_left(self._times, moment)
        if not 0 < index < len(self._times):
            raise ValueError("the kernel was not looked at at that time")
        before, after = self._times[index - 1], self._times[index]
        share = (moment - before) / (after - before)
        return self._used[index - 1] + share * (self._used[index] - self._used[index - 1])

    def _run(self) -> None:
        while not self._ending.wait(_LOOK_SECONDS):
            with suppress(OSError):
                used = _used(self._pid)
                self._times.append(time.time())
                self._used.append(used)


def _used(pid: int) -> float:
    """Seconds, of a process, those of its children that have ended, and those that run. Raises OSError."""
    user, system, ended_user, ended_system = _stat(pid)
    ticks = user + system + ended_user + ended_system
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):
            ticks += sum(_stat(int(child))[:2])
    return ticks / _TICKS


def _stat(pid: int) -> tuple[int, int, int, int]:
    """utime, stime, cutime, cstime of /proc/PID/stat (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, ended_user, ended_system = map(int, fields[11:15])
    return user, system, ended_user, ended_system
