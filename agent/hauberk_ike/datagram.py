"""Addresses and datagrams: what the sans-IO endpoint and its glue hand to each other.

Used by every module that names an address, and by whoever owns the sockets.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

IpAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketAddress:
    """One end of a UDP conversation."""

    host: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """A UDP payload to send from `local` to `remote`."""

    data: bytes
    local: SocketAddress
    remote: SocketAddress
