"""Flows: what each CHILD SA carries between this node and a peer, by the tunnel's class of traffic.

Pure. The selectors that IKE agrees on (hauberk_agent.pairing) and the kernel's policies (hauberk_agent.policy) are both
made from flows, and never go beyond a node's grant: its own addresses and pod networks, and a gateway's networks.

==========  ============================================================================================================
PodNetwork  one flow: pods and addresses of both ends, in tunnel mode
Overlay     one for what each end sends to the overlay's port, as source ports vary: twice, see below
Host        one for the addresses of both ends: twice, see below
Subnets     one for what of the tunnel's networks each end holds, in tunnel mode; where there are hubs, between a
            spoke's pods and addresses and all of the tunnel's networks, its gateway's grant (Roster.gateways)
==========  ============================================================================================================

In transport mode an SA's packets go between its own two addresses only. Overlay and Host have such a flow between the
outer addresses, and where the two nodes have further addresses another one in tunnel mode, for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import product
from typing import Final

from hauberk_agent.narrowing import protocol_number
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Peer, Place, Roster, parsed_networks
from hauberk_api.names import TunnelUid
from hauberk_api.node import Role
from hauberk_api.plan import PlannedTunnel
from hauberk_api.tunnel import Topology, TrafficType, TunnelMode
from hauberk_ike import IpAddress, Mode
from hauberk_xfrm import IpNetwork

UDP: Final = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Packets between any of our networks and any of the peer's, both ways.

    `index` tells the flows of one tunnel and peer apart; both ends count them alike. `protocol` 0 is any; so is a port
    that is None.
    """

    index: int
    mode: Mode
    local: tuple[IpNetwork, ...]
    remote: tuple[IpNetwork, ...]
    protocol: int = 0
    local_port: int | None = None
    remote_port: int | None = None

    def pairs(self) -> Iterator[tuple[IpNetwork, IpNetwork]]:
        """Each of our networks with each of the peer's of its family."""
        return ((one, other) for one, other in product(self.local, self.remote) if one.version == other.version)

    def key(self, tunnel: PlannedTunnel, peer: Peer) -> ChildKey:
        return ChildKey(tunnel=TunnelUid(tunnel.uid), peer=peer.place.uid, index=self.index)


def flows(roster: Roster, peer: Peer, tunnel: PlannedTunnel) -> tuple[Flow, ...]:
    """The flows of a tunnel that carries a pair, by index. None where neither has anything of its class."""
    own, protocol = roster.own, protocol_number(tunnel.traffic)
    match tunnel.traffic.type:
        case TrafficType.OVERLAY:
            port = tunnel.traffic.overlay.port if tunnel.traffic.overlay is not None else None
            return tuple(_overlay(own, peer, tunnel, port)) if port is not None else ()
        case TrafficType.HOST:
            return tuple(
                Flow(index=index, mode=mode, local=local, remote=remote, protocol=protocol)
                for index, (mode, local, remote) in enumerate(_between_nodes(own, peer, tunnel))
            )
        case TrafficType.SUBNETS:
            local, remote = subnet_ends(roster, peer.place, tunnel)
            if not local or not remote:
                return ()
            return (Flow(index=0, mode=Mode.TUNNEL, local=local, remote=remote, protocol=protocol),)
        case TrafficType.POD_NETWORK:
            local, remote = grant(own), grant(peer.place)
            return (Flow(index=0, mode=Mode.TUNNEL, local=local, remote=remote, protocol=protocol),)


def all_flows(roster: Roster, peer: Peer) -> Iterator[tuple[PlannedTunnel, Flow]]:
    """Of all tunnels that carry a pair, oldest first."""
    for tunnel in peer.tunnels:
        for flow in flows(roster, peer, tunnel):
            yield tunnel, flow


def subnet_ends(roster: Roster, other: Place, tunnel: PlannedTunnel) -> tuple[_Networks, _Networks]:
    """What of a Subnets tunnel's traffic is this node's, and what another one's. Empty where they have none."""
    networks = parsed_networks(tunnel.traffic.subnets)
    if tunnel.topology is Topology.FULL_MESH:
        return within(grant(roster.own), networks), within(grant(other), networks)
    gateway = roster.gateways.get(tunnel.uid)
    if gateway == roster.own.uid and other.roles.get(tunnel.uid) is Role.SPOKE:
        return networks, grant(other)
    if gateway == other.uid and roster.own.roles.get(tunnel.uid) is Role.SPOKE:
        return grant(roster.own), networks
    return (), ()


def within(grant: Iterable[IpNetwork], networks: _Networks) -> _Networks:
    """What of a grant lies in some networks. Of two networks one holds the other, or they have nothing in common."""
    found = dict.fromkeys(max(one, other, key=_prefix) for one in grant for other in networks if _overlap(one, other))
    return tuple(found)


def _prefix(network: IpNetwork) -> int:
    return network.prefixlen


def _overlap(one: IpNetwork, other: IpNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


_Networks = tuple[IpNetwork, ...]


def _between_nodes(own: Place, peer: Peer, tunnel: PlannedTunnel) -> Iterator[tuple[Mode, _Networks, _Networks]]:
    """Between which of two nodes' addresses, and in which mode."""
    pairs = [(a, b) for a, b in product(own.addresses, peer.place.addresses) if a.version == b.version]
    all_local, all_remote = (tuple(map(host, dict.fromkeys(side))) for side in zip(*pairs, strict=True))
    if tunnel.mode is TunnelMode.IPTFS:
        yield Mode.TUNNEL, all_local, all_remote
        return
    yield Mode.TRANSPORT, (host(peer.local),), (host(peer.remote),)
    if len(pairs) > 1:
        yield Mode.TUNNEL, all_local, all_remote


def _overlay(own: Place, peer: Peer, tunnel: PlannedTunnel, port: int) -> Iterator[Flow]:
    """The lower name's packets to the port first."""
    sending = (True, False) if own.name < peer.place.name else (False, True)
    for count, (mode, local, remote) in enumerate(_between_nodes(own, peer, tunnel)):
        for order, ours in enumerate(sending):
            yield Flow(
                index=2 * count + order,
                mode=mode,
                local=local,
                remote=remote,
                protocol=UDP,
                local_port=None if ours else port,
                remote_port=port if ours else None,
            )


def grant(place: Place) -> _Networks:
    """What a node may claim in its selectors by itself."""
    return (*place.networks, *map(host, place.addresses))


def host(address: IpAddress) -> IpNetwork:
    """An address as a network of one."""
    return ip_network(address)
