"""The policies of tunnels whose traffic is Subnets: between the networks that a tunnel lists. Pure.

Where all members are alike (FullMesh) a member holds of these networks what is its own: its pods and addresses. Where
there are hubs, one of them, the gateway (`Roster.gateways`), holds the networks themselves, and a spoke speaks with
them from its pods and addresses.

=======  =====================================================  =====================================================
class    OUT                                                    IN and FWD
=======  =====================================================  =====================================================
protect  ours -> the peer's                                     the peer's -> ours
exempt   own pods -> own pods; own pods in the networks ->      the same, turned
         what of an exempt node lies there (FullMesh)
block    own pods in the networks -> the networks (FullMesh);   the same, turned
         a spoke's pods and addresses -> the networks
=======  =====================================================  =====================================================

Node to node is never Subnets' traffic but Host's, so that nobody is locked out: between two members' addresses there
is no policy, and a spoke's own addresses take no part in a network that holds the address of a known node.
"""

from __future__ import annotations

from collections.abc import Iterator

from hauberk_agent.flow import flows, grant, host, within
from hauberk_agent.narrowing import narrowed
from hauberk_agent.ownership import Rank
from hauberk_agent.policy_terms import INBOUND, Terms, block, blocks, both_ways, exempt, protect, turned
from hauberk_agent.roster import Place, Roster, parsed_networks
from hauberk_api.node import Role
from hauberk_api.plan import PlannedTunnel
from hauberk_api.tunnel import Topology, TrafficType
from hauberk_xfrm import Direction, IpNetwork, Policy, Selector


def subnet_policies(roster: Roster, terms: Terms) -> Iterator[Policy]:
    yield from _protections(roster, terms)
    for tunnel in roster.tunnels:
        if tunnel.traffic.type is not TrafficType.SUBNETS:
            continue
        if tunnel.topology is Topology.FULL_MESH:
            yield from _others(roster, tunnel)
        elif roster.own.roles.get(tunnel.uid) is Role.SPOKE:
            yield from _spoke(roster, tunnel)


def _protections(roster: Roster, terms: Terms) -> Iterator[Policy]:
    for peer in roster.peers:
        for tunnel in peer.tunnels:
            if tunnel.traffic.type is not TrafficType.SUBNETS:
                continue
            for flow in flows(roster, peer, tunnel):
                outbound, inbound = terms.outbound(tunnel, peer, flow), terms.inbound(tunnel, peer, flow)
                for ours, theirs in flow.pairs():
                    if _is_between_nodes(roster, tunnel, peer.place, ours, theirs):
                        continue
                    for selector in narrowed(ours, theirs, tunnel.traffic):
                        if outbound is not None:
                            yield protect(Direction.OUT, selector, Rank.SUBNETS, theirs.prefixlen, outbound)
                        for direction in INBOUND:
                            yield protect(direction, turned(selector), Rank.SUBNETS, theirs.prefixlen, inbound)


def _is_between_nodes(roster: Roster, tunnel: PlannedTunnel, peer: Place, ours: IpNetwork, theirs: IpNetwork) -> bool:
    if tunnel.topology is Topology.FULL_MESH:
        return _is_address(roster.own, ours) and _is_address(peer, theirs)
    if roster.own.roles.get(tunnel.uid) is Role.SPOKE:
        return _is_address(roster.own, ours) and _holds_a_node(roster, theirs)
    return _is_address(peer, theirs) and _holds_a_node(roster, ours)


def _is_address(place: Place, network: IpNetwork) -> bool:
    return network.prefixlen == network.max_prefixlen and network.network_address in place.addresses


def _holds_a_node(roster: Roster, network: IpNetwork) -> bool:
    return any(address in network for place in (roster.own, *roster.known) for address in place.addresses)


def _spoke(roster: Roster, tunnel: PlannedTunnel) -> Iterator[Policy]:
    networks = parsed_networks(tunnel.traffic.subnets)
    for network in networks:
        for one in roster.own.networks:
            if one.version != network.version:
                continue
            if one.overlaps(network):
                for own in roster.own.networks:
                    if own.version == one.version:
                        selector = Selector(source=own, destination=one)
                        yield from both_ways(exempt, selector, Rank.LOCAL, one.prefixlen, forwards=True)
            if blocks(tunnel):
                yield from _block(tunnel, one, network)
        for address in map(host, roster.own.addresses):
            if blocks(tunnel) and address.version == network.version and not _holds_a_node(roster, network):
                yield from _block(tunnel, address, network)


def _others(roster: Roster, tunnel: PlannedTunnel) -> Iterator[Policy]:
    """Beside a FullMesh tunnel's peers."""
    networks = parsed_networks(tunnel.traffic.subnets)
    ours = within(roster.own.networks, networks)
    own = within(grant(roster.own), networks)
    exempted = [each for place in roster.exempt_from(tunnel.traffic) for each in within(grant(place), networks)]
    for one in ours:
        for theirs in (*own, *exempted):
            if theirs.version == one.version:
                selector = Selector(source=one, destination=theirs)
                yield from both_ways(exempt, selector, Rank.SUBNETS_EXEMPT, theirs.prefixlen, forwards=True)
        for network in networks if blocks(tunnel) else ():
            if network.version == one.version:
                yield from _block(tunnel, one, network)


def _block(tunnel: PlannedTunnel, ours: IpNetwork, network: IpNetwork) -> Iterator[Policy]:
    for selector in narrowed(ours, network, tunnel.traffic):
        yield from both_ways(block, selector, Rank.SUBNETS_BLOCK, network.prefixlen, forwards=True)
