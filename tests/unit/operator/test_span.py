"""Addresses and prefixes as ranges: what the standard library says of them, without asking it every time."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_operator.span import parse_span, union


@pytest.mark.parametrize(
    ("text", "version", "size", "spelling"),
    [
        ("10.0.0.1", 4, 1, "10.0.0.1"),
        ("10.244.1.0/24", 4, 256, "10.244.1.0/24"),
        ("FD00:0::1", 6, 1, "fd00::1"),
        ("fd00:244:1::/64", 6, 2**64, "fd00:244:1::/64"),
    ],
)
def test_an_address_or_prefix_is_a_range(text: str, version: int, size: int, spelling: str) -> None:
    span = parse_span(text)
    assert span is not None
    assert (span.version, span.last - span.first + 1, span.spelling) == (version, size, spelling)


@pytest.mark.parametrize(
    "text", ["", "n1", "10.0.0.1/8", "0.0.0.0/0", "::/0", "127.0.0.1", "fe80::1", "::ffff:1.2.3.4"]
)
def test_what_no_peer_could_use_is_none(text: str) -> None:
    assert parse_span(text) is None


def _networks(version: int, length: int, number: int) -> str:
    base = 10 << 24 if version == 4 else 0xFD << 120
    bits = 32 if version == 4 else 128
    address = ipaddress.ip_address(base + (number << (bits - length)))
    return f"{address}/{length}"


_prefixes = st.one_of(
    st.builds(_networks, st.just(4), st.integers(24, 32), st.integers(0, 24)),
    st.builds(_networks, st.just(6), st.integers(60, 128), st.integers(0, 24)),
)


@given(st.lists(_prefixes, max_size=20))
def test_the_union_is_the_standard_librarys(prefixes: list[str]) -> None:
    networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
    expected = [
        *ipaddress.collapse_addresses(network for network in networks if isinstance(network, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(network for network in networks if isinstance(network, ipaddress.IPv6Network)),
    ]
    spans = [span for prefix in prefixes if (span := parse_span(prefix)) is not None]
    assert list(union(spans)) == [str(network) for network in expected]
