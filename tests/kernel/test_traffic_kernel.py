"""The classes of traffic under real packets, on a kernel that has ESP, wherever the tests run.

One bare kernel tells the stories of `traffic_stories`, in order; each test here is one of them.
"""

from __future__ import annotations

import pytest

from tests.kernel import traffic_stories
from tests.kernel.bare_kernel import tell

pytestmark = pytest.mark.lab

SECONDS = 560


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What became of each story."""
    return tell(traffic_stories.__name__, tmp_path_factory.mktemp("traffic"), seconds=SECONDS, memory="768M")


@pytest.mark.parametrize("story", [story.__name__ for story in traffic_stories.STORIES])
def test_a_class_of_traffic(outcomes: dict[str, str | None], story: str) -> None:
    assert outcomes.keys() >= {story}
    failure = outcomes[story]
    assert failure is None, failure
