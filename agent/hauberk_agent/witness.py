"""Who tells the operator that a peer is not there: a few of those that miss it, not all of them.

A dead node is missed by every one of its peers, in a mesh of thousands by thousands, and the API server needs to hear
of it once. So each node has WITNESSES: the next few of those that peer with it, in the order of a hash of their names,
which all agents compute alike from the IPsecNodes. A witness reports a pair that is unwell. Anybody else asks first: it
reads the witnesses' reports, and if one of them misses the peer too, there is nothing to add. If none does, it asks
once more, as a witness without processor time to spare is late. If none does then either, the trouble is between these
two nodes alone, and is reported.

Pure; reporting.py does the reading. Times are seconds on the agent's clock.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Final

from hauberk_api.names import NodeName
from hauberk_api.node import NodeSpec, Role
from hauberk_api.report import WITNESSES, ReportStatus

SPREAD_SECONDS_PER_NODE: Final = 0.12
"""News of peers is spread over so long: a mesh of whatever size, all of it with news, writes 500 reports a minute."""

PATIENCE_SECONDS: Final = 60.0
"""How long after a witness should have written it is asked."""

DOUBT_SHARE: Final = 0.5
"""After how much of the time that a witness has had it is asked once more, where none has spoken."""

BETWEEN_SECONDS: Final = 60.0
"""The least time between two questions, however many peers are missed."""

ASK_AGAIN_SECONDS: Final = (600.0, 3600.0)
"""When it is asked again about a peer that others miss as well: at first, and in the end."""


class Witnesses:
    """Of every node of a mesh; computed when they are asked for, which in a mesh that is well is never."""

    def __init__(self, nodes: Mapping[NodeName, NodeSpec]) -> None:
        self._nodes = nodes
        self._rings: dict[tuple[str, bool], Sequence[NodeName]] = {}
        """Members in the order of their places, by tunnel and whether hubs alone."""

    def __len__(self) -> int:
        """How many nodes the mesh has."""
        return len(self._nodes)

    def of(self, peer: NodeName) -> tuple[NodeName, ...]:
        """The witnesses of a node: of its first tunnel, and of a spoke the hubs, as two spokes do not peer."""
        spec = self._nodes.get(peer)
        if spec is None or not spec.memberships:
            return ()
        first = spec.memberships[0]
        ring = self._ring(first.tunnel, hubs_alone=first.role is Role.SPOKE)
        begin = bisect_right(ring, _place(peer), key=_place)
        following = (ring[(begin + step) % len(ring)] for step in range(min(len(ring), WITNESSES + 1)))
        return tuple(name for name in following if name != peer)[:WITNESSES]

    def _ring(self, tunnel: str, *, hubs_alone: bool) -> Sequence[NodeName]:
        if (tunnel, hubs_alone) not in self._rings:
            members = [
                name
                for name, spec in self._nodes.items()
                if any(m.tunnel == tunnel and not (hubs_alone and m.role is Role.SPOKE) for m in spec.memberships)
            ]
            self._rings[tunnel, hubs_alone] = sorted(members, key=_place)
        return self._rings[tunnel, hubs_alone]


@lru_cache(maxsize=16_384)
def _place(name: NodeName) -> bytes:
    """Where a name is in the order: not beside those of the same rack."""
    return hashlib.sha256(name.encode()).digest()


class Inquiry:
    """What an agent has found out of peers that it misses and is no witness of."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._not_before = float("-inf")
        self._again: dict[NodeName, tuple[float, float]] = {}
        """By peer that has been asked about: when to ask again, and after how long that was."""
        self._doubtful: set[NodeName] = set()
        """Of those, the peers that nobody else missed when it was asked."""
        self._wait = 0.0
        self.alone: frozenset[NodeName] = frozenset()
        """Peers that nobody else misses."""

    def due(self, missed: Mapping[NodeName, float], mesh_size: int, now: float) -> NodeName | None:
        """The peer to ask about now, if there is one.

        missed: the peers whose witness this node is not, and since when they should have been reported.
        """
        self.alone &= missed.keys()
        self._doubtful &= missed.keys()
        self._again = {name: when for name, when in self._again.items() if name in missed}
        self._wait = SPREAD_SECONDS_PER_NODE * mesh_size + PATIENCE_SECONDS
        open_questions = [
            name
            for name, since in missed.items()
            if name not in self.alone and now >= (self._again[name][0] if name in self._again else since + self._wait)
        ]
        if not open_questions or now < self._not_before:
            return None
        self._not_before = now + BETWEEN_SECONDS * self._chance.uniform(1.0, 1.5)
        return self._chance.choice(open_questions)

    def heard(self, peer: NodeName, *, others_miss_it: bool, now: float) -> None:
        """What the witnesses' reports say."""
        first, longest = ASK_AGAIN_SECONDS
        if not others_miss_it and peer in self._doubtful:
            self.alone |= {peer}
            return
        if not others_miss_it:
            self._doubtful.add(peer)
            self._again[peer] = (now + self._wait * DOUBT_SHARE, first / 2)
            return
        self._doubtful.discard(peer)
        wait = min(longest, 2 * self._again[peer][1]) if peer in self._again else first
        self._again[peer] = (now + wait * self._chance.uniform(0.8, 1.2), wait)


def misses(report: ReportStatus, peer: NodeName) -> bool:
    """Whether a report says that this peer is missed, or that more are than it can name."""
    return any(unwell.node == peer for unwell in report.unwell) or report.unwell_count > len(report.unwell)
