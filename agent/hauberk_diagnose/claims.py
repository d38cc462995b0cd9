"""Whose a request id is: that of one run, for as long as it lives, in one network namespace.

A claim is a Unix socket with an abstract name (unix(7)): such a name belongs to a network namespace, as states and
policies do, can be had but once, and is free again when its holder ends, however it ends. So two runs never take the
same request id, and what a killed run has left is told from what another one uses.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final, Protocol

REQIDS: Final = range(0x4900_0001, 0x4901_0000)
"""Beside the agent's (0x4800_0001 on) and far from other daemons', which count from 1."""


class Claim(Protocol):
    """Ends when it is closed."""

    def close(self) -> None: ...


Claimer = Callable[[int], Claim | None]
"""Claims a request id, or returns None if somebody has it."""


def claim(reqid: int) -> Claim | None:
    """Raises OSError if there can't be such sockets here."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind(f"\0hauberk-ike/{reqid:08x}")
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return sock
