"""The policies of tunnels whose traffic is Host: between this node's own addresses and other nodes'. Pure.

========  =============================================  =============================================
class     OUT                                            IN
========  =============================================  =============================================
lifeline  own address -> any, and answers                any -> own address, and answers
protect   own address -> peer's address                  peer's address -> own address
exempt    own address -> exempt node's address           exempt node's address -> own address
block     own address -> any other known node's address  any other known node's address -> own address
========  =============================================  =============================================

The **lifeline** is what nobody may be locked out of, and what a node needs before it has an SA, whatever becomes of its
peer: it passes in clear in every phase. It is

- TCP to the ports of IPsecMesh.spec.hostExemptPorts: ssh, the API server, kubelet and etcd, which protect themselves;
  and their answers, taken on this node's clients' ports alone, so that such a port as source opens nothing else;
- DHCP between ports 67 and 68, and DHCPv6 between 546 and 547;
- ICMPv6 types 133 to 137: without neighbour discovery (RFC 4861) no packet finds its way, ESP included.

IKE needs none: its sockets have a policy of their own (hauberk_xfrm.ike_socket). Nor do ARP and ESP, which no policy is
about. An address that no known node has is not Host's, and passes.

The lifeline is about any address, and pods have such ports too: on them the pod range's block comes first again. Where
people's pod range holds nodes' own addresses it can't, and pods of no known node can be spoken with on these ports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Final

from hauberk_agent.flow import UDP, flows, host
from hauberk_agent.narrowing import MAX_PORT, PROTOCOLS, masked, narrowed
from hauberk_agent.ownership import Rank
from hauberk_agent.pod_policies import ANY
from hauberk_agent.policy_terms import Terms, block, blocks, both_ways, exempt, protect, turned
from hauberk_agent.roster import Place, Roster
from hauberk_api.plan import PlannedTunnel
from hauberk_api.tunnel import TrafficType
from hauberk_xfrm import Direction, IpNetwork, Policy, Selector

DHCP: Final = {4: (67, 68), 6: (547, 546)}
"""The server's port and the client's (RFC 2131 section 4.1, RFC 8415 section 7.2)."""
NEIGHBOUR_DISCOVERY: Final = range(133, 138)
"""ICMPv6 types. The kernel's selectors have an ICMP type where others have the source port."""


def host_policies(roster: Roster, terms: Terms) -> Iterator[Policy]:
    tunnels = [tunnel for tunnel in roster.tunnels if tunnel.traffic.type is TrafficType.HOST]
    if not tunnels:
        return
    yield from _lifeline(roster, terms.first_client_port)
    yield from _protections(roster, terms)
    for tunnel in tunnels:
        yield from _others(roster, tunnel)


def _protections(roster: Roster, terms: Terms) -> Iterator[Policy]:
    for peer in roster.peers:
        for tunnel in peer.tunnels:
            if tunnel.traffic.type is not TrafficType.HOST:
                continue
            for flow in flows(roster, peer, tunnel):
                outbound, inbound = terms.outbound(tunnel, peer, flow), terms.inbound(tunnel, peer, flow)
                for own, theirs in flow.pairs():
                    for selector in narrowed(own, theirs, tunnel.traffic):
                        if outbound is not None:
                            yield protect(Direction.OUT, selector, Rank.HOST, theirs.prefixlen, outbound)
                        yield protect(Direction.IN, turned(selector), Rank.HOST, theirs.prefixlen, inbound)


def _others(roster: Roster, tunnel: PlannedTunnel) -> Iterator[Policy]:
    exempted = roster.exempt_from(tunnel.traffic)
    for place in exempted:
        for own, theirs in _addresses(roster.own, place):
            selector = Selector(source=own, destination=theirs)
            yield from both_ways(exempt, selector, Rank.HOST_EXEMPT, theirs.prefixlen)
    if not blocks(tunnel):
        return
    spared = {place.name for place in exempted}
    for place in roster.known:
        if place.name in spared:
            continue
        for own, theirs in _addresses(roster.own, place):
            for selector in narrowed(own, theirs, tunnel.traffic):
                yield from both_ways(block, selector, Rank.HOST_BLOCK, theirs.prefixlen)


def _addresses(own: Place, other: Place) -> Iterator[tuple[IpNetwork, IpNetwork]]:
    for one in own.addresses:
        for another in other.addresses:
            if one.version == another.version:
                yield host(one), host(another)


def _lifeline(roster: Roster, first_client_port: int) -> Iterator[Policy]:
    nodes = [address for place in (roster.own, *roster.known) for address in place.addresses]
    # The pod range's networks that hold pods alone.
    blocked = [network for network in roster.pod_range if not any(address in network for address in nodes)]
    blocks_pods = any(t.traffic.type is TrafficType.POD_NETWORK and blocks(t) for t in roster.tunnels)
    for own in map(host, roster.own.addresses):
        others = [network for network in blocked if network.version == own.version] if blocks_pods else []
        for direction, selector in _packets(own, ANY[own.version], roster.host_exempt_ports, first_client_port):
            yield exempt(direction, selector, Rank.LIFELINE, own.prefixlen)
        for network in others:
            for direction, selector in _packets(own, network, roster.host_exempt_ports, first_client_port):
                yield block(direction, selector, Rank.POD_BLOCK_OF_LIFELINE, network.prefixlen)


def _packets(
    own: IpNetwork, other: IpNetwork, ports: tuple[int, ...], first_client_port: int
) -> Iterator[tuple[Direction, Selector]]:
    """The lifeline of one of our addresses, with some others."""
    tcp = PROTOCOLS["TCP"]
    for port in ports:
        request = Selector(source=own, destination=other, protocol=tcp, destination_port=port)
        answer = Selector(source=own, destination=other, protocol=tcp, source_port=port)
        yield Direction.OUT, request
        yield Direction.OUT, answer
        yield Direction.IN, turned(answer)
        for client, mask in masked(first_client_port, MAX_PORT):
            yield Direction.IN, replace(turned(request), destination_port=client, destination_port_mask=mask)
    for source, destination in permutations(DHCP[own.version]):
        selector = Selector(
            source=own, destination=other, protocol=UDP, source_port=source, destination_port=destination
        )
        yield Direction.OUT, selector
        yield Direction.IN, turned(selector)
    if own.version == 6:
        for kind in NEIGHBOUR_DISCOVERY:
            selector = Selector(source=own, destination=other, protocol=PROTOCOLS["ICMPv6"], source_port=kind)
            yield Direction.OUT, selector
            yield Direction.IN, turned(selector)
