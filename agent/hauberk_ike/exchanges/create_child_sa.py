"""CREATE_CHILD_SA for CHILD SAs (RFC 7296 sections 1.3.1 and 1.3.3): further ones, and as responder whatever is asked.

What rekeys do is in `rekey_child` and `rekey_ike`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hauberk_ike import lifetime
from hauberk_ike.child_negotiation import ChildOffer, ChildRequest, Packet
from hauberk_ike.child_sa import AgreedChild, ChildSa
from hauberk_ike.collision import TEMPORARY, Asked, Doing
from hauberk_ike.config import ChildConfig
from hauberk_ike.errors import ExchangeRefused, MalformedMessage, SpiUnavailable
from hauberk_ike.exchanges import rekey_ike
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.exchanges.followup_ke import FollowUpKe, hold
from hauberk_ike.exchanges.informational import DeleteChildSa
from hauberk_ike.key_agreement import NONCE_LENGTH, KeyOffer, Secrets, answer_key
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol, notify_name
from hauberk_ike.succession import adopt
from hauberk_ike.wire.message import KnownPayload
from hauberk_ike.wire.payloads import Nonce, Notify
from hauberk_ike.wire.security_association import SecurityAssociation

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

ORDINARY_REFUSALS = frozenset(
    {
        NotifyType.TEMPORARY_FAILURE,
        NotifyType.CHILD_SA_NOT_FOUND,
        NotifyType.INVALID_KE_PAYLOAD,
        NotifyType.STATE_NOT_FOUND,
    }
)
"""What belongs to the protocol's ordinary course, and is no reason to report a refused peer."""


class CreateChildSa:
    """The initiator's side, for a new CHILD SA; `RekeyChild` is one that replaces another.

    `packet` is what caused it, if that is known. `attempt` counts from 1.
    """

    __slots__ = ("_agreed", "_attempt", "_key", "_nonce", "_packet", "_request", "_secrets")

    kind = ExchangeType.CREATE_CHILD_SA
    doing = Doing.CREATING_CHILD

    def __init__(self, config: ChildConfig, *, packet: Packet | None = None, attempt: int = 1) -> None:
        self._packet = packet
        self._attempt = attempt
        self._nonce = b""
        self._agreed: AgreedChild | None = None
        self._secrets: Secrets | None = None
        self._ask(ChildRequest(config, keyed=True, packet=packet))

    def _ask(self, request: ChildRequest) -> None:
        self._request = request
        self._key = KeyOffer(request.proposals)

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """SA, Ni, [KEi,] TSi, TSr, notifies."""
        try:
            association, *rest = self._request.build(sa)
        except SpiUnavailable as error:
            self.abandon(sa, f"no SPI: {error}")
            return None
        self._nonce = sa.context.entropy(NONCE_LENGTH)
        sa.deleted_early = set()
        return [association, Nonce(data=self._nonce), *self._key.build(sa.context.entropy), *rest]

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Makes the CHILD SA, goes on to additional key exchanges, or does what an error says.

        Raises MalformedMessage, which ends the IKE SA.
        """
        contents = message.contents
        error = contents.error()
        if error is not None:
            self.refused(sa, error, now)
            return
        nonce_r = contents.one(Nonce).data
        if nonce_r == self._nonce:
            raise MalformedMessage("our own nonce came back")
        spi_in = self._request.spi_in
        try:
            agreed = self._agreed = self._request.agree(sa, contents)
            shared = self._key.agree(agreed.proposal.key_exchange, contents)
        except ExchangeRefused as refusal:
            self.abandon(sa, str(refusal))
            if spi_in is not None:
                # The peer believes in it.
                sa.start(DeleteChildSa(spi_in, believed=True), now)
            return
        self._secrets = Secrets(nonce_i=self._nonce, nonce_r=nonce_r, shared=shared)
        self._nonces_known(self._secrets)
        methods = agreed.proposal.additional_methods
        if methods:
            sa.requests.add_first(sa, FollowUpKe(self, self._secrets, methods, contents), now)
        else:
            self.complete(sa, now)

    def goes_on(self, sa: "IkeSa") -> bool:
        return not sa.is_closing

    def complete(self, sa: "IkeSa", now: float) -> None:
        """Reports ChildSaUp."""
        agreed, self._agreed = self._agreed, None
        assert agreed is not None
        assert self._secrets is not None
        deleted_early, sa.deleted_early = sa.deleted_early or (), None
        child = self._install(sa, agreed, self._secrets, now)
        if child.spi_out in deleted_early:
            # The answer was lost, the peer has deleted the child, and now the answer came after all, from its memory.
            sa.remove_child(child.spi_in, by_peer=True, now=now)

    def refused(self, sa: "IkeSa", error: Notify, now: float) -> None:
        """The peer's answer is an error; what it holds of ours is given back, unless it is asked for again at once."""
        match error.type:
            case NotifyType.INVALID_KE_PAYLOAD if self._agreed is None:
                if self._key.refused(error):
                    sa.requests.add_first(sa, self, now)
                    return
            case NotifyType.SINGLE_PAIR_REQUIRED if self._packet is not None and self._agreed is None:
                self._ask_single_pair(sa, self._packet, now)
                return
            case NotifyType.TEMPORARY_FAILURE | NotifyType.STATE_NOT_FOUND:
                due = lifetime.retry_time(sa.context.entropy, attempt=self._attempt + 1, now=now)
                if due is not None:
                    self._release(sa)
                    self._try_again(sa, due)
                    return
                sa.conclude_out_of_step(notify_name(error.type), now)
            case NotifyType.NO_ADDITIONAL_SAS:
                sa.need_reauthentication(notify_name(error.type))
            case _:
                pass
        self.abandon(sa, notify_name(error.type))

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """Gives the SPI back and reports ChildSaFailed."""
        self._release(sa)
        self._request.fail(sa, reason)

    # What a rekey does otherwise

    def _nonces_known(self, secrets: Secrets) -> None:
        """Nobody else wants to make the same CHILD SA."""

    def _install(self, sa: "IkeSa", agreed: AgreedChild, secrets: Secrets, now: float) -> ChildSa:
        return agreed.install(sa, secrets, now)

    def _try_again(self, sa: "IkeSa", due: float) -> None:
        sa.requests.add_at(CreateChildSa(self._request.config, packet=self._packet, attempt=self._attempt + 1), due)

    def _release(self, sa: "IkeSa") -> None:
        sa.deleted_early = None
        self._request.release(sa)
        agreed, self._agreed = self._agreed, None
        if agreed is not None:
            agreed.release(sa)

    def _ask_single_pair(self, sa: "IkeSa", packet: Packet, now: float) -> None:
        """SINGLE_PAIR_REQUIRED: once more, for the packet's addresses alone (section 2.9)."""
        self._release(sa)
        config = self._request.config
        self._packet = None
        self._ask(ChildRequest(config, keyed=True, packet=packet, single_pair=True))
        sa.requests.add_first(sa, self, now)


