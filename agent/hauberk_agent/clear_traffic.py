"""How many packets of Permissive tunnels pass in clear: keeps the kernel's counter, and counts on when it is new.

Counted are packets from and to the pods of the peers in Permissive tunnels. Used by the agent, which looks every
LOOK_SECONDS.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

from hauberk_agent.roster import Roster
from hauberk_api.tunnel import Enforcement, TrafficType
from hauberk_xfrm import ClearPackets, IpNetwork, XfrmError

_log = logging.getLogger("hauberk.clear")

LOOK_SECONDS: Final = 10.0
WINDOW_SECONDS: Final = 60.0


class Counter(Protocol):
    """What is needed of hauberk_xfrm.ClearCounter here."""

    def count(self, networks: Iterable[IpNetwork]) -> None: ...
    def remove(self) -> None: ...
    def read(self) -> ClearPackets | None: ...


class ClearTraffic:
    """`total` counts since the agent started, or nothing is counted (None)."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._networks: tuple[IpNetwork, ...] | None = None
        """What the table counts; None: not known, as an earlier run may have left one."""
        self._before = ClearPackets(arriving=0, leaving=0)
        self._now = self._before
        self._samples: deque[tuple[float, int]] = deque()
        self.problem: str | None = None

    @property
    def wanted(self) -> bool:
        return bool(self._networks)

    @property
    def total(self) -> ClearPackets | None:
        if not self._networks:
            return None
        before, now = self._before, self._now
        return ClearPackets(arriving=before.arriving + now.arriving, leaving=before.leaving + now.leaving)

    @property
    def recently(self) -> int:
        """Packets of about the last minute, rounded down to a power of two: reports hold it, and seldom change."""
        packets = self._samples[-1][1] - self._samples[0][1] if self._samples else 0
        return 1 << (packets.bit_length() - 1) if packets else 0

    def follow(self, roster: Roster | None, now: float) -> None:
        """Counts what this roster's Permissive tunnels are about; where there is none, the table goes."""
        networks = () if roster is None else tuple(dict.fromkeys(_permissive(roster)))
        if networks == self._networks:
            return
        if self._networks:
            self.look(now)
        try:
            if networks:
                self._make(networks)
            else:
                self._counter.remove()
                self._samples.clear()
            self._networks, self.problem = networks, None
        except XfrmError as error:
            self._networks = networks
            self._complain(error)
        if networks and not self._samples:
            self._samples.append((now, self._sum()))

    def look(self, now: float) -> None:
        """Reads the table, and makes it anew if it is gone."""
        if not self._networks:
            return
        try:
            read = self._counter.read()
            if read is None:
                self._make(self._networks)
            else:
                self._now = read
            self.problem = None
        except XfrmError as error:
            self._complain(error)
        self._samples.append((now, self._sum()))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW_SECONDS:
            self._samples.popleft()

    def _make(self, networks: tuple[IpNetwork, ...]) -> None:
        """A new table counts from zero."""
        self._before = ClearPackets(
            arriving=self._before.arriving + self._now.arriving, leaving=self._before.leaving + self._now.leaving
        )
        self._now = ClearPackets(arriving=0, leaving=0)
        self._counter.count(networks)

    def _sum(self) -> int:
        before, now = self._before, self._now
        return before.arriving + before.leaving + now.arriving + now.leaving

    def _complain(self, error: XfrmError) -> None:
        """A kernel without nftables has no table of ours either: nothing is said where nothing is to be counted."""
        if self._networks and self.problem != str(error):
            self.problem = str(error)
            _log.warning("packets in clear can't be counted: %s", error)


def _permissive(roster: Roster) -> Iterable[IpNetwork]:
    for peer in roster.peers:
        for tunnel in peer.tunnels:
            if tunnel.traffic.type is TrafficType.POD_NETWORK and tunnel.enforcement is Enforcement.PERMISSIVE:
                yield from peer.place.networks
