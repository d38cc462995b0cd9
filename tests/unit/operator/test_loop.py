"""A loop runs one step at a time, as often as is needed and no oftener."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from hauberk_operator import loop as loop_module
from hauberk_operator.kube import KubeError
from hauberk_operator.loop import BACKOFF_SECONDS, LONGEST_REST_SECONDS, PAUSE_SECONDS, REST, Loop


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeps take no time; how long they would have been is collected."""
    taken: list[float] = []
    give_way = asyncio.sleep

    async def sleep(seconds: float) -> None:
        taken.append(seconds)
        await give_way(0)

    monkeypatch.setattr(loop_module.asyncio, "sleep", sleep)
    return taken


def drive(
    step: Callable[[], Awaitable[float | None]],
    until: Callable[[], bool],
    *,
    processor: Callable[[], float] = time.thread_time,
) -> None:
    """Run a loop until something holds; what ends it is raised."""

    async def story() -> None:
        made = Loop("test", step, clock=time.monotonic, processor=processor)
        running = asyncio.create_task(made.run())
        async with asyncio.timeout(5):
            while not until() and not running.done():
                await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if not running.cancelled() and (error := running.exception()) is not None:
            raise error

    asyncio.run(story())


def test_the_first_step_needs_no_poke_and_the_second_does() -> None:
    steps = 0

    async def step() -> float | None:
        nonlocal steps
        steps += 1
        return None

    drive(step, lambda: steps == 1)
    assert steps == 1


def test_a_step_that_wants_to_be_run_again_is() -> None:
    steps = 0

    async def step() -> float | None:
        nonlocal steps
        steps += 1
        return 0.001

    drive(step, lambda: steps >= 3)
    assert steps >= 3


def test_pokes_during_a_step_are_worth_one_more_step() -> None:
    made: list[Loop] = []
    steps = 0

    async def story() -> None:
        async def step() -> float | None:
            nonlocal steps
            steps += 1
            if steps == 1:
                for _ in range(100):
                    made[0].poke()
            return None

        made.append(Loop("test", step, clock=time.monotonic))
        running = asyncio.create_task(made[0].run())
        for _ in range(200):
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())
    assert steps == 2


@pytest.mark.parametrize(("took", "rest"), [(0.001, PAUSE_SECONDS), (0.1, 0.1 * REST), (60.0, LONGEST_REST_SECONDS)])
def test_a_step_that_computes_for_long_is_followed_by_a_longer_rest(
    took: float, rest: float, naps: list[float]
) -> None:
    computed = 0.0
    steps = 0

    async def step() -> float | None:
        nonlocal computed, steps
        computed += took
        steps += 1
        return 0.001

    drive(step, lambda: steps >= 2, processor=lambda: computed)
    assert naps[1] == pytest.approx(rest)


def test_failures_are_tried_again_at_growing_intervals(naps: list[float]) -> None:
    steps = 0

    async def step() -> float | None:
        nonlocal steps
        steps += 1
        if steps < 9:
            raise KubeError(503, "", "overloaded")
        return None

    drive(step, lambda: steps >= 9)
    pauses = [nap for nap in naps if nap not in (loop_module.SETTLE_SECONDS, loop_module.PAUSE_SECONDS)]
    first, longest = BACKOFF_SECONDS
    assert len(pauses) == 8
    assert pauses[0] == pytest.approx(first, rel=0.21)
    assert pauses[-1] == pytest.approx(longest, rel=0.21)


def test_a_defect_ends_the_loop() -> None:
    async def step() -> float | None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drive(step, lambda: False)


def test_a_step_with_much_to_do_is_not_stuck_while_it_gets_on() -> None:
    now = 100.0
    busy: list[float] = []

    async def story() -> None:
        async def step() -> float | None:
            nonlocal now
            now += 50
            busy.append(made.busy_seconds())
            made.progress()
            now += 20
            busy.append(made.busy_seconds())
            return None

        made = Loop("test", step, clock=lambda: now)
        made.progress()
        assert made.busy_seconds() == 0.0, "nothing is under way"
        running = asyncio.create_task(made.run())
        async with asyncio.timeout(5):
            while not busy[1:]:
                await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())
    assert busy == [50.0, 20.0]
