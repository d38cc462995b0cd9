"""The sessions: with every peer exactly one IKE SA and one used SA per direction, come what may.

Sans-IO, like the endpoint that it owns: bytes, time and chance come in, datagrams go out, states go to the kernel
through the keeper. hauberk_agent.transport drives it. What is wanted and what the endpoint reports is acted on here;
what is due for a pair is hauberk_agent.caretaker's, who is let in hauberk_agent.admission's, and what becomes of SAs
whose root is trusted no longer hauberk_agent.root_trust's.

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

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from math import inf
from random import Random
from typing import assert_never

from hauberk_agent.admission import Admission
from hauberk_agent.caretaker import Caretaker
from hauberk_agent.found_states import FoundStates
from hauberk_agent.keeper import Kernel, StateKeeper
from hauberk_agent.link import Child, Link, Verdict, judge
from hauberk_agent.pair import Pair, PairSpec
from hauberk_agent.pair_table import PairTable
from hauberk_agent.root_trust import RootTrust
from hauberk_agent.times import Times
from hauberk_api.names import NodeUid
from hauberk_api.report import UnwellReason
from hauberk_ike import (
    ChildSaDown,
    ChildSaFailed,
    ChildSaUp,
    Credentials,
    Datagram,
    DownReason,
    Encapsulation,
    EndpointSettings,
    Event,
    IkeEndpoint,
    IkeProposal,
    IkeSaDown,
    IkeSaId,
    IkeSaMoved,
    IkeSaRekeyed,
    IkeSaUp,
    IpAddress,
    PeerRefused,
    ReauthenticationNeeded,
    RefusalsWithheld,
    SocketAddress,
    UnknownIkeSa,
)
from hauberk_xfrm import MappingChange, Spi, StateDump, XfrmError

_log = logging.getLogger("hauberk.sessions")
_DEFAULT_TIMES = Times()


class Sessions:
    """All pairs of one node."""

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
        self._endpoint: IkeEndpoint | None = None
        self._pairs = PairTable()
        self._acceptable: tuple[IkeProposal, ...] = ()
        """What any peer may propose: who a stranger is shows only after IKE_SA_INIT."""
        self._found = FoundStates()
        self._wanted_once = False
        self._now = 0.0
        self.on_change: Callable[[], None] = lambda: None
        """Called when a pair became well or unwell."""
        self._caretaker = Caretaker(
            pairs=self._pairs,
            keeper=self._keeper,
            times=times,
            chance=chance,
            max_attempts=max_attempts,
            changed=lambda: self.on_change(),
        )
        self._root_trust = RootTrust(
            pairs=self._pairs, caretaker=self._caretaker, times=times, chance=chance, lost=self._replace_lost
        )
        self.admission = Admission(pairs=self._pairs, keeper=self._keeper, caretaker=self._caretaker)

    # What is wanted, and by whom.

    @property
    def pairs(self) -> Collection[Pair]:
        return self._pairs.values()

    def adopt(self, states: Iterable[StateDump]) -> None:
        """Takes over the states of an earlier run: a dump, made at start, before anything is wanted."""
        self._found.add(self._keeper.unaccounted(states))

    def set_credentials(
        self, credentials: Credentials, now: float, *, renewed: bool, left_seconds: float = inf
    ) -> None:
        """Begins to speak IKE, or goes on with these credentials.

        renewed: the certificate is a new one, with which every pair is to be authenticated anew, by and by, and before
        the old one ends: in left_seconds.
        """
        self._now = now
        if self._endpoint is None:
            self._endpoint = IkeEndpoint(
                credentials=credentials,
                policy=self.admission,
                entropy=self._entropy,
                wall_clock=self._wall_clock,
                settings=self._settings,
            )
            self._caretaker.endpoint = self._endpoint
            self._accept(self._acceptable)
            for pair in self._pairs.values():
                self._service(pair)
        else:
            self._endpoint.replace_credentials(credentials)
        self._root_trust.follow(credentials, now, renewed=renewed, left_seconds=left_seconds)

    def set_wanted(self, specs: Mapping[NodeUid, PairSpec], now: float) -> None:
        """Makes the pairs those wanted. A pair that is no longer wanted ends at once: DELETE, then its states."""
        self._now = now
        acceptable = dict.fromkeys(proposal for spec in specs.values() for proposal in spec.config.ike_proposals)
        self._accept(tuple(acceptable))
        for uid in [uid for uid in self._pairs if uid not in specs]:
            self._end(self._pairs.remove(uid))
        for uid, spec in specs.items():
            pair = self._pairs.get(uid)
            if pair is None:
                self._begin(uid, spec)
            elif pair.spec != spec:
                self._change(pair, spec)
        self._pairs.note_hosts()
        self._wanted_once = True

    def _accept(self, ike_proposals: tuple[IkeProposal, ...]) -> None:
        """Where no peer is wanted, strangers are heard by the settings' proposals, and refused by name."""
        self._acceptable = ike_proposals
        if self._endpoint is not None and ike_proposals:
            self._endpoint.accept(ike_proposals)

    def forget_found(self) -> list[StateDump]:
        """The states of an earlier run that no pair has claimed by now, given up."""
        return self._found.give_up()

    def unaccounted(self, states: Iterable[StateDump]) -> list[StateDump]:
        """Of a dump, the states of ours that no pair accounts for, and that may go."""
        return self._found.without(self._keeper.unaccounted(states))

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

    def follow(self, change: MappingChange, now: float) -> None:
        """An authentic ESP packet of a peer has come from elsewhere: the NAT before it has given it another port.

        That is believed like an authentic IKE message (RFC 7296 section 2.23; `IkeEndpoint.follow` has the rules), but
        only of a pair that may meet a NAT, and ever so often: a peer whose port changes with every packet is left alone
        for a while, and the kernel says it again.
        """
        self._now = now
        found = self._pairs.of_inbound(change.destination, change.spi)
        if found is None or self._endpoint is None:
            return
        pair, link = found
        may_meet_nat = pair.spec.config.encapsulation is not Encapsulation.NEVER
        if may_meet_nat and now >= link.followed_at + self._times.follow_pause:
            link.followed_at = now
            with suppress(UnknownIkeSa):  # it is ending
                remote = SocketAddress(host=change.new_source, port=change.new_port)
                self._endpoint.follow(link.ike_sa, remote=remote, now=now)
            self._drain()

    def in_use(self, pair: Pair, child: Child) -> bool:
        """Whether a packet has come in on a child: its peer holds it."""
        return self._caretaker.in_use(pair, child)

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
        self._root_trust.handle_timer(now)
        if self._endpoint is not None:
            self._endpoint.handle_timer(now)
            self._drain()
        self._caretaker.handle_timer(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        self._now = now
        if self._endpoint is None:
            return []
        self._drain()
        return self._endpoint.datagrams_to_send(now)

    def get_timer(self) -> float | None:
        times = [self._keeper.next_due(), self._caretaker.next_due(), self._root_trust.next_due()]
        if self._endpoint is not None:
            times.append(self._endpoint.get_timer())
        return min((time for time in times if time is not None), default=None)

    # Pairs come and go.

    def _begin(self, uid: NodeUid, spec: PairSpec) -> None:
        orphans = self._found.claim(spec, self._now)
        for child in orphans:
            self._keeper.adopt(child)
        pair = Pair(spec=spec, wanted_since=self._now, fresh=not orphans, orphans=orphans)
        self._pairs.add(uid, pair)
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
        for link in list(pair.links.values()):
            self._caretaker.delete(link, "no longer a peer", self._now)
        self._caretaker.remove(pair, pair.children())
        self._caretaker.attempt(pair, lambda: self._keeper.remove_lingering(pair.spec.reqid))

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
        self._caretaker.attempt_ended(event.ike_sa)
        pair = self._pairs.of(event.peer)
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
            self._pairs.bind(event.ike_sa, pair)
        link.up_at = self._now
        link.proposal = event.proposal
        link.root = event.certificate_root
        # Until it has its child it is of no use; then this is taken back.
        link.lost_at = self._now
        self._service(pair)

    def _ike_sa_moved(self, event: IkeSaMoved) -> None:
        """The peer is somewhere else: behind another port its states follow it, else they are replaced."""
        pair = self._pairs.of_link(event.ike_sa)
        link = pair.links.get(event.ike_sa) if pair is not None else None
        if pair is None or link is None or link.child is None:
            return
        try:
            # All are tried, as those that rekeys have left over may still send.
            moved = [self._follows(child, event) for child in link.children()]
            follows = all(moved)
        except XfrmError as error:
            _log.warning("%s: %s", pair.name, error)
            follows = False
        _log.info("%s: is at %s now%s", pair.name, event.remote, "" if follows else ", replacing its SAs")
        if not follows and link is pair.current:
            pair.rekey_at = self._now
            self._service(pair)

    def _follows(self, child: Child, event: IkeSaMoved) -> bool:
        """Whether a child's states could be given the new ports. Raises XfrmError."""
        return (
            (event.local.host, event.remote.host) == (child.local, child.remote)
            and child.encapsulation is not None
            and event.encapsulation is not None
            and self._keeper.move(child, event.encapsulation)
        )

    def _ike_sa_rekeyed(self, event: IkeSaRekeyed) -> None:
        """The link goes on under another handle. Who initiated it first still counts: both ends remember that alike."""
        pair = self._pairs.unbind(event.old)
        link = pair.links.pop(event.old, None) if pair is not None else None
        if pair is None or link is None:
            self._delete_unknown(event.new)
            return
        link.ike_sa, link.proposal = event.new, event.proposal
        pair.links[event.new] = link
        self._pairs.bind(event.new, pair)

    def _reauthentication_needed(self, event: ReauthenticationNeeded) -> None:
        """The peer can't rekey: another IKE SA takes this one's place."""
        pair = self._pairs.of_link(event.ike_sa)
        if pair is not None and pair.current is not None and pair.current.ike_sa == event.ike_sa:
            pair.rekey_at = self._now
            self._service(pair)

    def _child_sa_up(self, event: ChildSaUp) -> None:
        pair = self._pairs.of_link(event.ike_sa)
        link = pair.links.get(event.ike_sa) if pair is not None else None
        if pair is None or link is None or link.deleting:
            self.admission.release_spi(event.spi_in, event.peer)
            return
        rekeyed = any(child.spi_in == event.rekeyed_spi_in for child in link.children())
        if link.child is not None and not rekeyed:
            # One child a link: a second one is the peer's idea alone.
            self.admission.release_spi(event.spi_in, event.peer)
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
            self._caretaker.fail(pair, UnwellReason.KERNEL_REFUSED, str(error))
            self._caretaker.delete(link, "the kernel refused the SA", self._now)
            self._caretaker.retry(pair, self._now)
            return
        child.root = link.root
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
        pair = self._pairs.of_link(event.ike_sa)
        link = pair.links.get(event.ike_sa) if pair is not None else None
        if pair is None or link is None:
            return
        child = link.take(event.spi_in)
        if child is None and (link.child is None or link.child.spi_in != event.spi_in):
            return
        if child is not None:
            if link is pair.current and child.outbound:
                self._caretaker.install_outbound(pair, link, self._now)
        elif link.replaced:
            # Its rekey came to nothing: the one before stays.
            child, link.child = link.child, link.replaced.pop(0)
            if link is pair.current:
                self._caretaker.install_outbound(pair, link, self._now)
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
        self._caretaker.attempt(pair, lambda: self._keeper.retire(child, until=until))

    def _child_sa_failed(self, event: ChildSaFailed) -> None:
        pair = self._pairs.of_link(event.ike_sa)
        if pair is None:
            return
        self._caretaker.fail(pair, _reason_of(event.reason), f"no CHILD SA: {event.reason}")
        link = pair.links.get(event.ike_sa)
        if link is not None and event.rekeyed_spi_in is None:
            self._caretaker.delete(link, "no CHILD SA", self._now)
        self._caretaker.retry(pair, self._now)

    def _ike_sa_down(self, event: IkeSaDown) -> None:
        self._caretaker.attempt_ended(event.ike_sa)
        pair = self._pairs.unbind(event.ike_sa)
        link = pair.links.pop(event.ike_sa, None) if pair is not None else None
        if pair is None or link is None:
            return
        children = link.children()
        link.child = None
        link.replaced.clear()
        if link.up_at is None:
            if pair.current is None and (pair.failure is None or pair.failure.message != event.message):
                self._caretaker.fail(pair, _reason_of(event.message), event.message)
            self._caretaker.retry(pair, self._now)
            return
        unreachable = event.reason is DownReason.UNREACHABLE
        if unreachable and link is pair.current:
            # It answers no more, but its SAs may well work: they stay until they are replaced.
            pair.orphans += children
            children.clear()
        if link is pair.current and unreachable:
            self._caretaker.fail(pair, UnwellReason.UNREACHABLE, event.message)
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
            self._caretaker.install_outbound(pair, pair.current, self._now)
            pair.rekey_at = self._now + pair.spec.rekey_seconds * self._rekey_share(pair.current)
            return
        pair.rekey_at = None
        if pair.attempt is None:
            first = pair.spec.initiates
            pair.initiate_at = self._now + (0.0 if first else self._chance.uniform(*self._times.fresh_wait))

    def _delete_unknown(self, ike_sa: IkeSaId) -> None:
        if self._endpoint is not None:
            try:
                self._endpoint.delete(ike_sa, now=self._now, reason="no longer a peer")
            except UnknownIkeSa:
                return

    def _service(self, pair: Pair) -> None:
        """Something about the pair has changed."""
        self._caretaker.service(pair, self._now)


def _reason_of(text: str) -> UnwellReason:
    """What kind of failure the endpoint's words are about: they hold the name of the peer's Notify, if it sent one."""
    if "NO_PROPOSAL_CHOSEN" in text or "TS_UNACCEPTABLE" in text:
        return UnwellReason.NO_PROPOSAL_CHOSEN
    if any(word in text for word in ("AUTHENTICATION_FAILED", "certificate", "signature", "identity")):
        return UnwellReason.AUTHENTICATION_FAILED
    return UnwellReason.UNREACHABLE
