"""A case being played: the bed, both daemons, and what is checked before and after each event.

`Scene.protected` is the judgement that a tunnel is as it should be: pings pass, as ESP alone, and each end's kernel has
exactly one SA a direction that counts them, the same at both ends. `Scene.bare` is the judgement that nothing is left.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hauberk_xfrm import StateDump
from hauberk_xfrm.statistics import read_statistics
from tests.interop.bed import Bed, Gateway, IpAddress, inside
from tests.interop.credentials import Identity
from tests.interop.daemon import Daemon
from tests.interop.hauberk import Hauberk
from tests.interop.terms import Terms
from tests.interop.traffic import Stream

SETTLE_SECONDS = 20.0
MOST_LOST = 3

Excuse = tuple[str, str]
"""A gateway, and the name under which its kernel counts what it drops (/proc/net/xfrm_stat)."""


@dataclass(slots=True, kw_only=True)
class Scene:
    """Everything that an event may touch. `initiates`: whether our side set up the IKE SA."""

    bed: Bed
    ours: Hauberk
    theirs: Daemon
    terms: Terms
    identities: tuple[Identity, Identity]
    """Ours and theirs."""
    initiates: bool
    policies_before: dict[str, int] = field(default_factory=dict[str, int])

    def protected(self) -> None:
        """The tunnel stands and is used, both ways, and there is no other. Raises AssertionError."""
        self.ours.command("status")  # it has then acted on all that it reported: policies stand too
        self.settles(self._stands, self._states)
        self.bed.wire.taken()
        before = self._counters()
        for source, address, target in self._paths():
            answered = self.bed.ping(source, address, target)
            assert answered == 2, f"{answered} of 2 pings from {source} to {target} were answered; {self._states()}"
        assert self.bed.wire.esp() >= 4 * len(self._paths()), "fewer frames of ESP than pings and answers"
        after = self._counters()
        assert before.keys() == after.keys(), "an SA came or went while nothing happened"
        grown = {key for key in after if after[key] > before[key]}
        assert grown == after.keys(), f"SAs that carried nothing: {after.keys() - grown}"
        left, right = ({spi for name, spi in after if name == gateway.name} for gateway in self._gateways())
        assert left == right, f"the ends have different SAs: {left}, {right}"

    def bare(self, names: Sequence[str]) -> None:
        """Nothing is left of the tunnel in the kernel tables of the gateways of those names. Raises AssertionError."""
        for gateway in self._gateways():
            if gateway.name in names:
                before = self.policies_before[gateway.name]
                self.settles(
                    lambda gateway=gateway, before=before: not gateway.states() and len(gateway.policies()) <= before,
                    lambda gateway=gateway: f"{self._states()}; {', '.join(map(str, gateway.policies()))}",
                )

    @contextmanager
    def busy(self, excuses: Collection[Excuse] = ()) -> Generator[None]:
        """Pings go on meanwhile, a hundred a second. Raises AssertionError if one is not answered.

        With excuses `MOST_LOST` of them may not be, if those kernels have dropped as many for those reasons.
        """
        source, address, target = self._paths()[0]
        before = self._dropped()
        stream = Stream(self.bed.pings(source, address, target))
        try:
            yield
        finally:
            sent, answered = stream.stop()
        lost, dropped = sent - answered, self._dropped() - before
        excused = min(MOST_LOST, sum(dropped[excuse] for excuse in excuses))
        assert lost <= excused, f"{lost} of {sent} pings were lost meanwhile; dropped: {dict(dropped)}"

    def settles(self, look: Callable[[], bool], what: Callable[[], str], *, seconds: float = SETTLE_SECONDS) -> None:
        """Waits until `look()` is true. Raises AssertionError with what is instead, when it isn't in time."""
        deadline = time.monotonic() + seconds
        while not look():
            assert time.monotonic() < deadline, f"not settled within {seconds:.0f} s: {what()}"
            time.sleep(0.1)

    def spis(self) -> set[int]:
        """The SPIs of the states in our kernel."""
        return {int(state.spi) for state in self.bed.left.states()}

    def _stands(self) -> bool:
        """The same two states at both ends, and policies: some daemons load those after they have answered."""
        policies = 2 if self.terms.transport else 3
        left, right = (sorted(int(state.spi) for state in gateway.states()) for gateway in self._gateways())
        return (left == right and len(left) == 2) and all(
            len(gateway.policies()) >= self.policies_before[gateway.name] + policies for gateway in self._gateways()
        )

    def _dropped(self) -> Counter[Excuse]:
        """What XFRM has dropped so far."""
        counts: Counter[Excuse] = Counter()
        for gateway in self._gateways():
            with inside(gateway.name):
                counts.update({(gateway.name, name): count for name, count in read_statistics().items()})
        return counts

    def _gateways(self) -> tuple[Gateway, Gateway]:
        return self.bed.left, self.bed.right

    def _paths(self) -> list[tuple[str, IpAddress, IpAddress]]:
        """What pings: from where, as whom, to whom."""
        left, right = self._gateways()
        if self.terms.transport:
            version = self.terms.outer
            return [(left.name, left.addresses[version], right.seen[version])]
        return [(left.pod_name, left.pods[version], right.pods[version]) for version in self.terms.inner]

    def _counters(self) -> dict[tuple[str, int], int]:
        return {
            (gateway.name, int(state.spi)): state.packets for gateway in self._gateways() for state in gateway.states()
        }

    def _states(self) -> str:
        def line(state: StateDump) -> str:
            return f"{state.source}->{state.destination} {state.spi:08x} {state.packets} packets"

        return "; ".join(
            f"{gateway.name}: {', '.join(map(line, gateway.states())) or 'no SA'}" for gateway in self._gateways()
        )
