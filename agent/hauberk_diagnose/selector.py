"""Traffic selectors as people write them, and as the kernel's policies need them.

`NET[proto/port]` in text: `10.1.0.0/24`, `10.0.0.1-10.0.0.9`, `2001:db8::/64[tcp/443]`, `10.0.0.0/8[udp/1000-2000]`,
`10.0.0.1[icmp]`. The kernel knows prefixes and port masks instead of ranges, so one selector becomes one or more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
from typing import Final

from hauberk_ike import TrafficSelector
from hauberk_xfrm import IpNetwork, Selector

MAX_PORT: Final = 65535
MAX_POLICIES: Final = 256
"""Selectors that one CHILD SA may become in the kernel: ranges chosen unluckily make thousands."""

# IANA's protocol numbers, by the names that iproute2 and strongSwan take.
_PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "sctp": 132}
_TEXT: Final = re.compile(r"(?P<net>[0-9A-Fa-f.:/-]+)(?:\[(?P<protocol>\w+)(?:/(?P<ports>[\w-]+))?\])?")


def parse_selector(text: str) -> TrafficSelector:
    """Raises ValueError with a sentence."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no traffic selector: write NET, NET[PROTOCOL] or NET[PROTOCOL/PORT]")
    try:
        first, dash, last = found["net"].partition("-")
        network = ip_network(first, strict=True) if not dash else None
        start = ip_address(first) if network is None else network.network_address
        end = ip_address(last) if network is None else network.broadcast_address
        protocol = _protocol(found["protocol"])
        start_port, end_port = _ports(found["ports"])
        return TrafficSelector(start=start, end=end, protocol=protocol, start_port=start_port, end_port=end_port)
    except ValueError as error:
        raise ValueError(f"{text!r} is no traffic selector: {error}") from None


def kernel_selectors(sources: Iterable[TrafficSelector], destinations: Iterable[TrafficSelector]) -> list[Selector]:
    """What packets from one of `sources` to one of `destinations` are, for policies.

    Raises ValueError for what a policy cannot say (opaque ports, ICMP types), or if it takes more than MAX_POLICIES.
    """
    destinations = tuple(destinations)
    found: dict[Selector, None] = {}
    for source in sources:
        for destination in destinations:
            for selector in _pair(source, destination):
                found[selector] = None
                if len(found) > MAX_POLICIES:
                    raise ValueError(f"the traffic selectors take more than {MAX_POLICIES} policies in the kernel")
    return list(found)


def _pair(source: TrafficSelector, destination: TrafficSelector) -> Iterator[Selector]:
    if source.start.version != destination.start.version:
        return
    if source.protocol and destination.protocol and source.protocol != destination.protocol:
        return
    protocol = source.protocol or destination.protocol
    for one in (source, destination):
        any_port = (one.start_port, one.end_port) == (0, MAX_PORT)
        if not any_port and (one.start_port > one.end_port or protocol in (_PROTOCOLS["icmp"], _PROTOCOLS["icmpv6"])):
            raise ValueError(f"the kernel's policies cannot tell {one} apart")
    for source_network in _networks(source):
        for destination_network in _networks(destination):
            for source_port, source_mask in _port_blocks(source.start_port, source.end_port):
                for destination_port, destination_mask in _port_blocks(destination.start_port, destination.end_port):
                    yield Selector(
                        source=source_network,
                        destination=destination_network,
                        protocol=protocol,
                        source_port=source_port,
                        destination_port=destination_port,
                        source_port_mask=source_mask,
                        destination_port_mask=destination_mask,
                    )


def _networks(selector: TrafficSelector) -> Iterable[IpNetwork]:
    match selector.start, selector.end:
        case IPv4Address() as start, IPv4Address() as end:
            return summarize_address_range(start, end)
        case IPv6Address() as start, IPv6Address() as end:
            return summarize_address_range(start, end)
        case _:
            return ()  # a selector's addresses are of one family


def _port_blocks(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The range as aligned blocks of a power of two: (first port, mask)."""
    while start <= end:
        size = start & -start or MAX_PORT + 1
        while start + size - 1 > end:
            size >>= 1
        yield start, MAX_PORT + 1 - size & MAX_PORT
        start += size


def _protocol(text: str | None) -> int:
    if text is None:
        return 0
    number = _PROTOCOLS.get(text.lower())
    if number is not None:
        return number
    if text.isdecimal() and int(text) <= 255:
        return int(text)
    raise ValueError(f"{text!r} is no protocol: write a number or one of {', '.join(_PROTOCOLS)}")


def _ports(text: str | None) -> tuple[int, int]:
    if text is None or text == "any":
        return 0, MAX_PORT
    if text == "opaque":
        return MAX_PORT, 0
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ValueError(f"{text!r} is no port and no range of ports")
    return int(first), int(last or first)
