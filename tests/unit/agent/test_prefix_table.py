"""Whose an address is, among networks that lie in each other."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from hauberk_agent.prefix_table import PrefixTable

TABLE = PrefixTable(
    (ip_network(network), owner)
    for network, owner in (
        ("10.244.0.0/16", "range"),
        ("10.244.1.0/24", "n1"),
        ("10.244.1.7/32", "n2"),
        ("10.244.1.8/32", "n2"),
        ("10.244.1.8/32", "n3"),
        ("fd00::/16", "six"),
        ("::10.244.1.0/120", "mapped"),
    )
)


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("10.244.1.6", "n1"),
        ("10.244.1.7", "n2"),
        ("10.244.1.8", "n3"),
        ("10.244.2.1", "range"),
        ("10.245.0.0", None),
        ("fd00:1::", "six"),
        ("fe80::1", None),
        ("::10.244.1.7", "mapped"),
    ],
)
def test_the_longest_prefix_tells(address: str, owner: str | None) -> None:
    assert TABLE.get(ip_address(address)) == owner
