"""The API server that tests share. A conftest.py registers it: `from tests.apiserver.fixtures import apiserver`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver.server import ApiServer


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """A real API server with Hauberk's CRDs; one for all tests of a run."""
    with ApiServer() as server:
        server.apply_crds()
        yield server
