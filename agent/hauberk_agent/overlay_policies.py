"""The policies of tunnels whose traffic is Overlay: UDP to the overlay's port P, from and to this node's own addresses.

Pure. Per family, and never on pods' addresses, which are inside:

=======  ==========================================  ==========================================
class    OUT                                         IN
=======  ==========================================  ==========================================
protect  own address -> peer's address, port P       peer's address -> own address, port P
exempt   own address -> exempt node's, port P        exempt node's -> own address, port P
block    own address -> any, port P                  any -> own address, port P
=======  ==========================================  ==========================================

What pods send to that port of somebody is their own affair, and passes FWD.
"""

from __future__ import annotations

from collections.abc import Iterator

from hauberk_agent.flow import UDP, flows, host
from hauberk_agent.ownership import Rank
from hauberk_agent.pod_policies import ANY
from hauberk_agent.policy_terms import Terms, block, blocks, exempt, protect
from hauberk_agent.roster import Roster
from hauberk_api.plan import PlannedTunnel
from hauberk_api.tunnel import TrafficType
from hauberk_xfrm import Direction, IpNetwork, Policy, Selector


def overlay_policies(roster: Roster, terms: Terms) -> Iterator[Policy]:
    yield from _protections(roster, terms)
    for tunnel in roster.tunnels:
        if tunnel.traffic.type is TrafficType.OVERLAY and tunnel.traffic.overlay is not None:
            yield from _others(roster, tunnel, tunnel.traffic.overlay.port)


def _protections(roster: Roster, terms: Terms) -> Iterator[Policy]:
    for peer in roster.peers:
        for tunnel in peer.tunnels:
            if tunnel.traffic.type is not TrafficType.OVERLAY:
                continue
            for flow in flows(roster, peer, tunnel):
                outbound, inbound = terms.outbound(tunnel, peer, flow), terms.inbound(tunnel, peer, flow)
                for own, theirs in flow.pairs():
                    length = theirs.prefixlen
                    if flow.local_port is not None:
                        selector = _to_port(theirs, own, flow.local_port)
                        yield protect(Direction.IN, selector, Rank.OVERLAY, length, inbound)
                    elif flow.remote_port is not None and outbound is not None:
                        selector = _to_port(own, theirs, flow.remote_port)
                        yield protect(Direction.OUT, selector, Rank.OVERLAY, length, outbound)


def _others(roster: Roster, tunnel: PlannedTunnel, port: int) -> Iterator[Policy]:
    for own in map(host, roster.own.addresses):
        for place in roster.exempt_from(tunnel.traffic):
            for theirs in map(host, place.addresses):
                if own.version == theirs.version:
                    length = theirs.prefixlen
                    yield exempt(Direction.OUT, _to_port(own, theirs, port), Rank.OVERLAY_EXEMPT, length)
                    yield exempt(Direction.IN, _to_port(theirs, own, port), Rank.OVERLAY_EXEMPT, length)
        if blocks(tunnel):
            anybody = ANY[own.version]
            yield block(Direction.OUT, _to_port(own, anybody, port), Rank.OVERLAY_BLOCK, 0)
            yield block(Direction.IN, _to_port(anybody, own, port), Rank.OVERLAY_BLOCK, 0)


def _to_port(source: IpNetwork, destination: IpNetwork, port: int) -> Selector:
    return Selector(source=source, destination=destination, protocol=UDP, destination_port=port)
