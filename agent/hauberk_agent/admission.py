"""Who is let in, and with which SPIs: what the endpoint asks while it answers a peer. Used by the sessions."""

from __future__ import annotations

import logging

from hauberk_agent.caretaker import Caretaker
from hauberk_agent.esp_trial import TRIAL_LABEL
from hauberk_agent.keeper import StateKeeper
from hauberk_agent.ownership import TRIAL_REQID
from hauberk_agent.pair_table import PairTable
from hauberk_api.report import UnwellReason
from hauberk_ike import ChildConfig, Identity, IpAddress, PeerConfig, Refused, SocketAddress, SpiUnavailable
from hauberk_xfrm import Spi, XfrmError

_log = logging.getLogger("hauberk.sessions")


class Admission:
    """Implements hauberk_ike.PeerPolicy. The certificate alone admits nobody."""

    def __init__(self, *, pairs: PairTable, keeper: StateKeeper, caretaker: Caretaker) -> None:
        self._pairs = pairs
        self._keeper = keeper
        self._caretaker = caretaker

    def find(self, identity: Identity, remote: SocketAddress) -> PeerConfig | None:
        """Whom somebody claims to be, if it is a peer that is wanted."""
        pair = self._pairs.named(identity)
        return pair.spec.config if pair is not None else None

    def authorize(self, identity: Identity, remote: SocketAddress) -> PeerConfig:
        """Admits a peer that is wanted, from one of its own addresses."""
        pair = self._pairs.named(identity)
        if pair is None:
            raise Refused("UnknownPeer", f"{identity} is no peer of this node")
        if remote.host not in pair.spec.peer.place.addresses:
            raise Refused("AddressMismatch", f"{remote.host} is no address of {pair.name}")
        return pair.spec.config

    def permit_address(self, peer: PeerConfig, remote: SocketAddress) -> None:
        """A peer's addresses are its IPsecNode's, wherever it says it has gone."""
        pair = self._pairs.of(peer)
        if pair is None or remote.host not in pair.spec.peer.place.addresses:
            raise Refused("AddressMismatch", f"{remote.host} is no address of {peer.name}")

    def is_known(self, host: IpAddress) -> bool:
        return self._pairs.is_host(host)

    def allocate_spi(self, child: ChildConfig, peer: PeerConfig) -> int:
        pair = self._pairs.of(peer)
        standing = pair.standings.get(child.label) if pair is not None else None
        is_trial = child.label == TRIAL_LABEL
        if pair is None or (standing is None and not is_trial):
            raise SpiUnavailable(f"no child {child.label} is wanted with {peer.name} any more")
        try:
            return self._keeper.allocate(
                local=peer.local.host,
                remote=peer.remote.host,
                reqid=TRIAL_REQID if standing is None else standing.spec.reqid,
                mode=child.mode,
                if_id=0 if standing is None else standing.spec.if_id,
            )
        except XfrmError as error:
            self._caretaker.fail(pair, UnwellReason.KERNEL_REFUSED, str(error))
            raise SpiUnavailable(str(error)) from error

    def count_arrived(self, spi: int, peer: PeerConfig) -> int | None:
        try:
            return self._keeper.count_arrived(local=peer.local.host, spi=Spi(spi))
        except XfrmError as error:
            _log.warning("%s: %s", peer.name, error)
            return None

    def release_spi(self, spi: int, peer: PeerConfig) -> None:
        try:
            self._keeper.release(local=peer.local.host, spi=Spi(spi))
        except XfrmError as error:
            _log.warning("%s: %s", peer.name, error)
