"""The sessions: with every peer exactly one IKE SA and one used SA per direction, come what may.

Sans-IO, like the endpoint that it owns: bytes, time and chance come in, datagrams go out, states go to the kernel
through the keeper. hauberk_agent.transport drives it.

**Who begins.** The node whose name sorts first initiates at once, the other after a bounded, jittered wait. A node
that starts with a kernel without SAs initiates at once whatever its name, and says INITIAL_CONTACT.

**Replacing.** Rekeying, new credentials, changed wishes and restarts are all one thing: a new IKE SA with its child,
made before the old one is broken. Its responder installs the inbound SA before it answers and the outbound one only
when the old SAs are deleted, a packet has come in on the new one, or a short time is over; its initiator installs both
and deletes the old IKE SA. Which of two links stays is decided in hauberk_agent.link.judge; the losing one's
initiator deletes it, and the other end does so after a grace time, if that end has forgotten it.

**Dying.** A peer that stops answering ends the IKE SA, not the SAs in the kernel: they carry traffic until they are
replaced, deleted by their peer, or expire. Nothing here deletes anything because the agent ends.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Final, assert_never

from hauberk_agent.keeper import Kernel, StateKeeper
from hauberk_agent.link import Child, Link, Verdict, judge
from hauberk_agent.pair import Failure, Pair, PairSpec
from hauberk_api.names import NodeUid
from hauberk_api.report import UnwellReason
from hauberk_ike import (
    ChildConfig,
    ChildSaDown,
    ChildSaFailed,
    ChildSaUp,
    Credentials,
    Datagram,
    DownReason,
    EndpointSettings,
    Event,
    Identity,
    IkeEndpoint,
    IkeProposal,
    IkeSaDown,
    IkeSaId,
    IkeSaMoved,
    IkeSaRekeyed,
    IkeSaUp,
    IpAddress,
    PeerConfig,
    PeerRefused,
    ReauthenticationNeeded,
    RefusalsWithheld,
    Refused,
    SocketAddress,
    SpiUnavailable,
    UnknownIkeSa,
)
from hauberk_xfrm import ReqId, Spi, StateDump, XfrmError

_log = logging.getLogger("hauberk.sessions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """All in seconds."""

    fresh_wait: tuple[float, float] = (0.3, 0.8)
    """The second node's wait for the first one's attempt, where there is no SA yet."""
    adopted_wait: tuple[float, float] = (0.0, 1.0)
    """Before SAs of an earlier run are replaced: by the first node,"""
    adopted_wait_second: tuple[float, float] = (2.0, 4.0)
    """and by the second."""
    retry_first: float = 1.0
    retry_longest: float = 30.0
    outbound_wait: float = 3.0
    """How long a responder holds back a replacement's outbound SA."""
    in_use_poll: float = 0.25
    grace: float = 20.0
    """How long the losing link's initiator is given to delete it."""
    crossing: float = 40.0
    """How far apart two ends can begin and still not have known of each other: one round of retransmissions."""
    linger: float = 10.0
    """How long a replaced inbound SA is kept for packets under way,"""
    linger_orphan: float = 35.0
    """and one that the peer may think is current for as long as the grace time."""
    renewed: float = 30.0
    """Over which time new credentials are brought to the peers."""


_DEFAULT_TIMES = Times()
_BREATH_SECONDS: Final = 0.05


