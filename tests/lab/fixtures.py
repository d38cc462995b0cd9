"""The cluster that the tests on real kernels share: brought up by the first that asks, taken down after the last.

Used with `pytest_plugins = ["tests.lab.fixtures"]`. A test that needs nodes of its own making adds them and removes
them again; whoever crashes a node starts it again.
"""

from collections.abc import Iterator

import pytest

from tests.lab import image
from tests.lab.cluster import Lab, require_machine, take_down

NAME = "test"
NODES = 3


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Three nodes, both families, all Ready, with the images of this tree.

    What an interrupted run left is taken down first.
    """
    require_machine(NAME, nodes=NODES)
    left = take_down(NAME)
    assert left == [], f"an earlier run of the tests left behind: {left}"
    shared = Lab.up(NAME, nodes=NODES, images=[image.build_tools(), image.build()])
    yield shared
    left = shared.down()
    assert left == [], f"left behind: {left}"
