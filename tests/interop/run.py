"""Plays cases in kernels, two a CPU as they mostly wait, and gathers what became of them.

Called by `__main__` and by the tests.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.beside import Outcomes, Play, Stage
from tests.interop import program, roots
from tests.interop.case import Case
from tests.interop.cases import CASES
from tests.kernel.bare_kernel import boot
from tests.lab import build, cache

Progress = Callable[[str], None]

MEMORY = "1G"
START_SECONDS = 60.0
CASE_SECONDS = 60.0
"""A generous mean: a kernel that takes longer hangs."""
_LOOK_SECONDS = 0.5
_KERNELS_PER_CPU = 2
_MAX_KERNELS = 8
_KERNELS_BESIDE = 2
"""Beside the tests, which have other kernels to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a case: no `failure`, or what went wrong with what both daemons said."""

    case: Case
    failure: str | None
    seconds: float


def play(
    cases: Sequence[Case], progress: Progress, *, directory: Path, kernels: int = _MAX_KERNELS
) -> dict[str, Outcome]:
    """Plays all cases; the outcomes by the cases' ids, one for each and in their order. Files go below `directory`.

    kernels: so many at most. Errors: LabError when a part can't be made.
    """
    build.ensure_kernel(progress)
    roots.ensure(progress)
    kernels = min(_KERNELS_PER_CPU * len(os.sched_getaffinity(0)), kernels, len(cases))
    shares = [cases[number::kernels] for number in range(kernels)]
    with ThreadPoolExecutor(kernels) as pool:
        played = [pool.submit(_boot, directory / str(number), number, share) for number, share in enumerate(shares)]
        _show(directory, played, len(cases), progress)
        outcomes: dict[str, Outcome] = {}
        for number, share in enumerate(shares):
            said = played[number].result()
            found = {line["case"]: line for line in _lines(directory / str(number))}
            for case in share:
                line = found.get(case.id, {"failure": f"not played to its end: {said}", "seconds": 0.0})
                outcomes[case.id] = Outcome(case=case, failure=line["failure"], seconds=line["seconds"])
    return {case.id: outcomes[case.id] for case in cases}


def _play_beside(stage: Stage, chosen: Sequence[str]) -> Outcomes:
    cases = [case for case in CASES if case.id in chosen]
    outcomes = play(cases, lambda _: None, directory=stage.directory, kernels=_KERNELS_BESIDE)
    return {name: outcome.failure for name, outcome in outcomes.items()}


PLAY = Play(name="interop", tests="tests/interop/test_interop.py::test_case[", run=_play_beside)
"""The tests' part of the table, beside them."""


def _boot(results: Path, number: int, share: Sequence[Case]) -> str:
    """How the kernel that plays a share ended, for people."""
    return boot(
        program.__name__,
        results,
        str(cache.directory()),
        *(case.id for case in share),
        seconds=START_SECONDS + CASE_SECONDS * len(share),
        memory=MEMORY,
        cpu=number % len(os.sched_getaffinity(0)),
    )


def _show(directory: Path, played: Sequence[Future[str]], total: int, progress: Progress) -> None:
    """Says each outcome as it comes, until all kernels have ended."""
    shown: set[str] = set()
    while True:
        over = all(future.done() for future in played)
        for results in sorted(directory.iterdir()):
            for line in _lines(results):
                if line["case"] not in shown:
                    shown.add(line["case"])
                    verdict = "failed" if line["failure"] else "passed"
                    progress(f"[{len(shown)}/{total}] {line['case']} {verdict}, {line['seconds']} s")
        if over:
            return
        time.sleep(_LOOK_SECONDS)


def _lines(results: Path) -> list[dict[str, Any]]:
    """The outcomes so far of the kernel with those results."""
    file = results / "outcomes.json"
    if not file.exists():
        return []
    # A line that is being written has no end yet.
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
