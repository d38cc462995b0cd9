"""Tries the whole table of attacks: `try_all` for `make drill`; the tests try the same, each with its own outcome."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.attacks import in_kernel
from tests.attacks.attack import Result
from tests.attacks.cluster import attacked_cluster
from tests.attacks.table import ON_AGENTS, ON_CLUSTER
from tests.beside import Outcomes, Play, Stage
from tests.kernel import bare_kernel
from tests.lab.errors import LabError

KERNEL_SECONDS: Final = 400.0


def try_all(progress: Callable[[str], None]) -> list[Result]:
    """What became of each. Raises LabError when a ground could not be made."""
    progress(f"{len(ON_CLUSTER)} attacks on the API server and the operator, both real")
    results = on_cluster()
    progress(f"{len(ON_AGENTS)} attacks on agents, in a kernel with ESP")
    with tempfile.TemporaryDirectory(prefix="hauberk-attacks-") as scratch:
        return results + on_agents(Path(scratch))


def on_cluster() -> list[Result]:
    results: list[Result] = []
    with attacked_cluster() as ground:
        for attack in ON_CLUSTER:
            try:
                said, refused = attack.attempt(ground), True
            except Exception as error:  # noqa: BLE001 - whatever it was, it is not what is said to refuse the attack
                said, refused = f"{type(error).__name__}: {error}", False
            results.append(Result(name=attack.name, tried=attack.tried, refused=refused, said=said))
    return results


def on_agents(directory: Path, *, cpu: int = 0) -> list[Result]:
    results = directory / "results"
    said = bare_kernel.boot(in_kernel.__name__, results, seconds=KERNEL_SECONDS, memory="768M", cpu=cpu)
    written = results / "outcomes.json"
    if not written.exists():
        raise LabError(said)
    outcomes: dict[str, tuple[bool, str]] = json.loads(written.read_text())
    return [
        Result(name=attack.name, tried=attack.tried, refused=outcomes[attack.name][0], said=outcomes[attack.name][1])
        for attack in ON_AGENTS
    ]


def _play_beside(stage: Stage, chosen: Sequence[str]) -> Outcomes:
    results = on_agents(stage.directory, cpu=stage.cpu)
    return {result.name: None if result.refused else result.said for result in results if result.name in chosen}


PLAY: Final = Play(name="attacks", tests="tests/attacks/test_on_agents.py::test_is_refused[", run=_play_beside)
"""The attacks on agents, beside the tests."""
