"""The measurement, run inside a kernel: `python -m benchmarks.xfrm.inside FIGURES STATES POLICIES ROUNDS`.

Both sides begin with what they are given: ours with values in memory, which it has yet to encode, `ip -batch` with a
file of lines, and its start. What either has done is dumped and compared with what was wanted before it counts.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.xfrm import load
from hauberk_xfrm import AddPolicy, AddState, DeletePolicy, DeleteState, Request, Xfrm

_PAUSE_SECONDS: Final = 0.3
"""After each side's turn, for what the kernel frees later than it says."""


def main() -> None:
    path, state_count, policy_count, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    states, policies = load.states(state_count), load.policies(policy_count)
    with Xfrm() as xfrm:
        figures = {
            **_compare(
                "states",
                xfrm,
                add=[AddState(state=state) for state in states],
                delete=[DeleteState(destination=state.destination, spi=state.spi) for state in states],
                lines=[load.state_line(state) for state in states],
                as_wanted=lambda: {state.as_written() for state in xfrm.dump_states()} == set(states),
                rounds=rounds,
            ),
            **_compare(
                "policies",
                xfrm,
                add=[AddPolicy(policy=policy) for policy in policies],
                delete=[DeletePolicy(slot=policy.slot) for policy in policies],
                lines=[load.policy_line(policy) for policy in policies],
                as_wanted=lambda: set(xfrm.dump_policies()) == set(policies),
                rounds=rounds,
            ),
        }
    path.write_text(json.dumps(figures))


def _compare(
    name: str,
    xfrm: Xfrm,
    *,
    add: Sequence[Request],
    delete: Sequence[Request],
    lines: Sequence[str],
    as_wanted: Callable[[], bool],
    rounds: int,
) -> dict[str, float]:
    """Per second, the median of the rounds, in which the sides take turns; and the ratio."""
    seconds: dict[str, list[float]] = {"ours": [], "ip -batch": []}
    with tempfile.NamedTemporaryFile("w", suffix=".batch") as batch:
        batch.write("".join(lines))
        batch.flush()

        def ours() -> None:
            _apply(xfrm, add)

        def theirs() -> None:
            subprocess.run(("ip", "-batch", batch.name), check=True)

        sides = [("ours", ours), ("ip -batch", theirs)]
        for number in range(rounds):
            for side, work in sides if number % 2 == 0 else reversed(sides):
                gc.collect()
                started = time.perf_counter()
                work()
                seconds[side].append(time.perf_counter() - started)
                if not as_wanted():
                    raise RuntimeError(f"{side}: the kernel's {name} are not those that were wanted")
                _apply(xfrm, delete)
                time.sleep(_PAUSE_SECONDS)
    medians = {side: statistics.median(measured) for side, measured in seconds.items()}
    return {
        f"{name}_per_second": len(add) / medians["ours"],
        f"{name}_per_second_ip_batch": len(add) / medians["ip -batch"],
        f"{name}_ratio": medians["ip -batch"] / medians["ours"],
    }


def _apply(xfrm: Xfrm, requests: Sequence[Request]) -> None:
    for error in xfrm.apply(requests):
        if error is not None:
            raise error


if __name__ == "__main__":
    main()
