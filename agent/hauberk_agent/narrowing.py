"""From networks to the kernel's selectors, narrowed to a tunnel's protocol and ports.

A tunnel's range of ports counts at either end of a packet. The kernel's selectors have a port and a mask, so that a
range becomes several (`masked`). Fragments show no ports: the kernel looks them up as if both were 0, and so a narrowed
tunnel takes all fragments of its protocol (RFC 4301 section 7: OPAQUE).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hauberk_api.tunnel import Traffic
from hauberk_xfrm import IpNetwork, Selector

PROTOCOLS: Final = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}
"""IP protocol numbers by the names that the schema has."""
_ICMP_VERSIONS: Final = {"ICMP": 4, "ICMPv6": 6}
_EXACT: Final = 0xFFFF
_PORTS: Final = 0x10000
MAX_PORT: Final = 0xFFFF


def protocol_number(traffic: Traffic) -> int:
    """0: any. Raises ValueError for a name that the schema does not have."""
    if traffic.protocol is None:
        return 0
    number = PROTOCOLS.get(traffic.protocol)
    if number is None:
        raise ValueError(f"{traffic.protocol} is no protocol that a tunnel can be narrowed to")
    return number


def narrowed(source: IpNetwork, destination: IpNetwork, traffic: Traffic) -> Iterator[Selector]:
    """The selectors of a tunnel's packets from one network to another."""
    protocol = protocol_number(traffic)
    if _ICMP_VERSIONS.get(traffic.protocol or "", source.version) != source.version:
        return
    if traffic.ports is None:
        yield Selector(source=source, destination=destination, protocol=protocol)
        return
    for port, mask in masked(traffic.ports.first, traffic.ports.last):
        yield Selector(
            source=source, destination=destination, protocol=protocol, destination_port=port, destination_port_mask=mask
        )
        yield Selector(
            source=source, destination=destination, protocol=protocol, source_port=port, source_port_mask=mask
        )
    yield Selector(
        source=source, destination=destination, protocol=protocol, source_port_mask=_EXACT, destination_port_mask=_EXACT
    )


def masked(first: int, last: int) -> Iterator[tuple[int, int]]:
    """A range of ports as the fewest pairs of port and mask."""
    while first <= last:
        size = first & -first or _PORTS
        while first + size - 1 > last:
            size //= 2
        yield first, _PORTS - size
        first += size
