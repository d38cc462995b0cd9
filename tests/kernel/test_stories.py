"""What is told in bare kernels, wherever the tests run: agents without a cluster, XFRM, path MTU. Each story is a test.

A world's stories are told all together, in order (`worlds`); one alone takes as long as all of its world.
"""

from __future__ import annotations

import pytest

from tests.beside import Play, Theatre
from tests.kernel.worlds import PLAYS, WORLDS

_STORIES = [
    pytest.param(play, story.__name__, id=f"{play.name}-{story.__name__}", marks=[pytest.mark.long] * world.long)
    for world, play in zip(WORLDS, PLAYS, strict=True)
    for story in world.stories
]


@pytest.mark.lab
@pytest.mark.parametrize(("play", "story"), _STORIES)
def test_story(theatre: Theatre, play: Play, story: str) -> None:
    failure = theatre.outcome(play, story)
    assert failure is None, failure
