"""Which Events are written: the same one twice makes a series, and no object is told of without end. Pure.

An Event (events.k8s.io/v1) has a series for what goes on happening: one object that counts, instead of one each time.
Only the series of an Event can be changed afterwards. Used by kube.py, through which all Events go; what a new leader
does not remember begins a new series.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

SERIES_SECONDS: Final = 600.0
"""After so long without it, the same is a new Event."""

COUNT_SECONDS: Final = 30.0
"""The least time between two writes of a series' count."""

BURST: Final = 10
REFILL_SECONDS: Final = 60.0
"""An object may be told of so many times at once, and then once in so long."""

MAX_REMEMBERED: Final = 4096

Json = Mapping[str, Any]


class _Key(NamedTuple):
    uid: str
    kind: str
    reason: str
    action: str
    note: str


@dataclass(slots=True, kw_only=True)
class _Series:
    name: str
    """Of the Event; empty until it has been made."""
    count: int
    last_at: float
    written_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """The Event of this name has happened again: its series has this count."""

    name: str
    count: int


class EventRecorder:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._series: OrderedDict[_Key, _Series] = OrderedDict()
        self._allowance: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By the UID of what Events are about: how many more, and as of when."""

    def take(self, event: Json) -> Json | Repeat | None:
        """What to write for an Event: itself, a series' count, or nothing."""
        now, key = self._clock(), _key(event)
        series = self._series.get(key)
        if series is not None and now - series.last_at <= SERIES_SECONDS:
            series.count, series.last_at = series.count + 1, now
            if not series.name or now - series.written_at < COUNT_SECONDS:
                return None
            series.written_at = now
            return Repeat(name=series.name, count=series.count)
        if not self._allow(key.uid, now):
            return None
        self._series[key] = _Series(name="", count=1, last_at=now, written_at=now - COUNT_SECONDS)
        self._series.move_to_end(key)
        if len(self._series) > MAX_REMEMBERED:
            self._series.popitem(last=False)
        return event

    def made(self, event: Json, name: str) -> None:
        """An Event has been written, under this name."""
        series = self._series.get(_key(event))
        if series is not None:
            series.name = name

    def forget(self, event: Json) -> None:
        """It was not written, or is no more: the next one is a new Event."""
        self._series.pop(_key(event), None)

    def _allow(self, uid: str, now: float) -> bool:
        left, since = self._allowance.get(uid, (float(BURST), now))
        left = min(float(BURST), left + (now - since) / REFILL_SECONDS)
        allowed = left >= 1.0
        self._allowance[uid] = (left - 1.0 if allowed else left, now)
        self._allowance.move_to_end(uid)
        if len(self._allowance) > MAX_REMEMBERED:
            self._allowance.popitem(last=False)
        return allowed


def _key(event: Json) -> _Key:
    return _Key(event["regarding"]["uid"], event["type"], event["reason"], event["action"], event["note"])
