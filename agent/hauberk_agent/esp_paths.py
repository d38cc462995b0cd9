"""How each pair's ESP travels where its tunnel leaves that to us: by itself, or in UDP if it does not come through.

Used by the sessions. hauberk_agent.esp_check finds out whether plain ESP arrives. Where it does not, the pair is
**blocked**: whoever has found that out sets up another IKE SA in the place of the one that there is, says so in it
(`hauberk_ike.EspPath`), and from then on both ends encapsulate whatever they set up. Both remember it on disk
(hauberk_agent.blocked_paths). Nothing goes in clear meanwhile: policies are what they were, and ESP is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from hauberk_agent.blocked_paths import BlockedPath, BlockedPaths, Finder
from hauberk_agent.caretaker import Caretaker
from hauberk_agent.esp_check import EspChecks, Verdict, Way
from hauberk_agent.esp_trial import EspTrials
from hauberk_agent.keeper import StateKeeper
from hauberk_agent.link import Child
from hauberk_agent.pair import Pair
from hauberk_agent.pair_table import PairTable
from hauberk_agent.times import Times
from hauberk_api.report import EncapsulationReason, UnwellReason
from hauberk_ike import Encapsulation, EspArrived, EspPath, IpAddress, UnknownIkeSa
from hauberk_xfrm import Spi, Template, XfrmError

_log = logging.getLogger("hauberk.sessions")
_PROBES: Final = 2
"""Packets a try: a path that loses one now and then is not blocked."""


class EspPaths:
    """Of all pairs. `probe` sends a packet by the SA of a template and an interface id (0: none), and raises OSError.

    It is the owner's to set.
    """

    def __init__(
        self,
        *,
        pairs: PairTable,
        caretaker: Caretaker,
        keeper: StateKeeper,
        blocked: BlockedPaths,
        wall_clock: Callable[[], datetime],
        times: Times,
    ) -> None:
        self.probe: Callable[[Template, int], None] = _cannot_probe
        self._pairs = pairs
        self._caretaker = caretaker
        self._keeper = keeper
        self._blocked = blocked
        self._wall_clock = wall_clock
        self._times = times
        self._now = 0.0
        self.trials = EspTrials(
            caretaker=caretaker,
            keeper=keeper,
            probe=lambda template, if_id: self.probe(template, if_id),
            judged=self._tried,
        )
        self._checks = EspChecks(
            probe=self._send_probes,
            ask=self._ask,
            judged=self._judged,
            has_received=self._has_received,
            count_sent=self._count_sent,
        )

    def begin(self, pair: Pair) -> None:
        """A pair is new, or other things are wanted of it: what is known of its path."""
        pair.esp_path = EspPath.UNKNOWN if self._known(pair) is None else EspPath.BLOCKED

    def end(self, pair: Pair, now: float) -> None:
        """A pair is no longer wanted."""
        self._checks.follow(pair.spec.uid, None, now, initiator=True)
        self.trials.end(pair)

    def follow(self, pair: Pair, now: float) -> None:
        """Something about a pair may have changed: by which SA its packets go."""
        self._now = now
        link = pair.current
        child = _plain_child(pair)
        if link is None or child is None or child.spi_out is None:
            self._checks.follow(pair.spec.uid, None, now, initiator=True)
            return
        way = Way(peer=pair.spec.uid, ike_sa=link.ike_sa, spi_out=child.spi_out)
        if pair.esp_path is EspPath.PASSES:
            pair.esp_path = EspPath.UNKNOWN  # it has been told
        if pair.esp_path is EspPath.BLOCKED:
            # The peer has begun, and does not know (any more).
            self._checks.follow(pair.spec.uid, None, now, initiator=True)
            self._replace(pair, now)
        else:
            self._checks.follow(pair.spec.uid, way, now, initiator=child.ours)

    def is_unproved(self, pair: Pair) -> bool:
        """Whether a pair's packets go by plain ESP of which nobody knows yet that it arrives."""
        return self._checks.is_open(pair.spec.uid)

    def told(self, pair: Pair, path: EspPath, now: float) -> None:
        """A peer has begun to set up an IKE SA, and has found out this."""
        if pair.spec.config.encapsulation is not Encapsulation.AUTO:
            return
        if path is EspPath.BLOCKED and pair.esp_path is not EspPath.BLOCKED:
            _log.warning("%s: ESP does not come through, as it has found out: in UDP from now on", pair.name)
            self._remember(pair, Finder.PEER)
        elif path is EspPath.PASSES and pair.esp_path is EspPath.BLOCKED:
            self._forget(pair, EspPath.UNKNOWN)

    def answered(self, event: EspArrived, now: float) -> None:
        self._now = now
        pair = self._pairs.of(event.peer)
        if pair is not None:
            self._checks.answered(pair.spec.uid, event, now)
            self.trials.answered(pair, event)

    def look(self, packets: Mapping[tuple[IpAddress, Spi], int], now: float) -> None:
        """Takes in what the kernel has counted by each state; every so often."""
        self._now = now
        for pair in self._pairs.values():
            child = _plain_child(pair)
            if child is not None and child.spi_out is not None:
                sent = packets.get((child.remote, child.spi_out), 0)
                received = packets.get((child.local, child.spi_in), 0) if child.spi_in is not None else 0
                self._checks.look(pair.spec.uid, sent=sent, received=received, now=now)
            elif pair.esp_path is EspPath.BLOCKED and pair.spec.initiates and pair.attempt is None:
                self._try_again(pair)
        self.trials.look(now)

    def next_due(self) -> float | None:
        return self._checks.next_due()

    def handle_timer(self, now: float) -> None:
        self._now = now
        self._checks.handle_timer(now)

    def why(self, pair: Pair) -> str:
        """Why a pair's ESP travels as it does, for people; empty where there is nothing to say yet."""
        child = next(iter(pair.children()), None)
        wish = pair.spec.config.encapsulation
        if child is None:
            return ""
        if child.encapsulation is None:
            if wish is Encapsulation.NEVER:
                return "the tunnel wants no UDP"
            return "" if self.is_unproved(pair) or pair.esp_path is EspPath.BLOCKED else "ESP comes through"
        if wish is Encapsulation.ALWAYS:
            return "the tunnel wants UDP"
        known = self._known(pair)
        if known is not None:
            who = "this node" if known.finder is Finder.US else "the peer"
            since = datetime.fromtimestamp(known.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return f"ESP does not come through without UDP, as {who} found out at {since}"
        return "there is a NAT in between"

    def reason(self, pair: Pair) -> EncapsulationReason | None:
        """Why a pair's ESP travels in UDP; None if it does not, or its tunnel says so."""
        child = next(iter(pair.children()), None)
        if child is None or child.encapsulation is None or pair.spec.config.encapsulation is not Encapsulation.AUTO:
            return None
        return EncapsulationReason.NAT if self._known(pair) is None else EncapsulationReason.ESP_BLOCKED

    def _known(self, pair: Pair) -> BlockedPath | None:
        config = pair.spec.config
        if config.encapsulation is not Encapsulation.AUTO:
            return None
        return self._blocked.find(pair.spec.uid, local=config.local.host, remote=config.remote.host)

    def _remember(self, pair: Pair, finder: Finder) -> None:
        config = pair.spec.config
        path = BlockedPath(
            local=config.local.host,
            remote=config.remote.host,
            since=self._wall_clock().timestamp(),
            finder=finder,
        )
        self._blocked.remember(pair.spec.uid, path)
        pair.esp_path = EspPath.BLOCKED
        self._caretaker.changed()

    def _forget(self, pair: Pair, path: EspPath) -> None:
        self._blocked.forget(pair.spec.uid)
        pair.esp_path = path
        self._caretaker.changed()

    def _try_again(self, pair: Pair) -> None:
        """After a long while ESP without UDP is tried, and the next try is as far off."""
        known = self._known(pair)
        if pair.current is None or pair.orphans:
            return  # there is no IKE SA to ask on yet
        age = self._wall_clock().timestamp() - known.since if known is not None else 0.0
        if known is not None and not 0 <= age < self._times.try_esp_again:
            self._blocked.remember(pair.spec.uid, replace(known, since=self._wall_clock().timestamp()))
            self._caretaker.changed()
            self.trials.ask(pair, pair.spec.config.further_children[0], self._now)

    def _tried(self, pair: Pair, passes: bool, now: float) -> None:
        if passes and pair.esp_path is EspPath.BLOCKED:
            self._forget(pair, EspPath.PASSES)
            pair.initiate_at = now
            self._caretaker.service(pair, now)

    def _send_probes(self, way: Way) -> bool:
        pair = self._pairs.get(way.peer)
        child = _plain_child(pair) if pair is not None else None
        if child is None or child.spi_out != way.spi_out:
            return False
        template = Template(source=child.local, destination=child.remote, reqid=child.reqid, mode=child.mode)
        try:
            for _ in range(_PROBES):
                self.probe(template, child.if_id)
        except OSError as error:
            _log.debug("%s: no probe could be sent: %s", way.peer, error)
            return False
        return True

    def _has_received(self, way: Way) -> bool:
        pair = self._pairs.get(way.peer)
        child = _plain_child(pair) if pair is not None else None
        return pair is not None and child is not None and self._caretaker.in_use(pair, child)

    def _count_sent(self, way: Way) -> int | None:
        pair = self._pairs.get(way.peer)
        child = _plain_child(pair) if pair is not None else None
        if child is None or child.spi_out != way.spi_out:
            return None
        try:
            return self._keeper.count_sent(child)
        except XfrmError:
            return None

    def _ask(self, way: Way) -> bool:
        endpoint = self._caretaker.endpoint
        if endpoint is None:
            return False
        with suppress(UnknownIkeSa):  # it is ending
            endpoint.ask_esp_arrived(way.ike_sa, way.spi_out, now=self._now)
            return True
        return False

    def _judged(self, way: Way, verdict: Verdict) -> None:
        pair = self._pairs.get(way.peer)
        if pair is None:
            return
        if verdict is Verdict.BLOCKED:
            self._remember(pair, Finder.US)
            self._caretaker.fail(
                pair,
                UnwellReason.UNREACHABLE,
                "ESP (IP protocol 50) does not come through, though IKE does: setting it up anew in UDP",
            )
            self._replace(pair, self._now)
            self._caretaker.service(pair, self._now)
        self._caretaker.changed()

    def _replace(self, pair: Pair, now: float) -> None:
        """Once for each IKE SA: what fails is tried again as ever."""
        link = pair.current
        if link is not None and not link.is_blocked:
            link.is_blocked = True
            pair.initiate_at = now


def _plain_child(pair: Pair) -> Child | None:
    """The child whose ESP stands for the pair's: one that we send on, without UDP, if that is for us to say."""
    link = pair.current
    if link is None or link.deleting or pair.spec.config.encapsulation is not Encapsulation.AUTO:
        return None
    return next((child for child in link.children.values() if child.outbound and child.encapsulation is None), None)


def _cannot_probe(template: Template, if_id: int) -> None:
    raise OSError(f"nobody sends probes to {template.destination} here")
