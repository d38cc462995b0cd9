"""How large packets may be on the way to a peer, found out by one that is as large (RFC 4821's idea, by way of IKE).

An INFORMATIONAL request is made as long as a packet may be, goes in one datagram, and asks whoever sends it to let
nobody cut it on the way. An answer shows that such packets arrive. Without one the request is sent again in fragments
of the ordinary size, as RFC 7383 section 2.5.2 has it for this purpose: so the exchange ends in any case, the IKE SA
goes on, and a router that drops what is too large and tells nobody is found out all the same.

What makes it long is the data of a notify, HAUBERK_PADDING (40964, from the private range), which means nothing and
needs no answer: every peer that takes fragments can be probed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hauberk_ike.collision import Doing
from hauberk_ike.events import PathProbed
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.message import KnownPayload
from hauberk_ike.wire.payloads import Notify

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

_NOTIFY_BYTES: Final = 8
"""Before its data: the generic header, protocol, SPI size and type."""


class ProbePath:
    """One size: `packet_bytes`, IP header and all."""

    __slots__ = ("_in_pieces", "packet_bytes")

    kind = ExchangeType.INFORMATIONAL
    doing = Doing.NOTHING

    def __init__(self, packet_bytes: int) -> None:
        self.packet_bytes = packet_bytes
        self._in_pieces = False

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """None if the peer takes no fragments, or the size is less than any message's."""
        path = sa.path
        room = sa.protection.room(path.message_bytes(path.local, path.remote, self.packet_bytes)) - _NOTIFY_BYTES
        if not path.fragments or room < 0:
            self._report(sa, None)
            return None
        return (Notify(type=NotifyType.HAUBERK_PADDING, data=bytes(room)),)

    def sent_in_pieces(self) -> None:
        """There was no answer in time, and the peer gets it otherwise."""
        self._in_pieces = True

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Reports PathProbed."""
        self._report(sa, not self._in_pieces)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """The IKE SA's end is reported, and says more."""

    def _report(self, sa: "IkeSa", passes: bool | None) -> None:
        sa.context.events.append(
            PathProbed(ike_sa=sa.handle, peer=sa.peer, packet_bytes=self.packet_bytes, passes=passes)
        )
