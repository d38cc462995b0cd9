"""IKE_AUTH (RFC 7296 sections 1.2 and 2.15): both prove who they are, and the first CHILD SA comes with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hauberk_ike import authentication
from hauberk_ike.child_sa import ChildRequest, answer_child
from hauberk_ike.config import Credentials, PeerConfig
from hauberk_ike.error_notify import error_notify
from hauberk_ike.errors import ExchangeRefused, MalformedMessage, ProtocolError, Refused, SpiUnavailable
from hauberk_ike.events import DownReason, RefusalReason
from hauberk_ike.exchanges.create_child_sa import CreateChildSa
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.exchanges.informational import DeleteChildSa
from hauberk_ike.lifecycle import Step
from hauberk_ike.negotiation import permits_ike
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import (
    Authentication,
    CertificatePayload,
    IdInitiator,
    IdResponder,
    Notify,
)
from hauberk_ike.wire.security_association import SecurityAssociation

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class IkeAuth:
    """The initiator's side."""

    __slots__ = ("_child", "_identity", "_peer")

    kind = ExchangeType.IKE_AUTH

    def __init__(self, peer: PeerConfig) -> None:
        self._peer = peer
        self._child = ChildRequest(peer.children[0]) if peer.children else None

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """IDi, CERT, CERTREQ, IDr, AUTH, notifies, and the first child's payloads."""
        credentials = sa.context.credentials
        try:
            if self._child is None and not sa.peer_childless:
                raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the peer takes no IKE SA without a CHILD SA")
            identity = IdInitiator.fqdn(credentials.identity)
            auth = authentication.sign(
                credentials.private_key,
                authentication.signed_octets(
                    sa.keys.prf,
                    message=sa.init_request,
                    peer_nonce=sa.nonce_r,
                    sk_p=sa.keys.sk_pi,
                    identity=identity,
                ),
                sa.peer_hashes,
            )
            child = self._child.build(sa) if self._child is not None else []
        except (ExchangeRefused, SpiUnavailable) as error:
            sa.end(DownReason.FAILED, str(error), now)
            return None
        payloads: list[KnownPayload] = [
            identity,
            *_certificates(credentials),
            sa.context.trust.request,
            IdResponder.fqdn(self._peer.identity),
            auth,
        ]
        if self._peer.initial_contact:
            payloads.append(Notify(type=NotifyType.INITIAL_CONTACT))
        return [*payloads, *child]

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Verifies the responder, before anything else; then reports. Raises ProtocolError if it is somebody else."""
        contents = message.contents
        auth = contents.maybe(Authentication)
        error = contents.error()
        if auth is None and error is not None:
            # The peer has not proved itself, but it holds the keys of this exchange, and goes no further.
            self.abandon(sa, "")
            sa.end(DownReason.FAILED, f"the peer refuses: notify {_name(error.type)}", now)
            return
        identity = contents.one(IdResponder)
        if auth is None:
            raise MalformedMessage("no authentication in the answer")
        name, leaf = sa.context.trust.verify(identity, contents.all(CertificatePayload), at=sa.context.wall_clock())
        if name != self._peer.identity:
            raise _refusal(RefusalReason.IDENTITY_MISMATCH, f"the peer is {name}, not {self._peer.identity}")
        authentication.verify(
            leaf.public_key(),
            auth,
            authentication.signed_octets(
                sa.keys.prf,
                message=sa.init_answer,
                peer_nonce=sa.nonce_i,
                sk_p=sa.keys.sk_pr,
                identity=identity,
            ),
        )
        _authenticated(sa, name, leaf)
        if sa.is_closing:
            # It was deleted meanwhile: the peer has an IKE SA now that it must be told to delete.
            self.abandon(sa, "")
            sa.advance(Step.AUTHENTICATED)
            sa.advance(Step.CLOSE)
            return
        sa.established(initial_contact=_initial_contact(contents), now=now)
        self._finish_child(sa, contents, now)
        for config in self._peer.children[1:]:
            sa.start(CreateChildSa(config), now)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """The child's end is in the IKE SA's: it gets no event of its own."""
        if self._child is not None:
            self._child.release(sa)

    def _finish_child(self, sa: "IkeSa", contents: Contents, now: float) -> None:
        """A child that fails leaves the IKE SA as it is (section 1.2), even if the peer thinks that it is up."""
        if self._child is None:
            return
        spi_in = self._child.spi_in
        try:
            self._child.accept(sa, contents, nonce_i=sa.nonce_i, nonce_r=sa.nonce_r)
        except ProtocolError:
            if spi_in is not None:
                sa.start(DeleteChildSa(spi_in), now)


def answer(sa: "IkeSa", message: Inbound, now: float) -> Sequence[KnownPayload]:
    """The responder's side. Raises ProtocolError, which is answered and ends the IKE SA."""
    contents = message.contents
    context = sa.context
    credentials = context.credentials
    identity = contents.one(IdInitiator)
    expected = contents.maybe(IdResponder)
    auth = contents.maybe(Authentication)
    if auth is None:
        raise _refusal(RefusalReason.AUTHENTICATION_FAILED, "no authentication in the request: EAP does not exist here")
    ours = IdResponder.fqdn(credentials.identity)
    if expected is not None and (expected.id_type, expected.data) != (ours.id_type, ours.data):
        raise _refusal(RefusalReason.IDENTITY_MISMATCH, "the request is for another identity than ours")
    name, leaf = context.trust.verify(identity, contents.all(CertificatePayload), at=context.wall_clock())
    sa.claimed_identity = name
    if name == credentials.identity:
        raise _refusal(RefusalReason.IDENTITY_MISMATCH, "our own identity came back")
    authentication.verify(
        leaf.public_key(),
        auth,
        authentication.signed_octets(
            sa.keys.prf, message=sa.init_request, peer_nonce=sa.nonce_r, sk_p=sa.keys.sk_pi, identity=identity
        ),
    )
    try:
        peer = context.policy.authorize(name, message.remote)
    except Refused as refused:
        raise _refusal(refused.reason, refused.message) from None
    if peer.identity != name:
        raise _refusal(RefusalReason.IDENTITY_MISMATCH, f"the policy knows {name} by another identity")
    if not permits_ike(peer.ike_proposals, sa.proposal):
        raise _refusal(RefusalReason.NO_PROPOSAL_CHOSEN, f"{sa.proposal} is not what this peer is to use")
    sa.path.settle_responder(peer, local=message.local, remote=message.remote)
    proof = authentication.sign(
        credentials.private_key,
        authentication.signed_octets(
            sa.keys.prf, message=sa.init_answer, peer_nonce=sa.nonce_i, sk_p=sa.keys.sk_pr, identity=ours
        ),
        sa.peer_hashes,
    )
    sa.peer = peer
    _authenticated(sa, name, leaf)
    sa.established(initial_contact=_initial_contact(contents), now=now)
    payloads: list[KnownPayload] = [ours, *_certificates(credentials), proof]
    if contents.maybe(SecurityAssociation) is None:
        return payloads  # childless (RFC 6023)
    try:
        payloads += answer_child(sa, contents, nonce_i=sa.nonce_i, nonce_r=sa.nonce_r)
    except ExchangeRefused as refusal:
        sa.refuse(message.remote, refusal)
        payloads.append(error_notify(refusal))
    return payloads


def _authenticated(sa: "IkeSa", name: str, leaf: x509.Certificate) -> None:
    sa.identity = name
    sa.certificate_serial = leaf.serial_number
    sa.certificate_not_after = leaf.not_valid_after_utc
    # What AUTH was made of has no further use.
    sa.init_request = b""
    if sa.initiator:
        sa.init_answer = b""


def _certificates(credentials: Credentials) -> list[CertificatePayload]:
    return [CertificatePayload.x509(each.public_bytes(Encoding.DER)) for each in credentials.certificate_chain]


def _initial_contact(contents: Contents) -> bool:
    return contents.notify(NotifyType.INITIAL_CONTACT) is not None


def _name(notify_type: int) -> str:
    try:
        return NotifyType(notify_type).name
    except ValueError:
        return str(notify_type)


def _refusal(reason: str, message: str) -> ExchangeRefused:
    return ExchangeRefused(NotifyType.AUTHENTICATION_FAILED, message, reason=reason)
