"""Which tests may run side by side (`make test` runs two at a time; pytest by itself runs one).

Whatever shares something that costs minutes, or that the tests change, is a group and runs in one process: the lab's
cluster, the API server without nodes, the kernels with the daemons of others. Modules keep together for their fixtures.
"""

from __future__ import annotations

import pytest

_SHARED = ("lab", "apiserver", "outcomes")
"""The fixtures that make a group of all tests that use them, wherever they are."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts every test in its group, before pytest-xdist looks."""
    for item in items:
        fixtures: list[str] = getattr(item, "fixturenames", [])
        group = next((name for name in _SHARED if name in fixtures), item.path.as_posix())
        item.add_marker(pytest.mark.xdist_group(group))
