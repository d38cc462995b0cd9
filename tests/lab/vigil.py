"""A watch over a lab for as long as it takes: what crosses between the nodes, captured without a gap and judged.

    with Vigil(lab, ground, directory=scratch) as vigil:
        ...                         # an hour of whatever
        print(vigil.toll().clear)   # so far
    vigil.toll().require(esp_between=names)

One capture follows the other, each begun before the one before it ends, so that no frame is missed, and judged up to
the moment at which the next one runs, so that none counts twice. Then it is removed, unless it holds something that
must not be there: an hour needs no more room than two windows. Used by `make drill` and the long runs of the tests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from tests.lab.capture import Capture
from tests.lab.errors import LabError
from tests.lab.judge import MAX_OFFENDERS, Ground, NodePair, NotEncryptedError, Verdict, judge

WINDOW_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 120.0


class Wire(Protocol):
    """What we need of tests/lab/cluster.py's Lab."""

    @property
    def netns(self) -> str: ...
    @property
    def bridge(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Toll:
    """What all windows that have been judged by now show together.

    `missed` packets the captures have not seen, or not whole: with any of these they prove nothing. `offenders` are the
    first packets in clear, a line each; `kept` are the captures that hold them.
    """

    windows: int = 0
    seconds: float = 0.0
    packets: int = 0
    esp: int = 0
    clear: int = 0
    missed: int = 0
    pairs: frozenset[NodePair] = frozenset()
    offenders: tuple[str, ...] = ()
    kept: tuple[Path, ...] = ()

    def with_window(self, verdict: Verdict, *, seconds: float, path: Path) -> Toll:
        forbidden = verdict.clear.forbidden
        return Toll(
            windows=self.windows + 1,
            seconds=self.seconds + seconds,
            packets=self.packets + verdict.packets,
            esp=self.esp + verdict.esp,
            clear=self.clear + forbidden,
            missed=self.missed + verdict.dropped + verdict.truncated,
            pairs=self.pairs | verdict.esp_pairs.keys(),
            offenders=(*self.offenders, *verdict.offenders)[:MAX_OFFENDERS],
            kept=(*self.kept, path) if forbidden else self.kept,
        )

    def faults(self, *, esp_between: Iterable[str] = ()) -> list[str]:
        """Why this does not show that pod traffic was encrypted all the time, a sentence each; empty if it does.

        `esp_between`: names of nodes, of which every directed pair must have been seen to speak ESP.
        """
        nodes = list(esp_between)
        silent = [f"{a}>{b}" for a in nodes for b in nodes if a != b and (a, b) not in self.pairs]
        checks = (
            (self.esp == 0, f"no ESP in {self.packets} packets"),
            (self.missed > 0, f"the captures missed {self.missed} packets, or parts of them"),
            (self.clear > 0, f"{self.clear} packets in clear, the first: {'; '.join(self.offenders[:3])}"),
            (bool(silent), f"no ESP seen between {', '.join(silent)}"),
        )
        return [fault for wrong, fault in checks if wrong]

    def require(self, *, esp_between: Iterable[str] = ()) -> None:
        """Raise NotEncryptedError with everything that is wrong (see `faults`)."""
        if faults := self.faults(esp_between=esp_between):
            raise NotEncryptedError("\n".join((*faults, *self.offenders, *map(str, self.kept))))


class Vigil:
    """A running watch; `with` starts and ends it.

    ground: asked at the end of each window, as nodes may come and go. directory: where the captures go; those that
    hold something in clear stay there.
    """

    def __init__(
        self, wire: Wire, ground: Callable[[], Ground], *, directory: Path, window_seconds: float = WINDOW_SECONDS
    ) -> None:
        self._wire = wire
        self._ground = ground
        self._directory = directory
        self._window_seconds = window_seconds
        self._toll = Toll()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._watching = threading.Event()
        self._failure: Exception | None = None
        # A capture ends with the thread that has started it.
        self._thread = threading.Thread(target=self._run, name="vigil", daemon=True)

    def toll(self) -> Toll:
        """Of all windows that have been judged. Raises LabError when the watch has ended by itself."""
        if self._failure is not None:
            raise LabError(f"the watch over the wire ended: {self._failure}") from self._failure
        with self._lock:
            return self._toll

    def __enter__(self) -> Self:
        """Returns when the first capture runs. Raises LabError."""
        self._thread.start()
        self._watching.wait()
        self.toll()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends and judges the last capture. Raises LabError."""
        self._ending.set()
        self._thread.join(_STOP_SECONDS)
        if error is None:
            self.toll()

    def _run(self) -> None:
        try:
            # Whatever fails, no capture goes on.
            with ExitStack() as captures:
                number, running = 1, captures.enter_context(self._capture(0))
                self._watching.set()
                while not self._ending.wait(self._window_seconds):
                    following = captures.enter_context(self._capture(number))
                    self._conclude(running, until=following.started_at)
                    running, number = following, number + 1
                self._conclude(running, until=None)
        except Exception as error:  # noqa: BLE001 - told to whoever asks next
            self._failure = error
        finally:
            self._watching.set()

    def _capture(self, number: int) -> Capture:
        path = self._directory / f"window-{number}.pcap"
        return Capture(netns=self._wire.netns, interface=self._wire.bridge, path=path)

    def _conclude(self, capture: Capture, *, until: float | None) -> None:
        capture.stop()
        until = capture.stopped_at if until is None else until
        verdict = judge(capture.path, self._ground(), since=capture.started_at, until=until, dropped=capture.dropped)
        seconds = until - capture.started_at
        with self._lock:
            self._toll = self._toll.with_window(verdict, seconds=seconds, path=capture.path)
        if not verdict.clear.forbidden:
            capture.path.unlink()
