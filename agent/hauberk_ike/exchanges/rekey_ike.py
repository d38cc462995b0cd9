"""CREATE_CHILD_SA for the rekey of the IKE SA itself (RFC 7296 sections 1.3.2, 2.8.2, 2.18 and 2.25.2).

    CREATE_CHILD_SA   SA with a new SPI, Ni, KEi   -->
                                                   <--   SA with a new SPI, Nr, KEr
    INFORMATIONAL     D(IKE) in the old IKE SA     -->
                                                   <--

The new IKE SA inherits the CHILD SAs: at the responder before the answer is sent, at the initiator with the answer. If
both ends are at it, the CHILD SAs stay with the old one until it is known which of the two new ones is to have them;
the other one, which is a *spare*, is deleted in itself by the end that asked for it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hauberk_ike import lifetime, negotiation
from hauberk_ike.collision import Asked, Doing, Race
from hauberk_ike.errors import MalformedMessage
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.exchanges.followup_ke import FollowUpKe, hold
from hauberk_ike.key_agreement import NONCE_LENGTH, KeyOffer, Secrets, answer_key
from hauberk_ike.keys import rekey_ike_keys
from hauberk_ike.lifecycle import State
from hauberk_ike.negotiation import IKE_SPI_SIZE
from hauberk_ike.numbers import ExchangeType, NotifyType, notify_name
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.succession import discard, hand_over, keep_spare
from hauberk_ike.wire.header import NO_SPI
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import Nonce, Notify
from hauberk_ike.wire.security_association import SecurityAssociation

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class RekeyIke:
    """The initiator's side. `attempt` counts from 1."""

    __slots__ = ("_agreed", "_attempt", "_key", "_nonce", "_secrets", "_spi")

    kind = ExchangeType.CREATE_CHILD_SA
    doing = Doing.REKEYING_IKE

    def __init__(self, *, attempt: int = 1) -> None:
        self._attempt = attempt
        self._key: KeyOffer | None = None
        self._nonce = b""
        self._spi = b""
        self._agreed: AgreedIkeSa | None = None
        self._secrets: Secrets | None = None

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """SA with our new SPI, Ni, KEi: of the method that is in use, as that is known to suit the peer."""
        if sa.state is not State.ESTABLISHED:
            return None
        proposals = sa.peer.ike_proposals
        if self._key is None:
            self._key = KeyOffer(proposals, preferred=sa.proposal.key_exchange[0])
        sa.race = Race()
        sa.rekey_at = None
        self._spi = sa.context.registry.new_spi()
        self._nonce = sa.context.entropy(NONCE_LENGTH)
        return [
            negotiation.offer_ike(proposals, self._spi),
            Nonce(data=self._nonce),
            *self._key.build(sa.context.entropy),
        ]

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Makes the new IKE SA, goes on to additional key exchanges, or does what an error says.

        Raises ProtocolError for an answer that is not to what was asked, which ends the IKE SA: the peer then believes
        in a new one that we can't reach.
        """
        contents = message.contents
        error = contents.error()
        if error is not None:
            self.refused(sa, error, now)
            return
        assert self._key is not None
        proposal, spi_r = negotiation.accepted_ike(
            contents.one(SecurityAssociation), sa.peer.ike_proposals, spi_size=IKE_SPI_SIZE
        )
        nonce_r = contents.one(Nonce).data
        if spi_r in (NO_SPI, self._spi) or nonce_r == self._nonce:
            raise MalformedMessage("no SPI in the answer, or our own SPI or nonce came back")
        shared = self._key.agree(proposal.key_exchange, contents)
        self._agreed = AgreedIkeSa(proposal, initiator=True, spi_i=self._spi, spi_r=spi_r)
        self._secrets = Secrets(nonce_i=self._nonce, nonce_r=nonce_r, shared=shared)
        if sa.race is not None:
            sa.race.own = self._secrets.lowest_nonce
        methods = proposal.additional_methods
        if methods and not self.goes_on(sa):
            # Ours is lost, and there is no new IKE SA to delete.
            sa.race = None
            self._yield_to_spare(sa, now)
        elif methods:
            sa.requests.add_first(sa, FollowUpKe(self, self._secrets, methods, contents), now)
        else:
            self.complete(sa, now)

    def goes_on(self, sa: "IkeSa") -> bool:
        return not sa.is_closing and sa.race is not None and not sa.race.is_lost

    def complete(self, sa: "IkeSa", now: float) -> None:
        """The new IKE SA is there at both ends: it takes the old one's place, or goes."""
        assert self._agreed is not None
        assert self._secrets is not None
        race, sa.race = sa.race, None
        new = self._agreed.make(sa, self._secrets, now)
        if sa.state is State.ESTABLISHED and not sa.is_closing and race is not None and not race.is_lost:
            sa.drop_pending(Asked.REKEY_IKE)
            hand_over(sa, new, now)
            sa.close(now)
        else:
            discard(new, now)
            self._yield_to_spare(sa, now)

    def refused(self, sa: "IkeSa", error: Notify, now: float) -> None:
        """The peer's answer is an error: if it has rekeyed the IKE SA itself, that is what stays."""
        sa.race = None
        if sa.spare is not None:
            self._yield_to_spare(sa, now)
            return
        if sa.state is not State.ESTABLISHED:
            return
        name = notify_name(error.type)
        match error.type:
            case NotifyType.INVALID_KE_PAYLOAD if self._key is not None and self._agreed is None:
                if self._key.refused(error):
                    sa.requests.add_first(sa, self, now)
                    return
            case NotifyType.TEMPORARY_FAILURE | NotifyType.STATE_NOT_FOUND:
                due = lifetime.retry_time(sa.context.entropy, attempt=self._attempt + 1, now=now)
                if due is not None:
                    sa.requests.add_at(RekeyIke(attempt=self._attempt + 1), due)
                    return
                sa.conclude_out_of_step(name, now)
                return
            case _:
                pass
        sa.need_reauthentication(name)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """Nothing was taken; what the peer has begun goes on by itself."""
        sa.race = None

    def _yield_to_spare(self, sa: "IkeSa", now: float) -> None:
        """The peer's rekey is complete, and ours has come to nothing."""
        spare = sa.spare
        if spare is None:
            return
        if sa.state is State.ESTABLISHED and not sa.is_closing:
            hand_over(sa, spare, now)


