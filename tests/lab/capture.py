"""A capture of every frame that crosses a lab's bridge, for the judge (tests/lab/judge.py).

A bridge in promiscuous mode passes up a copy of each frame that it forwards between its ports (net/bridge/br_input.c),
so tcpdump on the bridge, in the lab's own network namespace, sees all that goes from node to node.
"""

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.errors import LabError

_BUFFER_KIB = 65_536
_START_SECONDS = 10.0
_STOP_SECONDS = 20.0
# tcpdump asks the kernel to hand over a block of packets that isn't full after a second.
_HANDOVER_SECONDS = 1.1
_CAPTURED = re.compile(r"^(\d+) packets? captured$", re.MULTILINE)
_DROPPED = re.compile(r"^(\d+) packets? dropped by (?:kernel|interface)$", re.MULTILINE)


class CaptureError(LabError):
    """The capture could not be started, or did not run to its end."""


class Capture:
    """A running capture; `with` starts and stops it.

    path: the pcap file to write (its name must end in .pcap: Debian's AppArmor profile lets tcpdump write no other).
    netns, interface: where. Needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN.

    After `start`, `started_at`, and after `stop`, `stopped_at` are seconds since the epoch: everything on the
    wire between them is in the file, but for `dropped` packets. `packets` is how many the file holds.

    It ends with the thread that started it, however that ends.
    """

    def __init__(self, *, netns: str, interface: str, path: Path) -> None:
        if path.suffix != ".pcap":
            raise ValueError(f"{path}: a capture's name must end in .pcap")
        self.path, self.netns, self.interface = path, netns, interface
        self.started_at = self.stopped_at = 0.0
        self.packets = self.dropped = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._said = ""

    def start(self) -> None:
        """Start tcpdump and return when it is capturing. Raises CaptureError."""
        if self._process is not None:
            raise CaptureError(f"already capturing to {self.path}")
        argv = ["ip", "netns", "exec", self.netns, "setpriv", "--pdeathsig", "INT"]
        # -Z root: it would become a user who can't write into our directory.
        argv += ["tcpdump", "-i", self.interface, "-n", "-s", "0", "-B", str(_BUFFER_KIB), "-Z", "root"]
        argv += ["--time-stamp-precision=nano", "-w", str(self.path)]
        self._said = ""
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # a Ctrl-C in the terminal is ours to handle
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise CaptureError(f"can't start {argv[0]}: {error.strerror}") from error
        try:
            self._wait_until_listening(self._process)
        except BaseException:
            self._end(self._process)
            raise
        self.started_at = time.time()

    def stop(self) -> None:
        """Stop, and return when the file is complete. Raises CaptureError if tcpdump ended before, or badly."""
        if self._process is None:
            return
        process, self.stopped_at = self._process, time.time()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_HANDOVER_SECONDS)
            process.send_signal(signal.SIGINT)  # does nothing if it is gone
            try:
                self._said += process.communicate(timeout=_STOP_SECONDS)[1].decode(errors="replace")
            except subprocess.TimeoutExpired as error:
                raise CaptureError(f"tcpdump did not stop within {_STOP_SECONDS:g} s") from error
        finally:
            self._end(process)
        captured = _CAPTURED.search(self._said)
        if process.returncode != 0 or captured is None:
            raise CaptureError(f"tcpdump ended badly ({process.returncode}): {self._said.strip()[-500:]}")
        self.packets = int(captured[1])
        self.dropped = sum(int(found[1]) for found in _DROPPED.finditer(self._said))

    def _wait_until_listening(self, process: subprocess.Popen[bytes]) -> None:
        """tcpdump says "listening on" when its socket is bound and its ring is mapped."""
        assert process.stderr is not None
        deadline = time.monotonic() + _START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            while "listening on" not in self._said:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise CaptureError(f"tcpdump did not start within {_START_SECONDS:g} s: {self._said.strip()}")
                chunk = os.read(process.stderr.fileno(), 4096)
                if not chunk:
                    raise CaptureError(f"tcpdump did not start: {self._said.strip()[-500:]}")
                self._said += chunk.decode(errors="replace")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Leave no process behind, whatever happened."""
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        elif self._process is not None:
            self._end(self._process)
