"""Writes this node's report when it is due, and asks what others report of the peers that this node misses.

Used by the agent, which composes the report. `report.Pacer` says when one is due, `witness.Inquiry` of whom to ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from random import Random
from typing import Final

from hauberk_agent.pair import Pair
from hauberk_agent.report import HOLD_BACK_SECONDS, Pacer
from hauberk_agent.source import Reporter
from hauberk_agent.waiting import wait_for
from hauberk_agent.witness import Inquiry, Witnesses, misses
from hauberk_api.names import NodeName
from hauberk_api.node import NodeSpec
from hauberk_api.report import ReportStatus

_log = logging.getLogger("hauberk.agent")

_SOON_SECONDS: Final = 2.0
"""Until it is looked again whether there is something to write."""
_AFTER_WRITING_SECONDS: Final = 0.1
_SETTLED_SECONDS: Final = 0.3
"""A tunnel's members come one by one: only a roster that has not changed for so long is thought complete."""
_INQUIRY_SECONDS: Final = 5.0


class Reporting:
    """`report` is the newest that was composed, `problem` why the last one could not be written."""

    def __init__(
        self,
        reporter: Reporter,
        *,
        node_name: NodeName,
        compose: Callable[[float], ReportStatus | None],
        pairs: Callable[[], Iterable[Pair]],
        chance: Random,
    ) -> None:
        """compose: makes the report of this moment, in seconds on the agent's clock; None if there is none to make."""
        self.report: ReportStatus | None = None
        self.problem: str | None = None
        self._reporter = reporter
        self._node_name = node_name
        self._compose = compose
        self._pairs = pairs
        self._pacer = Pacer(chance)
        self._witnesses = Witnesses({})
        self._inquiry = Inquiry(chance)
        self._wake = asyncio.Event()
        self._changed_at = 0.0

    def wake(self) -> None:
        """Something that the report tells may have changed."""
        self._wake.set()

    def follow(self, nodes: Mapping[NodeName, NodeSpec]) -> None:
        """The mesh's nodes."""
        self._witnesses = Witnesses(nodes)

    def roster_changed(self, now: float) -> None:
        """What the report is about has changed as a whole."""
        self._changed_at = now

    def is_settled(self, now: float) -> bool:
        """Whether the roster is thought complete."""
        return now >= self._changed_at + _SETTLED_SECONDS

    @property
    def left_to_others(self) -> frozenset[NodeName]:
        """The peers that are missed and that it is others' to say so of."""
        return frozenset(self._missed()) - self._inquiry.alone

    async def write_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait = await self._write(loop)
            await wait_for(self._wake, wait)

    async def _write(self, loop: asyncio.AbstractEventLoop) -> float:
        """Writes the report if that is due. Returns the seconds until the next look."""
        now = loop.time()
        report = self._compose(now)
        if report is None:
            return _SOON_SECONDS
        self.report = report
        if not self.is_settled(now):
            return self._changed_at + _SETTLED_SECONDS - now
        at = self._pacer.due_at(report, now, mesh_size=len(self._witnesses))
        if at is None:
            return _SOON_SECONDS
        if at > now:
            return min(at - now, _SOON_SECONDS)
        try:
            await self._reporter.write(report)
        except OSError as error:
            self._pacer.failed(loop.time())
            self.problem = str(error)
            _log.warning("the report can't be written: %s", error)
        else:
            self._pacer.wrote(report, loop.time())
            self.problem = None
        return _AFTER_WRITING_SECONDS

    def _missed(self) -> dict[NodeName, float]:
        """The peers that this node misses and is no witness of, and since when it would have said so if it were."""
        missed: dict[NodeName, float] = {}
        for pair in self._pairs():
            name = NodeName(pair.name)
            if pair.unwell_since is not None and self._node_name not in self._witnesses.of(name):
                missed[name] = pair.unwell_since + HOLD_BACK_SECONDS
        return missed

    async def inquire_for_ever(self) -> None:
        """Asks, where peers are missed of which others should report that, whether they do."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_INQUIRY_SECONDS)
            peer = self._inquiry.due(self._missed(), len(self._witnesses), loop.time())
            if peer is None:
                continue
            try:
                others_miss_it = await is_missed_by_any(self._witnesses.of(peer), peer, self._reporter.read)
            except OSError as error:
                _log.debug("what others report of %s can't be read: %s", peer, error)
                continue
            self._inquiry.heard(peer, others_miss_it=others_miss_it, now=loop.time())
            self._wake.set()


async def is_missed_by_any(
    witnesses: Iterable[NodeName], peer: NodeName, read: Callable[[NodeName], Awaitable[ReportStatus | None]]
) -> bool:
    """Whether one of these nodes' reports says that the peer is missed. Raises what reading one raises: OSError."""
    for witness in witnesses:
        report = await read(witness)
        if report is not None and misses(report, peer):
            return True
    return False
