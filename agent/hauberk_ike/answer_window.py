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
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.header import FLAG_INITIATOR, FLAG_RESPONSE, Header
from hauberk_ike.wire.message import Contents, parse_payloads

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class AnswerWindow:
    """What we are asked. `sa` is in every method the IKE SA whose window it is."""

    __slots__ = ("_answer", "_expected_id", "_request_digest")

    def __init__(self, expected_id: int) -> None:
        self._expected_id = expected_id
        self._request_digest = b""
        self._answer = b""

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
        if header.message_id == self._expected_id - 1 and self._answer:
            # Only the very same request is answered again (section 2.1), so that this serves nobody else.
            if _digest(data) == self._request_digest:
                sa.send(self._answer, local=local, remote=remote)
            return
        if header.message_id != self._expected_id or not sa.hears(header.exchange_type):
            return
        try:
            first, chain = sa.protection.open(header, data)
        except ProtocolError:
            return
        sa.heard(local, remote, now)
        self._expected_id += 1
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
        self._answer = sa.protection.seal(
            spi_i=sa.spi_i,
            spi_r=sa.spi_r,
            exchange_type=header.exchange_type,
            flags=FLAG_RESPONSE | (FLAG_INITIATOR if sa.initiator else 0),
            message_id=header.message_id,
            payloads=payloads,
        )
        sa.send(self._answer, local=local, remote=remote)
        if header.exchange_type == ExchangeType.IKE_INTERMEDIATE and broken is None and message is not None:
            ike_intermediate.answered(sa, message, self._answer, payloads)
        sa.answered(broken, remote, now)


def _digest(request: bytes) -> bytes:
    """What is kept of a request, for as long as the IKE SA has nothing else to say."""
    return hashlib.sha256(request).digest()