class Sessions:
    """All pairs of one node. Implements hauberk_ike.PeerPolicy."""

    def __init__(
        self,
        *,
        kernel: Kernel,
        directions: bool,
        entropy: Callable[[int], bytes],
        wall_clock: Callable[[], datetime],
        chance: Random,
        times: Times = _DEFAULT_TIMES,
        settings: EndpointSettings | None = None,
        max_attempts: int = 64,
    ) -> None:
        self._times = times
        self._keeper = StateKeeper(kernel, directions=directions)
        self._entropy = entropy
        self._wall_clock = wall_clock
        self._chance = chance
        self._settings = settings
        self._max_attempts = max_attempts
        self._endpoint: IkeEndpoint | None = None
        self._pairs: dict[NodeUid, Pair] = {}
        self._uids: dict[Identity, NodeUid] = {}
        """By identity: names can come back with another node behind them."""
        self._hosts: frozenset[IpAddress] = frozenset()
        """All addresses of the peers."""
        self._acceptable: tuple[IkeProposal, ...] = ()
        """What any peer may propose: who a stranger is shows only after IKE_SA_INIT."""
        self._links: dict[IkeSaId, NodeUid] = {}
        self._attempts: set[IkeSaId] = set()
        self._found: dict[ReqId, list[StateDump]] = {}
        self._wanted_once = False
        self._wakes: list[tuple[float, NodeUid]] = []
        self._now = 0.0
        self.on_change: Callable[[], None] = lambda: None
        """Called when a pair became well or unwell."""

    # What is wanted, and by whom.

    @property
    def pairs(self) -> Collection[Pair]:
        return self._pairs.values()

    def adopt(self, states: Iterable[StateDump]) -> None:
        """Takes over the states of an earlier run: a dump, made at start, before anything is wanted."""
        for state in self._keeper.unaccounted(states):
            self._found.setdefault(state.reqid, []).append(state)

    def set_credentials(self, credentials: Credentials, now: float, *, renewed: bool) -> None:
        """Begins to speak IKE, or goes on with these credentials.

        renewed: the certificate is a new one, with which every pair is to be authenticated anew, by and by.
        """
        self._now = now
        if self._endpoint is None:
            self._endpoint = IkeEndpoint(
                credentials=credentials,
                policy=self,
                entropy=self._entropy,
                wall_clock=self._wall_clock,
                settings=self._settings,
            )
            self._accept(self._acceptable)
            for pair in self._pairs.values():
                self._service(pair)
            return
        self._endpoint.replace_credentials(credentials)
        for pair in self._pairs.values() if renewed else ():
            if pair.current is not None:
                first = 0.0 if pair.current.ours else self._times.renewed
                pair.rekey_at = now + first + self._chance.uniform(0, self._times.renewed)
                self._service(pair)

    def set_wanted(self, specs: Mapping[NodeUid, PairSpec], now: float) -> None:
        """Makes the pairs those wanted. A pair that is no longer wanted ends at once: DELETE, then its states."""
        self._now = now
        acceptable = dict.fromkeys(proposal for spec in specs.values() for proposal in spec.config.ike_proposals)
        self._accept(tuple(acceptable))
        for uid in [uid for uid in self._pairs if uid not in specs]:
            self._end(self._pairs.pop(uid))
        for uid, spec in specs.items():
            pair = self._pairs.get(uid)
            if pair is None:
                self._begin(uid, spec)
            elif pair.spec != spec:
                self._change(pair, spec)
        self._hosts = frozenset(host for spec in specs.values() for host in spec.peer.place.addresses)
        self._wanted_once = True

    def _accept(self, ike_proposals: tuple[IkeProposal, ...]) -> None:
        """Where no peer is wanted, strangers are heard by the settings' proposals, and refused by name."""
        self._acceptable = ike_proposals
        if self._endpoint is not None and ike_proposals:
            self._endpoint.accept(ike_proposals)

    def forget_found(self) -> list[StateDump]:
        """The states of an earlier run that no pair has claimed by now, given up."""
        left = [state for states in self._found.values() for state in states]
        self._found.clear()
        return left

    def unaccounted(self, states: Iterable[StateDump]) -> list[StateDump]:
        """Of a dump, the states of ours that no pair accounts for, and that may go."""
        waiting = {(s.destination, s.spi) for states in self._found.values() for s in states}
        return [s for s in self._keeper.unaccounted(states) if (s.destination, s.spi) not in waiting]

    def rekey(self, destination: IpAddress, spi: Spi, now: float) -> None:
        """Replaces the CHILD SA of one of our states, whichever direction: the kernel says that it has done enough."""
        self._now = now
        for pair in self._pairs.values():
            for link in pair.links.values():
                child = link.child
                if child is None or child.spi_in is None or self._endpoint is None or link.deleting:
                    continue
                if (destination, spi) in ((child.local, child.spi_in), (child.remote, child.spi_out)):
                    self._endpoint.rekey_child(link.ike_sa, child.spi_in, now=now)
                    self._drain()
                    return

    def mend(self, states: Collection[StateDump], now: float) -> None:
        """Replaces what somebody removed from the kernel, or what has expired there."""
        self._now = now
        present = {(state.destination, state.spi) for state in states if not state.larval}
        for pair in self._pairs.values():
            pair.orphans = [child for child in pair.orphans if not self._drop_vanished(child, present)]
            current = pair.current
            if (
                current is not None
                and current.child is not None
                and pair.attempt is None
                and self._keeper.vanished(current.child, present)
            ):
                _log.warning("%s: an SA is missing in the kernel, replacing it", pair.name)
                pair.rekey_at = now
                self._service(pair)
        for state in states:
            if state.is_worn:
                self.rekey(state.destination, state.spi, now)  # the kernel's word for it was missed

    def _drop_vanished(self, child: Child, present: set[tuple[IpAddress, Spi]]) -> bool:
        if not self._keeper.vanished(child, present):
            return False
        self._keeper.remove(child)
        return True

    # What the transport calls.

    def receive_datagram(self, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float) -> None:
        self._now = now
        if self._endpoint is not None:
            self._endpoint.receive_datagram(data, local=local, remote=remote, now=now)
            self._drain()

    def handle_timer(self, now: float) -> None:
        self._now = now
        self._keeper.handle_timer(now)
        if self._endpoint is not None:
            self._endpoint.handle_timer(now)
            self._drain()
        while self._wakes and self._wakes[0][0] <= now:
            _, uid = heapq.heappop(self._wakes)
            pair = self._pairs.get(uid)
            if pair is not None:
                self._service(pair)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        self._now = now
        if self._endpoint is None:
            return []
        self._drain()
        return self._endpoint.datagrams_to_send(now)

    def get_timer(self) -> float | None:
        times = [self._keeper.next_due(), self._wakes[0][0] if self._wakes else None]
        if self._endpoint is not None:
            times.append(self._endpoint.get_timer())
        return min((time for time in times if time is not None), default=None)

    # hauberk_ike.PeerPolicy

    def find(self, identity: Identity, remote: SocketAddress) -> PeerConfig | None:
        """Whom somebody claims to be, if it is a peer that is wanted."""
        pair = self._pair_named(identity)
        return pair.spec.config if pair is not None else None

    def authorize(self, identity: Identity, remote: SocketAddress) -> PeerConfig:
        """Admits a peer that is wanted, from one of its own addresses. The certificate alone admits nobody."""
        pair = self._pair_named(identity)
        if pair is None:
            raise Refused("UnknownPeer", f"{identity} is no peer of this node")
        if remote.host not in pair.spec.peer.place.addresses:
            raise Refused("AddressMismatch", f"{remote.host} is no address of {pair.name}")
        return pair.spec.config

    def permit_address(self, peer: PeerConfig, remote: SocketAddress) -> None:
        """A peer's addresses are its IPsecNode's, wherever it says it has gone."""
        pair = self._pair_of(peer)
        if pair is None or remote.host not in pair.spec.peer.place.addresses:
            raise Refused("AddressMismatch", f"{remote.host} is no address of {peer.name}")

    def is_known(self, host: IpAddress) -> bool:
        return host in self._hosts

    def _pair_named(self, identity: Identity) -> Pair | None:
        uid = self._uids.get(identity)
        return self._pairs.get(uid) if uid is not None else None

    def allocate_spi(self, child: ChildConfig, peer: PeerConfig) -> int:
        pair = self._pair_of(peer)
        if pair is None:
            raise SpiUnavailable(f"{peer.name} is no peer any more")
        try:
            return self._keeper.allocate(local=peer.local.host, remote=peer.remote.host, reqid=pair.spec.reqid)
        except XfrmError as error:
            self._fail(pair, UnwellReason.KERNEL_REFUSED, str(error))
            raise SpiUnavailable(str(error)) from error

    def release_spi(self, spi: int, peer: PeerConfig) -> None:
        try:
            self._keeper.release(local=peer.local.host, spi=Spi(spi))
        except XfrmError as error:
            _log.warning("%s: %s", peer.name, error)

    # Pairs come and go.

    def _begin(self, uid: NodeUid, spec: PairSpec) -> None:
        orphans = [_orphan(state, spec, self._now) for state in self._found.pop(spec.reqid, [])]
        for child in orphans:
            self._keeper.adopt(child)
        pair = Pair(spec=spec, wanted_since=self._now, fresh=not orphans, orphans=orphans)
        self._pairs[uid] = pair
        self._uids[spec.config.identity] = uid
        times = self._times
        if orphans:
            wait = self._chance.uniform(*(times.adopted_wait if spec.initiates else times.adopted_wait_second))
        elif spec.initiates or not self._wanted_once:
            wait = 0.0
        else:
            wait = self._chance.uniform(*times.fresh_wait)
        pair.initiate_at = self._now + wait
        pair.unwell_since = None if pair.well else self._now
        self._service(pair)

    def _change(self, pair: Pair, spec: PairSpec) -> None:
        old, pair.spec = pair.spec, spec
        if replace(old, peer=spec.peer) == spec:
            return  # what the SAs were agreed on, and how long they may live, is as before
        wait = 0.0 if spec.initiates else self._chance.uniform(*self._times.fresh_wait)
        if pair.current is None:
            pair.initiate_at = self._now + wait
        else:
            pair.rekey_at = self._now + wait
        self._service(pair)

    def _end(self, pair: Pair) -> None:
        _log.info("%s: no longer a peer, removing its SAs", pair.name)
        self._uids.pop(pair.spec.config.identity, None)
        for link in list(pair.links.values()):
            self._delete(link, "no longer a peer")
            self._links.pop(link.ike_sa, None)
        for child in pair.children():
            self._attempt_kernel(pair, lambda child=child: self._keeper.remove(child))
        self._attempt_kernel(pair, lambda: self._keeper.remove_lingering(pair.spec.reqid))

    # What the endpoint reports.

    def _drain(self) -> None:
        """Acts on all events: before any datagram leaves, so that inbound SAs are there before answers are."""
        endpoint = self._endpoint
        while endpoint is not None and (event := endpoint.next_event()) is not None:
            self._act(event)

    def _act(self, event: Event) -> None:
        match event:
            case IkeSaUp():
                self._ike_sa_up(event)
            case IkeSaMoved():
                self._ike_sa_moved(event)
            case IkeSaRekeyed():
                self._ike_sa_rekeyed(event)
            case ReauthenticationNeeded():
                self._reauthentication_needed(event)
            case ChildSaUp():
                self._child_sa_up(event)
            case ChildSaDown():
                self._child_sa_down(event)
            case ChildSaFailed():
                self._child_sa_failed(event)
            case IkeSaDown():
                self._ike_sa_down(event)
            case PeerRefused():
                _log.warning("refused %s (%s): %s: %s", event.remote, event.identity, event.reason, event.message)
            case RefusalsWithheld():
                _log.warning("refused %d more within %.0f s: %s", event.count, event.seconds, event.summary)
            case _:
                assert_never(event)

    def _ike_sa_up(self, event: IkeSaUp) -> None:
        self._attempts.discard(event.ike_sa)
        pair = self._pair_of(event.peer)
        if pair is None:
            self._delete_unknown(event.ike_sa)
            return
        link = pair.links.get(event.ike_sa)
        if link is None:
            link = Link(
                ike_sa=event.ike_sa,
                ours=False,
                started_at=self._now,
                config=event.peer,
                initial_contact=event.initial_contact,
            )
            pair.links[event.ike_sa] = link
            self._links[event.ike_sa] = pair.spec.key.peer
        link.up_at = self._now
        link.proposal = event.proposal
        # Until it has its child it is of no use; then this is taken back.
        link.lost_at = self._now
        self._service(pair)

    def _ike_sa_moved(self, event: IkeSaMoved) -> None:
        """The peer is somewhere else: behind another port its states follow it, else they are replaced."""
        pair = self._pair_of_link(event.ike_sa)
        link = pair.links.get(event.ike_sa) if pair is not None else None
        if pair is None or link is None or link.child is None:
            return
        child = link.child
        try:
            follows = (
                (event.local.host, event.remote.host) == (child.local, child.remote)
                and child.encapsulation is not None
                and event.encapsulation is not None
                and self._keeper.move(child, event.encapsulation)
            )
        except XfrmError as error:
            _log.warning("%s: %s", pair.name, error)
            follows = False
        _log.info("%s: is at %s now%s", pair.name, event.remote, "" if follows else ", replacing its SAs")
        if not follows and link is pair.current:
            pair.rekey_at = self._now
            self._service(pair)

    def _ike_sa_rekeyed(self, event: IkeSaRekeyed) -> None:
        """The link goes on under another handle. Who initiated it first still counts: both ends remember that alike."""
        uid = self._links.pop(event.old, None)
        pair = self._pairs.get(uid) if uid is not None else None
        link = pair.links.pop(event.old, None) if pair is not None else None
        if uid is None or pair is None or link is None:
            self._delete_unknown(event.new)
            return
        link.ike_sa, link.proposal = event.new, event.proposal
        pair.links[event.new] = link
        self._links[event.new] = uid

    def _reauthentication_needed(self, event: ReauthenticationNeeded) -> None:
        """The peer can't rekey: another IKE SA takes this one's place."""
        pair = self._pair_of_link(event.ike_sa)
        if pair is not None and pair.current is not None and pair.current.ike_sa == event.ike_sa:
            pair.rekey_at = self._now
            self._service(pair)

    def _child_sa_up(self, event: ChildSaUp) -> None:
        pair = self._pair_of_link(event.ike_sa)
        link = pair.links.get(event.ike_sa) if pair is not None else None
        if pair is None or link is None or link.deleting:
            self.release_spi(event.spi_in, event.peer)
            return
        rekeyed = any(child.spi_in == event.rekeyed_spi_in for child in link.children())
        if link.child is not None and not rekeyed:
            # One child a link: a second one is the peer's idea alone.
            self.release_spi(event.spi_in, event.peer)
            if self._endpoint is not None:
                self._endpoint.delete_child(event.ike_sa, event.spi_in, now=self._now)
            return
        spec = pair.spec
        try:
            child = self._keeper.install_inbound(
                event,
                local=event.peer.local.host,
                remote=event.peer.remote.host,
                reqid=spec.reqid,
                hard_seconds=spec.hard_seconds,
                now=self._now,
            )
        except XfrmError as error:
            self._fail(pair, UnwellReason.KERNEL_REFUSED, str(error))
            self._delete(link, "the kernel refused the SA")
            self._retry(pair)
            return
        if link.child is not None:
            self._rekeyed(pair, link, child, event)
        else:
            link.child = child
            link.lost_at = None
            self._prefer(pair, link)
        self._service(pair)

    def _rekeyed(self, pair: Pair, link: Link, child: Child, event: ChildSaUp) -> None:
        """A link's child has a successor. As responder we go on sending with the old one until the peer deletes it."""
        if event.redundant or link.child is None:
            link.replaced.append(child)
            return
        link.replaced.append(link.child)
        link.child = child
        if link is pair.current:
            at_once = event.initiator or not pair.sends()
            link.outbound_at = self._now + (0.0 if at_once else self._times.outbound_wait)
            pair.rekey_at = self._now + pair.spec.rekey_seconds * self._rekey_share(link)

    def _prefer(self, pair: Pair, link: Link) -> None:
        """A link has its child: is it the current one now?"""
        current = pair.current
        if current is not None and current.child is not None:
            verdict = judge(
                link,
                current,
                own_is_lower=pair.spec.own_is_lower,
                now=self._now,
                crossing_seconds=self._times.crossing,
            )
            crossed = verdict is not Verdict.REPLACES
            if verdict is Verdict.YIELDS:
                link.lost_at, link.concurrent = self._now, crossed
                return
            current.lost_at, current.concurrent = self._now, crossed
        pair.current = link
        if link.ours or link.initial_contact or not pair.sends():
            link.outbound_at = self._now
        else:
            link.outbound_at = self._now + self._times.outbound_wait
        pair.initiate_at = None
        pair.rekey_at = self._now + pair.spec.rekey_seconds * self._rekey_share(link)

    def _rekey_share(self, link: Link) -> float:
        """The link's initiator replaces it first; the other end only if that doesn't happen."""
        return self._chance.uniform(0.80, 0.88) if link.ours else self._chance.uniform(0.92, 0.98)

    def _child_sa_down(self, event: ChildSaDown) -> None:
        pair = self._pair_of_link(event.ike_sa)
        link = pair.links.get(event.ike_sa) if pair is not None else None
        if pair is None or link is None:
            return
        child = link.take(event.spi_in)
        if child is None and (link.child is None or link.child.spi_in != event.spi_in):
            return
        if child is not None:
            if link is pair.current and child.outbound:
                self._install_outbound(pair, link)
        elif link.replaced:
            # Its rekey came to nothing: the one before stays.
            child, link.child = link.child, link.replaced.pop(0)
            if link is pair.current:
                self._install_outbound(pair, link)
        else:
            child, link.child = link.child, None
            self._replace_lost(pair, link)
            # A link without its child is of no use to this version.
            link.lost_at = self._now
        if child is not None:
            self._retire(pair, child)
        self._service(pair)

    def _retire(self, pair: Pair, child: Child) -> None:
        until = self._now + self._times.linger
        self._attempt_kernel(pair, lambda: self._keeper.retire(child, until=until))

    def _child_sa_failed(self, event: ChildSaFailed) -> None:
        pair = self._pair_of_link(event.ike_sa)
        if pair is None:
            return
        self._fail(pair, _reason_of(event.reason), f"no CHILD SA: {event.reason}")
        link = pair.links.get(event.ike_sa)
        if link is not None and event.rekeyed_spi_in is None:
            self._delete(link, "no CHILD SA")
        self._retry(pair)

    def _ike_sa_down(self, event: IkeSaDown) -> None:
        self._attempts.discard(event.ike_sa)
        uid = self._links.pop(event.ike_sa, None)
        pair = self._pairs.get(uid) if uid is not None else None
        link = pair.links.pop(event.ike_sa, None) if pair is not None else None
        if pair is None or link is None:
            return
        children = link.children()
        link.child = None
        link.replaced.clear()
        if link.up_at is None:
            if pair.current is None and (pair.failure is None or pair.failure.message != event.message):
                self._fail(pair, _reason_of(event.message), event.message)
            self._retry(pair)
            return
        unreachable = event.reason is DownReason.UNREACHABLE
        if unreachable and link is pair.current:
            # It answers no more, but its SAs may well work: they stay until they are replaced.
            pair.orphans += children
            children.clear()
        if link is pair.current and unreachable:
            self._fail(pair, UnwellReason.UNREACHABLE, event.message)
        self._replace_lost(pair, link)
        for child in children:
            self._retire(pair, child)
        self._service(pair)

    def _replace_lost(self, pair: Pair, link: Link) -> None:
        """The link is no more: another one with a child takes its place, or a new attempt is planned."""
        if link is not pair.current:
            return
        others = [other for other in pair.links.values() if other.child is not None and not other.deleting]
        pair.current = max(others, key=lambda other: other.started_at, default=None)
        if pair.current is not None:
            pair.current.lost_at, pair.current.concurrent = None, False
            pair.current.outbound_at = self._now
            self._install_outbound(pair, pair.current)
            pair.rekey_at = self._now + pair.spec.rekey_seconds * self._rekey_share(pair.current)
            return
        pair.rekey_at = None
        if pair.attempt is None:
            first = pair.spec.initiates
            pair.initiate_at = self._now + (0.0 if first else self._chance.uniform(*self._times.fresh_wait))

    # What is due.

    def _service(self, pair: Pair) -> None:
        """Does all that is due for a pair, and plans when to look again."""
        was_well = pair.unwell_since is None
        self._settle(pair)
        now = self._now
        if pair.rekey_at is not None and pair.rekey_at <= now and pair.current is not None:
            pair.rekey_at = None
            pair.initiate_at = now
        if pair.initiate_at is not None and pair.initiate_at <= now and self._endpoint is not None:
            self._initiate(pair)
        if pair.well:
            pair.unwell_since = None
        elif pair.unwell_since is None:
            pair.unwell_since = now
        if was_well != (pair.unwell_since is None):
            self.on_change()
        self._plan_wake(pair)

    def _settle(self, pair: Pair) -> None:
        current = pair.current
        if current is None or current.child is None:
            self._drop_useless(pair)
            return
        now = self._now
        if not current.child.outbound and current.outbound_at is not None:
            due = current.outbound_at <= now or not pair.sends()
            if due or self._in_use(pair, current.child):
                self._install_outbound(pair, current)
        if current.child.outbound:
            current.outbound_at = None
            until = now + self._times.linger_orphan
            for child in pair.orphans:
                self._attempt_kernel(pair, lambda child=child: self._keeper.retire(child, until=until))
            pair.orphans.clear()
            for link in list(pair.links.values()):
                if link is not current and link.lost_at is not None and not link.deleting:
                    self._resolve_loser(pair, link, current)
        self._drop_useless(pair)

    def _resolve_loser(self, pair: Pair, link: Link, current: Link) -> None:
        """Another link is preferred: its initiator, or the replacement's, deletes it; in the end we do."""
        overdue = link.lost_at is not None and self._now >= link.lost_at + self._times.grace
        if (link.ours and link.concurrent) or (current.ours and not link.concurrent) or link.child is None:
            if link.child is not None or overdue:
                self._delete(link, "replaced")
        elif overdue and link.concurrent:
            # Its initiator keeps it: it does not know ours, which is then with that node's former self.
            link.lost_at, link.concurrent = None, False
            current.lost_at, current.concurrent = self._now, False
            link.outbound_at = self._now
            pair.current = link
            self._install_outbound(pair, link)
        elif overdue:
            self._delete(link, "replaced")

    def _drop_useless(self, pair: Pair) -> None:
        """Deletes links that have been without a child for the grace time."""
        for link in list(pair.links.values()):
            if (
                link.up_at is not None
                and link.child is None
                and not link.deleting
                and link.lost_at is not None
                and self._now >= link.lost_at + self._times.grace
            ):
                self._delete(link, "without a CHILD SA")

    def _install_outbound(self, pair: Pair, link: Link) -> None:
        child = link.child
        if child is None or child.outbound:
            return
        esn = child.keys_out is not None and child.keys_out.esn
        try:
            self._keeper.install_outbound(child, lifetime=pair.spec.lifetime(esn=esn, chance=self._chance))
        except XfrmError as error:
            link.outbound_at = None
            self._fail(pair, UnwellReason.KERNEL_REFUSED, str(error))
            self._delete(link, "the kernel refused the SA")
            self._retry(pair)
            return
        pair.failures, pair.failure, pair.fresh = 0, None, False
        _log.info(
            "%s: encrypted, %s, IKE SA %s by %s",
            pair.name,
            child.proposal,
            link.proposal,
            "us" if link.ours else "the peer",
        )

    def _in_use(self, pair: Pair, child: Child) -> bool:
        try:
            return self._keeper.in_use(child)
        except XfrmError as error:
            _log.warning("%s: %s", pair.name, error)
            return False

    def _initiate(self, pair: Pair) -> None:
        endpoint = self._endpoint
        if endpoint is None or pair.attempt is not None:
            pair.initiate_at = None
            return
        if len(self._attempts) >= self._max_attempts:
            pair.initiate_at = self._now + self._chance.uniform(0.1, 0.5)
            return
        pair.initiate_at = None
        initial_contact = pair.fresh and not pair.links and not pair.orphans
        config = replace(pair.spec.config, initial_contact=initial_contact)
        ike_sa = endpoint.initiate(config, now=self._now)
        pair.links[ike_sa] = Link(
            ike_sa=ike_sa, ours=True, started_at=self._now, config=config, initial_contact=initial_contact
        )
        self._links[ike_sa] = pair.spec.key.peer
        self._attempts.add(ike_sa)

    def _retry(self, pair: Pair) -> None:
        """Plans another attempt, ever later, and never at the same moment as others."""
        pair.failures += 1
        longest = min(self._times.retry_first * 2 ** min(pair.failures - 1, 10), self._times.retry_longest)
        at = self._now + longest * self._chance.uniform(0.5, 1.0)
        if pair.current is None:
            pair.initiate_at = at
        else:
            pair.rekey_at = at
        self._service(pair)

    def _plan_wake(self, pair: Pair) -> None:
        if self._endpoint is None:
            return
        times = [pair.initiate_at, pair.rekey_at]
        current = pair.current
        if current is not None and current.outbound_at is not None:
            times.append(min(current.outbound_at, self._now + self._times.in_use_poll))
        times.extend(
            link.lost_at + self._times.grace
            for link in pair.links.values()
            if link.lost_at is not None and not link.deleting
        )
        due = min((time for time in times if time is not None), default=None)
        if due is not None:
            # Never at this very moment again: whatever is overdue waits for an event.
            heapq.heappush(self._wakes, (max(due, self._now + _BREATH_SECONDS), pair.spec.key.peer))

    # Small deeds.

    def _delete(self, link: Link, reason: str) -> None:
        if link.deleting or self._endpoint is None:
            return
        link.deleting = True
        try:
            self._endpoint.delete(link.ike_sa, now=self._now, reason=reason)
        except UnknownIkeSa:
            self._links.pop(link.ike_sa, None)

    def _delete_unknown(self, ike_sa: IkeSaId) -> None:
        if self._endpoint is not None:
            try:
                self._endpoint.delete(ike_sa, now=self._now, reason="no longer a peer")
            except UnknownIkeSa:
                return

    def _fail(self, pair: Pair, reason: UnwellReason, message: str) -> None:
        failure = Failure(reason=reason, message=message)
        if failure != pair.failure:
            _log.warning("%s: %s: %s", pair.name, reason, message)
        pair.failure = failure

    def _attempt_kernel(self, pair: Pair, deed: Callable[[], None]) -> None:
        try:
            deed()
        except XfrmError as error:
            _log.warning("%s: %s", pair.name, error)

    def _pair_of(self, peer: PeerConfig) -> Pair | None:
        uid = self._uids.get(peer.identity)
        return self._pairs.get(uid) if uid is not None else None

    def _pair_of_link(self, ike_sa: IkeSaId) -> Pair | None:
        uid = self._links.get(ike_sa)
        return self._pairs.get(uid) if uid is not None else None


def _orphan(state: StateDump, spec: PairSpec, now: float) -> Child:
    """One direction of a CHILD SA of an earlier run."""
    outbound = state.destination in spec.peer.place.addresses
    return Child(
        reqid=state.reqid,
        local=state.source if outbound else state.destination,
        remote=state.destination if outbound else state.source,
        spi_in=None if outbound else state.spi,
        spi_out=state.spi if outbound else None,
        since=now,
        outbound=outbound,
    )


def _reason_of(text: str) -> UnwellReason:
    """What kind of failure the endpoint's words are about: they hold the name of the peer's Notify, if it sent one."""
    if "NO_PROPOSAL_CHOSEN" in text or "TS_UNACCEPTABLE" in text:
        return UnwellReason.NO_PROPOSAL_CHOSEN
    if any(word in text for word in ("AUTHENTICATION_FAILED", "certificate", "signature", "identity")):
        return UnwellReason.AUTHENTICATION_FAILED
    return UnwellReason.UNREACHABLE
