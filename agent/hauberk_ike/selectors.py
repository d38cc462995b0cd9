"""Traffic selectors: ranges of addresses, ports and protocols, and how a responder narrows them.

RFC 7296 sections 2.9 and 3.13. Used in configuration, on the wire and in events alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from hauberk_ike.datagram import IpAddress

MAX_PORT = 65535
MAX_NARROWED = 255
"""As many as a payload takes. An authenticated peer may still be an attacker: the work is bounded, too."""
TIDIED = 32
"""More than so many are not tidied up, which takes the square of their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSelector:
    """Addresses `start` to `end` (both included), an IP protocol (0: any) and a range of ports.

    For protocol 0 the ports are 0 to 65535. `start_port` 65535 with `end_port` 0 is RFC 7296's OPAQUE: packets whose
    ports are not visible. Raises ValueError for families that differ, or a range that is upside down.
    """

    start: IpAddress
    end: IpAddress
    protocol: int = 0
    start_port: int = 0
    end_port: int = MAX_PORT

    def __post_init__(self) -> None:
        if self.start.version != self.end.version:
            raise ValueError("a traffic selector's addresses are of different families")
        if int(self.start) > int(self.end):
            raise ValueError("a traffic selector's range of addresses is upside down")
        if not 0 <= self.protocol <= 255:
            raise ValueError("a traffic selector's protocol is not within 0 to 255")
        if not (0 <= self.start_port <= MAX_PORT and 0 <= self.end_port <= MAX_PORT):
            raise ValueError("a traffic selector's port is not within 0 to 65535")
        if self.start_port > self.end_port and not self.is_opaque:
            raise ValueError("a traffic selector's range of ports is upside down")

    @classmethod
    def from_network(
        cls,
        network: IPv4Network | IPv6Network,
        *,
        protocol: int = 0,
        start_port: int = 0,
        end_port: int = MAX_PORT,
    ) -> "TrafficSelector":
        """The selector of every address in `network`."""
        return cls(
            start=network.network_address,
            end=network.broadcast_address,
            protocol=protocol,
            start_port=start_port,
            end_port=end_port,
        )

    @property
    def is_opaque(self) -> bool:
        """RFC 7296 section 3.13.1: the port is not available to match on."""
        return self.start_port == MAX_PORT and self.end_port == 0

    def intersect(self, other: "TrafficSelector") -> "TrafficSelector | None":
        """What both selectors cover, or None if nothing."""
        if self.start.version != other.start.version:
            return None
        start = max(self.start, other.start, key=int)
        end = min(self.end, other.end, key=int)
        if int(start) > int(end):
            return None
        if self.protocol and other.protocol and self.protocol != other.protocol:
            return None
        if self.is_opaque or other.is_opaque:
            if not (self.is_opaque and other.is_opaque):
                opaque, ranged = (self, other) if self.is_opaque else (other, self)
                if (ranged.start_port, ranged.end_port) != (0, MAX_PORT):
                    return None
                start_port, end_port = opaque.start_port, opaque.end_port
            else:
                start_port, end_port = self.start_port, self.end_port
        else:
            start_port = max(self.start_port, other.start_port)
            end_port = min(self.end_port, other.end_port)
            if start_port > end_port:
                return None
        return TrafficSelector(
            start=start,
            end=end,
            protocol=self.protocol or other.protocol,
            start_port=start_port,
            end_port=end_port,
        )

    def contains(self, other: "TrafficSelector") -> bool:
        """Whether every packet that `other` covers is covered by this one."""
        return self.intersect(other) == other

    def __str__(self) -> str:
        text = f"{self.start}-{self.end}" if self.start != self.end else str(self.start)
        if self.protocol or (self.start_port, self.end_port) != (0, MAX_PORT):
            ports = "opaque" if self.is_opaque else f"{self.start_port}-{self.end_port}"
            text += f"[{self.protocol}/{ports}]"
        return text


def narrow(offered: Iterable[TrafficSelector], allowed: Iterable[TrafficSelector]) -> tuple[TrafficSelector, ...]:
    """The part of `offered` that is `allowed`, in the offer's order and without duplicates (RFC 7296 section 2.9)."""
    allowed = tuple(allowed)
    found: dict[TrafficSelector, None] = {}
    for selector in offered:
        for grant in allowed:
            common = selector.intersect(grant)
            if common is not None:
                found[common] = None
                if len(found) == MAX_NARROWED:
                    return tuple(found)
    if len(found) > TIDIED:
        return tuple(found)
    # A selector inside another one adds nothing.
    return tuple(
        candidate for candidate in found if not any(other != candidate and other.contains(candidate) for other in found)
    )


def covered(selectors: Iterable[TrafficSelector], by: Iterable[TrafficSelector]) -> bool:
    """Whether each of `selectors` lies inside one of `by`: how an initiator checks what came back."""
    by = tuple(by)
    return all(any(grant.contains(selector) for grant in by) for selector in selectors)
