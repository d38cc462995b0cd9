"""Requests to the kernel over netlink, and their answers: the one place of this package that does I/O on a socket.

pyroute2's synchronous classes wrap an event loop and cannot be used where one runs already, and to import them costs
an agent a fifth of its start and 13 MB. This class sends and receives by itself instead. That never waits: the kernel
handles a netlink request within `sendmsg`, so that when it returns, the answers lie in the receive buffer. An
asyncio program may call it from its loop; a request costs it microseconds.

Every batch asks for an acknowledgement of its last request, and is read up to it; of the others the kernel reports
failures only. Nothing may be left over, as it would be taken for a part of the next answer (ALLOCSPI sends its state
*and* an acknowledgement). Should anything go wrong in between, the socket is closed, and the next request opens a new
one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from errno import EINTR, ENODATA, EPROTO
from socket import AF_NETLINK, MSG_TRUNC, SO_RCVBUF, SO_RCVTIMEO, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket
from struct import Struct

from hauberk_xfrm.attribute import Malformed, parse_attributes
from hauberk_xfrm.layout import NLMSGHDR

BATCH = 64
"""Requests per `sendmsg`. What the kernel says about all of them must fit the receive buffer."""

# struct nlmsgerr, without the request's header that follows: negative errno
_ERROR = Struct("=i")

_NLMSG_NOOP = 1
_NLMSG_ERROR = 2
_NLMSG_DONE = 3

NLM_F_REQUEST = 0x1
_NLM_F_ACK = 0x4
_NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200

_NLMSGERR_ATTR_MSG = 1

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11

_RECEIVE_BUFFER_BYTES = 1 << 20
# The kernel fills at most 32 KiB into one message of a dump.
_DATAGRAM_BYTES = 1 << 16
# A safeguard: the kernel has answered before sendmsg returns.
_TIMEOUT_SECONDS = 5
_DUMP_ATTEMPTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request to send, or an answer: its type, its further flags, and what follows the netlink header."""

    type: int
    body: bytes
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one request: 0 or an errno, the kernel's own words about it, and the messages it sent."""

    errno: int
    reason: str | None = None
    messages: tuple[Message, ...] = ()


_DONE = Answer(errno=0)


