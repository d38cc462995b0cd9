"""A network namespace for tests that talk to the real kernel, so that they never touch the host's network."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import pytest

_CLONE_NEWNET = 0x40000000


@pytest.fixture
def private_network() -> Iterator[None]:
    """The test's thread in a new network namespace, which vanishes with its last user afterwards."""
    if os.geteuid() != 0:
        pytest.fail("tests of the kernel's XFRM tables make a network namespace of their own: run them as root")
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_CLONE_NEWNET) != 0:
            pytest.fail(f"no new network namespace: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        returned = libc.setns(outside, _CLONE_NEWNET)
        os.close(outside)
        assert returned == 0, "the test's thread could not leave its network namespace"
