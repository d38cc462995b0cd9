"""`make fuzz`: looks for bytes that do harm, with atheris, each target for its share of the time.

    python -m tests.fuzz --seconds 600
    python -m tests.fuzz --target endpoint FILE      what one string of bytes does, with a traceback

The corpus grows in build/fuzz/TARGET/corpus from run to run. What does harm is kept in build/fuzz/TARGET: put it into
tests/fuzz/findings/TARGET, mend the fault, and `make test` goes over it ever after.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

TARGETS: Final = {"endpoint": 0.7, "capture": 0.15, "parsers": 0.15}
"""Their shares of the time. They are not imported here: atheris must be the first to see their modules."""
DIRECTORY: Final = Path("build/fuzz")
_MAX_LENGTH: Final = 6000
_SECONDS_FOR_ONE: Final = 5
_FOUND: Final = (70, 71, 77)
"""libFuzzer's exit codes for a timeout, too much memory, and an exception."""


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600, help="altogether (default: %(default)s)")
    parser.add_argument("--target", choices=TARGETS, help="this one alone")
    parser.add_argument("file", type=Path, nargs="?", help="run the target on these bytes, and do nothing else")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seconds < 1:
        parser.error("--seconds counts from 1")
    if arguments.file is not None:
        if arguments.target is None:
            parser.error("a file needs its --target")
        return _run_one(arguments.target, arguments.file)
    if arguments.child:
        return _fuzz(arguments.target, arguments.seconds)
    if importlib.util.find_spec("atheris") is None:
        print("tests.fuzz: atheris is not installed: `make fuzz` installs it", file=sys.stderr)
        return 2
    wanted = {arguments.target: 1.0} if arguments.target else TARGETS
    codes = {name: _fuzz_apart(name, round(arguments.seconds * share) or 1) for name, share in wanted.items()}
    for name, code in codes.items():
        if code in _FOUND:
            print(f"tests.fuzz: {name}: found something, see above and {DIRECTORY / name}", file=sys.stderr)
        elif code:
            print(f"tests.fuzz: {name}: could not be run, see above", file=sys.stderr)
    return 1 if any(codes.values()) else 0


def _run_one(target: str, file: Path) -> int:
    from tests.fuzz.targets import TARGETS as FUNCTIONS

    FUNCTIONS[target](file.read_bytes())
    print(f"{file}: no harm")
    return 0


def _fuzz_apart(target: str, seconds: int) -> int:
    """The exit code of a process of its own: libFuzzer ends its process when it is done."""
    print(f"fuzzing {target} for {seconds} s", flush=True)
    argv = [sys.executable, "-m", "tests.fuzz", "--child", "--target", target, "--seconds", str(seconds)]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode


def _fuzz(target: str, seconds: int) -> int:
    fuzzer: Any = importlib.import_module("atheris")
    with fuzzer.instrument_imports(include=["hauberk_ike", "hauberk_diagnose"]):
        from tests.fuzz import corpus
        from tests.fuzz.targets import TARGETS as FUNCTIONS
    home = DIRECTORY / target
    seeds, grown = home / "seeds", home / "corpus"
    for directory in (seeds, grown):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in corpus.seeds()[target]:
        (seeds / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    fuzzer.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            f"-timeout={_SECONDS_FOR_ONE}",
            f"-max_len={_MAX_LENGTH}",
            f"-artifact_prefix={home}/",
            "-print_final_stats=1",
            "-verbosity=0",
            str(grown),
            str(seeds),
        ],
        FUNCTIONS[target],
    )
    fuzzer.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
