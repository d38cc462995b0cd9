"""How the size that comes through is searched: few packets where nothing is amiss, and few more where something is."""

from __future__ import annotations

from random import Random

import pytest

from hauberk_agent.path_search import FLOOR_BYTES, MAX_PROBES, RECHECK_SECONDS, PathSearches
from hauberk_api.names import NodeUid

PEER = NodeUid("uid-2")


class Paths:
    """Peers behind paths of some width. A probe that is too large fails after a second; others pass at once."""

    def __init__(self, width: int, *, lose: int = 0) -> None:
        self.width = width
        self.lose = lose
        """Probes that fail by accident, from the first on."""
        self.now = 1000.0
        self.asked: list[tuple[NodeUid, int]] = []
        self.pending: list[tuple[NodeUid, int]] = []
        self.found = 0
        self.can_ask = True
        self.searches = PathSearches(ask=self._ask, chance=Random(1), found=self._count)

    def _ask(self, peer: NodeUid, size: int) -> bool:
        if self.can_ask:
            self.asked.append((peer, size))
            self.pending.append((peer, size))
        return self.can_ask

    def _count(self) -> None:
        self.found += 1

    def answer_all(self) -> None:
        pending, self.pending = self.pending, []
        for peer, size in pending:
            passes = size <= self.width and len(self.asked) > self.lose
            self.now += 0.001 if passes else 1.0
            self.searches.answered(peer, size, passes, self.now)

    def run(self, seconds: float = 60.0) -> None:
        end = self.now + seconds
        while True:
            self.searches.handle_timer(self.now)
            if self.pending:
                self.answer_all()
                continue
            due = self.searches.next_due()
            if due is None or due > end:
                self.now = max(end, self.now)
                return
            self.now = max(due, self.now)

    def follow(self, link: int, peer: NodeUid = PEER) -> None:
        self.searches.follow(peer, link, self.now)
        self.run()


def test_a_path_as_wide_as_the_kernel_believes_costs_one_packet() -> None:
    paths = Paths(1500)
    paths.follow(1500)
    assert paths.asked == [(PEER, 1500)]
    assert paths.searches.narrow(PEER) is None
    assert paths.found == 0
    paths.follow(1500)  # and no more when nothing changes
    assert len(paths.asked) == 1


@pytest.mark.parametrize(
    ("link", "width", "found"),
    [
        (1500, 1400, 1400),
        (1500, 1399, 1380),
        (1500, 1280, 1280),
        (1500, 1499, 1492),
        (9000, 1500, 1500),
        (9000, 8950, 8900),
    ],
)
def test_a_narrower_path_is_found_in_a_dozen_packets(link: int, width: int, found: int) -> None:
    paths = Paths(width)
    paths.follow(link)
    assert paths.searches.narrow(PEER) == found
    assert len(paths.asked) <= 12
    assert paths.found == 1


def test_a_packet_that_is_lost_by_accident_makes_no_path_narrow() -> None:
    paths = Paths(1500, lose=1)
    paths.follow(1500)
    assert paths.asked == [(PEER, 1500)] * 2
    assert paths.searches.narrow(PEER) is None


def test_a_path_that_changes_is_noticed_in_time_both_ways() -> None:
    paths = Paths(1500)
    paths.follow(1500)
    paths.width = 1400
    paths.run(RECHECK_SECONDS * 1.2)
    assert paths.searches.narrow(PEER) == 1400
    paths.width = 1500
    paths.run(RECHECK_SECONDS * 1.2)
    assert paths.searches.narrow(PEER) is None
    assert paths.found == 2


def test_what_was_found_holds_while_it_is_searched_anew() -> None:
    paths = Paths(1400)
    paths.follow(1500)
    paths.searches.follow(PEER, 1480, paths.now)
    assert paths.searches.narrow(PEER) == 1400
    paths.run()
    assert paths.searches.narrow(PEER) == 1400


def test_a_peer_that_cannot_be_probed_is_believed_to_be_as_the_kernel_says() -> None:
    paths = Paths(1400)
    paths.searches.follow(PEER, 1500, paths.now)
    paths.searches.handle_timer(paths.now)
    paths.searches.answered(PEER, 1500, None, paths.now)
    assert paths.searches.narrow(PEER) is None


def test_what_cannot_be_asked_now_is_asked_later() -> None:
    paths = Paths(1400)
    paths.can_ask = False
    paths.follow(1500)
    assert paths.asked == []
    paths.can_ask = True
    paths.run()
    assert paths.searches.narrow(PEER) == 1400


def test_many_peers_are_probed_a_few_at_a_time() -> None:
    paths = Paths(1500)
    peers = [NodeUid(f"uid-{number}") for number in range(100)]
    for peer in peers:
        paths.searches.follow(peer, 1500, paths.now)
    paths.searches.handle_timer(paths.now)
    assert len(paths.pending) == MAX_PROBES
    paths.run(600)
    assert {peer for peer, _ in paths.asked} == set(peers)


def test_a_peer_that_is_gone_is_forgotten_and_a_path_below_the_floor_left_alone() -> None:
    paths = Paths(1400)
    paths.follow(1500)
    paths.searches.keep(())
    assert paths.searches.narrow(PEER) is None
    paths.follow(FLOOR_BYTES)
    assert paths.searches.narrow(PEER) is None
    assert paths.searches.next_due() is None or not paths.pending