def answer(sa: "IkeSa", message: Inbound, now: float) -> Sequence[KnownPayload]:
    """The responder's side, whatever a CREATE_CHILD_SA request asks for. Raises ProtocolError, which is answered."""
    contents = message.contents
    nonce_i = contents.one(Nonce).data
    offered = contents.one(SecurityAssociation)
    adopt(sa, now)
    try:
        if offered.proposals[0].protocol == Protocol.IKE:
            _check(sa, Asked.REKEY_IKE)
            return rekey_ike.answer(sa, contents, nonce_i, now)
        rekeyed = contents.notify(NotifyType.REKEY_SA)
        _check(sa, Asked.CREATE_CHILD if rekeyed is None else Asked.REKEY_CHILD)
        return _answer_child(sa, message, nonce_i, _find_rekeyed(sa, rekeyed) if rekeyed is not None else None, now)
    except ExchangeRefused as refusal:
        if refusal.notify not in ORDINARY_REFUSALS:
            sa.refuse(message.remote, refusal, now)
        raise


def _check(sa: "IkeSa", asked: Asked) -> None:
    doing = sa.doing
    if (doing, asked) in TEMPORARY:
        raise ExchangeRefused(NotifyType.TEMPORARY_FAILURE, f"{asked.value} while we are {doing.value}")


def _answer_child(
    sa: "IkeSa", message: Inbound, nonce_i: bytes, old: ChildSa | None, now: float
) -> Sequence[KnownPayload]:
    contents = message.contents
    offer = ChildOffer(sa, contents, replaces=old, keyed=True)
    nonce_r = sa.context.entropy(NONCE_LENGTH)
    key, shared = answer_key(offer.proposal.key_exchange, contents, sa.context.entropy)
    agreed = offer.take(sa)
    secrets = Secrets(nonce_i=nonce_i, nonce_r=nonce_r, shared=shared)
    if old is not None and old.race is not None:
        old.race.rival = secrets.lowest_nonce
    association, *rest = offer.payloads(agreed)
    more = hold(sa, agreed, secrets, offer.proposal.additional_methods, now)
    return [association, Nonce(data=nonce_r), *key, *rest, *more]


def _find_rekeyed(sa: "IkeSa", rekeyed: Notify) -> ChildSa:
    """The CHILD SA that the peer wants to rekey, by its inbound SPI (section 1.3.3).

    Raises ExchangeRefused: TEMPORARY_FAILURE if it is about to go (section 2.25.1), or may be one whose answer has not
    reached us yet; else CHILD_SA_NOT_FOUND with the SPI that was asked for, which has been checked for its length.
    """
    if rekeyed.protocol != Protocol.ESP or len(rekeyed.spi) != 4:
        raise MalformedMessage("a rekey of something that is no ESP SA")
    child = sa.child_by_spi_out(int.from_bytes(rekeyed.spi))
    if child is None and sa.doing in (Doing.CREATING_CHILD, Doing.REKEYING_CHILD):
        raise ExchangeRefused(NotifyType.TEMPORARY_FAILURE, "a rekey of what may be the CHILD SA that we ask for")
    if child is None:
        raise ExchangeRefused(
            NotifyType.CHILD_SA_NOT_FOUND,
            "a rekey of a CHILD SA that does not exist",
            protocol=Protocol.ESP,
            spi=rekeyed.spi,
        )
    if child.is_closing or not child.is_current:
        raise ExchangeRefused(NotifyType.TEMPORARY_FAILURE, "a rekey of a CHILD SA that is about to be deleted")
    return child
