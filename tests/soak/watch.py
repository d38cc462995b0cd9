"""Eyes and hands in every node of the lab: one long-lived program each (`in_node`), whose samples are kept here.

What is counted survives what it is counted in: an agent's counters end with its process, a kernel's with its boot, and
both are summed up over all that have been seen. What an agent did in the second before it was killed may be missing, so
a sum of its counters is never too large.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from subprocess import TimeoutExpired
from typing import Any, Final

from tests.lab.cluster import Lab, Node
from tests.lab.errors import LabError, NotInTime, Unreachable
from tests.lab.kernel_process import node_python
from tests.soak import in_node

ANSWER_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a node looked like. `at`: when it came here, on the monotonic clock."""

    at: float
    counters: dict[str, int]
    states: frozenset[tuple[str, str, int]]
    """(source, destination, SPI)"""
    agent_run: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Over all nodes, boots and agents until now."""

    child_rekeys: int = 0
    ike_rekeys: int = 0
    installed: int = 0
    """Outbound states that the kernels were given."""
    agent_runs: int = 0
    counters: Counter[str] = field(default_factory=Counter[str])
    """/proc/net/xfrm_stat."""

    def counted_since(self, earlier: Sums) -> dict[str, int]:
        """The counters of /proc/net/xfrm_stat that have grown, and by how much."""
        return dict(sorted((self.counters - earlier.counters).items()))


class NodeWatch:
    """One node's. It goes on when the node comes back from a crash."""

    def __init__(self, lab: Lab, node: Node) -> None:
        self.node = node
        self.latest: Sample | None = None
        self.peak_states = 0
        self._lab = lab
        self._commands: queue.Queue[bytes] = queue.Queue()
        """Of the present connection: what an earlier one has taken out is lost with it."""
        self._answers: queue.Queue[object] = queue.Queue()
        self._pending = b""
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._rekeys: dict[str, tuple[int, int]] = {}
        self._counters: dict[str, dict[str, int]] = {}
        self._installed: list[int] = []
        self._thread = threading.Thread(target=self._run, name=f"watch {node.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._commands.put(b"")
        self._thread.join(ANSWER_SECONDS)

    def tell(self, do: str, **words: str | None) -> Any:
        """Have a thing done; what became of it. Raises NotInTime."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._answers.get_nowait()
        command = json.dumps({"do": do, **words}).encode() + b"\n"
        deadline = time.monotonic() + ANSWER_SECONDS
        told: queue.Queue[bytes] | None = None
        while time.monotonic() < deadline:
            commands = self._commands
            # A look does no harm twice, so a node that was away meanwhile is asked again.
            if told is None or (do == "look" and commands is not told):
                told = commands
                commands.put(command)
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=1.0)
        raise NotInTime(f"{self.node.name} did not answer {do!r} within {ANSWER_SECONDS:.0f} s")

    def look(self) -> Sample:
        """How the node looks now. Raises NotInTime."""
        self.tell("look")
        assert self.latest is not None
        return self.latest

    def add_to(self, sums: Sums) -> Sums:
        with self._lock:
            return Sums(
                child_rekeys=sums.child_rekeys + sum(children for children, _ in self._rekeys.values()),
                ike_rekeys=sums.ike_rekeys + sum(ike for _, ike in self._rekeys.values()),
                installed=sums.installed + sum(self._installed),
                agent_runs=sums.agent_runs + len(self._rekeys),
                counters=sums.counters + sum((Counter(c) for c in self._counters.values()), Counter[str]()),
            )

    def _run(self) -> None:
        program = [node_python(), in_node.__file__, *self.node.addresses]
        while not self._ending.is_set():
            self._pending = b""
            self._installed.append(0)
            commands = self._commands = queue.Queue()
            # It is down, or goes down meanwhile.
            with contextlib.suppress(Unreachable, TimeoutExpired, LabError):
                self._lab.remote(self.node.name).stream(
                    program, read=commands.get, on_stdout=self._receive, on_stderr=self._complain
                )
            commands.put(b"")  # for whoever waits for the next one
            self._ending.wait(_AGAIN_SECONDS)

    def _complain(self, data: bytes) -> None:
        if not self._ending.is_set():
            print(f"{self.node.name}: {data.decode(errors='replace').rstrip()}", flush=True)

    def _receive(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "done" in said:
                self._answers.put(said["done"])
            else:
                self._take(said)

    def _take(self, said: dict[str, Any]) -> None:
        agent = said["agent"]
        with self._lock:
            self._counters[said["boot"]] = said["counters"]
            self._installed[-1] = said["installed"]
            if agent is not None:
                self._rekeys[agent["run"]] = agent["rekeys"]["children"], agent["rekeys"]["ike"]
        self.latest = Sample(
            at=time.monotonic(),
            counters=said["counters"],
            states=frozenset((source, destination, spi) for source, destination, spi, _ in said["states"]),
            agent_run=agent["run"] if agent is not None else None,
        )
        self.peak_states = max(self.peak_states, len(said["states"]))


class Watch:
    """All nodes of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.nodes = {node.name: NodeWatch(lab, node) for node in lab.nodes}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            node.close()

    def sums(self) -> Sums:
        """As of the latest samples."""
        sums = Sums()
        for node in self.nodes.values():
            sums = node.add_to(sums)
        return sums

    def look(self) -> dict[str, Sample]:
        """How all nodes look now. Raises NotInTime."""
        return {name: node.look() for name, node in self.nodes.items()}

    def unpaired(self, pairs: Iterable[tuple[str, str]] | None = None) -> list[str]:
        """The directed pairs without a state that both kernels hold. Raises NotInTime."""
        seen = self.look()
        missing: list[str] = []
        for one, other in permutations(self.nodes, 2) if pairs is None else pairs:
            shared = seen[one].states & seen[other].states
            sources, destinations = self.nodes[one].node.addresses, self.nodes[other].node.addresses
            if not any(source in sources and destination in destinations for source, destination, _ in shared):
                missing.append(f"{one}>{other}")
        return missing

    def wait_paired(self, pairs: Sequence[tuple[str, str]] | None = None, *, seconds: float) -> float:
        """Seconds until no pair is unpaired. Raises NotInTime, naming those that are."""
        started = time.monotonic()
        while missing := self.unpaired(pairs):
            if time.monotonic() - started > seconds:
                raise NotInTime(f"no ESP state shared after {seconds:.0f} s: {', '.join(missing)}")
            time.sleep(0.2)
        return time.monotonic() - started
