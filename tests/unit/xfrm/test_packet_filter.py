"""Filters of packet sockets: how many networks become few. What they keep is in test_packet_tap.py."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from hauberk_xfrm.packet_filter import widened


@pytest.mark.parametrize(
    ("networks", "most", "expected"),
    [
        ([], 2, []),
        (["10.1.0.0/24", "10.9.0.0/24"], 2, ["10.1.0.0/24", "10.9.0.0/24"]),
        # -> the longest go first, and only as far as needed
        (["10.1.0.0/24", "10.1.1.0/24", "10.9.0.0/16"], 2, ["10.1.0.0/23", "10.9.0.0/16"]),
        (["10.1.0.0/24", "10.9.0.0/24", "192.168.0.0/24"], 1, ["0.0.0.0/0"]),
        (["fd00:1::/64", "fd00:1:0:1::/64", "fd00:2::1/128"], 2, ["fd00:1::/63", "fd00:2::/63"]),
        ([f"10.{number >> 8}.{number & 255}.0/24" for number in range(5000)], 2, ["10.0.0.0/12", "10.16.0.0/12"]),
    ],
)
def test_many_networks_lie_in_a_few(networks: list[str], most: int, expected: list[str]) -> None:
    given = [ip_network(text) for text in networks]
    assert [str(network) for network in widened(given, most)] == expected
