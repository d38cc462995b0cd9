"""Nodes that come, go and change, and hands that meddle: kernels are left as they were, on one that has ESP.

One bare kernel tells the stories of `churn_stories`, in order; each test here is one of them.
"""

from __future__ import annotations

import pytest

from tests.kernel import churn_stories
from tests.kernel.bare_kernel import tell

pytestmark = [pytest.mark.lab, pytest.mark.long]

SECONDS = 500


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What became of each story."""
    return tell(churn_stories.__name__, tmp_path_factory.mktemp("churn"), seconds=SECONDS, memory="768M")


@pytest.mark.parametrize("story", [story.__name__ for story in churn_stories.STORIES])
def test_churn(outcomes: dict[str, str | None], story: str) -> None:
    assert outcomes.keys() >= {story}
    failure = outcomes[story]
    assert failure is None, failure
