"""Running a command inside a node: the client of `node_commands`. Called by `cluster`.

Commands travel over the management bridge, so a capture on the observed bridge never sees them.
"""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.lab import frames
from tests.lab.errors import Unreachable
from tests.lab.frames import FrameError, Kind
from tests.lab.network import socket_inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The way into one node."""

    node: str
    namespace: str
    address: str
    token: str = field(repr=False)

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command and returns its output.

        Errors: Unreachable; subprocess.TimeoutExpired, and then the command was killed.
        """
        stdout, stderr = bytearray(), bytearray()
        sources = [iter(frames.chunks(stdin))]
        returncode = self.stream(
            argv,
            read=lambda: next(sources[0], b""),
            on_stdout=stdout.extend,
            on_stderr=stderr.extend,
            timeout=timeout,
        )
        return subprocess.CompletedProcess(list(argv), returncode, bytes(stdout), bytes(stderr))

    def stream(
        self,
        argv: Sequence[str],
        *,
        read: Callable[[], bytes],
        on_stdout: Callable[[bytes], object],
        on_stderr: Callable[[bytes], object],
        timeout: float | None = None,
    ) -> int:
        """Runs a command whose output is handed over as it comes, and returns its exit code (negative: a signal).

        `read` gives its standard input, at last an empty string, and is called in a thread of its own. Errors: as
        `run`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._connect() as connection:
            connection.sendall(frames.build(Kind.START, frames.Start(argv=list(argv), token=self.token).build()))
            threading.Thread(target=_send_input, args=(connection, read), daemon=True).start()
            try:
                while True:
                    kind, payload = _read_frame(connection, deadline)
                    match kind:
                        case Kind.STDOUT:
                            on_stdout(payload)
                        case Kind.STDERR:
                            on_stderr(payload)
                        case Kind.EXIT:
                            return frames.parse_exit(payload)
                        case _:
                            raise FrameError(f"unexpected {kind.name}")
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(list(argv), timeout or 0) from error
            except (OSError, FrameError) as error:
                raise Unreachable(f"the connection to node {self.node} broke: {error}") from error
            finally:
                # Wakes the sender too, and tells the server to kill what still runs.
                _shut_down(connection)

    def answers(self) -> bool:
        """True when the node runs commands."""
        try:
            return self.run(["true"], timeout=5).returncode == 0
        except (Unreachable, subprocess.TimeoutExpired):
            return False

    def _connect(self) -> socket.socket:
        try:
            connection = socket_inside(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:
            raise Unreachable(f"the lab's namespace {self.namespace} is gone: {error.strerror}") from error
        try:
            connection.settimeout(5)
            connection.connect((self.address, frames.PORT))
            connection.settimeout(None)
            # A node whose plug was pulled says no word: half a minute of silence tells.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        except OSError as error:
            connection.close()
            raise Unreachable(f"node {self.node} does not answer: {error}") from error
        return connection


def read_descriptor(descriptor: int) -> Callable[[], bytes]:
    """A `read` for `Remote.stream` that takes what a file descriptor has."""
    return lambda: os.read(descriptor, frames.CHUNK)


def _send_input(connection: socket.socket, read: Callable[[], bytes]) -> None:
    try:
        while data := read():
            connection.sendall(frames.build(Kind.STDIN, data))
        connection.sendall(frames.build(Kind.STDIN_END))
    except OSError:
        return  # the command ended without reading all of it


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was first


def _read_frame(connection: socket.socket, deadline: float | None) -> tuple[Kind, bytes]:
    kind, length = frames.parse_header(_read_exactly(connection, frames.HEADER.size, deadline))
    return kind, _read_exactly(connection, length, deadline)


def _read_exactly(connection: socket.socket, length: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < length:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
        received = connection.recv(length - len(data))
        if not received:
            raise ConnectionError("it ended before the command did")
        data += received
    return bytes(data)
