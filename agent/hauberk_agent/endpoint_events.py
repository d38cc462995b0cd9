"""What the endpoint reports, acted on: IKE SAs and CHILD SAs that come up, move, are replaced, fail and end.

Used by the sessions, whose module says which of two IKE SAs stays, and when. Of two CHILD SAs of one label that both
ends have asked for at once, on one IKE SA, the lower identity's stays; the other one's initiator deletes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Final, assert_never

from hauberk_agent.admission import Admission
from hauberk_agent.caretaker import Caretaker
from hauberk_agent.esp_paths import EspPaths
from hauberk_agent.esp_trial import TRIAL_LABEL
from hauberk_agent.keeper import StateKeeper
from hauberk_agent.link import Child, Link, Verdict, judge
from hauberk_agent.pair import Pair
from hauberk_agent.pair_table import PairTable
from hauberk_agent.path_search import PathSearches
from hauberk_agent.times import Times
from hauberk_api.report import UnwellReason
from hauberk_ike import (
    ChildSaDown,
    ChildSaFailed,
    ChildSaUp,
    DownReason,
    EspArrived,
    Event,
    IkeSaDown,
    IkeSaId,
    IkeSaMoved,
    IkeSaRekeyed,
    IkeSaUp,
    PathProbed,
    PeerRefused,
    ReauthenticationNeeded,
    RefusalsWithheld,
    UnknownIkeSa,
)
from hauberk_xfrm import XfrmError

_log = logging.getLogger("hauberk.sessions")
_AT_ONCE: Final = (0.0, 0.0)


class EndpointEvents:
    """Acts on one event after the other."""

    def __init__(
        self,
        *,
        pairs: PairTable,
        keeper: StateKeeper,
        caretaker: Caretaker,
        admission: Admission,
        esp_paths: EspPaths,
        path_searches: PathSearches,
        times: Times,
        chance: Random,
        wall_clock: Callable[[], datetime],
    ) -> None:
        self._pairs = pairs
        self._keeper = keeper
        self._caretaker = caretaker
        self._admission = admission
        self._esp_paths = esp_paths
        self._path_searches = path_searches
        self._times = times
        self._chance = chance
        self._wall_clock = wall_clock
        self.rekeyed_children = self.rekeyed_ike_sas = 0
        """How many have been rekeyed by CREATE_CHILD_SA because this end asked for it."""

    def act(self, event: Event, now: float) -> None:
        match event:
            case IkeSaUp():
                self._ike_sa_up(event, now)
            case IkeSaMoved():
                self._ike_sa_moved(event, now)
            case IkeSaRekeyed():
                self._ike_sa_rekeyed(event, now)
            case ReauthenticationNeeded():
                self._reauthentication_needed(event, now)
            case ChildSaUp():
                self._child_sa_up(event, now)
            case ChildSaDown():
                self._child_sa_down(event, now)
            case ChildSaFailed():
                self._child_sa_failed(event, now)
            case EspArrived():
                self._esp_paths.answered(event, now)
            case PathProbed():
                pair = self._pairs.of(event.peer)
                if pair is not None:
                    self._path_searches.answered(pair.spec.uid, event.packet_bytes, event.passes, now)
            case IkeSaDown():
                self._ike_sa_down(event, now)
            case PeerRefused():
                _log.warning("refused %s (%s): %s: %s", event.remote, event.identity, event.reason, event.message)
            case RefusalsWithheld():
                _log.warning("refused %d more within %.0f s: %s", event.count, event.seconds, event.summary)
            case _:
                assert_never(event)

    # IKE SAs

    def _ike_sa_up(self, event: IkeSaUp, now: float) -> None:
        self._caretaker.attempt_ended(event.ike_sa)
        pair = self._pairs.of(event.peer)
        if pair is None:
            self._delete_unknown(event.ike_sa, now)
            return
        link = pair.links.get(event.ike_sa)
        if link is None:
            link = Link(
                ike_sa=event.ike_sa,
                ours=False,
                started_at=now,
                config=event.peer,
                initial_contact=event.initial_contact,
                wishes=pair.wishes,
            )
            pair.links[event.ike_sa] = link
            self._pairs.bind(event.ike_sa, pair)
        link.up_at = now
        link.proposal = event.proposal
        link.root = event.certificate_root
        if event.certificate_not_after is not None:
            left = event.certificate_not_after - self._wall_clock()
            link.certificate_ends_at = now + max(0.0, left / timedelta(seconds=1))
        self._esp_paths.told(pair, event.esp_path, now)
        # Until it has a child it is of no use; then this is taken back.
        link.lost_at = now
        self._caretaker.service(pair, now)

    def _ike_sa_moved(self, event: IkeSaMoved, now: float) -> None:
        """The peer is somewhere else: behind another port its states follow it, else they are replaced."""
        pair = self._pairs.of_link(event.ike_sa)
        link = pair.links.get(event.ike_sa) if pair is not None else None
        if pair is None or link is None or not link.children:
            return
        try:
            # All are tried, as those that rekeys have left over may still send.
            moved = [self._follows(child, event) for child in link.every_child()]
            follows = all(moved)
        except XfrmError as error:
            _log.warning("%s: %s", pair.name, error)
            follows = False
        _log.info("%s: is at %s now%s", pair.name, event.remote, "" if follows else ", replacing its SAs")
        if not follows and link is pair.current:
            pair.replace_at = now
            self._caretaker.service(pair, now)

    def _follows(self, child: Child, event: IkeSaMoved) -> bool:
        """Whether a child's states could be given the new ports. Raises XfrmError."""
        return (
            (event.local.host, event.remote.host) == (child.local, child.remote)
            and child.encapsulation is not None
            and event.encapsulation is not None
            and self._keeper.move(child, event.encapsulation)
        )

    def _ike_sa_rekeyed(self, event: IkeSaRekeyed, now: float) -> None:
        """The link goes on under another handle. Who initiated it first still counts: both ends remember that alike."""
        pair = self._pairs.unbind(event.old)
        link = pair.links.pop(event.old, None) if pair is not None else None
        if pair is None or link is None:
            self._delete_unknown(event.new, now)
            return
        self.rekeyed_ike_sas += event.initiator
        link.ike_sa, link.proposal = event.new, event.proposal
        pair.links[event.new] = link
        self._pairs.bind(event.new, pair)
        if link.deleting:
            link.deleting = False
            self._caretaker.delete(link, "replaced", now)

    def _reauthentication_needed(self, event: ReauthenticationNeeded, now: float) -> None:
        """The peer can't rekey: another IKE SA takes this one's place."""
        pair = self._pairs.of_link(event.ike_sa)
        if pair is not None and pair.current is not None and pair.current.ike_sa == event.ike_sa:
            pair.replace_at = now
            self._caretaker.service(pair, now)

    def _ike_sa_down(self, event: IkeSaDown, now: float) -> None:
        self._caretaker.attempt_ended(event.ike_sa)
        pair = self._pairs.unbind(event.ike_sa)
        link = pair.links.pop(event.ike_sa, None) if pair is not None else None
        if pair is None or link is None:
            return
        self._esp_paths.trials.end(pair)
        children = link.forget_children()
        if link.up_at is None:
            if pair.current is None and (pair.failure is None or pair.failure.message != event.message):
                self._caretaker.fail(pair, _reason_of(event.message), event.message)
            self._caretaker.retry(pair, now)
            return
        unreachable = event.reason is DownReason.UNREACHABLE
        if unreachable:
            # It answers no more, but its SAs may well work: they stay until they are replaced.
            pair.orphans += children
            children.clear()
        if link is pair.current and unreachable:
            self._caretaker.fail(pair, UnwellReason.UNREACHABLE, event.message)
        self.replace_lost(pair, link, now, answered=not unreachable)
        # First what sends from now on: between two requests to the kernel we may be held up for long.
        self._caretaker.service(pair, now)
        for child in children:
            self._retire(pair, child, now)

    def replace_lost(self, pair: Pair, link: Link, now: float, *, answered: bool = True) -> None:
        """The link is no more: another one with children takes its place, or a new attempt is planned.

        answered: the peer knows. If not, what it may not have yet is not sent on.
        """
        if link is not pair.current:
            return
        others = [other for other in pair.links.values() if other.children and not other.deleting]
        pair.current = max(others, key=lambda other: other.started_at, default=None)
        if pair.current is not None:
            pair.current.lost_at, pair.current.concurrent = None, False
            if answered:
                self._caretaker.install_all_outbound(pair, pair.current, now)
            for child in pair.current.children.values():
                if not child.outbound:
                    self._hold_back(pair, pair.current, child, now)
            self._caretaker.plan_missing(pair, now, self._times.create_wait)
            self._plan_replacement(pair, pair.current, now)
            if not answered:
                # The peer may still send by what is lost, and only something younger than that can take its place.
                pair.replace_at = now + self._chance.uniform(*self._times.fresh_wait)
            return
        pair.replace_at = None
        if pair.attempt is None and pair.is_wanted(now):
            first = pair.spec.initiates
            pair.initiate_at = now + (0.0 if first else self._chance.uniform(*self._times.fresh_wait))

    def _delete_unknown(self, ike_sa: IkeSaId, now: float) -> None:
        if self._caretaker.endpoint is not None:
            try:
                self._caretaker.endpoint.delete(ike_sa, now=now, reason="no longer a peer")
            except UnknownIkeSa:
                return

    # CHILD SAs

    def _child_sa_up(self, event: ChildSaUp, now: float) -> None:
        pair = self._pairs.of_link(event.ike_sa)
        link = pair.links.get(event.ike_sa) if pair is not None else None
        if pair is None or link is None or link.deleting:
            self._admission.release_spi(event.spi_in, event.peer)
            return
        if event.label == TRIAL_LABEL:
            self._trial_up(pair, link, event, now)
            return
        standing = pair.standings.get(event.label)
        before = link.children.get(event.label)
        if event.initiator and event.rekeyed_spi_in is None:
            link.asked.discard(event.label)
        rekeyed = any(child.spi_in == event.rekeyed_spi_in for child in link.every_child())
        repeated = before is not None and not rekeyed and before.ours == event.initiator
        if standing is None or repeated:
            # Nobody wants it any more, or a second one is the peer's idea alone.
            self._admission.release_spi(event.spi_in, event.peer)
            self._caretaker.delete_child(link.ike_sa, event.spi_in, now)
            return
        try:
            child = self._keeper.install_inbound(
                event,
                local=event.peer.local.host,
                remote=event.peer.remote.host,
                reqid=standing.spec.reqid,
                if_id=standing.spec.if_id,
                hard_seconds=standing.spec.hard_seconds,
                now=now,
            )
        except XfrmError as error:
            self._caretaker.fail(pair, UnwellReason.KERNEL_REFUSED, str(error))
            self._caretaker.delete(link, "the kernel refused the SA", now)
            self._caretaker.retry(pair, now)
            return
        child.root = link.root
        if before is None:
            link.children[event.label] = child
            self._first_of_label(pair, link, child, now)
        elif rekeyed:
            self._rekeyed(pair, link, before, child, event, now)
        else:
            self._crossed(pair, link, before, child, now)
        self._caretaker.service(pair, now)

    def _trial_up(self, pair: Pair, link: Link, event: ChildSaUp, now: float) -> None:
        try:
            self._esp_paths.trials.up(pair, event, now)
        except XfrmError as error:
            _log.warning("%s: %s", pair.name, error)
            self._esp_paths.trials.end(pair)
            self._admission.release_spi(event.spi_in, event.peer)
            self._caretaker.delete_child(link.ike_sa, event.spi_in, now)

    def _first_of_label(self, pair: Pair, link: Link, child: Child, now: float) -> None:
        link.lost_at = None if len(link.children) == 1 else link.lost_at
        if link is pair.current:
            self._hold_back(pair, link, child, now)
        elif len(link.children) == 1:
            self._prefer(pair, link, now)

    def _rekeyed(self, pair: Pair, link: Link, before: Child, child: Child, event: ChildSaUp, now: float) -> None:
        """A child has a successor. As responder we go on sending with the old one until the peer deletes it."""
        if event.redundant:
            link.replaced.append(child)
            return
        self.rekeyed_children += event.initiator
        link.replaced.append(before)
        link.children[event.label] = child
        before.replaces = None
        if not event.initiator:
            child.replaces = before
        if link is pair.current or before.outbound:
            self._caretaker.go_on_sending(pair, link, event.label, now)

    def _crossed(self, pair: Pair, link: Link, before: Child, child: Child, now: float) -> None:
        """Both ends have asked for a child of one label."""
        stays, goes = (child, before) if child.ours == pair.spec.own_is_lower else (before, child)
        link.children[child.label] = stays
        link.replaced.append(goes)
        if stays is child and link is pair.current:
            self._hold_back(pair, link, child, now)
        goes.yields = goes.ours
        if goes.outbound and not stays.outbound:
            return  # the peer may not have our answer yet
        self._caretaker.delete_yielding(link, stays.label, now)

    def _prefer(self, pair: Pair, link: Link, now: float) -> None:
        """A link has its first child: is it the current one now?"""
        current = pair.current
        for other in pair.links.values():
            # Links that the same end began are a succession: of those that yielded only the last may be called back.
            if other is not link and other.ours == link.ours and other.started_at <= link.started_at:
                other.concurrent = False
        if current is not None and current.children:
            verdict = judge(
                link,
                current,
                own_is_lower=pair.spec.own_is_lower,
                now=now,
                crossing_seconds=self._times.crossing,
            )
            crossed = verdict is not Verdict.REPLACES
            if verdict is Verdict.YIELDS:
                link.lost_at, link.concurrent = now, crossed
                return
            current.lost_at, current.concurrent = now, crossed
            link.has_crossed = crossed and current.initial_contact
        pair.current = link
        for child in link.children.values():
            self._hold_back(pair, link, child, now)
        self._caretaker.plan_missing(pair, now, _AT_ONCE if link.ours else self._times.create_wait)
        pair.initiate_at = None
        self._plan_replacement(pair, link, now)

    def _hold_back(self, pair: Pair, link: Link, child: Child, now: float) -> None:
        """A new child of the current link: as responder we go on sending by what there is, if there is anything.

        Whoever is alive has the answer to IKE_AUTH, or could not say so. It may lack the one to a CREATE_CHILD_SA for
        as long as it asks again.
        """
        child.outbound_at, child.unsure_until = now, None
        if not child.ours and (link.has_crossed or not link.initial_contact or child.replaces is not None):
            came_later = link.up_at is not None and child.since > link.up_at
            child.unsure_until = child.since + (self._times.crossing if came_later else 0.0)
            child.outbound_at = max(now + self._times.outbound_wait, child.unsure_until)

    def _plan_replacement(self, pair: Pair, link: Link, now: float) -> None:
        """A link that is rekeyed again and again is as good as the certificate that it began with, and no longer.

        One that was begun before the pair's wishes changed is replaced like those that were up by then.
        """
        pair.replace_at = link.certificate_ends_at
        if link.wishes != pair.wishes:
            wait = _AT_ONCE if pair.spec.initiates else self._times.fresh_wait
            pair.replace_at = now + self._chance.uniform(*wait)

    def _child_sa_down(self, event: ChildSaDown, now: float) -> None:
        pair = self._pairs.of_link(event.ike_sa)
        link = pair.links.get(event.ike_sa) if pair is not None else None
        if pair is None or link is None:
            return
        if event.label == TRIAL_LABEL:
            self._esp_paths.trials.end(pair)
            return
        child = link.take(event.spi_in)
        if child is not None:
            if child.outbound and not event.unanswered:
                self._caretaker.go_on_sending(pair, link, child.label, now)
        else:
            child = link.find(event.spi_in)
            if child is None:
                return
            self._lost(pair, link, child, now, answered=not event.unanswered)
        if event.unanswered:
            pair.orphans.append(child)
            self._caretaker.service(pair, now)
            return
        # First what sends from now on: between two requests to the kernel we may be held up for long.
        self._caretaker.service(pair, now)
        self._retire(pair, child, now)

    def _lost(self, pair: Pair, link: Link, child: Child, now: float, *, answered: bool) -> None:
        """A child that was to stay has been deleted."""
        del link.children[child.label]
        before = next((each for each in link.replaced if each.label == child.label), None)
        if before is not None:
            # Its rekey came to nothing: the one before stays.
            link.replaced.remove(before)
            link.children[child.label] = before
            if link is pair.current:
                self._caretaker.install_outbound(pair, link, child.label, now)
        elif link.children:
            if link is pair.current:
                self._caretaker.retry_child(pair, child.label, now)
        else:
            self.replace_lost(pair, link, now, answered=answered)
            # A link without any child is of no use.
            link.lost_at = now

    def _retire(self, pair: Pair, child: Child, now: float) -> None:
        sends = pair.sends(child.label)  # by another one
        self._caretaker.attempt(
            pair, lambda: self._keeper.retire(child, now=now, linger=self._times.linger, sends=sends)
        )

    def _child_sa_failed(self, event: ChildSaFailed, now: float) -> None:
        pair = self._pairs.of_link(event.ike_sa)
        if pair is None:
            return
        link = pair.links.get(event.ike_sa)
        if link is not None and event.rekeyed_spi_in is None:
            link.asked.discard(event.label)
        if event.label not in pair.standings or (link is not None and link.deleting):
            return  # nobody wants it any more, or what has been asked for goes with its IKE SA
        reason, message = _reason_of(event.reason), f"no CHILD SA: {event.reason}"
        if link is not None and event.rekeyed_spi_in is None and (link.children or link.asked):
            # The others are as good as before; this one is asked for again.
            self._caretaker.fail(pair, reason, message, label=event.label)
            if link is pair.current:
                self._caretaker.retry_child(pair, event.label, now)
            self._caretaker.service(pair, now)
            return
        self._caretaker.fail(pair, reason, message)
        if link is not None and event.rekeyed_spi_in is None:
            self._caretaker.delete(link, "no CHILD SA", now)
        self._caretaker.retry(pair, now)


def _reason_of(text: str) -> UnwellReason:
    """What kind of failure the endpoint's words are about: they hold the name of the peer's Notify, if it sent one."""
    if "NO_PROPOSAL_CHOSEN" in text or "TS_UNACCEPTABLE" in text:
        return UnwellReason.NO_PROPOSAL_CHOSEN
    if any(word in text for word in ("AUTHENTICATION_FAILED", "certificate", "signature", "identity")):
        return UnwellReason.AUTHENTICATION_FAILED
    return UnwellReason.UNREACHABLE
