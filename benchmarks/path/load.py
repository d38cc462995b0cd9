"""The load: a TCP stream, and a flood of small datagrams, from one pod's namespace to the other's. Run in the kernel.

Both run for a time and count what has arrived. Nothing in them is about encryption.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path
from typing import Final

from tests.kernel.two_hosts import inside

PORT: Final = 7301
_CHUNK: Final = 1 << 18
SMALL_BYTES: Final = 64
"""A packet of the flood, IPv4 and UDP headers included."""
_PAYLOAD_BYTES: Final = SMALL_BYTES - 20 - 8
_SEGMENTS: Final = 64
"""Small packets that one system call sends: the sender should not cost more than the path."""
_UDP_SEGMENT: Final = 103  # include/uapi/linux/udp.h
_DRAIN_SECONDS: Final = 0.05


def stream(source: tuple[str, str], destination: tuple[str, str], seconds: float) -> int:
    """Bytes that a TCP connection carries. source, destination: (namespace, address). Raises OSError."""
    with inside(destination[0]), socket.socket() as listener:
        listener.bind((destination[1], PORT))
        listener.listen(1)
        with inside(source[0]):
            sender = socket.create_connection((destination[1], PORT), timeout=10)
        receiver, _ = listener.accept()
    listener.close()
    child = os.fork()
    if child == 0:
        receiver.close()
        data = bytes(_CHUNK)
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sender.send(data)
        finally:
            os._exit(0)
    sender.close()
    received, buffer = 0, bytearray(_CHUNK)
    with receiver:
        while count := receiver.recv_into(buffer):
            received += count
    os.waitpid(child, 0)
    return received


def flood(source: tuple[str, str], destination: tuple[str, str], seconds: float) -> int:
    """Packets of SMALL_BYTES that arrive, of as many as can be sent. Arguments and errors as in `stream`."""
    with inside(destination[0]):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside(source[0]):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # nobody reads it: what arrives is counted
        receiver.bind((destination[1], PORT))
        sender.connect((destination[1], PORT))
        data = bytes(_PAYLOAD_BYTES * _SEGMENTS)
        segments = [(socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", _PAYLOAD_BYTES))]
        before = _arrived(destination[0])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sender.sendmsg([data], segments)
        time.sleep(_DRAIN_SECONDS)
        return _arrived(destination[0]) - before


def _arrived(namespace: str) -> int:
    """UDP datagrams that reached a socket of a namespace, whether it had room for them or not."""
    with inside(namespace):
        names, values = (
            line.split()[1:] for line in Path("/proc/self/net/snmp").read_text().splitlines() if line.startswith("Udp:")
        )
    counted = dict(zip(names, map(int, values), strict=True))
    return counted["InDatagrams"] + counted["InErrors"]
