"""What the exchanges have in common: the initiator's protocol, and a message as it is handed around."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hauberk_ike.collision import Doing
from hauberk_ike.datagram import SocketAddress
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.header import Header
from hauberk_ike.wire.message import Contents, KnownPayload

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class Inbound:
    """A message that was received: the bytes, where they came from, and what is in them.

    `chain` is what was in an encrypted one, unparsed, after the type of its first payload.
    """

    __slots__ = ("chain", "contents", "data", "header", "local", "remote")

    def __init__(
        self,
        header: Header,
        data: bytes,
        contents: Contents,
        *,
        local: SocketAddress,
        remote: SocketAddress,
        chain: tuple[int, bytes] = (0, b""),
    ) -> None:
        self.chain = chain
        self.header = header
        self.data = data
        self.contents = contents
        self.local = local
        self.remote = remote


class Exchange(Protocol):
    """One exchange of ours, from the wish to the answer."""

    @property
    def kind(self) -> ExchangeType: ...

    @property
    def doing(self) -> Doing:
        """What it is about, for requests of the peer's that it may collide with."""
        ...

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """The request, made when its turn comes; None if there is nothing left to ask."""
        ...

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """The answer. Raises ProtocolError if the peer broke the protocol, which ends the IKE SA."""
        ...

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """There will be no answer that counts: give back what was taken, and say so unless `reason` is empty.

        Called at most once: never after `process` returned, but after it raised, and also for what was never built.
        """
        ...
