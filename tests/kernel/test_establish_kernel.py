"""How pairs come to be encrypted where the plain way is not to be had, on a kernel that has ESP, wherever tests run.

Each module's stories are told in order in a bare kernel of their own; each test here is one of them.
"""

from __future__ import annotations

import pytest

from tests.kernel import demand_stories, encapsulation_stories, interface_stories
from tests.kernel.bare_kernel import tell

pytestmark = [pytest.mark.lab, pytest.mark.long]

SECONDS = 300
MODULES = (encapsulation_stories, demand_stories, interface_stories)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What became of each story."""
    told: dict[str, str | None] = {}
    for module in MODULES:
        told |= tell(module.__name__, tmp_path_factory.mktemp("establish") / "0", seconds=SECONDS, memory="768M")
    return told


@pytest.mark.parametrize("story", [story.__name__ for module in MODULES for story in module.STORIES])
def test_establish(outcomes: dict[str, str | None], story: str) -> None:
    assert outcomes.keys() >= {story}
    failure = outcomes[story]
    assert failure is None, failure
