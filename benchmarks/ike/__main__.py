"""Command line of the comparison with charon: `make bench-ike`, or `python -m benchmarks.ike --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.ike import comparison, figures, plot, wire
from benchmarks.ike.comparison import Bed, Kind, Pairing
from benchmarks.ike.errors import BenchmarkError
from benchmarks.ike.figures import Comparison
from benchmarks.ike.hauberk import interpreter
from tests.interop import roots
from tests.lab.errors import LabError

_EXAMPLES: Final = """\
The same handshakes, IKE_SA_INIT and IKE_AUTH with P-256 certificates, X25519 and AES-GCM-128, without a CHILD SA, go
over a veth between two network namespaces: our initiator against our responder and against charon's, and charon's
initiator against both. The same again with ML-KEM-768 in IKE_INTERMEDIATE. CPU is that of the daemons' processes, all
threads, user and system.

`charon` is strongSwan 6.1 as Debian packages it, but for its log, which is off, and its limits for one address, as all
the load comes from one. `charon, tuned` has no plugins but those it needs, and a hash table of 8,192 rows for its IKE
SAs. Our node runs in the distribution's Python, if that has our version, as charon is the distribution's too.
What charon takes to be told to initiate (VICI) is measured for itself and taken off.

examples:
  sudo make bench-ike                        everything, in about six minutes
  python -m benchmarks.ike --quick           rough figures, in about a minute
"""
_CLASSICAL: Final = "aes128gcm16-prfsha256-x25519"
_HYBRID: Final = f"{_CLASSICAL}-ke1_mlkem768"
_BUSY: Final = 0.5
_KINDS: Final = (Kind.OURS, Kind.CHARON)


def main() -> int:
    """Measure, print tables, write figures and plot; 0, 2 if that could not be done, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ike",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="two repetitions of 100 handshakes each")
    parser.add_argument("--handshakes", type=int, default=300, help="in each sample (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="of each sample (default: %(default)s)")
    parser.add_argument(
        "--charon-root", type=Path, help="a root tree with strongSwan 6.1 (default: made from Debian's)"
    )
    parser.add_argument("--figures", type=Path, default=Path("build/figures/ike.json"), help="(default: %(default)s)")
    arguments = parser.parse_args()
    handshakes, repetitions = (100, 2) if arguments.quick else (arguments.handshakes, arguments.repetitions)
    if min(handshakes, repetitions) < 1:
        parser.error("--handshakes and --repetitions count from 1")
    try:
        _run(arguments.charon_root, arguments.figures, handshakes, repetitions)
    except BenchmarkError as error:
        print(f"benchmarks.ike: {error}", file=sys.stderr)
        return 2
    except LabError as error:
        print(f"benchmarks.ike: {error.with_log_tail()}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks.ike: interrupted; everything is stopped", file=sys.stderr)
        return 130
    return 0


def _run(charon_root: Path | None, path: Path, handshakes: int, repetitions: int) -> None:
    started = time.monotonic()
    others = os.getloadavg()[0]
    if others > _BUSY:
        _say(f"this machine is busy (load {others:.1f}): handshakes a second mean little, and all costs more CPU")
    _say(interpreter()[1])
    with wire.cable() as (initiator, responder), tempfile.TemporaryDirectory(prefix="bench-ike-") as directory:
        if charon_root is None:
            roots.ensure(_say, (roots.FORKY,))
            charon_root = roots.FORKY.tree
        bed = Bed(initiator=initiator, responder=responder, charon_root=charon_root, directory=Path(directory))
        comparisons = [
            _compare(bed, "X25519", "", _CLASSICAL, handshakes, repetitions),
            _compare(bed, "X25519 and ML-KEM-768", "_mlkem", _HYBRID, handshakes, repetitions),
        ]
        _say("memory")
        memory = {
            kind: comparison.resident_megabytes(bed, kind, _CLASSICAL, (1000, 5000))
            for kind in (*_KINDS, Kind.CHARON_TUNED)
        }
    measured: dict[str, float] = {}
    for each in comparisons:
        measured |= each.ratios()
        print(figures.table(each))
    measured |= comparisons[0].ratios(Kind.CHARON_TUNED)
    measured |= {f"rss_mb_{count}": megabytes for count, megabytes in memory[Kind.OURS].items() if count}
    print(figures.memory_table(memory))
    print(interpreter()[1])
    print(f"ours over charon's (load of this machine before: {others:.1f})")
    print("\n".join(figures.goals(measured)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: round(value, 4) for name, value in measured.items()}, indent=2) + "\n")
    drawn = plot.draw(comparisons, memory, path.with_name("ike"))
    print(f"figures: {path}, {', '.join(map(str, drawn))} (in {time.monotonic() - started:.0f} s)")


def _compare(bed: Bed, title: str, suffix: str, proposal: str, handshakes: int, repetitions: int) -> Comparison:
    pairs = [(initiator, responder) for initiator in _KINDS for responder in _KINDS]
    if not suffix:
        tuned = Kind.CHARON_TUNED
        pairs += [(Kind.OURS, tuned), (tuned, Kind.OURS), (tuned, Kind.CHARON)]
    pairings = [Pairing(initiator=initiator, responder=responder, proposal=proposal) for initiator, responder in pairs]
    _say(f"{title}: {repetitions} times {handshakes} handshakes, at 1, 16 and 64 at a time; CPU at 16")
    results = comparison.compare(bed, pairings, handshakes=handshakes, repetitions=repetitions, progress=_say)
    return Comparison(title=title, suffix=suffix, proposal=proposal, results=results)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
