"""Packets' sizes on a kernel that has ESP, wherever the tests run: bare User-Mode Linux kernels, the lab's.

Each boots in half a second, tells the stories of one module, and powers off; each test here is one story.
"""

from __future__ import annotations

import pytest

from tests.kernel import bare_kernel, path_agent_stories, path_stories, size_stories

pytestmark = [pytest.mark.lab, pytest.mark.long]

SECONDS = 400
MODULES = (size_stories, path_stories, path_agent_stories)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What became of each story."""
    told: dict[str, str | None] = {}
    for module in MODULES:
        told |= bare_kernel.tell(module.__name__, tmp_path_factory.mktemp("kernel") / "0", seconds=SECONDS)
    return told


@pytest.mark.parametrize("story", [story.__name__ for module in MODULES for story in module.STORIES])
def test_sizes_on_a_kernel_with_esp(outcomes: dict[str, str | None], story: str) -> None:
    assert outcomes.keys() >= {story}
    failure = outcomes[story]
    assert failure is None, failure
