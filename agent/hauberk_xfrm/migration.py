"""Moving states and policies to other addresses, keys and counters and all: XFRM_MSG_MIGRATE.

The kernel finds a policy by direction and selector, and gives its templates and their states other ends at once
(`xfrm_migrate` in net/xfrm/xfrm_policy.c; CONFIG_XFRM_MIGRATE). It is how MOBIKE moves a tunnel (RFC 4555).
"""

from dataclasses import dataclass

from hauberk_xfrm.address import IpAddress, ReqId
from hauberk_xfrm.policy import Direction, PolicyType
from hauberk_xfrm.selector import Selector
from hauberk_xfrm.state import Mode, UdpPorts


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One template's ends, before and after: `struct xfrm_user_migrate`. A reqid of 0 finds states of any.

    Raises ValueError for ends of which the families differ; those before and after may.
    """

    old_source: IpAddress
    old_destination: IpAddress
    new_source: IpAddress
    new_destination: IpAddress
    reqid: ReqId
    mode: Mode = Mode.TUNNEL

    def __post_init__(self) -> None:
        for source, destination in ((self.old_source, self.old_destination), (self.new_source, self.new_destination)):
            if source.version != destination.version:
                raise ValueError(f"a move's families must agree: {source}, {destination}")

    def __str__(self) -> str:
        return (
            f"{self.old_source} -> {self.old_destination} reqid {self.reqid}"
            f" to {self.new_source} -> {self.new_destination}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A policy, by what it is found by, and where its templates and states go; a request, and the event about one.

    The kernel does all of it or nothing. `encapsulation`: what the moved states have then, where they are to have
    another; the event does not tell it, nor `if_id`.
    """

    direction: Direction
    selector: Selector
    moves: tuple[Move, ...]
    if_id: int = 0
    type: PolicyType = PolicyType.MAIN
    encapsulation: UdpPorts | None = None

    def __str__(self) -> str:
        return f"{self.direction.name} policy {self.selector}: " + ", ".join(str(move) for move in self.moves)
