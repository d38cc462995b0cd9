"""From a roster to what the sessions are told of each peer: addresses, proposals, selectors, times.

Pure. A peer's selectors are its grant: its pod networks and its addresses, of both families.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_network
from typing import Final

from hauberk_agent.pair import PairSpec
from hauberk_agent.reqid import PairKey
from hauberk_agent.roster import Peer, Place, Roster
from hauberk_api.names import NodeUid, TunnelUid
from hauberk_api.plan import Phase, reached
from hauberk_api.tunnel import Encapsulation as TunnelEncapsulation
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
from hauberk_xfrm import ReqId

TOLERATED_OUTAGE_SECONDS: Final = 86_400
"""For so long beyond its rekey time an SA goes on when its peer's IKE daemon does not answer."""

_ENCAPSULATION: Final = {
    TunnelEncapsulation.AUTO: Encapsulation.AUTO,
    TunnelEncapsulation.ALWAYS: Encapsulation.ALWAYS,
    TunnelEncapsulation.NEVER: Encapsulation.NEVER,
}


def pair_key(peer: Peer) -> PairKey:
    return PairKey(tunnel=TunnelUid(peer.tunnel.uid), peer=peer.place.uid)


def pair_specs(roster: Roster, reqid_of: Callable[[Peer], ReqId], *, port: int) -> dict[NodeUid, PairSpec]:
    """By peer UID, of the tunnels whose phase has SAs.

    Raises hauberk_ike.ProposalError for a proposal that this version does not have.
    """
    return {
        peer.place.uid: _spec(roster, peer, reqid_of(peer), port)
        for peer in roster.peers
        if reached(peer.tunnel.phase, Phase.ESTABLISH)
    }


def _spec(roster: Roster, peer: Peer, reqid: ReqId, port: int) -> PairSpec:
    tunnel = peer.tunnel
    child = ChildConfig(
        label=tunnel.uid,
        mode=Mode.TUNNEL,
        esp_proposals=_esp_proposals(tunnel.esp.proposals),
        ts_local=_grant(roster.own),
        ts_remote=_grant(peer.place),
    )
    config = PeerConfig(
        name=peer.place.name,
        identity=Identity.fqdn(peer.identity),
        local=SocketAddress(host=peer.local, port=port),
        remote=SocketAddress(host=peer.remote, port=port),
        ike_proposals=_ike_proposals(tunnel.ike.proposals),
        children=(child,),
        dpd_seconds=float(tunnel.ike.dpd_seconds),
        encapsulation=_ENCAPSULATION[tunnel.encapsulation],
    )
    rekey_seconds = min(tunnel.ike.rekey_seconds, tunnel.esp.rekey_seconds)
    return PairSpec(
        peer=peer,
        key=pair_key(peer),
        reqid=reqid,
        config=config,
        initiates=roster.own.name < peer.place.name,
        own_is_lower=roster.own_identity < peer.identity,
        rekey_seconds=float(rekey_seconds),
        hard_seconds=rekey_seconds + TOLERATED_OUTAGE_SECONDS,
        rekey_bytes=tunnel.esp.rekey_bytes,
        rekey_packets=tunnel.esp.rekey_packets,
    )


def _grant(place: Place) -> tuple[TrafficSelector, ...]:
    networks = (*place.networks, *(ip_network(address) for address in place.addresses))
    return tuple(TrafficSelector.from_network(network) for network in networks)


# Thousands of peers share a few proposals: parsed once, and one object in memory.
@lru_cache(maxsize=64)
def _ike_proposals(texts: tuple[str, ...]) -> tuple[IkeProposal, ...]:
    return tuple(IkeProposal.parse(text) for text in texts)


@lru_cache(maxsize=64)
def _esp_proposals(texts: tuple[str, ...]) -> tuple[EspProposal, ...]:
    return tuple(EspProposal.parse(text) for text in texts)
