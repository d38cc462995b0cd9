"""Whether ESP arrives: a Hauberk peer is asked how many packets have come in on one of its inbound SAs.

IKE goes over UDP and may pass where ESP by itself does not (many a cloud lets no IP protocol 50 through), and then
nothing else tells: what is sent is gone. The one who sends asks the one who receives, in an INFORMATIONAL exchange of
this IKE SA: both are known to be alive when there is an answer.

The notify HAUBERK_ESP_ARRIVED (40962, from the private range) is sent only to a peer with our Vendor ID. It names the
SA by the SPI of its receiver, as DELETE does the other way round; in a request it has no data, in the answer the number
of packets (8 bytes). A peer of an earlier version, or one whose kernel does not tell, answers without it.
"""

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Final

from hauberk_ike.collision import Doing
from hauberk_ike.errors import MalformedMessage
from hauberk_ike.events import EspArrived
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import Notify

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

_SPI_SIZE: Final = 4
# packets
_COUNT: Final = Struct("!Q")


class AskEspArrived:
    """The sender's side. `spi_out`: the SPI of the SA that it sends on."""

    __slots__ = ("_spi_out",)

    kind = ExchangeType.INFORMATIONAL
    doing = Doing.NOTHING

    def __init__(self, spi_out: int) -> None:
        self._spi_out = spi_out

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """None if the CHILD SA is gone by now, or the peer would not understand."""
        if not sa.peer_is_hauberk or sa.child_by_spi_out(self._spi_out) is None:
            self._report(sa, None)
            return None
        return (_notify(self._spi_out),)

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Reports EspArrived. Raises MalformedMessage, which ends the IKE SA."""
        notify = message.contents.notify(NotifyType.HAUBERK_ESP_ARRIVED)
        if notify is None:
            self._report(sa, None)
            return
        if _parse_spi(notify) != self._spi_out or len(notify.data) != _COUNT.size:
            raise MalformedMessage("not a number of packets of the SA that was asked about")
        (packets,) = _COUNT.unpack(notify.data)
        self._report(sa, packets)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """The IKE SA's end is reported, and says more."""

    def _report(self, sa: "IkeSa", packets: int | None) -> None:
        sa.context.events.append(
            EspArrived(ike_sa=sa.handle, peer=sa.peer, spi_out=self._spi_out, packets=packets),
        )


def answer(sa: "IkeSa", contents: Contents) -> list[KnownPayload]:
    """The receiver's side: of an SA of this IKE SA, and of no other. Raises MalformedMessage."""
    notify = contents.notify(NotifyType.HAUBERK_ESP_ARRIVED)
    if notify is None or not sa.peer_is_hauberk:
        return []
    spi_in = _parse_spi(notify)
    if notify.data:
        raise MalformedMessage("a question about an SA that comes with an answer")
    packets = sa.context.policy.count_arrived(spi_in, sa.peer) if spi_in in sa.children else None
    return [] if packets is None else [_notify(spi_in, _COUNT.pack(packets))]


def _notify(spi: int, data: bytes = b"") -> Notify:
    return Notify(type=NotifyType.HAUBERK_ESP_ARRIVED, protocol=Protocol.ESP, spi=spi.to_bytes(_SPI_SIZE), data=data)


def _parse_spi(notify: Notify) -> int:
    if notify.protocol != Protocol.ESP or len(notify.spi) != _SPI_SIZE:
        raise MalformedMessage("a question about something that is no ESP SA")
    return int.from_bytes(notify.spi)
