"""Which tests may run side by side (`make test` runs two at a time; pytest by itself runs one), and what beside them.

What shares something that takes minutes to make, or that the tests change, runs in one process: the lab's cluster, the
API server without nodes. Other modules keep together for the sake of their fixtures. Plays (`beside`) are begun by the
process that hands out the tests, and their tests come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer  # pyright: ignore[reportMissingTypeStubs]
from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs]
from xdist.workermanage import WorkerController  # pyright: ignore[reportMissingTypeStubs]

from tests.attacks import run as attacks_run
from tests.beside import Theatre
from tests.interop import run as interop_run
from tests.kernel import worlds

_TOGETHER = {
    "tests/e2e/": "the lab's cluster",
    "tests/integration/": "the API server without nodes",
    "tests/unit/chart/": "the API server without nodes",
}

PLAYS: Final = (interop_run.PLAY, *worlds.PLAYS, attacks_run.PLAY)
_THEATRE: Final = pytest.StashKey[Theatre]()
_DIRECTORY: Final = "hauberk_theatre"
"""What pytest-xdist tells its processes: where the plays' outcomes are."""


class _ByWhatIsShared(LoadScopeScheduling):
    """Hands out all tests of one scope to one process."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::")[0]
        return next((shared for folder, shared in _TOGETHER.items() if path.startswith(folder)), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Called by pytest-xdist."""
    return _ByWhatIsShared(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest, in each process."""
    given: dict[str, str] | None = getattr(config, "workerinput", None)
    config.stash[_THEATRE] = Theatre.make() if given is None else Theatre(Path(given[_DIRECTORY]))


def pytest_configure_node(node: WorkerController) -> None:
    """Called by pytest-xdist, in the process that hands out the tests."""
    told: dict[str, object] = vars(node)["workerinput"]  # of a type that is not whole
    told[_DIRECTORY] = str(node.config.stash[_THEATRE].directory)


def pytest_xdist_node_collection_finished(node: WorkerController, ids: Sequence[str]) -> None:
    """Called by pytest-xdist, in the process that hands out the tests."""
    node.config.stash[_THEATRE].begin(PLAYS, ids)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Called by pytest. What waits for plays comes last."""
    items.sort(key=lambda item: any(item.nodeid.startswith(play.tests) for play in PLAYS))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Called by pytest, once it knows which tests are chosen."""
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        session.config.stash[_THEATRE].begin(PLAYS, [item.nodeid for item in session.items])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Called by pytest, at the end and also after an interruption."""
    if not hasattr(config, "workerinput"):
        config.stash[_THEATRE].close()


@pytest.fixture(scope="session")
def theatre(pytestconfig: pytest.Config) -> Theatre:
    """What is played beside the tests."""
    return pytestconfig.stash[_THEATRE]
