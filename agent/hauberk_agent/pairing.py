"""From a roster to what the sessions are told of each peer: addresses, proposals, selectors, times.

Pure. What a peer's CHILD SAs carry is in its flows (hauberk_agent.flow).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final

from hauberk_agent.esp_trial import TRIAL_LABEL
from hauberk_agent.flow import Flow, all_flows, host
from hauberk_agent.interception import IF_ID, is_intercepted
from hauberk_agent.pair import ChildSpec, PairSpec
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Peer, Roster
from hauberk_api.names import NodeUid
from hauberk_api.plan import Phase, PlannedTunnel, reached
from hauberk_api.tunnel import Encapsulation as TunnelEncapsulation
from hauberk_api.tunnel import Establish, TunnelMode
from hauberk_ike import (
    ChildConfig,
    Encapsulation,
    EspProposal,
    Identity,
    IkeProposal,
    Mode,
    PeerConfig,
    SocketAddress,
    TrafficSelector,
)
from hauberk_ike.selectors import MAX_PORT
from hauberk_xfrm import IpNetwork, ReqId

TOLERATED_OUTAGE_SECONDS: Final = 86_400
"""For so long beyond its rekey time an SA goes on when its peer's IKE daemon does not answer."""

_ENCAPSULATION: Final = {
    TunnelEncapsulation.AUTO: Encapsulation.AUTO,
    TunnelEncapsulation.ALWAYS: Encapsulation.ALWAYS,
    TunnelEncapsulation.NEVER: Encapsulation.NEVER,
}


def pair_specs(
    roster: Roster, reqid_of: Callable[[ChildKey], ReqId], *, port: int, iptfs: bool = False
) -> dict[NodeUid, PairSpec]:
    """By peer UID, of the tunnels whose phase has SAs. iptfs: whether this node's kernel can do it.

    Raises hauberk_ike.ProposalError for a proposal that this version does not have.
    """
    specs: dict[NodeUid, PairSpec] = {}
    for peer in roster.peers:
        children = tuple(
            _child(tunnel, peer, flow, reqid_of(flow.key(tunnel, peer)), iptfs=iptfs)
            for tunnel, flow in all_flows(roster, peer)
            if reached(tunnel.phase, Phase.ESTABLISH)
        )
        if children:
            specs[peer.place.uid] = _spec(roster, peer, children, port)
    return specs


def child_keys(roster: Roster) -> Iterator[ChildKey]:
    """Of all CHILD SAs that policies are about, whatever the tunnels' phases."""
    for peer in roster.peers:
        for tunnel, flow in all_flows(roster, peer):
            yield flow.key(tunnel, peer)


def _child(tunnel: PlannedTunnel, peer: Peer, flow: Flow, reqid: ReqId, *, iptfs: bool) -> ChildSpec:
    return ChildSpec(
        key=flow.key(tunnel, peer),
        reqid=reqid,
        config=ChildConfig(
            # A peer of the version before knows one child a pair, and calls it by the tunnel alone.
            label=f"{tunnel.uid}/{flow.index}" if flow.index else tunnel.uid,
            mode=_mode(tunnel, flow, iptfs=iptfs),
            esp_proposals=_esp_proposals(tunnel.esp.proposals),
            ts_local=_selectors(flow.local, flow.protocol, flow.local_port),
            ts_remote=_selectors(flow.remote, flow.protocol, flow.remote_port),
            rekey_seconds=float(tunnel.esp.rekey_seconds),
        ),
        hard_seconds=tunnel.esp.rekey_seconds + TOLERATED_OUTAGE_SECONDS,
        if_id=IF_ID if is_intercepted(tunnel) else 0,
        rekey_bytes=tunnel.esp.rekey_bytes,
        rekey_packets=tunnel.esp.rekey_packets,
    )


def _mode(tunnel: PlannedTunnel, flow: Flow, *, iptfs: bool) -> Mode:
    """IP-TFS mode carries whole packets, as tunnel mode does, and is that where an end can't."""
    if tunnel.mode is TunnelMode.IPTFS and flow.mode is Mode.TUNNEL and iptfs:
        return Mode.IPTFS
    return flow.mode


def _spec(roster: Roster, peer: Peer, children: tuple[ChildSpec, ...], port: int) -> PairSpec:
    """How the pair agrees on keys is the oldest tunnel's to say, of those that have children."""
    uids = {child.key.tunnel for child in children}
    tunnels = [tunnel for tunnel in peer.tunnels if tunnel.uid in uids]
    oldest = tunnels[0]
    config = PeerConfig(
        name=peer.place.name,
        identity=Identity.fqdn(peer.identity),
        local=SocketAddress(host=peer.local, port=port),
        remote=SocketAddress(host=peer.remote, port=port),
        ike_proposals=_ike_proposals(oldest.ike.proposals),
        children=tuple(child.config for child in children),
        dpd_seconds=float(oldest.ike.dpd_seconds),
        rekey_seconds=float(oldest.ike.rekey_seconds),
        encapsulation=_ENCAPSULATION[oldest.encapsulation],
        further_children=(_trial(peer, children[0].config.esp_proposals),),
    )
    return PairSpec(
        peer=peer,
        config=config,
        children=children,
        initiates=roster.own.name < peer.place.name,
        own_is_lower=roster.own_identity < peer.identity,
        on_demand=all(tunnel.establish is Establish.ON_DEMAND for tunnel in tunnels),
        idle_seconds=float(max(tunnel.idle_seconds for tunnel in tunnels)),
    )


def _trial(peer: Peer, esp_proposals: tuple[EspProposal, ...]) -> ChildConfig:
    """What may be had to find out whether ESP comes through again: between the nodes, and for nothing but that."""
    return ChildConfig(
        label=TRIAL_LABEL,
        mode=Mode.TUNNEL,
        esp_proposals=esp_proposals,
        ts_local=_selectors((host(peer.local),), 0, None),
        ts_remote=_selectors((host(peer.remote),), 0, None),
    )


def _selectors(networks: Iterable[IpNetwork], protocol: int, port: int | None) -> tuple[TrafficSelector, ...]:
    start, end = (0, MAX_PORT) if port is None else (port, port)
    return tuple(
        TrafficSelector.from_network(network, protocol=protocol, start_port=start, end_port=end) for network in networks
    )


# Thousands of peers share a few proposals: parsed once, and one object in memory.
@lru_cache(maxsize=64)
def _ike_proposals(texts: tuple[str, ...]) -> tuple[IkeProposal, ...]:
    return tuple(IkeProposal.parse(text) for text in texts)


@lru_cache(maxsize=64)
def _esp_proposals(texts: tuple[str, ...]) -> tuple[EspProposal, ...]:
    return tuple(EspProposal.parse(text) for text in texts)