class NetlinkSocket:
    """One netlink socket for requests. Not for use by several threads at once. Raises OSError."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._socket: socket | None = None
        self._sequence = 0
        self._buffer = bytearray(_DATAGRAM_BYTES)

    def close(self) -> None:
        """Idempotent; a later request opens the socket again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def request(self, requests: Sequence[Message]) -> list[Answer]:
        """Sends requests, `BATCH` at a time and in order, and returns the answer to each."""
        answers: list[Answer] = []
        for start in range(0, len(requests), BATCH):
            answers += self._request_batch(requests[start : start + BATCH])
        return answers

    def dump(self, request: Message) -> Answer:
        """Sends a dump request and collects all messages that answer it.

        A dump that the kernel marks as inconsistent (NLM_F_DUMP_INTR) is repeated; EINTR if that does not help.
        """
        for _ in range(_DUMP_ATTEMPTS):
            answer = self._dump_once(request)
            if answer.errno != EINTR:
                return answer
        return Answer(errno=EINTR, reason="the tables changed during every attempt to read them")

    def _request_batch(self, requests: Sequence[Message]) -> list[Answer]:
        first = self._take_sequence(len(requests))
        last = len(requests) - 1
        datagram = b"".join(
            [
                NLMSGHDR.pack(
                    NLMSGHDR.size + len(request.body),
                    request.type,
                    NLM_F_REQUEST | request.flags | (_NLM_F_ACK if position == last else 0),
                    first + position,
                    0,
                )
                + request.body
                + b"\0" * (-len(request.body) & 3)
                for position, request in enumerate(requests)
            ]
        )
        endpoint = self._open()
        messages: dict[int, list[Message]] = {}
        answers = [_DONE] * len(requests)
        acknowledged = False
        try:
            endpoint.send(datagram)
            while not acknowledged:
                for kind, flags, sequence, body in self._receive(endpoint):
                    position = sequence - first
                    if not 0 <= position <= last:
                        continue
                    if kind == _NLMSG_ERROR:
                        error, reason = _parse_error(flags, body)
                        answers[position] = Answer(errno=error, reason=reason)
                        acknowledged |= position == last
                    elif kind != _NLMSG_NOOP:
                        messages.setdefault(position, []).append(Message(type=kind, flags=flags, body=body))
        except (OSError, Malformed):
            self.close()
            raise
        for position, sent in messages.items():
            answers[position] = replace(answers[position], messages=tuple(sent))
        return answers

    def _dump_once(self, request: Message) -> Answer:
        wanted = self._take_sequence(1)
        endpoint = self._open()
        messages: list[Message] = []
        interrupted = False
        try:
            endpoint.send(
                NLMSGHDR.pack(NLMSGHDR.size + len(request.body), request.type, NLM_F_REQUEST | _NLM_F_DUMP, wanted, 0)
                + request.body
            )
            while True:
                for kind, flags, sequence, body in self._receive(endpoint):
                    if sequence != wanted:
                        continue
                    interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                    if kind == _NLMSG_ERROR:
                        error, reason = _parse_error(flags, body)
                        return Answer(errno=error, reason=reason)
                    if kind == _NLMSG_DONE:
                        error = -_ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else 0
                        return Answer(errno=error or (EINTR if interrupted else 0), messages=tuple(messages))
                    if kind != _NLMSG_NOOP:
                        messages.append(Message(type=kind, flags=flags, body=body))
        except (OSError, Malformed):
            self.close()
            raise

    def _receive(self, endpoint: socket) -> Iterable[tuple[int, int, int, bytes]]:
        """(type, flags, sequence number, body) of the messages of the next datagram that the kernel sent."""
        while True:
            size, _, flags, sender = endpoint.recvmsg_into([self._buffer])
            if sender[0] == 0:  # port id of the kernel; other processes may write to this socket as well
                break
        if flags & MSG_TRUNC:
            raise OSError(EPROTO, f"a netlink message of more than {_DATAGRAM_BYTES} bytes")
        if size == 0:
            raise OSError(ENODATA, "the kernel ended the netlink connection")
        parsed: list[tuple[int, int, int, bytes]] = []
        offset = 0
        while size - offset >= NLMSGHDR.size:
            length, kind, message_flags, sequence, _ = NLMSGHDR.unpack_from(self._buffer, offset)
            if length < NLMSGHDR.size or offset + length > size:
                raise OSError(EPROTO, "a netlink message that ends too early")
            body = bytes(self._buffer[offset + NLMSGHDR.size : offset + length])
            parsed.append((kind, message_flags, sequence, body))
            offset += (length + 3) & ~3
        return parsed

    def _take_sequence(self, count: int) -> int:
        # Never 0, which the kernel uses for events, and never wrapping within a batch.
        if self._sequence + count >= 0xFFFFFFFF:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first

    def _open(self) -> socket:
        if self._socket is None:
            endpoint = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, self._protocol)
            try:
                endpoint.setsockopt(SOL_SOCKET, SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
                endpoint.setsockopt(SOL_SOCKET, SO_RCVTIMEO, Struct("@ll").pack(_TIMEOUT_SECONDS, 0))
                # Errors come with the kernel's words, and without a copy of the request, which may hold a key.
                endpoint.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
                endpoint.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
                endpoint.bind((0, 0))
            except OSError:
                endpoint.close()
                raise
            self._socket = endpoint
        return self._socket


def _parse_error(flags: int, body: bytes) -> tuple[int, str | None]:
    """errno and the extended message of an NLMSG_ERROR (`struct nlmsgerr`, then attributes)."""
    error = -_ERROR.unpack_from(body)[0]
    if not flags & _NLM_F_ACK_TLVS:
        return error, None
    echoed = _ERROR.size + NLMSGHDR.size
    if error and not flags & _NLM_F_CAPPED:
        (request_length, *_) = NLMSGHDR.unpack_from(body, _ERROR.size)
        echoed = _ERROR.size + ((request_length + 3) & ~3)
    for kind, value in parse_attributes(body, echoed):
        if kind == _NLMSGERR_ATTR_MSG:
            return error, value.rstrip(b"\0").decode("utf-8", "replace")
    return error, None
