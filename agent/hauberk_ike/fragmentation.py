"""Whole messages out of what is on the wire, and the other way round: where RFC 7383 is in use, in fragments.

The windows seal and open with this. Fragments are sent to peers only that have said in IKE_SA_INIT that they take them,
as we do, and taken from no others; IKE_SA_INIT itself is never fragmented. A message that fits its datagram goes whole.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from hauberk_ike.datagram import SocketAddress
from hauberk_ike.errors import MalformedMessage, ProtocolError
from hauberk_ike.numbers import PayloadType
from hauberk_ike.protection import fragment_position
from hauberk_ike.reassembly import Reassembly
from hauberk_ike.wire.header import FLAG_INITIATOR, FLAG_RESPONSE, Header
from hauberk_ike.wire.message import KnownPayload

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class Opened(NamedTuple):
    """A whole message, authentic: the type of its first payload, the chain, and its bytes (of one in fragments, the
    headers of the first)."""

    first: int
    chain: bytes
    data: bytes


class Opener:
    """Opens what one window receives: one for requests and one for answers, so that they do not displace each other."""

    __slots__ = ("_reassembly",)

    def __init__(self) -> None:
        self._reassembly: Reassembly | None = None

    def open(self, sa: "IkeSa", header: Header, data: bytes) -> Opened | None:
        """The message that is complete with `data`, if one is. Its message id is one that is expected.

        Raises ProtocolError for what is to be dropped.
        """
        if header.next_payload != PayloadType.SKF:
            first, chain = sa.protection.open(header, data)
            self._reassembly = None  # a peer may have given up on fragments
            return Opened(first, chain, data)
        if not sa.path.fragments:
            raise MalformedMessage("a fragment from a peer with which there are to be none")
        if self._reassembly is None:
            self._reassembly = Reassembly()
        whole = self._reassembly.receive(sa.protection, header, data)
        if whole is None:
            return None
        self._reassembly = None
        return Opened(*whole)


def seal(
    sa: "IkeSa",
    payloads: Sequence[KnownPayload],
    *,
    exchange_type: int,
    message_id: int,
    response: bool,
    local: SocketAddress,
    remote: SocketAddress,
    packet_bytes: int | None = None,
) -> tuple[bytes, ...]:
    """A message under the IKE SA's keys, for a way from `local` to `remote`: one datagram's, or fragments.

    packet_bytes: how large packets may be, if not as large as ever.
    """
    flags = (FLAG_RESPONSE if response else 0) | (FLAG_INITIATOR if sa.initiator else 0)
    return tuple(
        sa.protection.seal_fragments(
            spi_i=sa.spi_i,
            spi_r=sa.spi_r,
            exchange_type=exchange_type,
            flags=flags,
            message_id=message_id,
            payloads=payloads,
            mtu=sa.path.message_bytes(local, remote, packet_bytes),
        )
    )


def begins_again(sa: "IkeSa", header: Header, data: bytes) -> bool:
    """Whether a fragment of a request that was answered asks for the answer once more (RFC 7383 section 2.6.1).

    The first one does, and no other, or each would bring the whole answer. It need not be the same as before: a peer
    may cut its message anew.
    """
    try:
        if not sa.path.fragments or fragment_position(header, data)[0] != 1:
            return False
        sa.protection.open_fragment(header, data)
    except ProtocolError:
        return False
    return True
