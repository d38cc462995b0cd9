"""One open netlink socket: what requests (`netlink`) and events (`events`) have in common.

Whatever it receives is the kernel's, and whole. Other processes may write to a netlink socket as well: what has another
sender than port id 0 is dropped unread.
"""

from __future__ import annotations

from collections.abc import Collection
from errno import ENODATA, EPROTO
from socket import (
    AF_NETLINK,
    MSG_TRUNC,
    SO_RCVBUF,
    SO_RCVTIMEO,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_RAW,
    SOL_SOCKET,
    socket,
)
from struct import Struct

from hauberk_xfrm.attribute import Malformed
from hauberk_xfrm.layout import NLMSGHDR
from hauberk_xfrm.socket_filter import attach, drop_messages

Received = tuple[int, int, int, bytes]
"""A message's type, flags, sequence number (0 in events), and what follows its header: no class, as dumps bring tens of
thousands."""

_SO_SNDBUFFORCE = 32
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11

RECEIVE_BUFFER_BYTES = 1 << 20
# The kernel fills at most 32 KiB into one message of a dump.
_DATAGRAM_BYTES = 1 << 16
# A safeguard for those that wait: the kernel has answered before sendmsg returns.
_TIMEOUT_SECONDS = 5


class NetlinkEndpoint:
    """In the network namespace of the thread that makes it. All methods raise OSError."""

    def __init__(
        self,
        protocol: int,
        *,
        groups: int = 0,
        waits: bool,
        receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES,
        send_buffer_bytes: int | None = None,
        unheard: Collection[int] = (),
    ) -> None:
        """groups: multicast groups to hear, as bits; unheard: but for messages of these types.

        waits: `receive` waits some seconds, or never.
        """
        self._buffer = bytearray(_DATAGRAM_BYTES)
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | (0 if waits else SOCK_NONBLOCK), protocol)
        try:
            self._socket.setsockopt(SOL_SOCKET, SO_RCVBUF, receive_buffer_bytes)
            if send_buffer_bytes is not None:
                self._socket.setsockopt(SOL_SOCKET, _SO_SNDBUFFORCE, send_buffer_bytes)
            if waits:
                self._socket.setsockopt(SOL_SOCKET, SO_RCVTIMEO, Struct("@ll").pack(_TIMEOUT_SECONDS, 0))
            # Errors come with the kernel's words, and without a copy of the request, which may hold a key.
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            if unheard:
                attach(self._socket, drop_messages(unheard))
            self._socket.bind((0, groups))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def send(self, datagram: bytes) -> None:
        self._socket.send(datagram)

    def receive(self) -> list[Received]:
        """The messages of the kernel's next datagram. BlockingIOError when there is none and this does not wait."""
        while True:
            size, _, flags, sender = self._socket.recvmsg_into([self._buffer])
            if sender[0] == 0:
                break
        if flags & MSG_TRUNC:
            raise OSError(EPROTO, f"a netlink message of more than {_DATAGRAM_BYTES} bytes")
        if size == 0:
            raise OSError(ENODATA, "the kernel ended the netlink connection")
        try:
            return parse_messages(memoryview(self._buffer)[:size])
        except Malformed as error:
            raise OSError(EPROTO, str(error)) from error


def parse_messages(datagram: bytes | memoryview) -> list[Received]:
    """The messages of a datagram, `struct nlmsghdr` and body each, padded to four bytes. Raises Malformed."""
    messages: list[Received] = []
    offset, size = 0, len(datagram)
    while size - offset >= NLMSGHDR.size:
        length, kind, flags, sequence, _ = NLMSGHDR.unpack_from(datagram, offset)
        if length < NLMSGHDR.size or offset + length > size:
            raise Malformed("a netlink message that ends too early")
        messages.append((kind, flags, sequence, bytes(datagram[offset + NLMSGHDR.size : offset + length])))
        offset += (length + 3) & ~3
    return messages
