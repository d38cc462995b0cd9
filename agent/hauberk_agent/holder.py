"""Holds the agent's UDP sockets while no agent runs: `hauberk-holder`.

ESP in UDP reaches the kernel's states through an open socket (net/ipv4/udp.c, `encap_rcv`), and with the last
descriptor of it everything is lost until the next agent has bound the port. This process keeps descriptors, and that is
all: it binds, reads and sends nothing, needs no capability, and has no reason ever to change. An agent gives it all its
sockets, a later agent takes them over as they are. The protocol, on a SOCK_SEQPACKET socket in a directory of root's:

    KEEP + descriptors  ->  KEPT                  these and no others are held from now on
    TAKE                ->  HELD + descriptors    what is held, without an end of holding it

Standard library only, and nothing of ours, so that it stays small. The other side is hauberk_agent.deposit.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

SOCKET: Final = Path("/run/hauberk-holder/sockets")
KEEP: Final = b"hauberk 1 keep"
KEPT: Final = b"hauberk 1 kept"
TAKE: Final = b"hauberk 1 take"
HELD: Final = b"hauberk 1 held"
REFUSED: Final = b"hauberk 1 refused: "
MOST_SOCKETS: Final = 253
"""SCM_MAX_FD (include/net/scm.h): what one message carries."""
LONGEST_ANSWER: Final = 256

_LONGEST_REQUEST: Final = 64
_PEER_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_BACKLOG: Final = 8

_log = logging.getLogger("hauberk.holder")


class Holder:
    """Keeps what it is given. One per node."""

    def __init__(self, path: Path) -> None:
        """Listens at path. Raises OSError; EADDRINUSE when another holder does so."""
        self._path = path
        self._held: list[socket.socket] = []
        self._listener = _listen(path)
        self._selector = selectors.DefaultSelector()
        # A signal ends a wait (PEP 475 would resume it), by way of this pair.
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    @property
    def held(self) -> tuple[str, ...]:
        """The addresses of what is held, as people write them."""
        return tuple(_name(sock) for sock in self._held)

    def stop(self) -> None:
        """Ends `serve`. May be called from a signal handler or another thread."""
        self._wake.send(b"\0")

    def serve(self) -> None:
        """Until stopped. Whatever is held is let go of in the end."""
        try:
            while True:
                for key, _ in self._selector.select():
                    ready = key.fileobj
                    if ready is self._woken:
                        return
                    if ready is self._listener:
                        self._accept()
                    elif isinstance(ready, socket.socket):
                        self._answer(ready)
        finally:
            self._close()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        _, uid, _ = _PEER_CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        )
        if uid != os.geteuid():
            _log.warning("user %d asked for the sockets, and is not the one who runs this", uid)
            connection.close()
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)

    def _answer(self, connection: socket.socket) -> None:
        """One request; ends the connection when its other end has."""
        try:
            request, descriptors, flags, _ = socket.recv_fds(
                connection, _LONGEST_REQUEST, MOST_SOCKETS, socket.MSG_CMSG_CLOEXEC
            )
            given = [socket.socket(fileno=descriptor) for descriptor in descriptors if _is_socket(descriptor)]
            if not request:
                self._part(connection)
            elif flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
                _drop(given)
                connection.send(REFUSED + b"the message was cut short")
            elif request == KEEP:
                self._keep(given)
                connection.send(KEPT)
            elif request == TAKE:
                _drop(given)
                socket.send_fds(connection, [HELD], [sock.fileno() for sock in self._held])
            else:
                _drop(given)
                connection.send(REFUSED + b"unknown request")
        except OSError as error:
            _log.warning("an agent's connection failed: %s", error)
            self._part(connection)

    def _keep(self, given: list[socket.socket]) -> None:
        before = set(self.held)
        _drop(self._held)
        self._held = [sock for sock in given if sock.type == socket.SOCK_DGRAM]
        _drop([sock for sock in given if sock.type != socket.SOCK_DGRAM])
        if set(self.held) != before:
            _log.info("holding %s", ", ".join(self.held) or "nothing")

    def _part(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()

    def _close(self) -> None:
        self._path.unlink(missing_ok=True)
        _drop(self._held)
        self._held = []
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        self._wake.close()


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        try:
            other.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)  # of one that was killed
        else:
            raise OSError(errno.EADDRINUSE, "another holder runs on this node", str(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _is_socket(descriptor: int) -> bool:
    """Closes what is none."""
    try:
        socket.socket(fileno=os.dup(descriptor)).close()
    except OSError:
        os.close(descriptor)
        return False
    return True


def _drop(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _name(sock: socket.socket) -> str:
    host, port, *_ = sock.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the program."""
    parser = argparse.ArgumentParser(
        prog="hauberk-holder",
        description="Holds the agent's UDP sockets, so that ESP in UDP goes on while an agent is replaced.",
        epilog="example:\n  hauberk-holder --socket /run/hauberk-holder/sockets\n\n"
        "exit codes: 0 stopped by a signal; 1 it can't listen, and a sentence says why; 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--socket", type=Path, default=SOCKET, metavar="PATH", help=f"where agents find it, default {SOCKET}"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        holder = Holder(options.socket)
    except OSError as error:
        print(f"hauberk-holder: {options.socket}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)

    def end(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            holder.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    _log.info("listening at %s", options.socket)
    holder.serve()
    sys.exit(0)
