"""Echo requests and their answers (RFC 792, RFC 4443), each known by its number, one by one or as a steady stream.

They bear a mark, so that they are known where they are in clear. `bed` opens their sockets.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from contextlib import suppress

MARK = b"HAUBERK-CLEAR-MARKER"
REPLY_SECONDS = 2.0
"""How long an answer may take; the machine may be busy."""
EVERY_SECONDS = 0.01
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
# Type, code, checksum; then identifier and sequence number, and the mark.
_BODY = struct.Struct(f"!2sH{len(MARK)}s")


class Pings:
    """Requests to one target from one raw socket of a version of ICMP, which it owns."""

    def __init__(self, sock: socket.socket, target: str, version: int) -> None:
        self._socket, self._target, self._version = sock, target, version
        self._identifier = os.urandom(2)
        self.sent = 0
        self.answered: set[int] = set()
        """The numbers of those that were answered."""

    def send(self) -> int:
        """Sends one more; returns its number."""
        number = self.sent
        self.sent += 1
        body = _BODY.pack(self._identifier, number, MARK)
        packet = bytes((_REQUEST[self._version], 0)) + b"\0\0" + body
        if self._version == 4:  # the kernel fills in ICMPv6's alone
            packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
        # The kernel says so at once where policy forbids a packet, or it drops the packet silently.
        with suppress(OSError):
            self._socket.sendto(packet, (self._target, 0))
        return number

    def wait(self, number: int) -> bool:
        """Whether that one is answered in time."""
        deadline = time.monotonic() + REPLY_SECONDS
        while number not in self.answered and (left := deadline - time.monotonic()) > 0:
            self.listen(left)
        return number in self.answered

    def listen(self, seconds: float) -> None:
        """Takes in one answer, if one comes within so long."""
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(2048)
        except OSError:  # its timeout too
            return
        if self._version == 4:
            data = data[4 * (data[0] & 0x0F) :]
        if data[0] == _REPLY[self._version] and len(data) == 4 + _BODY.size:
            identifier, number, mark = _BODY.unpack(data[4:])
            if (identifier, mark) == (self._identifier, MARK):
                self.answered.add(number)

    def close(self) -> None:
        self._socket.close()


class Stream:
    """Pings that go on, one every hundredth of a second, until `stop`."""

    def __init__(self, pings: Pings) -> None:
        self._pings = pings
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pings")
        self._thread.start()

    def stop(self) -> tuple[int, int]:
        """Sends no more, and waits for what is under way; how many were sent, and how many of them answered."""
        self._stopped.set()
        self._thread.join()
        self._pings.close()
        return self._pings.sent, len(self._pings.answered)

    def _run(self) -> None:
        pings = self._pings
        while not self._stopped.is_set():
            pings.send()
            due = time.monotonic() + EVERY_SECONDS
            while (left := due - time.monotonic()) > 0:
                pings.listen(left)
        deadline = time.monotonic() + REPLY_SECONDS
        while len(pings.answered) < pings.sent and (left := deadline - time.monotonic()) > 0:
            pings.listen(left)


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
