"""IKE_AUTH (RFC 7296 sections 1.2 and 2.15): both prove who they are, and the first CHILD SA comes with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.hashes import SHA256

from hauberk_ike import authentication
from hauberk_ike.child_negotiation import ChildRequest, answer_child
from hauberk_ike.collision import Doing
from hauberk_ike.config import PeerConfig
from hauberk_ike.context import demanded_of
from hauberk_ike.credentials import CertifiedKey, PreSharedKey
from hauberk_ike.error_notify import error_notify
from hauberk_ike.errors import (
    ExchangeRefused,
    MalformedMessage,
    ProtocolError,
    RefusalReason,
    Refused,
    SpiUnavailable,
)
from hauberk_ike.esp_path import build_esp_path, parse_esp_path
from hauberk_ike.events import DownReason
from hauberk_ike.exchanges import mobike
from hauberk_ike.exchanges.create_child_sa import CreateChildSa
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.exchanges.informational import DeleteChildSa
from hauberk_ike.identity import Identity
from hauberk_ike.keys import IkeKeys, mix_ppk
from hauberk_ike.lifecycle import Step
from hauberk_ike.negotiation import permits_ike
from hauberk_ike.numbers import AuthMethod, CertEncoding, ExchangeType, NotifyType, notify_name
from hauberk_ike.ppk import choose_proof, name_ppk, ppk_of
from hauberk_ike.signature import verify as verify_signature
from hauberk_ike.trust import TrustStore, VerifiedCertificate
from hauberk_ike.wire.header import NO_SPI
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import (
    Authentication,
    CertificatePayload,
    CertificateRequest,
    Identification,
    IdInitiator,
    IdResponder,
    Notify,
)
from hauberk_ike.wire.security_association import SecurityAssociation

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class IkeAuth:
    """The initiator's side."""

    __slots__ = ("_child", "_later", "_mixed", "_peer")

    kind = ExchangeType.IKE_AUTH
    doing = Doing.NOTHING

    def __init__(self, peer: PeerConfig) -> None:
        self._peer = peer
        together = () if peer.children_apart else peer.children[:1]
        self._child = ChildRequest(together[0]) if together else None
        self._later = peer.children[len(together) :]
        self._mixed: IkeKeys | None = None
        """The keys with the PPK in them, if we have offered one."""

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """IDi, CERT, CERTREQ, IDr, AUTH, notifies, and the first child's payloads."""
        context = sa.context
        try:
            if self._child is None and not sa.peer_childless:
                raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the peer takes no IKE SA without a CHILD SA")
            identity, key = _own(sa, self._peer, sa.peer_authorities)
            ours = identity.as_initiator()
            auth, ppk_notifies = self._prove(sa, key, ours)
            child = self._child.build(sa) if self._child is not None else []
        except (ExchangeRefused, SpiUnavailable) as error:
            sa.end(DownReason.FAILED, str(error), now)
            return None
        payloads: list[KnownPayload] = [ours]
        if isinstance(key, CertifiedKey):
            payloads += key.payloads
        demanded = context.remote(self._peer)
        if isinstance(demanded, TrustStore):
            payloads.append(demanded.request)
        payloads += (self._peer.identity.as_responder(), auth)
        if self._peer.initial_contact:
            payloads.append(Notify(type=NotifyType.INITIAL_CONTACT))
        if sa.peer_is_hauberk:
            payloads += build_esp_path(self._peer.esp_path)
        return [*payloads, *ppk_notifies, *child]

    def _prove(
        self, sa: "IkeSa", key: CertifiedKey | PreSharedKey, ours: IdInitiator
    ) -> tuple[Authentication, list[Notify]]:
        """AUTH, and what goes with it if a PPK is in it (`hauberk_ike.ppk`). Raises ExchangeRefused."""
        ppk = ppk_of(self._peer)
        plain = _octets(sa, ours, sa.keys, by_initiator=True)
        if ppk is None or not sa.use_ppk:
            if ppk is not None and ppk.required:
                raise _refusal(RefusalReason.PPK_MISSING, "the peer uses no PPK")
            return authentication.prove(key, sa.keys.prf, plain, sa.peer_hashes), []
        self._mixed = mix_ppk(sa.keys, ppk.secret)
        mixed = _octets(sa, ours, self._mixed, by_initiator=True)
        notifies = [name_ppk(ppk)]
        if not ppk.required:
            without = authentication.prove(key, sa.keys.prf, plain, sa.peer_hashes)
            notifies.append(Notify(type=NotifyType.NO_PPK_AUTH, data=without.data))
        return authentication.prove(key, sa.keys.prf, mixed, sa.peer_hashes), notifies

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Verifies the responder, before anything else; then reports. Raises ProtocolError if it is somebody else."""
        contents = message.contents
        auth = contents.maybe(Authentication)
        error = contents.error()
        if auth is None and error is not None:
            # The peer has not proved itself, but it holds the keys of this exchange, and goes no further.
            self.abandon(sa, "")
            sa.end(DownReason.FAILED, f"the peer refuses: notify {notify_name(error.type)}", now)
            return
        claim = contents.one(IdResponder)
        if auth is None:
            raise MalformedMessage("no authentication in the answer")
        _refuse_another_authentication(contents)
        identity = Identity.from_payload(claim)
        if identity != self._peer.identity:
            raise _refusal(RefusalReason.IDENTITY_MISMATCH, f"the peer is {identity}, not {self._peer.identity}")
        keys = self._confirmed_keys(sa, contents)
        leaf = _verify(sa, self._peer, identity, auth, contents, _octets(sa, claim, keys, by_initiator=False))
        _authenticated(sa, identity, leaf, keys)
        if sa.is_closing:
            # It was deleted meanwhile: the peer has an IKE SA now that it must be told to delete.
            self.abandon(sa, "")
            sa.advance(Step.AUTHENTICATED)
            sa.advance(Step.CLOSE)
            return
        sa.established(initial_contact=_initial_contact(contents), now=now)
        self._finish_child(sa, contents, now)
        for config in self._later:
            sa.start(CreateChildSa(config), now)

    def _confirmed_keys(self, sa: "IkeSa", contents: Contents) -> IkeKeys:
        """Those that the responder has made its proof with. Raises ExchangeRefused."""
        if self._mixed is None:
            return sa.keys
        if contents.notify(NotifyType.PPK_IDENTITY) is not None:
            return self._mixed
        ppk = ppk_of(self._peer)
        if ppk is not None and ppk.required:
            raise _refusal(RefusalReason.PPK_MISSING, "the peer does not have our PPK")
        return sa.keys

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
            self._child.accept(sa, contents, nonce_i=sa.nonce_i, nonce_r=sa.nonce_r, now=now)
        except ProtocolError:
            if spi_in is not None:
                sa.start(DeleteChildSa(spi_in, believed=True), now)


def answer(sa: "IkeSa", message: Inbound, now: float) -> Sequence[KnownPayload]:
    """The responder's side. Raises ProtocolError, which is answered and ends the IKE SA."""
    contents = message.contents
    context = sa.context
    claim = contents.one(IdInitiator)
    expected = contents.maybe(IdResponder)
    auth = contents.maybe(Authentication)
    if auth is None:
        raise _refusal(RefusalReason.AUTHENTICATION_FAILED, "no authentication in the request: EAP does not exist here")
    _refuse_another_authentication(contents)
    identity = Identity.from_payload(claim)
    sa.claimed_identity = str(identity)
    found = context.policy.find(identity, message.remote)
    if identity == context.local(found)[0]:
        raise _refusal(RefusalReason.IDENTITY_MISMATCH, "our own identity came back")
    given = choose_proof(ppk_of(found), context.decoy.secret, sa.keys, auth, contents, agreed=sa.use_ppk)
    octets = _octets(sa, claim, given.keys, by_initiator=True)
    try:
        leaf = _verify(sa, found, identity, given.auth, contents, octets)
    except ExchangeRefused as refusal:
        raise given.refusal or refusal from None
    if given.refusal is not None:
        raise given.refusal
    peer = _authorize(sa, identity, found, message)
    own_identity, key = _own(sa, peer, requested_authorities(contents))
    if expected is not None and not own_identity.is_claimed_by(expected):
        raise _refusal(RefusalReason.IDENTITY_MISMATCH, "the request is for another identity than ours")
    if not permits_ike(peer.ike_proposals, sa.proposal):
        raise _refusal(RefusalReason.NO_PROPOSAL_CHOSEN, f"{sa.proposal} is not what this peer is to use")
    sa.path.settle_responder(peer, local=message.local, remote=message.remote)
    mobility = mobike.negotiate(sa, peer, message)
    ours = own_identity.as_responder()
    proof = authentication.prove(key, sa.keys.prf, _octets(sa, ours, given.keys, by_initiator=False), sa.peer_hashes)
    sa.peer = peer
    _authenticated(sa, identity, leaf, given.keys)
    if sa.peer_is_hauberk:
        sa.told_esp_path = parse_esp_path(contents)
    sa.established(initial_contact=_initial_contact(contents), now=now)
    payloads: list[KnownPayload] = [ours]
    if isinstance(key, CertifiedKey):
        payloads += key.payloads
    payloads += (proof, *mobility)
    if given.is_mixed:
        payloads.append(Notify(type=NotifyType.PPK_IDENTITY))
    if contents.maybe(SecurityAssociation) is None:
        return payloads  # childless (RFC 6023)
    try:
        payloads += answer_child(sa, contents, nonce_i=sa.nonce_i, nonce_r=sa.nonce_r, now=now)
    except ExchangeRefused as refusal:
        sa.refuse(message.remote, refusal, now)
        payloads.append(error_notify(refusal))
    return payloads


