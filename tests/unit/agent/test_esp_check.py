"""Whether ESP arrives: when it is asked, and what follows from the answers."""

from __future__ import annotations

from typing import cast

from hauberk_agent.esp_check import MAX_QUESTIONS, RECHECK_SECONDS, EspChecks, Verdict, Way
from hauberk_api.names import NodeUid
from hauberk_ike import EspArrived, IkeSaId, PeerConfig
from hauberk_xfrm import Spi

PEER = NodeUid("uid-2")


def way(spi: int = 0xC0000001, ike_sa: int = 1) -> Way:
    return Way(peer=PEER, ike_sa=IkeSaId(ike_sa), spi_out=Spi(spi))


class Wire:
    """A path on which probes arrive or not, and a peer that tells, or can't; a clock."""

    def __init__(self, *, passes: bool = True, tells: bool = True, can_probe: bool = True) -> None:
        self.passes, self.tells, self.can_probe = passes, tells, can_probe
        self.now = 100.0
        self.arrived = 0
        self.sent = 0
        self.elsewhere = False
        """Whether the kernel sends by another SA."""
        self.received = 0
        self.questions = 0
        self.verdicts: list[Verdict] = []
        self._asked: list[Way] = []
        self.checks = EspChecks(
            probe=self._probe,
            ask=self._ask,
            judged=lambda _, verdict: self.verdicts.append(verdict),
            has_received=self._has_received,
            count_sent=self._count_sent,
        )

    def send(self, packets: int) -> None:
        if self.elsewhere:
            return
        self.sent += packets
        self.arrived += packets if self.passes else 0

    def _probe(self, _: Way) -> bool:
        if self.can_probe:
            self.send(2)
        return self.can_probe

    def _has_received(self, _: Way) -> bool:
        return self.received > 0

    def _count_sent(self, _: Way) -> int | None:
        return self.sent

    def _ask(self, asked: Way) -> bool:
        self.questions += 1
        self._asked.append(asked)
        return True

    def begin(self, *, initiator: bool = True) -> None:
        self.checks.follow(PEER, way(), self.now, initiator=initiator)

    def run(self, seconds: float, *, packets: int = 0, back: int = 0) -> None:
        """Time passes: timers ring, questions are answered at once, counters are looked at every second."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            due = self.checks.next_due()
            if due is not None and due <= self.now:
                self.checks.handle_timer(self.now)
            while self._asked:
                asked = self._asked.pop()
                told = self.arrived if self.tells else None
                event = EspArrived(
                    ike_sa=asked.ike_sa, peer=cast("PeerConfig", None), spi_out=asked.spi_out, packets=told
                )
                self.checks.answered(PEER, event, self.now)
            if round(self.now / 0.05) % 20 == 0:
                self.send(packets)
                self.received += back
                self.checks.look(PEER, sent=self.sent, received=self.received, now=self.now)


def test_a_new_way_is_probed_and_asked_about_once() -> None:
    wire = Wire()
    wire.begin()
    assert wire.checks.is_open(PEER)
    wire.run(60)
    assert wire.verdicts == [Verdict.PASSES]
    assert wire.questions == 1
    assert not wire.checks.is_open(PEER)


def test_the_responder_asks_before_it_sends_anything() -> None:
    wire = Wire(passes=False)
    wire.begin(initiator=False)
    wire.run(0.9)
    assert (wire.sent, wire.questions) == (0, 0)
    wire.run(0.2)
    assert wire.questions >= 1
    wire.run(5)
    assert wire.verdicts == [Verdict.BLOCKED]


def test_the_responder_needs_no_probe_where_traffic_has_come() -> None:
    wire = Wire()
    wire.arrived = 5
    wire.begin(initiator=False)
    wire.run(2)
    assert wire.verdicts == [Verdict.PASSES]
    assert wire.sent == 0


def test_the_responder_does_not_ask_first_where_something_has_come_from_there() -> None:
    wire = Wire()
    wire.received = 1
    wire.begin(initiator=False)
    wire.run(5)
    assert wire.verdicts == [Verdict.PASSES]
    assert wire.questions == 1


def test_only_so_many_questions_are_under_way_at_once_and_a_dead_peer_holds_nobody_up() -> None:
    asked: list[Way] = []
    checks = EspChecks(
        probe=lambda _: True,
        ask=lambda way: asked.append(way) is None,
        judged=lambda _way, _verdict: None,
        has_received=lambda _: False,
        count_sent=lambda _: None,
    )
    ways = [Way(peer=NodeUid(f"uid-{n:02}"), ike_sa=IkeSaId(n), spi_out=Spi(0xC0000000 + n)) for n in range(100)]
    for each in ways:
        checks.follow(each.peer, each, 0.0, initiator=True)
    checks.handle_timer(0.0)
    assert asked == ways[:MAX_QUESTIONS]
    for each in asked[:4]:
        event = EspArrived(ike_sa=each.ike_sa, peer=cast("PeerConfig", None), spi_out=each.spi_out, packets=1)
        checks.answered(each.peer, event, 0.1)
    assert len(asked) == MAX_QUESTIONS + 4, "each that is answered makes room for another one"
    for _ in range(20):  # nobody else answers
        due = checks.next_due()
        if due is not None:
            checks.handle_timer(due + 0.01)
    assert asked == ways


def test_blocked_is_said_after_several_tries_within_seconds() -> None:
    wire = Wire(passes=False)
    wire.begin()
    wire.run(1.0)
    assert wire.verdicts == []
    wire.run(2.0)
    assert wire.verdicts == [Verdict.BLOCKED]
    assert wire.sent == 8
    assert wire.questions == 4


def test_a_probe_that_is_lost_blocks_nothing() -> None:
    wire = Wire(passes=False)
    wire.begin()
    wire.run(0.5)
    wire.passes = True
    wire.run(3)
    assert wire.verdicts == [Verdict.PASSES]


def test_probes_that_go_by_another_sa_say_nothing_and_are_sent_again_until_they_do_not() -> None:
    wire = Wire()
    wire.elsewhere = True
    wire.begin()
    wire.run(20)
    assert wire.verdicts == []
    assert wire.checks.is_open(PEER)
    assert 4 <= wire.questions <= 6, "ever later"
    wire.elsewhere = False
    wire.run(11)
    assert wire.verdicts == [Verdict.PASSES]


def test_a_path_is_blocked_though_its_first_probes_went_by_another_sa() -> None:
    wire = Wire(passes=False)
    wire.elsewhere = True
    wire.begin()
    wire.run(2)
    wire.elsewhere = False
    wire.run(8)
    assert wire.verdicts == [Verdict.BLOCKED]


def test_a_peer_that_cannot_tell_is_left_in_peace() -> None:
    wire = Wire(tells=False)
    wire.begin()
    wire.run(60, packets=10)
    assert wire.verdicts == [Verdict.UNKNOWN]
    assert wire.questions == 1


def test_a_peer_that_we_cannot_probe_is_no_blocked_one() -> None:
    wire = Wire(can_probe=False)
    wire.begin()
    wire.run(60)
    assert wire.verdicts == [Verdict.UNKNOWN]
    assert wire.questions == 0


def test_an_idle_way_is_not_asked_about() -> None:
    wire = Wire()
    wire.begin()
    wire.run(300)
    assert wire.questions == 1


def test_a_busy_way_is_asked_about_as_often_as_liveness() -> None:
    wire = Wire()
    wire.begin()
    wire.run(100, packets=5, back=5)
    assert set(wire.verdicts) == {Verdict.PASSES}
    assert 1 + 100 / (RECHECK_SECONDS + 3) < wire.questions <= 1 + 100 / RECHECK_SECONDS
    assert wire.sent == 500 + 2, "no probes but the first"


def test_a_way_on_which_nothing_comes_back_is_suspected_once() -> None:
    wire = Wire()
    wire.begin()
    wire.run(8, packets=5)
    assert wire.questions == 3, "the first one, and a baseline with a probe"
    wire.run(100, packets=5)
    assert wire.questions <= 3 + 100 / RECHECK_SECONDS
    assert set(wire.verdicts) == {Verdict.PASSES}


def test_a_path_that_begins_to_block_is_found_out_within_seconds_when_nothing_comes_back() -> None:
    wire = Wire()
    wire.begin()
    wire.run(60, packets=5, back=5)
    wire.passes = False
    wire.run(8, packets=5)
    assert wire.verdicts[-1] is Verdict.BLOCKED


def test_one_direction_alone_is_found_out_by_who_sends() -> None:
    wire = Wire()
    wire.begin()
    wire.run(60, packets=5, back=5)
    wire.passes = False
    wire.run(2 * RECHECK_SECONDS + 4, packets=5, back=5)
    assert wire.verdicts[-1] is Verdict.BLOCKED


def test_another_sa_is_checked_anew_and_none_is_not() -> None:
    wire = Wire()
    wire.begin()
    wire.run(5)
    wire.arrived = 0
    wire.checks.follow(PEER, way(0xC0000002), wire.now, initiator=True)
    assert wire.checks.is_open(PEER)
    wire.run(5)
    assert wire.questions == 2
    wire.checks.follow(PEER, None, wire.now, initiator=True)
    assert not wire.checks.is_open(PEER)
    wire.run(60, packets=5)
    assert wire.questions == 2


def test_an_answer_about_another_sa_means_nothing() -> None:
    wire = Wire()
    wire.begin()
    wire.checks.handle_timer(wire.now)
    event = EspArrived(ike_sa=IkeSaId(1), peer=cast("PeerConfig", None), spi_out=0x999, packets=7)
    wire.checks.answered(PEER, event, wire.now)
    assert wire.verdicts == []


def test_an_answer_that_was_not_asked_for_means_nothing() -> None:
    wire = Wire()
    wire.begin()
    wire.run(5)
    event = EspArrived(ike_sa=IkeSaId(1), peer=cast("PeerConfig", None), spi_out=way().spi_out, packets=7)
    wire.checks.answered(PEER, event, wire.now)
    wire.checks.answered(NodeUid("nobody"), event, wire.now)
    assert wire.verdicts == [Verdict.PASSES]
