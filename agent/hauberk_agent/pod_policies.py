"""The policies of tunnels whose traffic is PodNetwork. Pure. Per family:

=======  =====================================================  ==================================================
class    OUT                                                    IN and FWD
=======  =====================================================  ==================================================
protect  any -> peer's pods; own pods -> peer's addresses       peer's pods -> any; peer's addresses -> own pods
exempt   any -> own pods; any -> pods of exempt nodes           own pods -> any; pods of exempt nodes -> any
block    any -> pod range                                       pod range -> any
=======  =====================================================  ==================================================

A packet from a tunnel is looked up again when it goes on to a pod, so that a block between pods' prefixes alone would
stop everything: hence the exemptions. Inbound templates leave the source open and name our own address.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from hauberk_agent.flow import flows, host
from hauberk_agent.interception import IF_ID, is_intercepted
from hauberk_agent.narrowing import narrowed
from hauberk_agent.ownership import Rank
from hauberk_agent.policy_terms import INBOUND, Terms, block, blocks, both_ways, exempt, protect, turned
from hauberk_agent.roster import Peer, Place, Roster
from hauberk_api.plan import Phase, PlannedTunnel, reached
from hauberk_api.tunnel import Traffic, TrafficType
from hauberk_xfrm import Direction, IpNetwork, Policy, ReqId, Selector, Template

ANY: Final[dict[int, IpNetwork]] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
_TRAFFIC: Final = Traffic(type=TrafficType.POD_NETWORK)


def pod_policies(roster: Roster, terms: Terms) -> Iterator[Policy]:
    tunnels = [tunnel for tunnel in roster.tunnels if tunnel.traffic.type is TrafficType.POD_NETWORK]
    if not tunnels:
        return
    yield from _protections(roster, terms)
    yield from _exemptions(roster)
    by_routes = any(is_intercepted(tunnel) for tunnel in tunnels)
    for tunnel in tunnels:
        if blocks(tunnel):
            yield from _blocks(roster, tunnel, outbound=not by_routes)


def _protections(roster: Roster, terms: Terms) -> Iterator[Policy]:
    blocked = any(blocks(t) and t.traffic.type is TrafficType.POD_NETWORK for t in roster.tunnels)
    for peer in roster.peers:
        for tunnel in peer.tunnels:
            if tunnel.traffic.type is not TrafficType.POD_NETWORK:
                continue
            (flow,) = flows(roster, peer, tunnel)
            if is_intercepted(tunnel):
                yield from _intercepted(roster.own, peer, tunnel, terms.reqid_of(flow.key(tunnel, peer)))
                continue
            outbound, inbound = terms.outbound(tunnel, peer, flow), terms.inbound(tunnel, peer, flow)
            for source, theirs in _to(roster.own, peer.place):
                for selector in narrowed(source, theirs, tunnel.traffic):
                    if outbound is not None:
                        yield protect(Direction.OUT, selector, Rank.POD_NETWORK, theirs.prefixlen, outbound)
                    elif blocked:
                        # It enters or leaves a tunnel that blocks already: in clear, until that need not be.
                        yield exempt(Direction.OUT, selector, Rank.POD_NETWORK, theirs.prefixlen)
                    for direction in INBOUND:
                        yield protect(direction, turned(selector), Rank.POD_NETWORK, theirs.prefixlen, inbound)


def _intercepted(own: Place, peer: Peer, tunnel: PlannedTunnel, reqid: ReqId) -> Iterator[Policy]:
    """Of a tunnel whose packets go by the device: those of its interface id, and from Require on blocks of what comes
    from the peer in clear. What goes out is routes' affair, and so is the phase in which it does."""
    out = Template(source=peer.local, destination=peer.remote, reqid=reqid)
    inbound = Template(source=None, destination=peer.local, reqid=reqid)
    pods = list(_to(own, peer.place))
    # Between the nodes themselves: pods' packets that the node has given its own address, and probes.
    nodes = [(host(a), host(b)) for a in own.addresses for b in peer.place.addresses if a.version == b.version]
    for local, remote in (*pods, *nodes):
        length, selector = remote.prefixlen, Selector(source=local, destination=remote)
        yield replace(protect(Direction.OUT, selector, Rank.POD_NETWORK, length, out), if_id=IF_ID)
        for direction in INBOUND:
            by_device = protect(direction, turned(selector), Rank.POD_NETWORK, length, inbound)
            yield replace(by_device, if_id=IF_ID)
    if reached(tunnel.phase, Phase.REQUIRE):
        for local, remote in pods:
            selector = Selector(source=remote, destination=local)
            for direction in INBOUND:
                yield block(direction, selector, Rank.POD_NETWORK, remote.prefixlen)


def _to(own: Place, other: Place) -> Iterator[tuple[IpNetwork, IpNetwork]]:
    """From where to where packets to another node are pods': anything to its pods, own pods to its addresses."""
    for theirs in other.networks:
        yield ANY[theirs.version], theirs
    for network in own.networks:
        for address in other.addresses:
            if address.version == network.version:
                yield network, host(address)


def _exemptions(roster: Roster) -> Iterator[Policy]:
    for network in (*roster.own.networks, *(n for place in roster.exempt_from(_TRAFFIC) for n in place.networks)):
        yield from both_ways(exempt, any_to(network), Rank.POD_NETWORK, network.prefixlen, forwards=True)
    # Where people's pod range holds nodes' own addresses, the block must not lock anybody out of them.
    for place in (roster.own, *roster.known):
        for address in place.addresses:
            if any(address in network for network in roster.pod_range):
                alone = host(address)
                yield from both_ways(exempt, any_to(alone), Rank.NODE_ADDRESS, alone.prefixlen, forwards=True)


def _blocks(roster: Roster, tunnel: PlannedTunnel, *, outbound: bool) -> Iterator[Policy]:
    for network in roster.pod_range:
        for selector in narrowed(ANY[network.version], network, tunnel.traffic):
            for policy in both_ways(block, selector, Rank.POD_BLOCK, network.prefixlen, forwards=True):
                if outbound or policy.direction is not Direction.OUT:
                    yield policy


def any_to(network: IpNetwork) -> Selector:
    return Selector(source=ANY[network.version], destination=network)
