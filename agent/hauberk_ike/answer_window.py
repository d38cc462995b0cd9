"""The peer's requests in one IKE SA: the next one is answered, the last one once more, others never.

RFC 7296 sections 2.1 to 2.3: the window is of one message. A request that comes again is answered from memory, byte
for byte, and changes nothing.
"""

import hashlib
from typing import TYPE_CHECKING

from hauberk_ike.datagram import SocketAddress
from hauberk_ike.error_notify import error_notify
from hauberk_ike.errors import MalformedMessage, ProtocolError
from hauberk_ike.exchanges import ike_intermediate
from hauberk_ike.exchanges.answers import ANSWERS
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.fragmentation import Opener, begins_again, seal
from hauberk_ike.message_id import count_id
from hauberk_ike.numbers import ExchangeType, PayloadType
from hauberk_ike.wire.header import Header
from hauberk_ike.wire.message import Contents, parse_payloads

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class AnswerWindow:
    """What we are asked. `sa` is in every method the IKE SA whose window it is."""

    __slots__ = ("_answer", "_opener", "_request_digest", "expected_id")

    def __init__(self, expected_id: int) -> None:
        self.expected_id = expected_id
        """The message id of the peer's next request. After the last one there is none (`message_id`)."""
        self._request_digest = b""
        self._answer: tuple[bytes, ...] = ()
        """One message, or all its fragments."""
        self._opener = Opener()

    @property
    def has_memory(self) -> bool:
        """Whether anything was answered."""
        return bool(self._answer)

    def receive(
        self,
        sa: "IkeSa",
        header: Header,
        data: bytes,
        *,
        local: SocketAddress,
        remote: SocketAddress,
        now: float,
    ) -> None:
        """A request under the IKE SA's keys, if it is the next one; the one before it is answered again."""
        if header.message_id == self.expected_id - 1 and self._answer:
            if self._repeats(sa, header, data):
                for each in self._answer:
                    sa.send(each, local=local, remote=remote)
            return
        if header.message_id != self.expected_id or not sa.hears(header.exchange_type):
            return
        try:
            opened = self._opener.open(sa, header, data)
        except ProtocolError:
            return
        if opened is None:
            return
        first, chain, data = opened
        sa.heard(local, remote, now)
        self.expected_id += 1
        message: Inbound | None = None
        broken: ProtocolError | None = None
        try:
            contents = Contents(parse_payloads(first, chain))
            message = Inbound(header, data, contents, local=local, remote=remote, chain=(first, chain))
            payloads = ANSWERS[header.exchange_type](sa, message, now)
        except ProtocolError as error:
            payloads = [error_notify(error)]
            if header.exchange_type == ExchangeType.IKE_AUTH or isinstance(error, MalformedMessage):
                broken = error
        self._request_digest = _digest(data)
        self._answer = seal(
            sa,
            payloads,
            exchange_type=header.exchange_type,
            message_id=header.message_id,
            response=True,
            local=local,
            remote=remote,
        )
        for each in self._answer:
            sa.send(each, local=local, remote=remote)
        if header.exchange_type == ExchangeType.IKE_INTERMEDIATE and broken is None and message is not None:
            ike_intermediate.answered(sa, message, self._answer[0], payloads)
        sa.answered(broken, remote, now)
        count_id(sa, header.message_id, ours=False, now=now)

    def _repeats(self, sa: "IkeSa", header: Header, data: bytes) -> bool:
        """Whether it is the last request once more: the very same (section 2.1), so that this serves nobody else."""
        if header.next_payload == PayloadType.SKF:
            return begins_again(sa, header, data)
        return _digest(data) == self._request_digest


def _digest(request: bytes) -> bytes:
    """What is kept of a request, for as long as the IKE SA has nothing else to say."""
    return hashlib.sha256(request).digest()
