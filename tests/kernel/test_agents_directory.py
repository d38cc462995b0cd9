"""Three agents that follow directories, on a kernel that has ESP, wherever the tests run: a mesh without a cluster.

One bare kernel tells the stories of `agent_stories`, in order; each test here is one of them.
"""

from __future__ import annotations

import pytest

from tests.kernel import agent_stories
from tests.kernel.bare_kernel import tell

pytestmark = pytest.mark.lab

SECONDS = 500


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What became of each story."""
    return tell(agent_stories.__name__, tmp_path_factory.mktemp("agents"), seconds=SECONDS, memory="768M")


@pytest.mark.parametrize("story", [story.__name__ for story in agent_stories.STORIES])
def test_three_agents(outcomes: dict[str, str | None], story: str) -> None:
    assert outcomes.keys() >= {story}
    failure = outcomes[story]
    assert failure is None, failure
