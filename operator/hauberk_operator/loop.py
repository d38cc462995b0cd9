"""A level-triggered loop: poked by whatever has changed, it runs one step at a time, and again until all is well.

A step reads the state of the world afresh and does what is to be done, so that any number of pokes are worth one step.
It returns in how many seconds it wants to run again unasked, or None. When it raises a KubeError, it is run again
after a growing, jittered pause. Everything else that a step raises is a defect and ends the program.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from hauberk_operator.kube import KubeError

SETTLE_SECONDS: Final = 0.05
"""How long a loop waits after a poke for more of them."""

PAUSE_SECONDS: Final = 0.25
"""The least time between two steps."""

REST: Final = 15.0
LONGEST_REST_SECONDS: Final = 2.0
"""A loop rests after a step for REST times the processor time that it took. So in a mesh of thousands, where a look at
the whole takes a while, what happens meanwhile is worth one look, and any storm costs a sixteenth of a processor."""

BACKOFF_SECONDS: Final = (0.5, 30.0)
"""The first and the longest pause after failures."""

log = logging.getLogger(__name__)

Step = Callable[[], Awaitable[float | None]]


class Loop:
    """One task's worth of work. run() is given to a TaskGroup."""

    def __init__(
        self, name: str, step: Step, *, clock: Callable[[], float], processor: Callable[[], float] = time.thread_time
    ) -> None:
        """clock and processor give seconds: the time, and the time that this thread has been computing."""
        self._name = name
        self._step = step
        self._clock = clock
        self._processor = processor
        self._poked = asyncio.Event()
        self._failures = 0
        self._started: float | None = None

    def poke(self) -> None:
        """Say that something has changed."""
        self._poked.set()

    def progress(self) -> None:
        """Say, in a step that has much to do, that a part of it is done."""
        if self._started is not None:
            self._started = self._clock()

    def busy_seconds(self) -> float:
        """How long the present step has been without progress; 0 between steps. A probe's way to see a stuck loop."""
        return 0.0 if self._started is None else self._clock() - self._started

    async def run(self) -> None:
        self.poke()
        wait: float | None = None
        while True:
            await self._wait(wait)
            await asyncio.sleep(SETTLE_SECONDS)
            self._poked.clear()
            self._started = self._clock()
            began = self._processor()
            try:
                wait = await self._step()
                self._failures = 0
            except KubeError as error:
                wait = self._backoff()
                log.warning("%s: %s; again in %.1f s", self._name, error, wait)
            finally:
                self._started = None
            rest = min(REST * (self._processor() - began), LONGEST_REST_SECONDS)
            await asyncio.sleep(max(PAUSE_SECONDS, rest))

    async def _wait(self, seconds: float | None) -> None:
        if self._failures:
            # Pokes do not shorten the pause after a failure.
            await asyncio.sleep(seconds or 0)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            return

    def _backoff(self) -> float:
        first, longest = BACKOFF_SECONDS
        pause = min(longest, first * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        return pause * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
