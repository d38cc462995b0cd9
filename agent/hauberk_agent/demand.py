"""Pairs that are set up on demand: when a packet asks for them, and for as long as packets go by them.

Used by the sessions. The kernel asks by an ACQUIRE when a packet meets a policy and there is no SA; until there is one
it drops such packets, and says so again with the next packet after some half a minute (net.core.xfrm_acq_expires). So
an attempt that comes to nothing is made again for as long as somebody sends, and no longer: then the pair is idle, and
that is well. Whoever has packets initiates, whatever the order of names.

A pair by which nothing has gone for a while, either way, is taken down by whichever end notices first. It is not
rekeyed for nothing: where its keys would be replaced before that, it ends earlier.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import inf
from typing import Final

from hauberk_agent.caretaker import Caretaker
from hauberk_agent.keeper import StateKeeper
from hauberk_agent.pair import Pair
from hauberk_agent.pair_table import PairTable
from hauberk_agent.times import Times
from hauberk_ike import IpAddress
from hauberk_xfrm import ReqId, Spi

_log = logging.getLogger("hauberk.sessions")
_REKEY_SHARE: Final = 0.75
"""Of the time after which keys are replaced; both ends begin with that later."""
_STALE_SECONDS: Final = 2.0
"""An SA that is younger may have come after the packet that asked for it."""


class Demand:
    def __init__(self, *, pairs: PairTable, caretaker: Caretaker, keeper: StateKeeper, times: Times) -> None:
        self._pairs = pairs
        self._caretaker = caretaker
        self._keeper = keeper
        self._times = times

    def ask(self, reqid: ReqId, now: float, *, heard: bool = True) -> None:
        """A packet has asked for an SA with this request id; or not heard: some time ago, as the kernel still holds."""
        pair = self._pairs.of_reqid(reqid)
        if pair is None or not pair.spec.on_demand:
            return  # the others are set up in any case
        if pair.current is not None and not heard:
            return
        pair.wish_until = now + self._times.wish
        if pair.attempt is not None:
            return
        current = pair.current
        if current is None:
            pair.initiate_at = now
        elif current.up_at is not None and now >= current.up_at + _STALE_SECONDS:
            _log.warning("%s: the kernel has no SA for its packets, replacing it", pair.name)
            pair.replace_at = now
        self._caretaker.service(pair, now)

    def look(self, packets: Mapping[tuple[IpAddress, Spi], int], now: float) -> None:
        """Takes in what the kernel has counted by each state, and takes down what nobody uses."""
        for pair in self._pairs.values():
            if pair.spec.on_demand and (pair.current is not None or pair.orphans):
                self._look_at(pair, packets, now)

    def _look_at(self, pair: Pair, packets: Mapping[tuple[IpAddress, Spi], int], now: float) -> None:
        ends = [
            (destination, spi)
            for child in pair.children()
            for destination, spi in ((child.local, child.spi_in), (child.remote, child.spi_out))
            if spi is not None
        ]
        usage = tuple((int(spi), packets.get((destination, spi), 0)) for destination, spi in ends)
        if usage != pair.usage:
            pair.usage, pair.used_at = usage, now
        limit = min(pair.spec.idle_seconds, _REKEY_SHARE * pair.spec.rekey_seconds)
        if pair.attempt is None and now >= pair.used_at + limit:
            self._let_go(pair, now)

    def _let_go(self, pair: Pair, now: float) -> None:
        _log.info("%s: nothing has gone by its SAs for a while, taking them down", pair.name)
        # At once, and not when the peer has answered: from now on the next packet asks.
        children, pair.orphans = pair.orphans, []
        for link in list(pair.links.values()):
            children += link.forget_children()
            self._caretaker.delete(link, "idle", now)
        for child in children:
            self._caretaker.attempt(
                pair, lambda child=child: self._keeper.retire(child, now=now, linger=self._times.linger, sends=False)
            )
        pair.current = pair.replace_at = pair.initiate_at = None
        pair.wish_until = -inf
        self._caretaker.service(pair, now)
