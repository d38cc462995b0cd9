"""From a kernel's boot to its agent's start, with and without the boot guard, on a kernel that has ESP.

One bare kernel tells the stories of `boot_stories`, in order; each test here is one of them.
"""

from __future__ import annotations

import pytest

from tests.kernel import boot_stories
from tests.kernel.bare_kernel import tell

pytestmark = pytest.mark.lab

SECONDS = 500


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What became of each story."""
    return tell(boot_stories.__name__, tmp_path_factory.mktemp("boot"), seconds=SECONDS, memory="768M")


@pytest.mark.parametrize("story", [story.__name__ for story in boot_stories.STORIES])
def test_a_boot(outcomes: dict[str, str | None], story: str) -> None:
    assert outcomes.keys() >= {story}
    failure = outcomes[story]
    assert failure is None, failure