def _refuse_another_authentication(contents: Contents) -> None:
    """RFC 4739 section 3: only who was told MULTIPLE_AUTH_SUPPORTED may want more than one, and we tell it nobody.

    To go on would leave the peer half authenticated by its own account. Raises ExchangeRefused.
    """
    if contents.notify(NotifyType.ANOTHER_AUTH_FOLLOWS) is not None:
        raise _refusal(RefusalReason.AUTHENTICATION_FAILED, "the peer wants to authenticate more than once")


def requested_authorities(contents: Contents) -> bytes:
    """The authorities that a peer's CERTREQs name, run together (RFC 7296 section 3.7)."""
    return b"".join(
        [each.authorities for each in contents.all(CertificateRequest) if each.encoding == CertEncoding.X509_SIGNATURE]
    )


def _own(sa: "IkeSa", peer: PeerConfig, authorities: bytes) -> tuple[Identity, CertifiedKey | PreSharedKey]:
    """Who we are to a peer, and with what we prove it. Raises ExchangeRefused if there is nothing."""
    identity, local = sa.context.local(peer)
    if identity is None or local is None:
        raise _refusal(RefusalReason.AUTHENTICATION_FAILED, f"we have no credentials for peer {peer.name}")
    if isinstance(local, PreSharedKey):
        return identity, local
    return identity, authentication.choose_key(local, authorities=authorities, peer_hashes=sa.peer_hashes)


