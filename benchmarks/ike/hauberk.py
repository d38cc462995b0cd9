"""Our side of a comparison: starts `benchmarks.ike.node` on a host and tells it what to do."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.ike.errors import BenchmarkError
from benchmarks.ike.identity import Identity
from benchmarks.ike.node import NodeSpec
from benchmarks.ike.process import Daemon
from benchmarks.ike.wire import Host

_PATIENCE_SECONDS: Final = 120.0
_REPOSITORY: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came of a load: IKE SAs that were set up, and how many a second of wall-clock time."""

    made: int
    rate: float


@cache
def interpreter() -> tuple[str, str]:
    """The Python that our node runs in, and a sentence about it.

    The distribution's, if it has one of our version: charon is as a distribution builds it, and so is the Python of our
    image, with profile-guided optimization. What people build for themselves mostly lacks that, and is a tenth slower.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    candidate = f"/usr/bin/python{version}"
    works = Path(candidate).exists() and (
        subprocess.run(
            [candidate, "-c", "import benchmarks.ike.node"],
            env=_environment(),
            cwd=_REPOSITORY,
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    if works:
        return candidate, f"our node runs in the distribution's Python, {candidate}"
    return sys.executable, f"our node runs in {sys.executable}, as the distribution has no Python {version}"


def _environment() -> dict[str, str]:
    """Our packages for another interpreter of the same version, and none of our interpreter's own library."""
    paths = [path for path in sys.path if path and not Path(path).is_relative_to(sys.base_prefix)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Hauberk(Daemon):
    """A node of ours, in either role."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        super().__init__("our node", process, log)
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders = process.stdin
        self._answers = process.stdout
        if (word := self._answer()) != "ready":
            raise BenchmarkError(f"our node says {word!r} instead of `ready`")

    def initiate(self, count: int, *, parallel: int) -> Load:
        """Sets up `count` IKE SAs with its peer, `parallel` at a time. Raises BenchmarkError if one fails."""
        self._order(f"initiate {count} {parallel}")
        word, seconds, failed = self._answer().split()
        if word != "done" or int(failed):
            raise BenchmarkError(f"{failed} of {count} handshakes failed; {self.last_words()}")
        return Load(made=count, rate=count / float(seconds))

    def established(self) -> int:
        """How many IKE SAs it has set up or accepted."""
        self._order("established")
        return int(self._answer())

    def _order(self, line: str) -> None:
        self.check()
        self._orders.write(line.encode() + b"\n")
        self._orders.flush()

    def _answer(self) -> str:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        if not select.select([self._answers], [], [], deadline - time.monotonic())[0]:
            raise BenchmarkError(f"our node has not answered for {_PATIENCE_SECONDS:.0f} s; {self.last_words()}")
        line = self._answers.readline().decode().strip()
        if not line:
            self.check()
            raise BenchmarkError(f"our node has closed its output; {self.last_words()}")
        return line


@contextlib.contextmanager
def hauberk(
    host: Host, *, identity: Identity, peer: Identity, remote: Host, proposal: str, directory: Path
) -> Generator[Hauberk]:
    """A node that listens on `host`, until the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    spec = NodeSpec(
        identity=identity.name,
        key=identity.key,
        certificate=identity.certificate,
        root=identity.root,
        local=str(host.address),
        peer_identity=peer.name,
        remote=str(remote.address),
        proposal=proposal,
    )
    description, log = directory / "node.json", directory / "log"
    description.write_text(spec.model_dump_json())
    with log.open("wb") as said:
        process = subprocess.Popen(
            host.command(interpreter()[0], "-m", "benchmarks.ike.node", str(description)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            cwd=_REPOSITORY,  # that `benchmarks` can be imported
            env=_environment(),
        )
    with process:
        try:
            yield Hauberk(process, log)
        finally:
            process.kill()
