"""What takes minutes and mostly waits is played beside the other tests, in kernels of its own.

A play is a program in one or several bare kernels that tries many things, each of which is a test. A few at a time are
begun as soon as it is known which tests were chosen, by the process that hands them out; the tests come last and find,
or wait for, what became of theirs. `tests/conftest.py` calls the `Theatre`.
"""

from __future__ import annotations

import json
import queue
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kernel import bare_kernel

Outcomes = Mapping[str, str | None]
"""Of each test: None, or what went wrong."""

LANES: Final = 2
"""Plays at a time: a kernel of theirs computes for a tenth of the time and waits for the rest."""

LONGEST_SECONDS: Final = 3600.0
"""All plays are over by then: each has a bound of its own."""
_LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a play is played: a directory, kept when something fails, and the number of the CPU for its kernel."""

    directory: Path
    cpu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What is played for all tests whose ids begin with `tests`, which has the bracket in it.

    run: given the stage, and the chosen tests by what their ids have between `tests` and the closing bracket.
    """

    name: str
    tests: str
    run: Callable[[Stage, Sequence[str]], Outcomes]

    def chosen(self, ids: Iterable[str]) -> list[str]:
        """Those of the ids that are this play's, as `run` is given them."""
        return [found.removeprefix(self.tests).removesuffix("]") for found in ids if found.startswith(self.tests)]


class Theatre:
    """The plays of one run of pytest, in `directory`, which all its processes know."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._pool: ThreadPoolExecutor | None = None
        self._played: list[Future[None]] = []
        self._cpus: queue.SimpleQueue[int] = queue.SimpleQueue()

    @classmethod
    def make(cls) -> Theatre:
        return cls(Path(tempfile.mkdtemp(prefix="hauberk-tests-")))

    def begin(self, plays: Iterable[Play], ids: Sequence[str]) -> None:
        """Begins the plays that these tests are about; once, whoever asks how often."""
        if self._pool is not None:
            return
        self._pool = ThreadPoolExecutor(LANES, thread_name_prefix="play")
        for cpu in range(LANES):
            self._cpus.put(cpu)
        for play in plays:
            if chosen := play.chosen(ids):
                self._played.append(self._pool.submit(self._play, play, chosen))

    def _play(self, play: Play, chosen: Sequence[str]) -> None:
        cpu = self._cpus.get()
        try:
            directory = self.directory / play.name
            directory.mkdir()
            outcomes = dict(play.run(Stage(directory=directory, cpu=cpu), chosen))
        except Exception:  # noqa: BLE001 - whatever it was, it is the outcome of each
            outcomes = dict.fromkeys(chosen, traceback.format_exc())
        finally:
            self._cpus.put(cpu)
        written = self._file(play).with_suffix(".part")
        written.write_text(json.dumps(outcomes))
        written.replace(self._file(play))

    def outcome(self, play: Play, test: str) -> str | None:
        """What became of a test: None, or what went wrong. Waits until its play is over."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while not self._file(play).exists():
            if time.monotonic() > deadline:
                return f"{play.name} is not over after {LONGEST_SECONDS:.0f} s"
            time.sleep(_LOOK_SECONDS)
        outcomes: dict[str, str | None] = json.loads(self._file(play).read_text())
        return outcomes.get(test, f"{play.name} has said nothing of {test!r}")

    def _file(self, play: Play) -> Path:
        return self.directory / f"{play.name}.json"

    def close(self) -> None:
        """Ends what still plays. What the plays left behind is kept when one of them failed."""
        if self._pool is not None:
            for future in self._played:
                future.cancel()
            if not all(future.done() for future in self._played):
                bare_kernel.stop_all()
            self._pool.shutdown(wait=True)
        if not any(self._failed(file) for file in self.directory.glob("*.json")):
            shutil.rmtree(self.directory, ignore_errors=True)

    @staticmethod
    def _failed(file: Path) -> bool:
        return any(outcome is not None for outcome in json.loads(file.read_text()).values())
