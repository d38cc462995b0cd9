"""Looking at the shared lab's wire and traffic: used by the tests of this folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tests.ground import ground
from tests.lab.capture import Capture
from tests.lab.cluster import Lab
from tests.lab.judge import Verdict, judge
from tests.lab.traffic import Pace, Traffic

STEADY: Final = Pace(interval_seconds=1.0)
"""Of every flow a message a second: what all these tests need, but for one, and a third of the processor time."""

T = TypeVar("T")


@dataclass(slots=True)
class Seen:
    """The verdict of a capture, once its block has ended."""

    verdict: Verdict | None = None

    def get(self) -> Verdict:
        assert self.verdict is not None, "the capture is still running"
        return self.verdict


@contextmanager
def watching(lab: Lab, path: Path) -> Generator[Seen]:
    """Capture all that crosses between the nodes while the block runs, then judge it."""
    seen = Seen()
    with Capture(netns=lab.netns, interface=lab.bridge, path=path) as running:
        yield seen
    seen.verdict = judge(path, ground(lab), dropped=running.dropped)


@contextmanager
def in_crowds(traffic: Traffic) -> Generator[None]:
    """More traffic while the block runs."""
    traffic.pace = Pace()
    traffic.update_targets()
    try:
        yield
    finally:
        traffic.pace = STEADY
        traffic.update_targets()


def eventually(ask: Callable[[], T], *, until: Callable[[T], bool], timeout: float) -> T:
    """Ask until the answer is right or the time is up; the last answer, for the test to assert on."""
    deadline = time.monotonic() + timeout
    while not until(answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return answer


def silent_paths(traffic: Traffic, *, timeout: float = 30) -> list[str]:
    """The paths that still get no answers when the time is up."""
    return eventually(traffic.silent, until=lambda silent: not silent, timeout=timeout)


def names(lab: Lab) -> list[str]:
    """The names of the lab's nodes."""
    return [node.name for node in lab.nodes]
