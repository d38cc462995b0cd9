"""The drill's verdict: what it takes for a failure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest

from tests.drill.short_certificates import Outcome, old_certificates
from tests.lab.traffic import Count, Flow, Stats
from tests.lab.vigil import Toll
from tests.unit.ike.authority import TODAY, Authority

NODES = ("n1", "n2", "n3")
FLOWS = tuple(
    Flow(source=one, destination=other, path="pod-pod", family=4, protocol="udp")
    for one, other in permutations(NODES, 2)
)
GOOD = Outcome(
    minutes=2.0,
    ca_rolls=2,
    renewals=6,
    stats=Stats(dict.fromkeys(FLOWS, Count(sent=100, answered=99))),
    toll=Toll(windows=2, packets=5000, esp=4000, pairs=frozenset(permutations(NODES, 2))),
    oldest_seconds=58.0,
)


def test_a_run_in_which_all_held_has_no_fault() -> None:
    assert GOOD.judge(NODES, FLOWS, rolls=2) == []


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (replace(GOOD, ca_rolls=1), "1 of 2 rolls ended"),
        (replace(GOOD, renewals=5), "5 renewals, fewer than the 6 lives that passed"),
        (replace(GOOD, oldest_seconds=66.0), "an SA was in use for 66 s: longer than a certificate lives"),
        (replace(GOOD, toll=replace(GOOD.toll, clear=1, offenders=("a pod",))), "1 packets in clear, the first: a pod"),
        (replace(GOOD, toll=replace(GOOD.toll, missed=3)), "the captures missed 3 packets, or parts of them"),
        (replace(GOOD, toll=replace(GOOD.toll, pairs=frozenset())), "no ESP seen between n1>n2, n1>n3"),
        (
            replace(GOOD, stats=Stats({**GOOD.stats.flows, FLOWS[0]: Count(sent=9, answered=8, lost=1)})),
            "1 of 509 messages lost",
        ),
        (
            replace(GOOD, stats=Stats({**GOOD.stats.flows, FLOWS[0]: Count(sent=9, answered=8, wrong=2)})),
            "2 answers that fit no message",
        ),
        (
            replace(GOOD, stats=Stats({flow: count for flow, count in GOOD.stats.flows.items() if flow != FLOWS[0]})),
            "nothing was answered on n1 > n2 pod-pod IPv4 udp",
        ),
        (replace(GOOD, stats=Stats(GOOD.stats.flows, ("pod-x",))), "no counters from pod-x"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_did_not_hold_is_said(bad: Outcome, fault: str) -> None:
    (said,) = bad.judge(NODES, FLOWS, rolls=2)
    assert said.startswith(fault)


def test_at_the_end_nothing_is_left_of_an_old_root() -> None:
    old, new = Authority(), Authority()
    soon, later = TODAY + timedelta(seconds=30), TODAY + timedelta(seconds=60)
    before, spent = (old.issue("n1", not_after=end)[1] for end in (later, soon))
    after = new.issue("n1", not_after=later)[1]
    signed = {certificate.serial_number: certificate for certificate in (before, spent, after)}

    def faults(*roots: Authority, uses: int, seconds: int) -> list[str]:
        now = TODAY + timedelta(seconds=seconds)
        return old_certificates(signed, {"n1": uses}, [root.certificate for root in roots], now=now)

    assert faults(new, uses=after.serial_number, seconds=61) == []
    (good_still,) = faults(new, uses=after.serial_number, seconds=40)
    assert good_still == f"certificate {before.serial_number:x} of an old root is good until 12:01:00"
    assert faults(new, uses=spent.serial_number, seconds=61) == ["n1 uses a certificate of an old root"]
    assert faults(new, uses=7, seconds=61) == ["nobody saw n1's certificate 7 being signed"]
    assert faults(new, old, uses=after.serial_number, seconds=61) == ["2 roots are trusted at the end, not one"]
