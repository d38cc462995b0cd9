"""Agents that die and come back under traffic, on a kernel that has ESP.

One bare kernel tells the stories of `restart_stories`, in order; each test here is one of them.
"""

from __future__ import annotations

import pytest

from tests.kernel import restart_stories
from tests.kernel.bare_kernel import tell

pytestmark = [pytest.mark.lab, pytest.mark.long]

SECONDS = 500


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What became of each story."""
    return tell(restart_stories.__name__, tmp_path_factory.mktemp("restart"), seconds=SECONDS, memory="768M")


@pytest.mark.parametrize("story", [story.__name__ for story in restart_stories.STORIES])
def test_a_restart(outcomes: dict[str, str | None], story: str) -> None:
    assert outcomes.keys() >= {story}
    failure = outcomes[story]
    assert failure is None, failure
