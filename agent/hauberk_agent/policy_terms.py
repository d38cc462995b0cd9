"""What the policies of all classes of traffic have in common: phases, templates, and the ways to write one down."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

from hauberk_agent.flow import Flow
from hauberk_agent.keeper import KERNEL_MODES
from hauberk_agent.narrowing import PROTOCOLS
from hauberk_agent.ownership import Rank, priority
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Peer
from hauberk_api.plan import Phase, PlannedTunnel, reached
from hauberk_xfrm import Action, Direction, Policy, PolicyFlag, ReqId, Selector, Template

INBOUND: Final = (Direction.IN, Direction.FWD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """`sendable` are the CHILD SAs that both ends hold: in Protect packets for any other still go in clear."""

    reqid_of: Callable[[ChildKey], ReqId]
    sendable: Collection[ChildKey]
    first_client_port: int
    """From here upwards are the ports that this node's clients have."""

    def outbound(self, tunnel: PlannedTunnel, peer: Peer, flow: Flow) -> Template | None:
        """What a flow's packets must be given, in the tunnel's phase; None: they go in clear."""
        key = flow.key(tunnel, peer)
        if reached(tunnel.phase, Phase.REQUIRE) or (tunnel.phase is Phase.PROTECT and key in self.sendable):
            return Template(
                source=peer.local, destination=peer.remote, reqid=self.reqid_of(key), mode=KERNEL_MODES[flow.mode]
            )
        return None

    def inbound(self, tunnel: PlannedTunnel, peer: Peer, flow: Flow) -> Template:
        """What a flow's packets must have had; until encryption is required, what comes in clear is taken too."""
        return Template(
            source=None,
            destination=peer.local,
            reqid=self.reqid_of(flow.key(tunnel, peer)),
            mode=KERNEL_MODES[flow.mode],
            optional=not reached(tunnel.phase, Phase.REQUIRE),
        )


def blocks(tunnel: PlannedTunnel) -> bool:
    """Whether what is of the tunnel's class and neither protected nor exempt is dropped."""
    return reached(tunnel.phase, Phase.BLOCK)


def protect(direction: Direction, selector: Selector, rank: Rank, prefix_length: int, template: Template) -> Policy:
    """What is to go, or has come, by an SA; and errors (ICMP) about packets that came by it, which quote them.

    The kernel looks for an outbound policy for the answer to what is quoted, and sends the error as that would go: from
    the address that the packet was for (RFC 4301, section 6; net/ipv4/icmp.c, icmp_route_lookup).
    """
    return Policy(
        selector=selector,
        direction=direction,
        priority=priority(rank, prefix_length),
        action=Action.ALLOW,
        templates=(template,),
        flags=PolicyFlag.ICMP if direction is Direction.OUT else PolicyFlag.NONE,
    )


def exempt(direction: Direction, selector: Selector, rank: Rank, prefix_length: int) -> Policy:
    return Policy(selector=selector, direction=direction, priority=priority(rank, prefix_length), action=Action.ALLOW)


def block(direction: Direction, selector: Selector, rank: Rank, prefix_length: int) -> Policy:
    return Policy(selector=selector, direction=direction, priority=priority(rank, prefix_length), action=Action.BLOCK)


def both_ways(
    make: Callable[[Direction, Selector, Rank, int], Policy],
    outbound: Selector,
    rank: Rank,
    prefix_length: int,
    *,
    forwards: bool = False,
) -> Iterator[Policy]:
    """An exemption or block of packets to somewhere, and of those that come from there."""
    yield make(Direction.OUT, outbound, rank, prefix_length)
    for direction in INBOUND if forwards else (Direction.IN,):
        yield make(direction, turned(outbound), rank, prefix_length)


def turned(selector: Selector) -> Selector:
    """The selector of the packets that come back. An ICMP type stays where it is: the kernel has it as source port."""
    if selector.protocol in (PROTOCOLS["ICMP"], PROTOCOLS["ICMPv6"]):
        return replace(selector, source=selector.destination, destination=selector.source)
    return Selector(
        source=selector.destination,
        destination=selector.source,
        protocol=selector.protocol,
        source_port=selector.destination_port,
        destination_port=selector.source_port,
        source_port_mask=selector.destination_port_mask,
        destination_port_mask=selector.source_port_mask,
    )