class AgreedIkeSa:
    """An IKE SA on which both ends have agreed, but for its keys."""

    __slots__ = ("initiator", "proposal", "spi_i", "spi_r")

    asked = Asked.REKEY_IKE
    replaces = None

    def __init__(self, proposal: IkeProposal, *, initiator: bool, spi_i: bytes, spi_r: bytes) -> None:
        self.proposal = proposal
        self.initiator = initiator
        self.spi_i = spi_i
        self.spi_r = spi_r

    def make(self, sa: "IkeSa", secrets: Secrets, now: float) -> "IkeSa":
        """The new one, with its keys, spare as yet."""
        keys = rekey_ike_keys(
            self.proposal,
            sa.keys,
            shared=secrets.shared,
            nonce_i=secrets.nonce_i,
            nonce_r=secrets.nonce_r,
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            additional=secrets.additional,
        )
        return sa.make_successor(
            self.proposal, keys, initiator=self.initiator, spi_i=self.spi_i, spi_r=self.spi_r, now=now
        )

    def install(self, sa: "IkeSa", secrets: Secrets, now: float) -> None:
        """As responder: the new IKE SA takes the old one's place, unless we are rekeying the old one too."""
        if sa.state is not State.ESTABLISHED or sa.is_closing:
            return
        new = self.make(sa, secrets, now)
        if sa.race is None or sa.race.is_lost:
            hand_over(sa, new, now)
        else:
            keep_spare(sa, new, now)

    def release(self, sa: "IkeSa") -> None:
        """Nothing was taken."""


def answer(sa: "IkeSa", contents: Contents, nonce_i: bytes, now: float) -> Sequence[KnownPayload]:
    """The responder's side. Raises ProtocolError, which is answered."""
    chosen, offered, association = negotiation.choose_ike(
        contents.one(SecurityAssociation), sa.peer.ike_proposals, spi_size=IKE_SPI_SIZE
    )
    if offered.spi == NO_SPI:
        raise MalformedMessage("a rekey of the IKE SA without an SPI")
    nonce_r = sa.context.entropy(NONCE_LENGTH)
    key, shared = answer_key(chosen.key_exchange, contents, sa.context.entropy)
    secrets = Secrets(nonce_i=nonce_i, nonce_r=nonce_r, shared=shared)
    spi_r = sa.context.registry.new_spi()
    if sa.race is not None:
        sa.race.rival = secrets.lowest_nonce
    agreed = AgreedIkeSa(chosen, initiator=False, spi_i=offered.spi, spi_r=spi_r)
    more = hold(sa, agreed, secrets, chosen.additional_methods, now)
    return [negotiation.with_spi(association, spi_r), Nonce(data=nonce_r), *key, *more]
