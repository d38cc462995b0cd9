"""Our requests in one IKE SA: one on its way, the others wait (RFC 7296 sections 2.1 to 2.3).

Our window is of one message, whatever a peer's SET_WINDOW_SIZE permits: it is the least that everybody takes, we never
have more to say at once than can wait for an answer, and requests that overtake each other would collide with
themselves (section 2.25). So the notify is neither sent nor kept.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hauberk_ike.collision import Doing
from hauberk_ike.datagram import SocketAddress
from hauberk_ike.errors import ProtocolError
from hauberk_ike.events import DownReason
from hauberk_ike.exchanges.exchange import Exchange, Inbound
from hauberk_ike.exchanges.ike_intermediate import IkeIntermediate
from hauberk_ike.exchanges.path_probe import ProbePath
from hauberk_ike.fragmentation import Opener, seal
from hauberk_ike.lifecycle import State
from hauberk_ike.message_id import LAST_ID, count_id
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.retransmission import Retransmission
from hauberk_ike.wire.header import FLAG_INITIATOR, HEADER, NO_SPI, Header
from hauberk_ike.wire.message import Contents, KnownPayload, build_message, parse_payloads

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

_DISTURBING: Final = frozenset({Doing.CREATING_CHILD, Doing.REKEYING_CHILD, Doing.CLOSING_CHILD, Doing.REKEYING_IKE})
"""What waits while the peer is in the middle of rekeying the IKE SA: it would only refuse it."""


class RequestWindow:
    """What we ask. `sa` is in every method the IKE SA whose window it is."""

    __slots__ = ("_deferred", "_later", "_opener", "_outstanding", "_queue", "next_id")

    def __init__(self) -> None:
        self.next_id = 0
        """The message id of the next request."""
        self._opener = Opener()
        self._outstanding: Retransmission | None = None
        self._queue: list[Exchange] = []
        self._later: list[Exchange] = []
        """What was asked for before the IKE SA is established."""
        self._deferred: list[tuple[float, Exchange]] = []
        """What the peer refused temporarily, and when to ask again."""

    @property
    def current(self) -> Exchange | None:
        """The exchange whose answer we are waiting for."""
        return self._outstanding.exchange if self._outstanding is not None else None

    @property
    def due(self) -> float | None:
        """When the request on its way is to be sent again, or given up."""
        return self._outstanding.due if self._outstanding is not None else None

    @property
    def deferred_due(self) -> float | None:
        """When something deferred has its turn."""
        return min(due for due, _ in self._deferred) if self._deferred else None

    def waiting(self, kind: type[Exchange]) -> bool:
        """Whether an exchange of a kind waits for its turn, deferred or not."""
        return any(isinstance(exchange, kind) for exchange in self._queue) or any(
            isinstance(exchange, kind) for _, exchange in self._deferred
        )

    def add(self, sa: "IkeSa", exchange: Exchange, now: float) -> None:
        """Does `exchange` as soon as the window is free."""
        self._queue.append(exchange)
        self.pump(sa, now)

    def add_first(self, sa: "IkeSa", exchange: Exchange, now: float) -> None:
        """Does `exchange` before anything else: it goes on with the one just answered."""
        self._queue.insert(0, exchange)
        self.pump(sa, now)

    def add_at(self, exchange: Exchange, due: float) -> None:
        """Does `exchange` when it is `due`."""
        self._deferred.append((due, exchange))

    def postpone(self, exchange: Exchange) -> None:
        """Lets everything that waits go before `exchange`, whose turn it was."""
        due = self.deferred_due
        if self._queue or due is None:
            self._queue.append(exchange)
        else:
            self._deferred.append((due, exchange))

    def move_waiting(self, other: "RequestWindow") -> None:
        """Leaves what waits to the IKE SA that takes this one's place: but for its own rekey, which is done."""
        moved = [exchange for exchange in self._queue if exchange.doing is not Doing.REKEYING_IKE]
        other._queue += moved
        other._deferred += [each for each in self._deferred if each[1].doing is not Doing.REKEYING_IKE]
        self._queue.clear()
        self._deferred.clear()

    def add_later(self, exchange: Exchange) -> None:
        """Keeps `exchange` until the peer is authenticated."""
        self._later.append(exchange)

    def authenticated(self) -> None:
        """What was asked for early has its turn."""
        self._queue.extend(self._later)
        self._later.clear()

    def pump(self, sa: "IkeSa", now: float) -> None:
        """Sends the next request if none is on its way."""
        while self._outstanding is None and self._queue and sa.state is not State.DEAD:
            if sa.is_being_rekeyed and self._queue[0].doing in _DISTURBING:
                return
            if self.next_id > LAST_ID:
                sa.end(DownReason.FAILED, "its message ids are used up", now)
                return
            exchange = self._queue.pop(0)
            payloads = exchange.build(sa, now)
            if payloads is not None:
                self._send_request(sa, exchange, payloads, now)

    def resend_init(self, sa: "IkeSa", exchange: Exchange, payloads: Sequence[KnownPayload], now: float) -> None:
        """Another IKE_SA_INIT request in place of the one on its way, with its message id (section 2.6)."""
        self.next_id = 0
        self._send_request(sa, exchange, payloads, now)

    def receive_init_answer(
        self,
        sa: "IkeSa",
        header: Header,
        data: bytes,
        *,
        local: SocketAddress,
        remote: SocketAddress,
        now: float,
    ) -> None:
        """Nothing here is authenticated: whatever is wrong is a hint, and the attempt goes on (section 2.21.1)."""
        outstanding = self._outstanding
        if outstanding is None or header.exchange_type != ExchangeType.IKE_SA_INIT or header.message_id != 0:
            return
        try:
            contents = Contents(parse_payloads(header.next_payload, data, HEADER.size))
            outstanding.exchange.process(sa, Inbound(header, data, contents, local=local, remote=remote), now)
        except ProtocolError as error:
            sa.hint = str(error)
            return
        if sa.state is State.AUTHENTICATING:
            self._outstanding = None
            self.pump(sa, now)

    def receive_answer(
        self,
        sa: "IkeSa",
        header: Header,
        data: bytes,
        *,
        local: SocketAddress,
        remote: SocketAddress,
        now: float,
    ) -> None:
        """An answer under the IKE SA's keys, if it is one to what we asked."""
        outstanding = self._outstanding
        if (
            outstanding is None
            or header.message_id != outstanding.message_id
            or header.exchange_type != outstanding.exchange.kind
        ):
            return
        try:
            opened = self._opener.open(sa, header, data)
        except ProtocolError:
            return
        if opened is None:
            return
        first, chain, data = opened
        self._outstanding = None
        sa.heard(local, remote, now)
        try:
            contents = Contents(parse_payloads(first, chain))
            message = Inbound(header, data, contents, local=local, remote=remote, chain=(first, chain))
            outstanding.exchange.process(sa, message, now)
        except ProtocolError as error:
            outstanding.exchange.abandon(sa, str(error))
            if sa.state in (State.REJECTING, State.DEAD):
                sa.end(DownReason.FAILED, str(error), now)
            else:
                sa.reject(error, now)
        self.pump(sa, now)

    def take_deferred(self, sa: "IkeSa", now: float) -> None:
        """At `deferred_due`: what is due has its turn."""
        self._queue += [exchange for due, exchange in self._deferred if due <= now]
        self._deferred = [each for each in self._deferred if each[0] > now]
        self.pump(sa, now)

    def handle_timer(self, sa: "IkeSa", now: float) -> bool:
        """At `due`: sends the request again. False: it was sent often enough, and nobody answers."""
        outstanding = self._outstanding
        if outstanding is None or not outstanding.again(now):
            return outstanding is None
        if isinstance(outstanding.exchange, ProbePath):
            outstanding.exchange.sent_in_pieces()
        for message in outstanding.messages:
            sa.send(message)
        return True

    def drop(self, sa: "IkeSa", reason: str) -> None:
        """Gives up everything, on its way or waiting."""
        outstanding, self._outstanding = self._outstanding, None
        if outstanding is not None:
            outstanding.exchange.abandon(sa, reason)
        self.drop_waiting(sa, reason)

    def drop_waiting(self, sa: "IkeSa", reason: str) -> None:
        """Gives up what was not sent yet."""
        waiting = [*self._queue, *self._later, *(exchange for _, exchange in self._deferred)]
        self._queue.clear()
        self._later.clear()
        self._deferred.clear()
        for exchange in waiting:
            exchange.abandon(sa, reason)

    def _send_request(self, sa: "IkeSa", exchange: Exchange, payloads: Sequence[KnownPayload], now: float) -> None:
        message_id = self.next_id
        self.next_id += 1
        if exchange.kind is ExchangeType.IKE_SA_INIT:
            sa.init_request = build_message(
                spi_i=sa.spi_i,
                spi_r=NO_SPI,
                exchange_type=exchange.kind,
                flags=FLAG_INITIATOR,
                message_id=message_id,
                payloads=payloads,
            )
            messages = (sa.init_request,)
        else:
            messages = self._seal(sa, exchange, payloads, message_id)
        later: tuple[bytes, ...] | None = None
        if isinstance(exchange, ProbePath):
            later, messages = messages, self._seal(sa, exchange, payloads, message_id, exchange.packet_bytes)
        if isinstance(exchange, IkeIntermediate):
            exchange.sent(messages[0], payloads)
        self._outstanding = Retransmission(exchange, message_id, messages, sa.context.settings, now=now, later=later)
        for message in messages:
            sa.send(message, dont_fragment=later is not None)
        count_id(sa, message_id, ours=True, now=now)

    @staticmethod
    def _seal(
        sa: "IkeSa",
        exchange: Exchange,
        payloads: Sequence[KnownPayload],
        message_id: int,
        packet_bytes: int | None = None,
    ) -> tuple[bytes, ...]:
        return seal(
            sa,
            payloads,
            exchange_type=exchange.kind,
            message_id=message_id,
            response=False,
            local=sa.path.local,
            remote=sa.path.remote,
            packet_bytes=packet_bytes,
        )
