"""Who is measured against whom: every pairing of initiator and responder, in turns, so that noise meets all alike.

Each pairing runs in processes of its own, with a warm-up, so that none profits from what another one left behind.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from benchmarks.ike.charon import Charon, Tuning, charon
from benchmarks.ike.hauberk import Hauberk, hauberk
from benchmarks.ike.identity import identities
from benchmarks.ike.wire import Host

PARALLEL: Final = (1, 16, 64)
"""Handshakes under way at a time; CPU per handshake is told for the middle one."""
_MIDDLE: Final = 16
_WARM_UP: Final = 30


class Kind(Enum):
    """Whose daemon."""

    OURS = "ours"
    CHARON = "charon"
    CHARON_TUNED = "charon, tuned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Who sets up IKE SAs with whom, with which algorithms."""

    initiator: Kind
    responder: Kind
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What handshakes took: CPU milliseconds a handshake on each side, handshakes a second of wall-clock time."""

    initiator_ms: float
    responder_ms: float
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Of one pairing: medians, by handshakes under way at a time; and what a handshake puts on the wire."""

    costs: dict[int, Cost]
    packets: float
    octets: float

    @property
    def cost(self) -> Cost:
        """With 16 under way at a time."""
        return self.costs[_MIDDLE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """Where the measuring is done."""

    initiator: Host
    responder: Host
    charon_root: Path
    directory: Path

    @contextlib.contextmanager
    def pair(self, pairing: Pairing) -> Generator[tuple[Hauberk | Charon, Hauberk | Charon]]:
        """Both daemons of a pairing, until the block ends."""
        with (
            self._daemon(pairing, responder=True) as responder,
            self._daemon(pairing, responder=False) as initiator,
        ):
            yield initiator, responder

    def _daemon(self, pairing: Pairing, *, responder: bool) -> contextlib.AbstractContextManager[Hauberk | Charon]:
        host, remote = (self.responder, self.initiator) if responder else (self.initiator, self.responder)
        peer, identity = identities() if responder else identities()[::-1]
        kind = pairing.responder if responder else pairing.initiator
        directory = self.directory / ("responder" if responder else "initiator")
        if kind is Kind.OURS:
            return hauberk(
                host, identity=identity, peer=peer, remote=remote, proposal=pairing.proposal, directory=directory
            )
        return charon(
            host,
            root=self.charon_root,
            tuning=Tuning.PACKAGED if kind is Kind.CHARON else Tuning.TUNED,
            identity=identity,
            peer=peer,
            remote=remote,
            proposal=pairing.proposal,
            directory=directory,
        )


def compare(
    bed: Bed, pairings: Sequence[Pairing], *, handshakes: int, repetitions: int, progress: Callable[[str], None]
) -> dict[Pairing, Result]:
    """Measures all pairings, `repetitions` times in turns."""
    results: dict[Pairing, list[Result]] = {pairing: [] for pairing in pairings}
    for repetition in range(repetitions):
        for pairing in pairings:
            result = _measure(bed, pairing, handshakes)
            results[pairing].append(result)
            progress(
                f"  {repetition + 1}/{repetitions} {pairing.initiator.value} to {pairing.responder.value}: "
                f"{result.cost.initiator_ms:.2f} and {result.cost.responder_ms:.2f} ms, {result.cost.rate:.0f}/s"
            )
    return {pairing: _median(measured) for pairing, measured in results.items()}


def resident_megabytes(bed: Bed, responder: Kind, proposal: str, counts: Sequence[int]) -> dict[int, float]:
    """The responder's resident memory (10^6 bytes) with no IKE SA, and with each of `counts`, which ascend."""
    megabytes: dict[int, float] = {}
    with bed.pair(Pairing(initiator=Kind.OURS, responder=responder, proposal=proposal)) as (initiator, daemon):
        megabytes[0] = daemon.resident_bytes() / 1e6
        done = 0
        for count in counts:
            initiator.initiate(count - done, parallel=_MIDDLE)
            done = count
            megabytes[count] = daemon.resident_bytes() / 1e6
    return megabytes


def _measure(bed: Bed, pairing: Pairing, handshakes: int) -> Result:
    costs: dict[int, Cost] = {}
    made = 0
    with bed.pair(pairing) as (initiator, responder):
        initiator.initiate(_WARM_UP, parallel=_MIDDLE)
        # What charon takes to be told is not the handshake's.
        overhead = initiator.control_seconds(handshakes) / handshakes if isinstance(initiator, Charon) else 0.0
        before = bed.initiator.passed()
        for parallel in PARALLEL:
            started = initiator.cpu_seconds(), responder.cpu_seconds()
            load = initiator.initiate(handshakes, parallel=parallel)
            costs[parallel] = Cost(
                initiator_ms=((initiator.cpu_seconds() - started[0]) / load.made - overhead) * 1e3,
                responder_ms=(responder.cpu_seconds() - started[1]) / load.made * 1e3,
                rate=load.rate,
            )
            made += load.made
        passed = bed.initiator.passed() - before
    return Result(costs=costs, packets=passed.packets / made, octets=passed.octets / made)


def _median(results: Sequence[Result]) -> Result:
    def of(value: Callable[[Result], float]) -> float:
        return statistics.median(map(value, results))

    return Result(
        costs={
            parallel: Cost(
                initiator_ms=of(lambda result, p=parallel: result.costs[p].initiator_ms),
                responder_ms=of(lambda result, p=parallel: result.costs[p].responder_ms),
                rate=of(lambda result, p=parallel: result.costs[p].rate),
            )
            for parallel in PARALLEL
        },
        packets=of(lambda result: result.packets),
        octets=of(lambda result: result.octets),
    )
