"""Which tests may run side by side (`make test` runs two at a time; pytest by itself runs one).

What shares something that takes minutes to make, or that the tests change, runs in one process: the lab's cluster, the
API server without nodes. Other modules keep together for the sake of their fixtures.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer  # pyright: ignore[reportMissingTypeStubs]
from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs]

_TOGETHER = {
    "tests/e2e/": "the lab's cluster",
    "tests/integration/": "the API server without nodes",
    "tests/unit/chart/": "the API server without nodes",
}


class _ByWhatIsShared(LoadScopeScheduling):
    """Hands out all tests of one scope to one process."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::")[0]
        return next((shared for folder, shared in _TOGETHER.items() if path.startswith(folder)), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Called by pytest-xdist."""
    return _ByWhatIsShared(config, log)