def _octets(sa: "IkeSa", identity: Identification, keys: IkeKeys, *, by_initiator: bool) -> bytes:
    """What the AUTH payload of either side covers. `keys` may have a PPK in them that `sa.keys` has not yet.

    With IKE_SA_INIT_FULL_TRANSCRIPT_AUTH it is eight zeros, which no IKE SA has for an SPI, the IKE_SA_INIT message
    that its prover has received, and the one that it has sent: so neither end believes in another offer or choice than
    the other (draft-ietf-ipsecme-ikev2-downgrade-prevention).
    """
    sent, received = (sa.init_request, sa.init_answer) if by_initiator else (sa.init_answer, sa.init_request)
    return authentication.signed_octets(
        keys.prf,
        message=NO_SPI + received + sent if sa.full_transcript else sent,
        peer_nonce=sa.nonce_r if by_initiator else sa.nonce_i,
        sk_p=keys.sk_pi if by_initiator else keys.sk_pr,
        identity=identity,
        int_auth=sa.int_auth,
    )


def _verify(
    sa: "IkeSa",
    peer: PeerConfig | None,
    identity: Identity,
    auth: Authentication,
    contents: Contents,
    octets: bytes,
) -> VerifiedCertificate | None:
    """The certificate by which `identity` is proved, None if it is by pre-shared key. Raises ExchangeRefused.

    `peer` is None for somebody unknown. He, and a peer that proves itself in another way than it has to, is refused
    after the work that the right one's proof would have cost, so that nobody learns by it who is known here.
    """
    context = sa.context
    demanded = context.remote(peer)
    if auth.method == AuthMethod.SHARED_KEY:
        known = isinstance(demanded, PreSharedKey)
        try:
            authentication.verify_shared_key(demanded if known else context.decoy, sa.keys.prf, auth, octets)
        except ExchangeRefused:
            if known:
                raise
            raise _refusal(RefusalReason.UNKNOWN_PEER, f"there is no pre-shared key for {identity}") from None
        if not known:
            raise _refusal(RefusalReason.UNKNOWN_PEER, f"there is no pre-shared key for {identity}")
        return None
    store = demanded if isinstance(demanded, TrustStore) else context.trust
    if store is None:
        raise _refusal(RefusalReason.CERTIFICATE_INVALID, "no certificate is believed here: there is no root")
    leaf = store.verify(identity, contents.all(CertificatePayload), at=context.wall_clock())
    verify_signature(leaf.public_key, leaf.schemes, auth, octets)
    if isinstance(demanded, PreSharedKey):
        raise _refusal(RefusalReason.AUTHENTICATION_FAILED, f"{identity} has to use its pre-shared key")
    return leaf


