"""An address or a prefix as the range of addresses that it is: what claims are compared by, and pod ranges are made of.

Pure; called by claims and fold. Parsing is cached: a pass over the whole mesh sees the same text as the one before, and
`ipaddress` would take most of the pass's time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from typing import Final

CACHED: Final = 65_536
"""A mesh of 5,000 nodes with both families has 20,000 addresses and prefixes; each takes some 300 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `first` to `last`, both included, as integers."""

    version: int
    first: int
    last: int
    spelling: str
    """One per address or prefix, so that comparing text compares addresses."""


@lru_cache(maxsize=CACHED)
def parse_span(text: str) -> Span | None:
    """The address or prefix, or None for what is none and for what no peer could use."""
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError:
        return None
    unusable = network.prefixlen == 0 or network.is_loopback or network.is_multicast or network.is_link_local
    # The API server's CIDR and address checks refuse IPv4 in IPv6's clothes, and one Node must not spoil a write.
    if unusable or (network.version == 6 and network.network_address.ipv4_mapped is not None):
        return None
    return Span(
        version=network.version,
        first=int(network.network_address),
        last=int(network.broadcast_address),
        spelling=str(network) if "/" in text else str(network.network_address),
    )


def union(spans: Iterable[Span]) -> Iterator[str]:
    """The prefixes that make up all of them, each address in one: IPv4 first, in the addresses' order."""
    begun: tuple[int, int, int] | None = None
    for version, first, last in sorted((span.version, span.first, span.last) for span in spans):
        if begun is not None and begun[0] == version and first <= begun[2] + 1:
            begun = (version, begun[1], max(begun[2], last))
            continue
        if begun is not None:
            yield from _prefixes(*begun)
        begun = (version, first, last)
    if begun is not None:
        yield from _prefixes(*begun)


def _prefixes(version: int, first: int, last: int) -> Iterator[str]:
    if version == 4:
        networks = summarize_address_range(IPv4Address(first), IPv4Address(last))
    else:
        networks = summarize_address_range(IPv6Address(first), IPv6Address(last))
    return (str(network) for network in networks)
