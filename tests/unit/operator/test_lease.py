"""One replica leads; a lost, expired or given-up Lease changes hands, and never two lead by their own clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from hauberk_api.names import LEASE
from hauberk_operator import lease as lease_module
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.lease import DURATION_SECONDS, RENEW_DEADLINE_SECONDS, Lease, LeaseLostError, Observation, Record
from hauberk_operator.writes import LEASE_RESOURCE
from tests.unit.operator.fake_api import FakeApi


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The lease module sleeps on this clock, and gives way once each time."""
    clock = Clock()
    give_way = asyncio.sleep

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        await give_way(0)

    monkeypatch.setattr(lease_module.asyncio, "sleep", sleep)
    return clock


def candidate(api: FakeApi, clock: Clock, name: str) -> Lease:
    return Lease(cast("Kube", api), namespace="hauberk-system", identity=name, clock=clock)


def spec(api: FakeApi) -> dict[str, Any]:
    return api.objects[LEASE_RESOURCE.kind, LEASE]["spec"]


def run(work: Awaitable[None], *, limit: float = 5.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(limit):
            await work

    asyncio.run(bounded())


RECORD = Record(holder="a", duration_seconds=15, renewed="1", resource_version="1")


@pytest.mark.parametrize(
    ("record", "waited", "may"),
    [
        (RECORD, 0.0, False),
        (RECORD, 14.9, False),
        (RECORD, 15.0, True),
        (Record(holder="", resource_version="1"), 0.0, True),
        (Record(holder="b", duration_seconds=15, resource_version="1"), 0.0, True),
    ],
)
def test_who_may_take_a_lease(record: Record, waited: float, may: bool) -> None:
    """b looks at it: held by a and fresh, expired, given up, or its own from before a restart."""
    assert Observation(record=record, since=100.0).may_take("b", 100.0 + waited) is may


def test_a_renewal_starts_the_wait_anew() -> None:
    renewed = Record(holder="a", duration_seconds=15, renewed="2", resource_version="2")
    observation = Observation(record=RECORD, since=100.0).seeing(RECORD, 110.0)
    assert observation.since == 100.0
    assert observation.seeing(renewed, 112.0).since == 112.0


def test_the_first_to_come_leads(clock: Clock) -> None:
    api = FakeApi()
    run(candidate(api, clock, "a").acquire())
    assert spec(api)["holderIdentity"] == "a"
    assert spec(api)["leaseDurationSeconds"] == DURATION_SECONDS


def test_an_empty_lease_of_the_charts_is_taken(clock: Clock) -> None:
    api = FakeApi()
    api.add(LEASE_RESOURCE, {"metadata": {"name": LEASE}})
    run(candidate(api, clock, "a").acquire())
    assert spec(api)["holderIdentity"] == "a"


def test_a_standby_takes_over_only_after_the_duration(clock: Clock) -> None:
    api = FakeApi()
    run(candidate(api, clock, "a").acquire())
    began = clock.now
    run(candidate(api, clock, "b").acquire())
    assert spec(api)["holderIdentity"] == "b"
    assert spec(api)["leaseTransitions"] == 1
    assert clock.now - began >= DURATION_SECONDS


def test_a_holder_gives_up_before_a_standby_may_take_over() -> None:
    assert RENEW_DEADLINE_SECONDS < DURATION_SECONDS


def test_a_lease_given_up_is_taken_at_once(clock: Clock) -> None:
    api = FakeApi()
    first = candidate(api, clock, "a")

    async def story() -> None:
        await first.acquire()
        await first.release()

    run(story())
    began = clock.now
    run(candidate(api, clock, "b").acquire())
    assert spec(api)["holderIdentity"] == "b"
    assert clock.now == began


def loses(first: Lease, happens: Callable[[], Awaitable[None]]) -> str:
    """first leads, something happens, first notices. Returns what it says."""

    async def story() -> None:
        await first.acquire()
        await happens()
        await first.renew()

    with pytest.raises(LeaseLostError) as caught:
        run(story())
    return str(caught.value)


def test_a_holder_whose_lease_was_taken_stops_at_its_next_renewal(clock: Clock) -> None:
    api = FakeApi()
    began = clock.now
    assert loses(candidate(api, clock, "a"), candidate(api, clock, "uninstall").seize) == "uninstall holds the Lease"
    assert clock.now - began <= 2 * lease_module.RETRY_SECONDS


def test_a_holder_whose_lease_was_deleted_stops(clock: Clock) -> None:
    api = FakeApi()

    async def vanish() -> None:
        api.take(LEASE_RESOURCE, LEASE)

    assert loses(candidate(api, clock, "a"), vanish) == "nobody holds the Lease"


def test_a_holder_that_cannot_renew_stops_by_itself(clock: Clock) -> None:
    api = FakeApi()
    began = clock.now

    async def outage() -> None:
        api.fault = KubeError(0, "Unreachable", "no route to host")

    assert "no route to host" in loses(candidate(api, clock, "a"), outage)
    assert clock.now - began <= DURATION_SECONDS


def test_a_short_outage_is_survived(clock: Clock) -> None:
    api = FakeApi()

    async def outage() -> None:
        api.fault = KubeError(503, "", "overloaded")

    assert renews(candidate(api, clock, "a"), api, clock, outage)


def test_a_stranger_who_labels_the_lease_does_not_end_the_term(clock: Clock) -> None:
    api = FakeApi()

    async def label() -> None:
        api.add(LEASE_RESOURCE, api.objects[LEASE_RESOURCE.kind, LEASE])  # a newer version

    assert renews(candidate(api, clock, "a"), api, clock, label)


def renews(first: Lease, api: FakeApi, clock: Clock, happens: Callable[[], Awaitable[None]]) -> bool:
    """first leads, something happens and is over after 5 s: whether first goes on to renew for another minute."""

    async def story() -> bool:
        await first.acquire()
        await happens()
        began = clock.now
        renewing = asyncio.create_task(first.renew())
        writes = 0
        while clock.now < began + 60 and not renewing.done():
            if clock.now >= began + 5 and api.fault is not None:
                api.fault, writes = None, len(api.writes)
            await asyncio.sleep(0)
        renewing.cancel()
        (outcome,) = await asyncio.gather(renewing, return_exceptions=True)
        return isinstance(outcome, asyncio.CancelledError) and len(api.writes) > writes + 10

    return asyncio.run(story())
