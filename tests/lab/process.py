"""Processes that outlive the command that started them, and are ended by their id without ever hitting a stranger.

The kernel gives ids out again, so each process is recorded with the time of its start (/proc/PID/stat, field 22), which
no later process of the same id shares. Each leads a session of its own: ending it ends the whole process group. Called
by `cluster` and `disk`.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of ours: the leader of a session and process group."""

    pid: int
    start_time: int  # in clock ticks since boot, as in /proc/PID/stat

    def is_alive(self) -> bool:
        """True while this very process runs (a zombie does not)."""
        _reap(self.pid)
        stat = _Stat.read(self.pid)
        return stat is not None and stat.start_time == self.start_time and stat.state not in "ZX"

    def group(self) -> list[int]:
        """The ids of all live processes in its group.

        An id is not given out again while a group bears it, so when another process has our id now, our group is gone.
        """
        leader = _Stat.read(self.pid)
        if leader is not None and leader.start_time != self.start_time:
            return []
        members: list[int] = []
        for entry in os.listdir("/proc"):
            if not entry.isdecimal():
                continue
            stat = _Stat.read(int(entry))
            if stat is not None and stat.group == self.pid and stat.state not in "ZX":
                members.append(int(entry))
        return members

    def kill(self) -> None:
        """Sends SIGKILL to the whole group, at once: for a node, pulling the plug."""
        if self.group():
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def terminate(self) -> None:
        """Asks the process to end (SIGTERM)."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGTERM)

    def wait_gone(self, timeout_seconds: float) -> bool:
        """Waits until nothing of the group is left; returns whether that came about in time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            _reap(self.pid)
            if not self.group():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)


def spawn(
    argv: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Process:
    """Starts a process that lives on after us: its own session, no input, output appended to `log`.

    Errors: LabError when the program can't be started.
    """
    with log.open("ab") as output:
        try:
            started = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=dict(environment) if environment is not None else None,
                cwd=cwd,
            )
        except OSError as error:
            raise LabError(f"{argv[0]} could not be started: {error.strerror}") from error
    # It lives on after us, so nobody here waits for it: keep subprocess from warning about that.
    started.returncode = 0
    stat = _Stat.read(started.pid)
    if stat is None:
        raise LabError(f"{argv[0]} ended at once", log=log)
    return Process(pid=started.pid, start_time=stat.start_time)


def resident_kib(pids: Sequence[int]) -> int:
    """The memory of processes in KiB, pages that they share counted once (Pss)."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except (OSError, ValueError):
            continue  # ended meanwhile
    return total


def in_network_namespace(namespace: Path) -> list[int]:
    """The ids of all processes in a network namespace, given as a file (`/run/netns/NAME`)."""
    try:
        wanted = namespace.stat().st_ino
    except OSError:
        return []
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                if os.stat(f"/proc/{entry}/ns/net").st_ino == wanted:
                    found.append(int(entry))
            except OSError:
                continue
    return found


def command_name(pid: int) -> str:
    """The name of a process, for people."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def _reap(pid: int) -> None:
    """Takes the exit code of a child of ours that ended, or it would stay as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # somebody else's child


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stat:
    """What we need of /proc/PID/stat (proc_pid_stat(5))."""

    state: str
    group: int
    start_time: int

    @classmethod
    def read(cls, pid: int) -> "_Stat | None":
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        # The second field is the name in parentheses, and may hold spaces and parentheses itself.
        fields = text[text.rindex(")") + 2 :].split()
        return cls(state=fields[0], group=int(fields[2]), start_time=int(fields[19]))
