"""The worlds in bare kernels whose stories are tests: a module tells all of its own in one kernel, in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.beside import Outcomes, Play, Stage
from tests.kernel import (
    agent_stories,
    bare_kernel,
    boot_stories,
    bypass_stories,
    churn_stories,
    demand_stories,
    encapsulation_stories,
    esp_probe_stories,
    interface_stories,
    path_agent_stories,
    path_stories,
    restart_stories,
    rollout_stories,
    size_stories,
    traffic_stories,
    xfrm_attribute_stories,
    xfrm_event_stories,
    xfrm_stories,
)

TESTS: Final = "tests/kernel/test_stories.py::test_story"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """`module` is started in the kernel by its name (`bare_kernel`) and ends within `seconds`.

    long: of `make test-long` alone.
    """

    module: str
    stories: Sequence[Callable[[Any], None]] | Sequence[Callable[[], None]]
    seconds: float
    memory: str = "512M"
    long: bool = False

    @property
    def name(self) -> str:
        return self.module.rpartition(".")[2].removesuffix("_stories")

    def play(self, stage: Stage, chosen: Sequence[str]) -> Outcomes:
        """Tells all stories, as each begins where the one before it ended."""
        results = stage.directory / "results"
        said = bare_kernel.boot(self.module, results, seconds=self.seconds, memory=self.memory, cpu=stage.cpu)
        written = results / "outcomes.json"
        return json.loads(written.read_text()) if written.exists() else dict.fromkeys(chosen, said)


def _agents(module: Any, *, seconds: float, long: bool = False) -> World:
    """A world with several agents in it."""
    return World(module=module.__name__, stories=module.STORIES, seconds=seconds, memory="768M", long=long)


def _hosts(module: Any, *, seconds: float = 120.0, long: bool = False) -> World:
    """A world of two hosts that are programmed by hand, or of a path between them."""
    return World(module=module.__name__, stories=module.STORIES, seconds=seconds, long=long)


WORLDS: Final = (
    _agents(agent_stories, seconds=500),
    _agents(rollout_stories, seconds=500),
    _agents(churn_stories, seconds=500, long=True),
    _agents(restart_stories, seconds=500, long=True),
    _hosts(path_agent_stories, seconds=400, long=True),
    _agents(traffic_stories, seconds=500),
    _agents(encapsulation_stories, seconds=300, long=True),
    _agents(demand_stories, seconds=300, long=True),
    _agents(interface_stories, seconds=300, long=True),
    _hosts(path_stories, seconds=400, long=True),
    _hosts(size_stories, seconds=400, long=True),
    _agents(bypass_stories, seconds=300),
    _agents(boot_stories, seconds=500),
    _hosts(xfrm_stories),
    _hosts(xfrm_attribute_stories),
    _hosts(xfrm_event_stories),
    _hosts(esp_probe_stories),
)
"""Those that take the longest first."""

PLAYS: Final = tuple(Play(name=world.name, tests=f"{TESTS}[{world.name}-", run=world.play) for world in WORLDS)
