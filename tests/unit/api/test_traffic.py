"""Which tunnels' traffic is of one class, so that one of them must carry a packet that may belong to either."""

from __future__ import annotations

from typing import Any

import pytest

from hauberk_api.tunnel import Traffic

VXLAN: dict[str, Any] = {"type": "Overlay", "overlay": {"protocol": "VXLAN", "port": 8472}}
GENEVE: dict[str, Any] = {"type": "Overlay", "overlay": {"protocol": "Geneve", "port": 6081}}


def subnets(*networks: str) -> dict[str, Any]:
    return {"type": "Subnets", "subnets": networks}


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({}, {}, True),
        ({}, {"type": "Host"}, False),
        ({"type": "Host"}, VXLAN, False),
        (VXLAN, VXLAN, True),
        (VXLAN, GENEVE, False),
        (subnets("10.1.0.0/16"), subnets("10.2.0.0/16", "10.1.5.0/24"), True),
        (subnets("10.1.0.0/16"), subnets("10.2.0.0/16", "fd00::/16"), False),
        (subnets("10.1.0.0/16"), subnets("no network"), False),
        ({"protocol": "TCP"}, {"protocol": "UDP"}, False),
        ({"protocol": "TCP"}, {}, True),
        # A packet may have a port of either range at either end.
        (
            {"protocol": "TCP", "ports": {"first": 80, "last": 80}},
            {"protocol": "TCP", "ports": {"first": 443, "last": 443}},
            True,
        ),
    ],
)
def test_classes_of_traffic(one: dict[str, Any], other: dict[str, Any], shared: bool) -> None:
    traffic, against = Traffic.from_object(one), Traffic.from_object(other)
    assert traffic.shares(against) is shared
    assert against.shares(traffic) is shared
