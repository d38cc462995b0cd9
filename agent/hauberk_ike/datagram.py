"""Addresses and datagrams: what the sans-IO endpoint and its glue hand to each other.

Used by every module that names an address, and by whoever owns the sockets.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

IpAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketAddress:
    """One end of a UDP conversation."""

    host: IpAddress
    port: int
    packed: bytes = field(init=False, repr=False, compare=False)
    """The host's 4 or 16 bytes and the port's 2, in network byte order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "packed", self.host.packed + self.port.to_bytes(2))

    def __hash__(self) -> int:
        return hash(self.packed)  # an address of `ipaddress` is hashed by way of its hexadecimal text

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """A UDP payload, as it is on the wire, to send from `local` (a port that we listen on) to `remote`."""

    data: bytes
    local: SocketAddress
    remote: SocketAddress
    dont_fragment: bool = False
    """To go in one packet that nobody on the way may cut, or not at all."""


# Peers come back, and an address takes microseconds to parse; strangers in any number fill no more than this.
@lru_cache(maxsize=8192)
def parse_host(text: str) -> IpAddress:
    """A peer's address as a socket spells it. An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is the IPv4 one.

    Raises ValueError for what is no peer's: text that is no address, multicast, the unspecified address, and link-local
    IPv6 addresses. Those mean nothing without their interface, which neither NAT detection nor an SA can name.
    """
    host = ip_address(text)
    if host.version == 6 and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    if host.is_multicast or host.is_unspecified or (host.version == 6 and host.is_link_local):
        raise ValueError(f"{host} is no address that a peer can have")
    return host
