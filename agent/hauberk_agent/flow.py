"""Flows: what each CHILD SA carries between this node and a peer, by the tunnel's class of traffic.

Pure. The selectors that IKE agrees on (hauberk_agent.pairing) and the kernel's policies (hauberk_agent.policy) are both
made from flows, and never go beyond a node's grant: its own addresses and pod networks.

==========  ============================================================================================================
PodNetwork  one flow: pods and addresses of both ends, in tunnel mode
Overlay     one for what each end sends to the overlay's port, as source ports vary: twice, see below
Host        one for the addresses of both ends: twice, see below
==========  ============================================================================================================

In transport mode an SA's packets go between its own two addresses only. Overlay and Host have such a flow between the
outer addresses, and where the two nodes have further addresses another one in tunnel mode, for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import product
from typing import Final

from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Peer, Place
from hauberk_api.names import TunnelUid
from hauberk_api.plan import PlannedTunnel
from hauberk_api.tunnel import TrafficType, TunnelMode
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

    def key(self, tunnel: PlannedTunnel, peer: Peer) -> ChildKey:
        return ChildKey(tunnel=TunnelUid(tunnel.uid), peer=peer.place.uid, index=self.index)


def flows(own: Place, peer: Peer, tunnel: PlannedTunnel) -> tuple[Flow, ...]:
    """The flows of a tunnel that carries a pair, by index."""
    match tunnel.traffic.type:
        case TrafficType.OVERLAY if tunnel.traffic.overlay is not None:
            return tuple(_overlay(own, peer, tunnel, tunnel.traffic.overlay.port))
        case TrafficType.HOST:
            return tuple(
                Flow(index=index, mode=mode, local=local, remote=remote)
                for index, (mode, local, remote) in enumerate(_between_nodes(own, peer, tunnel))
            )
        case _:
            return (Flow(index=0, mode=Mode.TUNNEL, local=_grant(own), remote=_grant(peer.place)),)


def all_flows(own: Place, peer: Peer) -> Iterator[tuple[PlannedTunnel, Flow]]:
    """Of all tunnels that carry a pair, oldest first."""
    for tunnel in peer.tunnels:
        for flow in flows(own, peer, tunnel):
            yield tunnel, flow


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


def _grant(place: Place) -> _Networks:
    return (*place.networks, *map(host, place.addresses))


def host(address: IpAddress) -> IpNetwork:
    """An address as a network of one."""
    return ip_network(address)
