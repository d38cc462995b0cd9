"""INFORMATIONAL (RFC 7296 sections 1.4 and 2.4): liveness, DELETE, and the word that an authentication has failed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hauberk_ike.collision import Doing
from hauberk_ike.errors import MalformedMessage
from hauberk_ike.events import DownReason
from hauberk_ike.exchanges import esp_arrival, mobike
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol
from hauberk_ike.succession import adopt, hand_over
from hauberk_ike.wire.message import KnownPayload
from hauberk_ike.wire.payloads import MAX_DELETED_SPIS, Delete, Notify

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

_SPI_SIZE: Final = 4

FATAL_NOTIFIES: Final = (NotifyType.AUTHENTICATION_FAILED, NotifyType.INVALID_SYNTAX)
"""Errors that end an IKE SA when they come in a request of their own (section 2.21.2)."""


class Liveness:
    """Dead peer detection: an empty request that must be answered."""

    __slots__ = ()
    kind = ExchangeType.INFORMATIONAL
    doing = Doing.NOTHING

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload]:
        return ()

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """That there is an answer is the answer."""

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """Nothing was taken."""


class DeleteIkeSa:
    """The orderly end of an IKE SA; its CHILD SAs end with it."""

    __slots__ = ()
    kind = ExchangeType.INFORMATIONAL
    doing = Doing.CLOSING_IKE

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload]:
        return (Delete(protocol=Protocol.IKE),)

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Reports IkeSaDown."""
        sa.end(DownReason.DELETED, sa.close_reason or "deleted", now)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """The IKE SA ended otherwise."""


class RejectIkeSa:
    """Tells a peer why it is not believed (section 2.21.2). Its end was reported before."""

    __slots__ = ("_notify",)
    kind = ExchangeType.INFORMATIONAL
    doing = Doing.CLOSING_IKE

    def __init__(self, notify: Notify) -> None:
        self._notify = notify

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload]:
        return (self._notify, Delete(protocol=Protocol.IKE))

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        sa.end(DownReason.FAILED, "rejected", now)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """Nothing was taken."""


class DeleteChildSa:
    """Deletes one CHILD SA by our inbound SPI. `believed`: it is one that only the peer believes in."""

    __slots__ = ("_believed", "_spi_in")
    kind = ExchangeType.INFORMATIONAL
    doing = Doing.CLOSING_CHILD

    def __init__(self, spi_in: int, *, believed: bool = False) -> None:
        self._spi_in = spi_in
        self._believed = believed

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """None if it is gone by now."""
        if self._spi_in not in sa.children and not self._believed:
            return None
        sa.deleting.add(self._spi_in)
        return (Delete(protocol=Protocol.ESP, spi_size=_SPI_SIZE, spis=(self._spi_in.to_bytes(_SPI_SIZE),)),)

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """The peer sends no more: reports ChildSaDown."""
        sa.deleting.discard(self._spi_in)
        sa.remove_child(self._spi_in, by_peer=False, now=now)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """The IKE SA's end is the child's."""
        sa.deleting.discard(self._spi_in)


def answer(sa: "IkeSa", message: Inbound, now: float) -> Sequence[KnownPayload]:
    """The responder's side of all of these. Raises MalformedMessage."""
    contents = message.contents
    deletes = contents.all(Delete)
    for notify_type in FATAL_NOTIFIES:
        if contents.notify(notify_type) is not None:
            sa.end(DownReason.FAILED, f"the peer rejects us: {notify_type.name}", now, by_peer=True)
            return ()
    if any(delete.protocol == Protocol.IKE for delete in deletes):
        if sa.spare is not None:
            # The peer's rekey is complete, and it has not noticed ours (section 2.8.2).
            hand_over(sa, sa.spare, now)
        sa.end(DownReason.DELETED_BY_PEER, "deleted by the peer", now, by_peer=True)
        return ()
    adopt(sa, now)
    ours: list[bytes] = []
    for delete in deletes:
        if delete.protocol == Protocol.ESP:
            if delete.spis and delete.spi_size != _SPI_SIZE:
                raise MalformedMessage("a DELETE whose ESP SPIs are not 4 bytes long")
            ours += _delete_children(sa, {int.from_bytes(spi) for spi in delete.spis}, now)
    payloads = [*mobike.answer(sa, message, now), *esp_arrival.answer(sa, contents)]
    if ours:
        payloads.append(Delete(protocol=Protocol.ESP, spi_size=_SPI_SIZE, spis=tuple(ours)))
    return payloads


def _delete_children(sa: "IkeSa", spis_out: set[int], now: float) -> list[bytes]:
    """Deletes by the peer's inbound SPIs; returns ours of the same pairs, but for those that we are deleting ourselves.

    Section 1.4.1: when both delete the same pair at once, neither answers with the other half.
    """
    doomed = [child for child in sa.children.values() if child.spi_out in spis_out]
    if sa.deleted_early is not None and len(sa.deleted_early) < MAX_DELETED_SPIS:
        sa.deleted_early |= spis_out
    ours = [child.spi_in.to_bytes(_SPI_SIZE) for child in doomed if child.spi_in not in sa.deleting]
    for child in doomed:
        sa.remove_child(child.spi_in, by_peer=True, now=now)
    return ours