def _authorize(sa: "IkeSa", identity: Identity, found: PeerConfig | None, message: Inbound) -> PeerConfig:
    """The policy's word on a peer that has proved itself. Raises ExchangeRefused."""
    try:
        peer = sa.context.policy.authorize(identity, message.remote)
    except Refused as refused:
        raise _refusal(refused.reason, refused.message) from None
    if peer.identity != identity:
        raise _refusal(RefusalReason.IDENTITY_MISMATCH, f"the policy knows {identity} by another identity")
    if demanded_of(peer) != demanded_of(found) or ppk_of(peer) != ppk_of(found):
        raise _refusal(RefusalReason.AUTHENTICATION_FAILED, f"{identity} has to prove itself in another way")
    return peer


def _authenticated(sa: "IkeSa", identity: Identity, leaf: VerifiedCertificate | None, keys: IkeKeys) -> None:
    sa.identity = str(identity)
    sa.has_ppk = keys is not sa.keys
    sa.keys = keys
    if leaf is not None:
        sa.certificate_serial = leaf.certificate.serial_number
        sa.certificate_not_after = leaf.certificate.not_valid_after_utc
        sa.certificate_root = leaf.root.fingerprint(SHA256()).hex()
    # What AUTH was made of has no further use.
    sa.init_request = sa.init_answer = sa.int_auth = b""
    sa.intermediate = None


def _initial_contact(contents: Contents) -> bool:
    return contents.notify(NotifyType.INITIAL_CONTACT) is not None


def _refusal(reason: str, message: str) -> ExchangeRefused:
    return ExchangeRefused(NotifyType.AUTHENTICATION_FAILED, message, reason=reason)
