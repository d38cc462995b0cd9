"""Processes are ended by their id, and a stranger who has the id now is not."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import process
from tests.lab.errors import LabError


def _wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_spawned_process_lives_in_a_session_of_its_own_until_it_is_killed(tmp_path: Path) -> None:
    spawned = process.spawn(["sleep", "60"], log=tmp_path / "log")
    try:
        assert spawned.is_alive()
        assert os.getsid(spawned.pid) == spawned.pid
    finally:
        spawned.kill()
    assert spawned.wait_gone(5)
    assert not spawned.is_alive()


def test_its_output_is_appended_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    spawned = process.spawn(["sh", "-c", "echo out; echo err >&2"], log=log)
    assert spawned.wait_gone(5)
    assert log.read_text() == "before\nout\nerr\n"


def test_killing_takes_its_children_along_even_when_it_is_gone_itself(tmp_path: Path) -> None:
    spawned = process.spawn(["sh", "-c", "sleep 60 & sleep 61 & wait"], log=tmp_path / "log")
    _wait_until(lambda: len(spawned.group()) == 3, "the children did not start")
    os.kill(spawned.pid, signal.SIGKILL)  # the leader alone
    _wait_until(lambda: not spawned.is_alive(), "the leader did not end")
    assert len(spawned.group()) == 2
    spawned.kill()
    assert spawned.wait_gone(5)


def test_a_stranger_with_a_recycled_id_is_neither_ours_nor_killed() -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        start = int(Path(f"/proc/{stranger.pid}/stat").read_text().rsplit(") ", 1)[1].split()[19])
        ours_once = process.Process(pid=stranger.pid, start_time=start - 1)
        assert not ours_once.is_alive()
        assert ours_once.group() == []
        ours_once.kill()
        ours_once.terminate()
        assert ours_once.wait_gone(0)
        assert stranger.poll() is None, "the stranger must live"
        assert dataclasses.replace(ours_once, start_time=start).is_alive()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_zombie_does_not_run() -> None:
    # A child of another process than ours, which does not wait for it.
    script = "import subprocess,time; p=subprocess.Popen(['true']); print(p.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            stat = Path(f"/proc/{pid}/stat")
            _wait_until(lambda: stat.read_text().rsplit(") ", 1)[1].startswith("Z"), "it did not end")
            start = int(stat.read_text().rsplit(") ", 1)[1].split()[19])
            assert not process.Process(pid=pid, start_time=start).is_alive()
        finally:
            parent.kill()


def test_a_program_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no-such-program could not be started"):
        process.spawn(["no-such-program"], log=tmp_path / "log")


def test_a_process_knows_which_are_in_its_network_namespace() -> None:
    assert os.getpid() in process.in_network_namespace(Path("/proc/self/ns/net"))
    assert process.in_network_namespace(Path("/nonexistent")) == []
