"""Events are deduplicated, counted in series, and bounded."""

from __future__ import annotations

from typing import Any

from hauberk_operator.facts import Json
from hauberk_operator.recorder import (
    BURST,
    COUNT_SECONDS,
    MAX_REMEMBERED,
    REFILL_SECONDS,
    SERIES_SECONDS,
    EventRecorder,
    Repeat,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def event(note: str = "n1 and n2", **values: Any) -> Json:
    said: Json = {"regarding": {"uid": "u"}, "type": "Warning", "reason": "Unreachable", "action": "Reconcile"}
    return said | {"note": note} | values


def recorder() -> tuple[EventRecorder, Clock]:
    clock = Clock()
    return EventRecorder(clock), clock


def test_the_same_again_is_a_series_that_counts() -> None:
    events, clock = recorder()
    assert events.take(event()) == event()
    events.made(event(), "hauberk-1")
    assert events.take(event()) == Repeat(name="hauberk-1", count=2)
    # -> more of it at once is counted, and written when it is time
    assert events.take(event()) is None
    assert events.take(event()) is None
    clock.now += COUNT_SECONDS
    assert events.take(event()) == Repeat(name="hauberk-1", count=5)


def test_something_else_is_an_event_of_its_own() -> None:
    events, _ = recorder()
    for said in (event(), event("n1 and n3"), event(reason="AllPairsUp"), event(regarding={"uid": "v"})):
        assert events.take(said) == said


def test_a_series_ends_when_it_has_been_quiet() -> None:
    events, clock = recorder()
    events.take(event())
    events.made(event(), "hauberk-1")
    clock.now += SERIES_SECONDS + 1
    assert events.take(event()) == event()


def test_what_was_not_written_or_has_expired_is_written_anew() -> None:
    events, _ = recorder()
    events.take(event())
    assert events.take(event()) is None, "its name is not known yet"
    events.forget(event())
    assert events.take(event()) == event()


def test_no_object_is_told_of_without_end() -> None:
    events, clock = recorder()
    written = [events.take(event(f"note {number}")) for number in range(100)]
    assert sum(said is not None for said in written) == BURST
    assert events.take(event("of another", regarding={"uid": "v"})) is not None
    clock.now += REFILL_SECONDS
    assert events.take(event("later")) is not None
    assert events.take(event("later still")) is None


def test_what_is_remembered_is_bounded() -> None:
    events, _ = recorder()
    for number in range(2 * MAX_REMEMBERED):
        events.take(event(regarding={"uid": str(number)}))
    assert events.take(event(regarding={"uid": "0"})) is not None
    assert events.take(event(regarding={"uid": str(2 * MAX_REMEMBERED - 1)})) is None
