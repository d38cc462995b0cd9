"""Routes, routing rules and xfrm devices, as values: what `Routing` reads and writes."""

from dataclasses import dataclass
from enum import IntEnum

from hauberk_xfrm.address import IpAddress, IpNetwork


class RouteKind(IntEnum):
    """RTN_*: where a route leads to."""

    UNICAST = 1
    """To a device."""
    BLACKHOLE = 6
    """Nowhere: the packet is dropped, and nobody told."""
    UNREACHABLE = 7
    """Nowhere: the packet is dropped, and its sender told."""
    THROW = 9
    """Out of its table: the lookup goes on with the next rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route. A UNICAST route has a device, by its index, and may say which of our addresses packets get.

    In one table and for one destination the lower `metric` wins, and no two routes have the same.
    """

    table: int
    destination: IpNetwork
    kind: RouteKind
    metric: int
    device: int | None = None
    source: IpAddress | None = None

    def __str__(self) -> str:
        return f"route {self.kind.name.lower()} {self.destination} in table {self.table}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Packets of a family (from `source`, if it is given) are routed by a table. The lower `preference` comes first."""

    version: int
    preference: int
    table: int
    source: IpNetwork | None = None

    def __str__(self) -> str:
        return f"rule {self.preference} (IPv{self.version}) to table {self.table}"


@dataclass(frozen=True, slots=True, kw_only=True)
class XfrmDevice:
    """A device whose packets pass by the policies and states of its interface id (net/xfrm/xfrm_interface_core.c)."""

    name: str
    if_id: int
    index: int
    up: bool
