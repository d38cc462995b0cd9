"""Requests to the kernel over netlink, and their answers.

pyroute2's synchronous classes wrap an event loop and cannot be used where one runs already, and to import them costs
an agent a fifth of its start and 13 MB. This class sends and receives by itself instead. That never waits: the kernel
handles a netlink request within `sendmsg`, so that when it returns, the answers lie in the receive buffer. An
asyncio program may call it from its loop; a request costs it microseconds.

Every batch asks for an acknowledgement of its last request, and is read up to it; of the others the kernel reports
failures only. Nothing may be left over, as it would be taken for a part of the next answer (ALLOCSPI sends its state
*and* an acknowledgement). Should anything go wrong in between, the socket is closed, and the next request opens a new
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from errno import EINTR
from struct import Struct

from hauberk_xfrm.attribute import Malformed, parse_attributes
from hauberk_xfrm.layout import NLMSGHDR
from hauberk_xfrm.netlink_endpoint import NetlinkEndpoint

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

    def __init__(self, protocol: int, *, send_buffer_bytes: int | None = None) -> None:
        """send_buffer_bytes: for transactions that are larger than what sockets may send by default."""
        self._protocol = protocol
        self._send_buffer_bytes = send_buffer_bytes
        self._endpoint: NetlinkEndpoint | None = None
        self._sequence = 0

    def close(self) -> None:
        """Idempotent; a later request opens the socket again."""
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def request(self, requests: Sequence[Message]) -> list[Answer]:
        """Sends requests, `BATCH` at a time and in order, and returns the answer to each."""
        answers: list[Answer] = []
        for start in range(0, len(requests), BATCH):
            answers += self._request_batch(requests[start : start + BATCH])
        return answers

    def transact(self, begin: Message, requests: Sequence[Message], end: Message) -> Answer:
        """Sends requests that are carried out together or not at all, between the two messages that say so.

        Returns the first failure, or the last request's success. Only that one is acknowledged: not every kernel
        acknowledges `end`. What is refused as a whole is refused in the name of `begin`.
        """
        first = self._take_sequence(len(requests) + 2)
        last = first + len(requests)
        datagram = b"".join(
            _packed(message, first + position, _NLM_F_ACK if first + position == last else 0)
            for position, message in enumerate((begin, *requests, end))
        )
        endpoint = self._open()
        failure: Answer | None = None
        try:
            endpoint.send(datagram)
            while True:
                for kind, flags, sequence, body in endpoint.receive():
                    if kind != _NLMSG_ERROR or not first <= sequence <= last:
                        continue
                    error, reason = _parse_error(flags, body)
                    if error and failure is None:
                        failure = Answer(errno=error, reason=reason)
                    if sequence == last or (sequence == first and error):
                        return failure or _DONE
        except (OSError, Malformed):
            self.close()
            raise

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
                _packed(request, first + position, _NLM_F_ACK if position == last else 0)
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
                for kind, flags, sequence, body in endpoint.receive():
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
                for kind, flags, sequence, body in endpoint.receive():
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

    def _take_sequence(self, count: int) -> int:
        # Never 0, which the kernel uses for events, and never wrapping within a batch.
        if self._sequence + count >= 0xFFFFFFFF:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first

    def _open(self) -> NetlinkEndpoint:
        if self._endpoint is None:
            self._endpoint = NetlinkEndpoint(self._protocol, waits=True, send_buffer_bytes=self._send_buffer_bytes)
        return self._endpoint


def _packed(request: Message, sequence: int, flags: int) -> bytes:
    return (
        NLMSGHDR.pack(
            NLMSGHDR.size + len(request.body), request.type, NLM_F_REQUEST | request.flags | flags, sequence, 0
        )
        + request.body
        + b"\0" * (-len(request.body) & 3)
    )


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
