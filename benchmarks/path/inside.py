"""The measurement, run in a kernel: `python -m benchmarks.path.inside RUNS ROUNDS SECONDS PEERS...`.

RUNS gets a JSON list: what each run carried, and when it began and ended, in seconds since the epoch; how much of the
processor it took is the host's to say.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.path import load, sides
from benchmarks.path.sides import Side
from hauberk_xfrm import Mode

PAUSE_SECONDS: Final = 0.4
"""Before and after each run: the host looks at the processor's time now and then only."""
_WARM_SECONDS: Final = 0.3


def main() -> None:
    path, rounds, seconds, peers = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), [*map(int, sys.argv[4:])]
    streams = [
        _said(sides.plain, "plain"),
        _said(sides.by_hand, "hand"),
        _said(sides.wireguard, "wireguard"),
        _said(sides.in_mode, "ours-iptfs", Mode.IPTFS, "IPTFS"),
        _said(sides.ours, "ours", peers=1),
        *(_said(sides.ours, f"ours-{count}", peers=count) for count in peers),
    ]
    floods = [
        _said(sides.in_mode, "small-tunnel", Mode.TUNNEL, "tunnel mode"),
        _said(sides.in_mode, "small-iptfs", Mode.IPTFS, "IPTFS"),
    ]
    runs: list[dict[str, Any]] = []
    for kind, compared in ((load.stream, streams), (load.flood, floods)):
        for side in compared:
            kind(*side.ends, _WARM_SECONDS)
        for number in range(rounds):
            for side in compared if number % 2 == 0 else reversed(compared):
                time.sleep(PAUSE_SECONDS)
                began = time.time()
                carried = kind(*side.ends, seconds)
                ended = time.time()
                time.sleep(PAUSE_SECONDS)
                runs.append({"side": side.name, "what": side.what, "began": began, "ended": ended, "carried": carried})
        print(f"{kind.__name__}: {rounds} rounds", flush=True)
    path.write_text(json.dumps(runs))


def _said(make: Callable[..., Side], name: str, *arguments: object, **keywords: object) -> Side:
    started = time.monotonic()
    side = make(name, *arguments, **keywords)
    print(f"{side.what}: ready after {time.monotonic() - started:.1f} s", flush=True)
    return side


if __name__ == "__main__":
    main()
