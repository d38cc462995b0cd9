"""A seeded network between two parties that loses, doubles, delays and reorders what it carries."""

from __future__ import annotations

import heapq
import random

from hauberk_ike import Datagram
from tests.unit.ike.party import Pair, Party


class TerribleNetwork:
    """Carries datagrams between the two of a pair, badly. Time runs as far as something happens."""

    def __init__(self, pair: Pair, seed: int, *, loss: float = 0.25, copies: float = 0.2, delay: float = 2.0) -> None:
        self.pair = pair
        self.random = random.Random(seed)
        self.loss, self.copies, self.delay = loss, copies, delay
        self.on_the_way: list[tuple[float, int, str, Datagram]] = []
        self.sent = 0

    def run(self, seconds: float) -> None:
        """Lets everybody talk for a time."""
        pair = self.pair
        end = pair.now + seconds
        for _ in range(20_000):
            for sender, receiver in (("alice", "bob"), ("bob", "alice")):
                for datagram in self._party(sender).take(pair.now):
                    self._carry(receiver, datagram)
            timers = [party.endpoint.get_timer() for party in (pair.alice, pair.bob)]
            times = [timer for timer in timers if timer is not None]
            if self.on_the_way:
                times.append(self.on_the_way[0][0])
            if not times or min(times) > end:
                pair.now = end
                return
            pair.now = max(pair.now, min(times))
            while self.on_the_way and self.on_the_way[0][0] <= pair.now:
                _, _, receiver, datagram = heapq.heappop(self.on_the_way)
                self._party(receiver).receive(datagram, pair.now)
            for party in (pair.alice, pair.bob):
                party.endpoint.handle_timer(pair.now)
                party.drain()
        raise AssertionError("it does not come to rest")

    def _party(self, name: str) -> Party:
        """Whoever has that name now: nodes reboot, and what is on its way reaches the next life."""
        return self.pair.alice if name == "alice" else self.pair.bob

    def _carry(self, receiver: str, datagram: Datagram) -> None:
        for _ in range(2 if self.random.random() < self.copies else 1):
            if self.random.random() >= self.loss:
                self.sent += 1
                arrival = self.pair.now + self.random.random() * self.delay
                heapq.heappush(self.on_the_way, (arrival, self.sent, receiver, datagram))
