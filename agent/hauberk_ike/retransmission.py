"""A request on its way (RFC 7296 section 2.1): sent again byte for byte at growing intervals, but not for ever."""

from typing import TYPE_CHECKING

from hauberk_ike.config import EndpointSettings

if TYPE_CHECKING:
    from hauberk_ike.exchanges.exchange import Exchange


class Retransmission:
    """The one request that a window of size 1 allows. `due` is when to send it again, or to give up.

    `messages` is what it is on the wire: one, or all its fragments (RFC 7383 section 2.6.1). `later` is what takes its
    place when it is sent again, if anything does: the same in other fragments (section 2.5.2).
    """

    __slots__ = ("_base", "_interval", "_tries_left", "due", "exchange", "later", "message_id", "messages")

    def __init__(
        self,
        exchange: "Exchange",
        message_id: int,
        messages: tuple[bytes, ...],
        settings: EndpointSettings,
        *,
        now: float,
        later: tuple[bytes, ...] | None = None,
    ) -> None:
        self.exchange = exchange
        self.later = later
        self.message_id = message_id
        self.messages = messages
        self._base = settings.retransmit_base
        self._interval = settings.retransmit_seconds
        self._tries_left = settings.retransmit_tries - 1
        self.due = now + self._interval

    def again(self, now: float) -> bool:
        """At `due`: whether the request is to be sent once more. False: it was sent often enough."""
        if self._tries_left <= 0:
            return False
        self._tries_left -= 1
        if self.later is not None:
            self.messages, self.later = self.later, None
        self._interval *= self._base
        self.due = now + self._interval
        return True
