"""What is due for a pair, and when to look again: attempts, children, outbound SAs held back, links that have lost.

Used by the sessions, which tell it of a pair whenever anything about that pair has changed.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from math import inf
from random import Random
from typing import Final

from hauberk_agent.keeper import StateKeeper
from hauberk_agent.link import Child, Link
from hauberk_agent.pair import Failure, Pair
from hauberk_agent.pair_table import PairTable
from hauberk_agent.times import Times
from hauberk_api.names import NodeUid
from hauberk_api.report import UnwellReason
from hauberk_ike import IkeEndpoint, IkeSaId, UnknownIkeSa
from hauberk_xfrm import XfrmError

_log = logging.getLogger("hauberk.sessions")
_BREATH_SECONDS: Final = 0.05


class Caretaker:
    """`endpoint` is None until there are credentials; until then nothing is begun."""

    def __init__(
        self,
        *,
        pairs: PairTable,
        keeper: StateKeeper,
        times: Times,
        chance: Random,
        max_attempts: int,
        changed: Callable[[], None],
    ) -> None:
        """changed: called when a pair became well or unwell. max_attempts: of ours, that are under way at once."""
        self.endpoint: IkeEndpoint | None = None
        self._pairs = pairs
        self._keeper = keeper
        self._times = times
        self._chance = chance
        self._max_attempts = max_attempts
        self.changed = changed
        self.on_service: Callable[[Pair, float], None] = lambda _pair, _now: None
        """Called in each service, when it is settled by which SAs the pair's packets go."""
        self._attempts: set[IkeSaId] = set()
        self._wakes: list[tuple[float, NodeUid]] = []

    def next_due(self) -> float | None:
        return self._wakes[0][0] if self._wakes else None

    def handle_timer(self, now: float) -> None:
        """Looks after the pairs whose time has come."""
        while self._wakes and self._wakes[0][0] <= now:
            _, uid = heapq.heappop(self._wakes)
            pair = self._pairs.get(uid)
            if pair is not None:
                self.service(pair, now)

    def service(self, pair: Pair, now: float) -> None:
        """Does all that is due for a pair, and plans when to look again."""
        was_well = [standing.unwell_since is None for standing in pair.standings.values()]
        self._settle(pair, now)
        self.on_service(pair, now)
        if pair.replace_at is not None and pair.replace_at <= now and pair.current is not None:
            pair.replace_at = None
            pair.initiate_at = now
        if pair.initiate_at is not None and pair.initiate_at <= now and self.endpoint is not None:
            self._initiate(pair, self.endpoint, now)
        self._create_missing(pair, now)
        for label, standing in pair.standings.items():
            if pair.is_well(label) or pair.is_idle:
                standing.unwell_since = None
            elif standing.unwell_since is None:
                standing.unwell_since = now
        if was_well != [standing.unwell_since is None for standing in pair.standings.values()]:
            self.changed()
        self._plan_wake(pair, now)

    def retry(self, pair: Pair, now: float) -> None:
        """Plans another attempt, ever later, and never at the same moment as others."""
        pair.failures += 1
        longest = min(self._times.retry_first * 2 ** min(pair.failures - 1, 10), self._times.retry_longest)
        at = now + longest * self._chance.uniform(0.5, 1.0)
        if pair.current is not None:
            pair.replace_at = at
        else:
            pair.initiate_at = at if pair.is_wanted(now) else None
        self.service(pair, now)

    def attempt_ended(self, ike_sa: IkeSaId) -> None:
        """An IKE SA is up, or will not be."""
        self._attempts.discard(ike_sa)

    def retry_child(self, pair: Pair, label: str, now: float) -> None:
        """Plans to ask for one child again, its link being well."""
        standing = pair.standings[label]
        standing.failures += 1
        longest = min(self._times.retry_first * 2 ** min(standing.failures - 1, 10), self._times.retry_longest)
        standing.create_at = now + longest * self._chance.uniform(0.5, 1.0)

    def plan_missing(self, pair: Pair, now: float, wait: tuple[float, float]) -> None:
        """The children that the current link lacks and nobody has been asked for are asked for after a wait."""
        current = pair.current
        for label, standing in pair.standings.items():
            if current is not None and label not in current.children and label not in current.asked:
                standing.create_at = now + self._chance.uniform(*wait)

    def install_outbound(self, pair: Pair, link: Link, label: str, now: float) -> None:
        """From now on the label's packets go by this link, if they don't yet.

        By the child that is to stay, or for as long as the peer may lack our answer to its rekey, by the one before.
        """
        child, standing = link.children.get(label), pair.standings.get(label)
        if child is None or child.outbound or standing is None:
            return
        if child.replaces is not None and self.in_use(pair, child):
            child.replaces = None
        elif child.replaces is not None:
            # The DELETE of the old one, or a packet on the new one, tells that the peer has our answer; time does not.
            child.outbound_at = inf
            child = child.replaces
            if child.outbound:
                return
        esn = child.keys_out is not None and child.keys_out.esn
        try:
            self._keeper.install_outbound(child, lifetime=standing.spec.lifetime(esn=esn, chance=self._chance))
        except XfrmError as error:
            child.outbound_at = None
            self.fail(pair, UnwellReason.KERNEL_REFUSED, str(error))
            self.delete(link, "the kernel refused the SA", now)
            self.retry(pair, now)
            return
        pair.failures, pair.failure, pair.fresh = 0, None, False
        standing.failures, standing.failure = 0, None
        _log.info(
            "%s: encrypted, tunnel %s, %s, IKE SA %s by %s",
            pair.name,
            pair.spec.tunnel_name(standing.spec.key.tunnel),
            child.proposal,
            link.proposal,
            "us" if link.ours else "the peer",
        )

    def go_on_sending(self, pair: Pair, link: Link, label: str, now: float) -> None:
        """What the label's packets went by on this link has a successor.

        They go by that until the current link's child is known to be held.
        """
        current = pair.current.children.get(label) if pair.current is not None else None
        if link is pair.current or current is None or not current.outbound:
            self.install_outbound(pair, link, label, now)

    def install_all_outbound(self, pair: Pair, link: Link, now: float) -> None:
        for label in list(link.children):
            self.install_outbound(pair, link, label, now)

    def delete(self, link: Link, reason: str, now: float) -> None:
        """Asks the peer to delete a link, once."""
        if link.deleting or self.endpoint is None:
            return
        link.deleting = True
        with suppress(UnknownIkeSa):  # what has become of it is among the events that are still to be acted on
            self.endpoint.delete(link.ike_sa, now=now, reason=reason)

    def delete_child(self, ike_sa: IkeSaId, spi_in: int | None, now: float) -> None:
        """Asks the peer to delete a child, if it is there."""
        if self.endpoint is not None and spi_in is not None:
            with suppress(UnknownIkeSa):  # it is ending
                self.endpoint.delete_child(ike_sa, spi_in, now=now)

    def delete_yielding(self, link: Link, label: str, now: float) -> None:
        """Deletes what both ends need no longer, as each has asked for a child of the label."""
        for child in link.replaced:
            if child.label == label and child.yields:
                child.yields = False
                self.delete_child(link.ike_sa, child.spi_in, now)

    def fail(self, pair: Pair, reason: UnwellReason, message: str, *, label: str | None = None) -> None:
        """Remembers why a pair, or one child of it, is not well; says it once."""
        failure = Failure(reason=reason, message=message)
        about = pair.standings[label] if label is not None else pair
        if failure != about.failure:
            _log.warning("%s: %s: %s", pair.name, reason, message)
        about.failure = failure

    def remove(self, pair: Pair, children: Iterable[Child]) -> None:
        """Takes both directions of a pair's children out of the kernel, at once."""
        for child in children:
            self.attempt(pair, lambda child=child: self._keeper.remove(child))

    def attempt(self, pair: Pair, deed: Callable[[], None]) -> None:
        """Does something in the kernel whose failure is worth a line, and no more: it is reconciled later."""
        try:
            deed()
        except XfrmError as error:
            _log.warning("%s: %s", pair.name, error)

    def _settle(self, pair: Pair, now: float) -> None:
        current = pair.current
        if current is None or not current.children:
            self._drop_useless(pair, now)
            return
        for label, child in list(current.children.items()):
            if not child.outbound and self._may_send(pair, current, child, now):
                self.install_outbound(pair, current, label, now)
            if child.outbound:
                child.outbound_at = None
                self.delete_yielding(current, label, now)
                self._retire_orphans(pair, current, child, now)
        for link in list(pair.links.values()):
            if link is not current and link.lost_at is not None and not link.deleting:
                self._resolve_loser(pair, link, current, now)
        self._drop_useless(pair, now)

    def _may_send(self, pair: Pair, link: Link, child: Child, now: float) -> bool:
        """Whether a child's outbound SA is due.

        An initiator that died before it had our answer has nothing to decrypt with: as long as there is another SA to
        send on, that one stays. One that has been heard since has our answer, or asks for it again.
        """
        if child.outbound_at is None:
            return False
        if not pair.sends(child.label) or self.in_use(pair, child):
            return True
        if child.outbound_at > now:
            return False
        return child.unsure_until is None or self._answers(link, since=child.unsure_until, now=now)

    def _retire_orphans(self, pair: Pair, link: Link, child: Child, now: float) -> None:
        """Gives up what the child stands in for: once its peer is known to send on it, or is alive long after.

        Not what is younger than the child: that the peer did send on it says nothing then.
        """
        replaced = [orphan for orphan in pair.orphans if orphan.label == child.label and orphan.since <= child.since]
        if not replaced:
            return
        at = child.since + self._times.settled
        if not self.in_use(pair, child) and (now < at or not self._answers(link, since=at, now=now)):
            return
        for orphan in replaced:
            self.attempt(pair, lambda orphan=orphan: self._keeper.retire(orphan, now=now, linger=self._times.linger))
        pair.orphans = [orphan for orphan in pair.orphans if orphan not in replaced]

    def _answers(self, link: Link, *, since: float, now: float) -> bool:
        """Whether the peer has been heard on a link after that; if not, it is asked."""
        try:
            return self.endpoint is not None and self.endpoint.answers(link.ike_sa, since=since, now=now)
        except UnknownIkeSa:
            return False

    def _resolve_loser(self, pair: Pair, link: Link, current: Link, now: float) -> None:
        """Another link is preferred: its initiator, or the replacement's, deletes it; in the end we do.

        Not before the one preferred carries all that this one does: its children come one after the other.
        """
        overdue = link.lost_at is not None and now >= link.lost_at + self._times.grace
        if not overdue and not _covers(current, link, pair.standings):
            return
        if current.holds_back:
            return
        if (link.ours and link.concurrent) or (current.ours and not link.concurrent) or not link.children:
            if link.children or overdue:
                self.delete(link, "replaced", now)
        elif overdue and link.concurrent:
            # Its initiator keeps it: it does not know ours, which is then with that node's former self. Unless it is
            # that former self's: then nobody answers any more, and it ends by that.
            if link.lost_at is None or not self._answers(link, since=link.lost_at + self._times.grace, now=now):
                return
            link.lost_at, link.concurrent = None, False
            current.lost_at, current.concurrent = now, False
            pair.current = link
            self.install_all_outbound(pair, link, now)
        elif overdue:
            self.delete(link, "replaced", now)

    def _drop_useless(self, pair: Pair, now: float) -> None:
        """Deletes links that have been without a child for the grace time, or whose peer is somebody no more."""
        for link in list(pair.links.values()):
            ends_at = link.certificate_ends_at
            if ends_at is not None and now >= ends_at + self._times.expired and not link.deleting:
                _log.warning("%s: deleting its IKE SA: the peer's certificate ended long ago", pair.name)
                self.delete(link, "the certificate has ended", now)
            if (
                link.up_at is not None
                and not link.children
                and not link.deleting
                and link.lost_at is not None
                and now >= link.lost_at + self._times.grace
            ):
                self.delete(link, "without a CHILD SA", now)

    def _create_missing(self, pair: Pair, now: float) -> None:
        """Asks for the children that are due on the current link. An attempt under way brings all of them."""
        current = pair.current
        if current is None or current.deleting or self.endpoint is None or pair.attempt is not None:
            return
        for label, standing in pair.standings.items():
            if standing.create_at is None or standing.create_at > now:
                continue
            standing.create_at = None
            if label in current.children or label in current.asked:
                continue
            current.asked.add(label)
            with suppress(UnknownIkeSa):  # it is ending
                self.endpoint.create_child(current.ike_sa, standing.spec.config, now=now)

    def in_use(self, pair: Pair, child: Child) -> bool:
        """Whether the peer is known to send on a child."""
        try:
            return self._keeper.in_use(child)
        except XfrmError as error:
            _log.warning("%s: %s", pair.name, error)
            return False

    def _initiate(self, pair: Pair, endpoint: IkeEndpoint, now: float) -> None:
        if pair.attempt is not None:
            pair.initiate_at = None
            return
        if len(self._attempts) >= self._max_attempts:
            pair.initiate_at = now + self._chance.uniform(0.1, 0.5)
            return
        pair.initiate_at = None
        initial_contact = pair.fresh and not pair.links and not pair.orphans
        config = replace(pair.spec.config, initial_contact=initial_contact, esp_path=pair.esp_path)
        ike_sa = endpoint.initiate(config, now=now)
        pair.links[ike_sa] = Link(
            ike_sa=ike_sa,
            ours=True,
            started_at=now,
            config=config,
            initial_contact=initial_contact,
            wishes=pair.wishes,
            asked={child.label for child in config.children},
        )
        self._pairs.bind(ike_sa, pair)
        self._attempts.add(ike_sa)

    def _plan_wake(self, pair: Pair, now: float) -> None:
        if self.endpoint is None:
            return
        times = [pair.initiate_at, pair.replace_at]
        current = pair.current
        if current is not None:
            held_back = [child.outbound_at for child in current.children.values()]
            poll = now + self._times.in_use_poll
            times.extend(min(at, poll) if at > now else poll for at in held_back if at is not None)
            if pair.orphans and any(child.outbound for child in current.children.values()):
                times.append(now + self._times.orphan_poll)
            if pair.attempt is None:
                times.extend(standing.create_at for standing in pair.standings.values())
        losers = [link.lost_at for link in pair.links.values() if link.lost_at is not None and not link.deleting]
        ends = [lost_at + self._times.grace for lost_at in losers]
        times.extend(at if at > now else now + self._times.orphan_poll for at in ends)
        times.extend(
            link.certificate_ends_at + self._times.expired
            for link in pair.links.values()
            if link.certificate_ends_at is not None and not link.deleting
        )
        due = min((time for time in times if time is not None), default=None)
        if due is not None:
            # Never at this very moment again: whatever is overdue waits for an event.
            heapq.heappush(self._wakes, (max(due, now + _BREATH_SECONDS), pair.spec.uid))


def _covers(current: Link, link: Link, wanted: Collection[str]) -> bool:
    """Whether one link carries all that another one does and that is still wanted."""
    return all(
        (child := current.children.get(label)) is not None and child.outbound
        for label in link.children
        if label in wanted
    )
