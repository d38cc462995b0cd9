"""The script in the pod hauberk-boot-guard: the host's unit is there exactly as long as there is something to load."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.unit.chart.helm import CHART

FILES: Final = CHART / "files" / "boot-guard"
PATIENCE_SECONDS: Final = 30.0


def present(units: Path) -> set[str]:
    return {str(path.relative_to(units)) for path in units.rglob("*")}


WHOLE: Final = {
    "hauberk-guard.sh",
    "hauberk-guard.service",
    "sysinit.target.wants",
    "sysinit.target.wants/hauberk-guard.service",
}


@contextmanager
def keeping(state: Path, units: Path, verb: str = "keep") -> Generator[subprocess.Popen[bytes]]:
    """The script, ended as kubelet ends it."""
    environment = {**os.environ, "HAUBERK_STATE_DIR": str(state)}
    process = subprocess.Popen(["sh", str(FILES / "keep.sh"), verb, str(units)], env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_SECONDS) == 0


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def places(tmp_path: Path) -> tuple[Path, Path]:
    state, units = tmp_path / "state", tmp_path / "units"
    state.mkdir()
    units.mkdir()
    return state, units


def test_the_unit_comes_and_goes_with_the_agents_file(tmp_path: Path) -> None:
    state, units = places(tmp_path)
    (units / "kubelet.service").touch()
    with keeping(state, units):
        (state / "guard.xfrm").touch()
        eventually(lambda: present(units) == WHOLE | {"kubelet.service"})
        link = units / "sysinit.target.wants" / "hauberk-guard.service"
        assert link.read_text() == (FILES / "hauberk-guard.service").read_text()
        # -> somebody changes it
        (units / "hauberk-guard.sh").write_text("echo\n")
        eventually(lambda: (units / "hauberk-guard.sh").read_text() == (FILES / "hauberk-guard.sh").read_text())
        (state / "guard.xfrm").unlink()
        eventually(lambda: present(units) == {"kubelet.service"})


def test_a_node_that_goes_down_keeps_its_unit(tmp_path: Path) -> None:
    state, units = places(tmp_path)
    (state / "guard.xfrm").touch()
    with keeping(state, units):
        eventually(lambda: present(units) == WHOLE)
    assert present(units) == WHOLE


def test_what_the_agent_removed_last_of_all_is_seen_at_the_end(tmp_path: Path) -> None:
    # helm uninstall: the agents' files go first, and the pods at once after them.
    state, units = places(tmp_path)
    (state / "guard.xfrm").touch()
    with keeping(state, units) as process:
        eventually(lambda: present(units) == WHOLE)
        process.send_signal(signal.SIGSTOP)
        (state / "guard.xfrm").unlink()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
    assert present(units) == set()


def test_removing_removes_it_though_there_is_something_to_load(tmp_path: Path) -> None:
    state, units = places(tmp_path)
    (state / "guard.xfrm").touch()
    (units / "sysinit.target.wants").mkdir()
    (units / "sysinit.target.wants" / "other.service").touch()
    with keeping(state, units):
        eventually(lambda: present(units) >= WHOLE)
    with keeping(state, units, "remove"):
        eventually(lambda: not present(units) & {"hauberk-guard.sh", "hauberk-guard.service"})
    assert present(units) == {"sysinit.target.wants", "sysinit.target.wants/other.service"}


def test_no_service_starts_before_it_and_no_network_is_there() -> None:
    lines = (FILES / "hauberk-guard.service").read_text().splitlines()
    (before,) = (line.partition("=")[2].split() for line in lines if line.startswith("Before="))
    assert {"sysinit.target", "network-pre.target"} <= set(before)
    assert "DefaultDependencies=no" in lines
    assert "WantedBy=sysinit.target" in lines
