"""Selectors: one spelling for each meaning, and nothing that the kernel would refuse."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hauberk_xfrm import Aead, ReqId, Selector, Spi, State, Template

V4 = ip_network("10.0.0.0/8")
V6 = ip_network("fd00::/8")


def test_port_masks_that_say_the_same_compare_equal() -> None:
    assert Selector(source=V4, destination=V4) == Selector(source=V4, destination=V4, source_port_mask=0)
    exact = Selector(source=V4, destination=V4, protocol=17, destination_port=4789)
    assert exact == Selector(
        source=V4, destination=V4, protocol=17, destination_port=4789, destination_port_mask=0xFFFF
    )


def test_port_0_alone_is_not_any_port() -> None:
    # ICMP's echo reply: type 0 stands where ports have their number.
    assert Selector(source=V4, destination=V4, source_port_mask=0xFFFF) != Selector(source=V4, destination=V4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"destination": V6}, "families must agree"),
        ({"protocol": 256}, "an IP protocol is a number"),
        ({"source_port": -1}, "a port is a number"),
        ({"destination_port": 65536}, "a port is a number"),
        ({"source_port_mask": 65536}, "a port mask is a number"),
    ],
)
def test_what_no_packet_can_match_is_refused(changes: dict[str, Any], reason: str) -> None:
    fields: dict[str, Any] = {"source": V4, "destination": V4}
    with pytest.raises(ValueError, match=reason):
        Selector(**(fields | changes))


def test_it_says_what_it_matches() -> None:
    selector = Selector(source=V4, destination=V4, protocol=17, destination_port=0x1000, destination_port_mask=0xF000)
    assert str(selector) == "10.0.0.0/8 -> 10.0.0.0/8 protocol 17 destination port 4096/0xf000"


def test_outer_families_must_agree() -> None:
    v4, v6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
    with pytest.raises(ValueError, match="families must agree"):
        Template(source=v4, destination=v6, reqid=ReqId(1))
    with pytest.raises(ValueError, match="families must agree"):
        State(
            source=v4,
            destination=v6,
            spi=Spi(1),
            reqid=ReqId(1),
            aead=Aead(name="rfc4106(gcm(aes))", key=b"k" * 20, icv_bits=128),
        )
