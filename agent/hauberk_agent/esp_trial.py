"""Tries ESP without UDP again where it did not come through, on SAs that carry nothing else.

Used by hauberk_agent.esp_paths. Once in a long while the node whose name sorts first asks, on the IKE SA that there is,
for a CHILD SA that both ends know by its label as a trial: its states are plain ESP whatever the others are, and have a
request id of their own, so that no packet of anybody's goes by them. Both ends send probes by it, and the one that has
asked counts what has come in, and asks the peer what has come in there. If both have got some the path is blocked no
longer, and the pair is set up anew without UDP; if not, that is tried again as long afterwards. The trial loses nothing
either way, and ends with its CHILD SA.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from hauberk_agent.caretaker import Caretaker
from hauberk_agent.keeper import StateKeeper
from hauberk_agent.link import Child
from hauberk_agent.ownership import TRIAL_REQID
from hauberk_agent.pair import Pair
from hauberk_api.names import NodeUid
from hauberk_ike import ChildConfig, ChildSaUp, EspArrived, IkeSaId, UnknownIkeSa
from hauberk_xfrm import Lifetime, Template

_log = logging.getLogger("hauberk.sessions")

TRIAL_LABEL: Final = "hauberk/esp-trial"
TRIAL_TRIES: Final = 3
"""Looks, of some seconds each, after which ESP has not come through."""
_HARD_SECONDS: Final = 120
"""The kernel drops what a killed agent has left of a trial."""


@dataclass(slots=True, kw_only=True)
class _Trial:
    pair: Pair
    ike_sa: IkeSaId
    child: Child
    ours: bool
    """Whether we have asked for it, and so judge."""
    tries: int = 0
    got_there: bool = False


class EspTrials:
    """One a pair at most."""

    def __init__(
        self,
        *,
        caretaker: Caretaker,
        keeper: StateKeeper,
        probe: Callable[[Template, int], None],
        judged: Callable[[Pair, bool, float], None],
    ) -> None:
        """judged: is called with whether ESP comes through, of trials that we have asked for."""
        self._caretaker = caretaker
        self._keeper = keeper
        self._probe = probe
        self._judged = judged
        self._trials: dict[NodeUid, _Trial] = {}

    def ask(self, pair: Pair, config: ChildConfig, now: float) -> None:
        """Asks for a trial on the IKE SA that there is."""
        endpoint, link = self._caretaker.endpoint, pair.current
        if endpoint is not None and link is not None:
            with suppress(UnknownIkeSa):  # it is ending
                endpoint.create_child(link.ike_sa, config, now=now)

    def up(self, pair: Pair, event: ChildSaUp, now: float) -> None:
        """Both ends have agreed on a trial's CHILD SA. Raises XfrmError."""
        self.end(pair)
        peer = event.peer
        child = self._keeper.install_inbound(
            replace(event, encapsulation=None),
            local=peer.local.host,
            remote=peer.remote.host,
            reqid=TRIAL_REQID,
            if_id=0,
            hard_seconds=_HARD_SECONDS,
            now=now,
        )
        trial = _Trial(pair=pair, ike_sa=event.ike_sa, child=child, ours=event.initiator)
        self._trials[pair.spec.uid] = trial
        self._keeper.install_outbound(child, lifetime=Lifetime(hard_seconds=_HARD_SECONDS))

    def look(self, now: float) -> None:
        """To be called every few seconds: sends probes, asks, and judges in the end."""
        for trial in list(self._trials.values()):
            if trial.got_there and self._caretaker.in_use(trial.pair, trial.child):
                self._judge(trial, now, passes=True)
            elif trial.tries == TRIAL_TRIES and trial.ours:
                self._judge(trial, now, passes=False)
            elif trial.tries < TRIAL_TRIES:
                self._try(trial, now)

    def answered(self, pair: Pair, event: EspArrived) -> None:
        trial = self._trials.get(pair.spec.uid)
        if trial is not None and trial.child.spi_out == event.spi_out and event.packets:
            trial.got_there = True

    def end(self, pair: Pair) -> None:
        """The trial is over, or its IKE SA is, or the pair."""
        trial = self._trials.pop(pair.spec.uid, None)
        if trial is not None:
            self._caretaker.remove(pair, [trial.child])

    def _try(self, trial: _Trial, now: float) -> None:
        trial.tries += 1
        child = trial.child
        with suppress(OSError):  # then nothing comes through
            self._probe(Template(source=child.local, destination=child.remote, reqid=TRIAL_REQID), 0)
        endpoint = self._caretaker.endpoint
        if trial.ours and endpoint is not None and child.spi_out is not None:
            with suppress(UnknownIkeSa):
                endpoint.ask_esp_arrived(trial.ike_sa, child.spi_out, now=now)

    def _judge(self, trial: _Trial, now: float, *, passes: bool) -> None:
        if not trial.ours:
            return
        spi_in = trial.child.spi_in
        self.end(trial.pair)
        self._caretaker.delete_child(trial.ike_sa, spi_in, now)
        _log.info("%s: ESP without UDP %s", trial.pair.name, "comes through again" if passes else "is lost still")
        self._judged(trial.pair, passes, now)
