"""hauberk_xfrm on a kernel that has ESP, wherever the tests run: one bare User-Mode Linux kernel, the lab's, without a
cluster. It boots in half a second, tells the stories of `xfrm_stories`, and powers off; each test here is one of them.
"""

from __future__ import annotations

import pytest

from tests.e2e import bare_kernel, xfrm_stories

pytestmark = pytest.mark.lab

SECONDS = 120


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What became of each story."""
    return bare_kernel.tell(xfrm_stories.__name__, tmp_path_factory.mktemp("kernel"), seconds=SECONDS)


@pytest.mark.parametrize("story", [story.__name__ for story in xfrm_stories.STORIES])
def test_on_a_kernel_with_esp(outcomes: dict[str, str | None], story: str) -> None:
    assert outcomes.keys() >= {story}
    failure = outcomes[story]
    assert failure is None, failure
