"""CREATE_CHILD_SA (RFC 7296 section 1.3): further CHILD SAs.

Rekeying is refused as section 4 lets an implementation that does not rekey: NO_ADDITIONAL_SAS. An IKE SA is replaced
by another one beside it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hauberk_ike.child_sa import ChildRequest, answer_child
from hauberk_ike.config import ChildConfig
from hauberk_ike.errors import ExchangeRefused, MalformedMessage, SpiUnavailable
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.exchanges.informational import DeleteChildSa
from hauberk_ike.lifecycle import State
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol
from hauberk_ike.wire.message import KnownPayload
from hauberk_ike.wire.payloads import Nonce, Notify
from hauberk_ike.wire.security_association import SecurityAssociation

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

NONCE_LENGTH = 32


class CreateChildSa:
    """The initiator's side."""

    __slots__ = ("_child", "_nonce")

    kind = ExchangeType.CREATE_CHILD_SA

    def __init__(self, config: ChildConfig) -> None:
        self._child = ChildRequest(config)
        self._nonce = b""

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """SA, Ni, TSi, TSr, notifies."""
        try:
            association, *rest = self._child.build(sa)
        except SpiUnavailable as error:
            self._child.fail(sa, f"no SPI: {error}")
            return None
        self._nonce = sa.context.entropy(NONCE_LENGTH)
        sa.deleted_early = set()
        return [association, Nonce(data=self._nonce), *rest]

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Reports ChildSaUp or ChildSaFailed. Raises MalformedMessage, which ends the IKE SA."""
        contents = message.contents
        deleted_early, sa.deleted_early = sa.deleted_early or (), None
        nonce_r = contents.maybe(Nonce)
        if contents.error() is None:
            if nonce_r is None:
                raise MalformedMessage("no nonce in the answer")
            if nonce_r.data == self._nonce:
                raise MalformedMessage("our own nonce came back")
        spi_in = self._child.spi_in
        try:
            self._child.accept(sa, contents, nonce_i=self._nonce, nonce_r=nonce_r.data if nonce_r else b"")
        except ExchangeRefused:
            if spi_in is not None:
                sa.start(DeleteChildSa(spi_in), now)
        # The answer was lost, the peer has deleted the child, and now the answer came after all, from its memory.
        for child in tuple(sa.children.values()):
            if child.spi_in == spi_in and child.spi_out in deleted_early:
                sa.remove_child(child.spi_in, by_peer=True)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """Gives the SPI back and reports ChildSaFailed."""
        sa.deleted_early = None
        self._child.fail(sa, reason)


def answer(sa: "IkeSa", message: Inbound, now: float) -> Sequence[KnownPayload]:
    """The responder's side. Raises ProtocolError, which is answered."""
    contents = message.contents
    nonce_i = contents.one(Nonce).data
    offered = contents.one(SecurityAssociation)
    try:
        if sa.state is not State.ESTABLISHED or sa.is_closing:
            raise ExchangeRefused(NotifyType.TEMPORARY_FAILURE, "the IKE SA is being deleted")
        if offered.proposals[0].protocol == Protocol.IKE:
            raise ExchangeRefused(NotifyType.NO_ADDITIONAL_SAS, "IKE SAs are not rekeyed, but replaced")
        rekeyed = contents.notify(NotifyType.REKEY_SA)
        if rekeyed is not None:
            raise _refuse_rekey(sa, rekeyed)
        nonce_r = sa.context.entropy(NONCE_LENGTH)
        association, *rest = answer_child(sa, contents, nonce_i=nonce_i, nonce_r=nonce_r)
    except ExchangeRefused as refusal:
        sa.refuse(message.remote, refusal)
        raise
    return [association, Nonce(data=nonce_r), *rest]


def _refuse_rekey(sa: "IkeSa", rekeyed: Notify) -> ExchangeRefused:
    """CHILD_SA_NOT_FOUND goes with the SPI that was asked for (section 2.25), which has been checked for its length."""
    known = rekeyed.protocol == Protocol.ESP and any(
        child.spi_out.to_bytes(4) == rekeyed.spi for child in sa.children.values()
    )
    if known:
        return ExchangeRefused(NotifyType.NO_ADDITIONAL_SAS, "CHILD SAs are not rekeyed, but replaced")
    if rekeyed.protocol != Protocol.ESP or len(rekeyed.spi) != 4:
        raise MalformedMessage("a rekey of something that is no ESP SA")
    return ExchangeRefused(
        NotifyType.CHILD_SA_NOT_FOUND,
        "a rekey of a CHILD SA that does not exist",
        protocol=Protocol.ESP,
        spi=rekeyed.spi,
    )
