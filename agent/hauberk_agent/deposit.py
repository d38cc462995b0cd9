"""The agent's side of the socket holder: what an earlier agent left there, and what the next one shall find.

Called by hauberk_agent.transport. The holder (hauberk_agent.holder) answers at once or not at all; what it is asked
takes microseconds, so that a loop may ask. Without one everything works as well, but that a restart interrupts ESP in
UDP.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

from hauberk_agent.holder import HELD, KEEP, KEPT, LONGEST_ANSWER, MOST_SOCKETS, TAKE
from hauberk_ike import SocketAddress, parse_host

_log = logging.getLogger("hauberk.transport")
_TIMEOUT: Final = struct.pack("@ll", 1, 0)
"""struct timeval: a second."""
_MOST_STALE_DATAGRAMS: Final = 1 << 16


class Deposit:
    """A holder, reachable or not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: socket.socket | None = None
        self.problem: str | None = None
        """Why the sockets are not held, as a sentence."""

    def take(self) -> dict[SocketAddress, socket.socket]:
        """What is held, by address; nothing if the holder can't be reached.

        What came for nobody meanwhile is thrown away: peers have asked again since, or will.
        """
        try:
            answer, descriptors = self._ask(TAKE, ())
        except OSError as error:
            self._lost(error)
            return {}
        found: dict[SocketAddress, socket.socket] = {}
        for sock in [socket.socket(fileno=descriptor) for descriptor in descriptors]:
            sock.setblocking(False)
            try:
                host, port = cast("tuple[str, int]", sock.getsockname()[:2])
                local = SocketAddress(host=parse_host(host), port=port)
            except (ValueError, OSError):
                sock.close()
                continue
            _drain(sock)
            found[local] = sock
        if answer != HELD:
            self.problem = f"the socket holder at {self._path} answered {answer.decode(errors='replace')!r}"
        return found

    def keep(self, sockets: Collection[socket.socket]) -> bool:
        """Has these held and no others. Says whether they are; if not, `problem` tells why."""
        try:
            answer, _ = self._ask(KEEP, [sock.fileno() for sock in sockets])
        except OSError as error:
            self._lost(error)
            return False
        if answer != KEPT:
            self.problem = f"the socket holder at {self._path} answered {answer.decode(errors='replace')!r}"
            return False
        if self.problem is not None:
            _log.info("the socket holder is there: ESP in UDP outlives this agent")
        self.problem = None
        return True

    @property
    def connected(self) -> bool:
        """Whether the holder that was last told is still there."""
        if self._connection is None:
            return False
        try:
            self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            pass
        self.close()
        return False

    def close(self) -> None:
        """Ends the connection, not the holding."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, request: bytes, descriptors: Collection[int]) -> tuple[bytes, list[int]]:
        connection = self._connect()
        try:
            socket.send_fds(connection, [request], list(descriptors))
            answer, received, _, _ = socket.recv_fds(connection, LONGEST_ANSWER, MOST_SOCKETS, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            self.close()
            raise
        if not answer:
            self.close()
            raise ConnectionResetError("it ended")
        return answer, received

    def _connect(self) -> socket.socket:
        if not self.connected or self._connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # By the kernel, as Python's own timeouts would wait where MSG_DONTWAIT says not to.
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                connection.setsockopt(socket.SOL_SOCKET, option, _TIMEOUT)
            try:
                connection.connect(str(self._path))
            except OSError:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _lost(self, error: OSError) -> None:
        problem = f"no socket holder at {self._path} ({error.strerror or error}): a restart would interrupt ESP in UDP"
        if self.problem != problem:
            _log.warning("%s", problem)
        self.problem = problem


def _drain(sock: socket.socket) -> None:
    with suppress(OSError):
        for _ in range(_MOST_STALE_DATAGRAMS):
            sock.recv(1)
