"""How large a packet comes to each peer whole: searched by probes (hauberk_ike.exchanges.path_probe), as nobody tells.

Sans-IO; used by the sessions, told by the agent what its kernel believes. Theory of operation. The kernel's own number
is tried first: where that passes, one packet has been enough. Where it fails twice, smaller sizes are tried, halving
what is left of PLATEAUS, each twice as packets get lost; what passes is used. FLOOR_BYTES is what IKE's own fragments
have, and needs no proof. All is tried anew after RECHECK_SECONDS, or when the kernel believes something else: the path
may have become wider, or narrower.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from random import Random
from typing import Final

from hauberk_api.names import NodeUid

FLOOR_BYTES: Final = 1280
PLATEAUS: Final = (
    *(1300, 1320, 1340, 1360, 1380, 1400, 1410, 1420, 1430, 1440, 1450, 1460, 1470, 1480, 1492, 1500),
    *(2048, 3072, 4096, 4464, 6144, 8192, 8900, 9000, 16_384, 32_768),
)
"""Sizes that paths have: what tunnels and access networks leave of Ethernet's, and what lies above."""
TRIES: Final = 2
RECHECK_SECONDS: Final = 600.0
MAX_PROBES: Final = 16
"""So many are under way at once; one that is not answered counts for so long:"""
PROBE_SECONDS: Final = 40.0
_LATER_SECONDS: Final = 0.5


@dataclass(slots=True)
class _Search:
    """What is known of a path. Sizes are of packets, in bytes; times are seconds on the agent's clock."""

    peer: NodeUid
    link: int
    """What the kernel believes."""
    low: int = FLOOR_BYTES
    """What passes,"""
    high: int = 0
    """and what does not; 0: nothing has failed."""
    tries: int = 0
    asked: int | None = None
    """The size that an answer is waited for."""
    asked_at: float = 0.0
    due: float | None = None
    path: int | None = field(default=None)
    """What was found out last."""

    def next_size(self) -> int | None:
        """What to try now; None: it is found."""
        if not self.high:
            return self.link
        left = [size for size in PLATEAUS if self.low < size < self.high]
        return left[len(left) // 2] if left else None


class PathSearches:
    """One for each peer that is followed."""

    def __init__(self, *, ask: Callable[[NodeUid, int], bool], chance: Random, found: Callable[[], None]) -> None:
        """ask: sends a probe of a size, if that can be done now. found: called when a path is another than before."""
        self._ask = ask
        self._chance = chance
        self._found = found
        self._searches: dict[NodeUid, _Search] = {}
        self._wakes: list[tuple[float, NodeUid]] = []

    def follow(self, peer: NodeUid, link: int, now: float) -> None:
        """What the kernel believes of the path to a peer that has an IKE SA. Not less than FLOOR_BYTES is searched."""
        search = self._searches.get(peer)
        if link <= FLOOR_BYTES:
            self._searches.pop(peer, None)
        elif search is None or search.link != link:
            self._searches[peer] = search = _Search(peer=peer, link=link, path=search.path if search else None)
            self._plan(search, now)

    def keep(self, peers: Collection[NodeUid]) -> None:
        """Forgets all others."""
        for peer in self._searches.keys() - set(peers):
            del self._searches[peer]

    def narrow(self, peer: NodeUid) -> int | None:
        """The size that was found to pass, if the kernel's does not."""
        search = self._searches.get(peer)
        return search.path if search is not None and search.path is not None and search.path < search.link else None

    def answered(self, peer: NodeUid, size: int, passes: bool | None, now: float) -> None:
        """A probe's end. passes: None if this peer can't be probed."""
        search = self._searches.get(peer)
        if search is None or search.asked != size:
            return
        search.asked = None
        if passes is None:
            self._end(search, search.link, now)
        elif passes:
            search.low, search.tries = size, 0
            self._go_on(search, now)
        else:
            search.tries += 1
            if search.tries >= TRIES:
                search.high, search.tries = size, 0
            self._go_on(search, now)

    def next_due(self) -> float | None:
        return self._wakes[0][0] if self._wakes else None

    def handle_timer(self, now: float) -> None:
        while self._wakes and self._wakes[0][0] <= now:
            _, peer = heapq.heappop(self._wakes)
            search = self._searches.get(peer)
            if search is not None and search.due is not None and search.due <= now:
                search.due = None
                if search.asked is None or now >= search.asked_at + PROBE_SECONDS:
                    search.asked = None
                    self._go_on(search, now)

    def _go_on(self, search: _Search, now: float) -> None:
        size = None if search.low == search.link else search.next_size()
        if size is None:
            self._end(search, search.low, now)
            return
        under_way = sum(
            other.asked is not None and now < other.asked_at + PROBE_SECONDS for other in self._searches.values()
        )
        if under_way < MAX_PROBES and self._ask(search.peer, size):
            search.asked, search.asked_at = size, now
            self._plan(search, now + PROBE_SECONDS)
        else:
            self._plan(search, now + _LATER_SECONDS * self._chance.uniform(1.0, 2.0))

    def _end(self, search: _Search, path: int, now: float) -> None:
        before, search.path = search.path, path
        search.low, search.high, search.tries = FLOOR_BYTES, 0, 0
        self._plan(search, now + RECHECK_SECONDS * self._chance.uniform(0.9, 1.1))
        if path != (before or search.link):
            self._found()

    def _plan(self, search: _Search, due: float) -> None:
        search.due = due
        heapq.heappush(self._wakes, (due, search.peer))
