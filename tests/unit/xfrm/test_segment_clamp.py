"""The table that lowers TCP's segment sizes, on this machine's kernel. What it does: `tests/kernel/path_stories.py`."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from hauberk_xfrm import ClearCounter, NotSupported, SegmentClamp


@pytest.fixture
def clamp(private_network: None) -> Iterator[SegmentClamp]:
    opened = SegmentClamp()
    try:
        opened.remove()
    except NotSupported:
        pytest.fail("this kernel has no nftables: load the module nf_tables")
    yield opened
    opened.close()


def test_the_table_comes_and_goes_and_leaves_the_other_one_alone(clamp: SegmentClamp) -> None:
    counter = ClearCounter()
    counter.count([ip_network("127.1.0.0/16")])
    assert not clamp.exists()
    for inner_mtu in (1446, 8946, 576):
        clamp.make([ip_network("10.244.0.0/24"), ip_network("fd00:244::/64")], inner_mtu=inner_mtu)
        assert clamp.exists()
    clamp.remove()
    clamp.remove()
    assert not clamp.exists()
    assert counter.read() is not None
    counter.close()
