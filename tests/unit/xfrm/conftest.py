"""XFRM tables for tests that talk to the real kernel, so that they never touch the host's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hauberk_xfrm import Xfrm


@pytest.fixture
def xfrm(private_network: None) -> Iterator[Xfrm]:
    """The XFRM tables of an empty network namespace."""
    with Xfrm() as opened:
        yield opened
