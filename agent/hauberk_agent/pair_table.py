"""All pairs of a node, as the sessions look them up: by the peer's UID, by its identity, by an IKE SA with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hauberk_agent.link import Link
from hauberk_agent.pair import Pair
from hauberk_api.names import NodeUid
from hauberk_ike import Identity, IkeSaId, IpAddress, PeerConfig
from hauberk_xfrm import ReqId, Spi


class PairTable(Mapping[NodeUid, Pair]):
    """A mapping by UID. Knows only pairs that are wanted: what belongs to another one is nobody's."""

    def __init__(self) -> None:
        self._by_uid: dict[NodeUid, Pair] = {}
        self._uids: dict[Identity, NodeUid] = {}
        """By identity: names can come back with another node behind them."""
        self._links: dict[IkeSaId, NodeUid] = {}
        self._hosts: frozenset[IpAddress] = frozenset()
        self._reqids: dict[ReqId, NodeUid] = {}

    def __getitem__(self, uid: NodeUid) -> Pair:
        return self._by_uid[uid]

    def __iter__(self) -> Iterator[NodeUid]:
        return iter(self._by_uid)

    def __len__(self) -> int:
        return len(self._by_uid)

    def add(self, uid: NodeUid, pair: Pair) -> None:
        self._by_uid[uid] = pair
        self._uids[pair.spec.config.identity] = uid

    def remove(self, uid: NodeUid) -> Pair:
        """The pair, with the IKE SAs that it had: they are nobody's now."""
        pair = self._by_uid.pop(uid)
        self._uids.pop(pair.spec.config.identity, None)
        for ike_sa in pair.links:
            self._links.pop(ike_sa, None)
        return pair

    def named(self, identity: Identity) -> Pair | None:
        uid = self._uids.get(identity)
        return self._by_uid.get(uid) if uid is not None else None

    def of(self, peer: PeerConfig) -> Pair | None:
        """By what the endpoint was told of the peer, whenever that was."""
        return self.named(peer.identity)

    def bind(self, ike_sa: IkeSaId, pair: Pair) -> None:
        """From now on this IKE SA is the pair's."""
        self._links[ike_sa] = pair.spec.uid

    def unbind(self, ike_sa: IkeSaId) -> Pair | None:
        """The IKE SA is no more; returns whose it was."""
        uid = self._links.pop(ike_sa, None)
        return self._by_uid.get(uid) if uid is not None else None

    def of_link(self, ike_sa: IkeSaId) -> Pair | None:
        """Whose an IKE SA is."""
        uid = self._links.get(ike_sa)
        return self._by_uid.get(uid) if uid is not None else None

    def of_inbound(self, destination: IpAddress, spi: Spi) -> tuple[Pair, Link] | None:
        """Whose an inbound state is, also one that a rekey has left over."""
        for pair in self.values():
            for link in pair.links.values():
                if any((child.local, child.spi_in) == (destination, spi) for child in link.every_child()):
                    return pair, link
        return None

    def of_reqid(self, reqid: ReqId) -> Pair | None:
        """Whose a request id is."""
        uid = self._reqids.get(reqid)
        return self._by_uid.get(uid) if uid is not None else None

    def note_hosts(self) -> None:
        """To be called when pairs have come, gone or changed: takes down where the peers are, and whose reqids."""
        self._reqids = {child.reqid: uid for uid, pair in self.items() for child in pair.spec.children}
        self._hosts = frozenset(host for pair in self.values() for host in pair.spec.peer.place.addresses)

    def is_host(self, host: IpAddress) -> bool:
        """Whether a peer is expected at an address."""
        return host in self._hosts
