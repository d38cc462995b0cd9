"""IKE_SA_INIT (RFC 7296 sections 1.2, 2.6, 2.7, 2.14): algorithms, keys, nonces; nobody is authenticated yet."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hauberk_ike import negotiation, vendor
from hauberk_ike.algorithms import KeyExchange
from hauberk_ike.collision import Doing
from hauberk_ike.config import PeerConfig
from hauberk_ike.errors import ExchangeRefused, MalformedMessage
from hauberk_ike.exchanges import ike_intermediate
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.exchanges.ike_auth import requested_authorities
from hauberk_ike.exchanges.ike_intermediate import Intermediate
from hauberk_ike.key_exchange import KeyPair, check_public_value, generate_key_pair, respond
from hauberk_ike.keys import derive_ike_keys
from hauberk_ike.lifecycle import Step
from hauberk_ike.nat import DETECTION_LENGTH, Detection, build_notifies, detect
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.ppk import ppk_of
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.signature import HASH_ALGORITHMS, parse_hash_algorithms
from hauberk_ike.wire.header import NO_SPI
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import KeyExchangePayload, Nonce, Notify
from hauberk_ike.wire.security_association import SecurityAssociation

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

NONCE_LENGTH: Final = 32
"""At least half the key of the longest PRF (section 2.10)."""
MAX_COOKIE: Final = 64
MAX_RETRIES: Final = 5
"""Requests sent anew for COOKIE or INVALID_KE_PAYLOAD, together: both are unauthenticated, so they must not loop."""

_CHILDLESS: Final = Notify(type=NotifyType.CHILDLESS_IKEV2_SUPPORTED)
_FRAGMENTATION: Final = Notify(type=NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)
_FULL_TRANSCRIPT: Final = Notify(type=NotifyType.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH)
_HASHES: Final = Notify(type=NotifyType.SIGNATURE_HASH_ALGORITHMS, data=HASH_ALGORITHMS)
_INTERMEDIATE: Final = Notify(type=NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED)
_USE_PPK: Final = Notify(type=NotifyType.USE_PPK)


class IkeSaInit:
    """The initiator's side."""

    __slots__ = ("_cookie", "_key_pair", "_method", "_peer", "_refused_methods", "_retries")

    kind = ExchangeType.IKE_SA_INIT
    doing = Doing.NOTHING

    def __init__(self, peer: PeerConfig) -> None:
        self._peer = peer
        self._method: KeyExchange = peer.ike_proposals[0].key_exchange[0]
        self._refused_methods: set[int] = set()
        self._key_pair: KeyPair | None = None
        self._cookie = b""
        self._retries = 0

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload]:
        """[N(COOKIE),] SA, KE, Ni, notifies. The same key and nonce in every retry, unless the method changes."""
        if self._key_pair is None:
            self._key_pair = generate_key_pair(self._method, sa.context.entropy)
        if not sa.nonce_i:
            sa.nonce_i = sa.context.entropy(NONCE_LENGTH)
        payloads: list[KnownPayload] = [Notify(type=NotifyType.COOKIE, data=self._cookie)] if self._cookie else []
        payloads += (
            negotiation.offer_ike(self._peer.ike_proposals),
            KeyExchangePayload(method=self._method.transform_id, data=self._key_pair.public),
            Nonce(data=sa.nonce_i),
            *_nat_notifies(sa, NO_SPI),
            *_fragmentation(sa),
            _HASHES,
            _FULL_TRANSCRIPT,
            vendor.HAUBERK,
        )
        if any(proposal.additional for proposal in self._peer.ike_proposals):
            payloads.append(_INTERMEDIATE)
        if ppk_of(self._peer) is not None:
            payloads.append(_USE_PPK)
        return payloads

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Agrees on keys and goes on to IKE_AUTH, or sends the request anew. Raises ProtocolError for a mere hint."""
        contents = message.contents
        # An answer that makes no IKE SA should have no responder's SPI, and libreswan's has one: "the initiator should
        # not reject the response for only that reason" (section 2.6).
        if message.header.spi_r == NO_SPI or contents.error() is not None:
            self._process_error(sa, contents, now)
            return
        proposal, _ = negotiation.accepted_ike(contents.one(SecurityAssociation), self._peer.ike_proposals)
        public = contents.one(KeyExchangePayload)
        nonce = contents.one(Nonce).data
        key_pair = self._key_pair
        method = proposal.key_exchange[0]
        if key_pair is None or method is not self._method or public.method != method.transform_id:
            raise MalformedMessage("the answer's key exchange is not the one that was asked for")
        if message.header.spi_r == sa.spi_i or nonce == sa.nonce_i or public.data == key_pair.public:
            raise MalformedMessage("our own SPI, nonce or key came back")
        if proposal.additional_methods and contents.notify(NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED) is None:
            raise MalformedMessage("additional key exchanges, but no way to do them in the answer")
        found = _detect_nat(message)
        sa.path.check_initiator(found)
        install_keys(
            sa,
            proposal,
            shared=key_pair.shared(public.data),
            spi_r=message.header.spi_r,
            nonce_r=nonce,
        )
        sa.init_answer = message.data
        learn(sa, message)
        sa.path.learn_initiator(found)
        sa.advance(Step.KEYS_AGREED)
        ike_intermediate.begin(sa, self._peer, now)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """Nothing was taken."""

    def _process_error(self, sa: "IkeSa", contents: Contents, now: float) -> None:
        """A responder without state: COOKIE, INVALID_KE_PAYLOAD, or an error that we can't believe."""
        cookie = contents.notify(NotifyType.COOKIE)
        invalid_ke = contents.notify(NotifyType.INVALID_KE_PAYLOAD)
        if cookie is not None:
            if not 1 <= len(cookie.data) <= MAX_COOKIE:
                raise MalformedMessage("a cookie that is empty or longer than 64 bytes")
            if cookie.data == self._cookie:
                return  # the same once more: it is in the request that is on its way
            self._count_retry("COOKIE")
            self._cookie = cookie.data
        elif invalid_ke is not None:
            method = self._offered_method(int.from_bytes(invalid_ke.data) if len(invalid_ke.data) == 2 else -1)
            self._count_retry("INVALID_KE_PAYLOAD")
            self._refused_methods.add(self._method.transform_id)
            self._method, self._key_pair = method, None
        else:
            error = contents.error()
            raise ExchangeRefused(
                NotifyType.NO_PROPOSAL_CHOSEN,
                f"the peer answers with notify {error.type}" if error else "an answer without meaning",
            )
        sa.requests.resend_init(sa, self, self.build(sa, now), now)

    def _count_retry(self, what: str) -> None:
        if self._retries == MAX_RETRIES:
            raise MalformedMessage(f"{what} again and again")
        self._retries += 1

    def _offered_method(self, transform_id: int) -> KeyExchange:
        """The method that the peer wants: one that we offered and have not tried."""
        if transform_id != self._method.transform_id and transform_id not in self._refused_methods:
            for proposal in self._peer.ike_proposals:
                for method in proposal.key_exchange:
                    if method.transform_id == transform_id:
                        return method
        raise MalformedMessage("INVALID_KE_PAYLOAD asks for a method that was not offered, or was tried")


def install_keys(sa: "IkeSa", proposal: IkeProposal, *, shared: bytes, spi_r: bytes, nonce_r: bytes) -> None:
    """Both sides: the keys of the IKE SA."""
    sa.spi_r = spi_r
    sa.nonce_r = nonce_r
    keys = derive_ike_keys(proposal, shared=shared, nonce_i=sa.nonce_i, nonce_r=nonce_r, spi_i=sa.spi_i, spi_r=spi_r)
    sa.use_keys(proposal, keys)
    if proposal.additional_methods:
        sa.intermediate = Intermediate(proposal.additional_methods)


def learn(sa: "IkeSa", message: Inbound) -> None:
    """Both sides: what the peer's notifies and Vendor IDs say about it."""
    contents = message.contents
    hashes = contents.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
    wanted = sa.context.settings.fragment_bytes > 0
    sa.path.fragments = wanted and contents.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) is not None
    sa.peer_hashes = parse_hash_algorithms(hashes.data) if hashes is not None else frozenset()
    sa.peer_is_hauberk = vendor.is_hauberk(contents)
    # We say it in every message of ours (a responder, as the draft wants it, whether it was asked or not).
    sa.full_transcript = contents.notify(NotifyType.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH) is not None
    sa.peer_childless = contents.notify(NotifyType.CHILDLESS_IKEV2_SUPPORTED) is not None
    sa.peer_authorities = requested_authorities(contents)
    ours = ppk_of(sa.peer) is not None if sa.initiator else sa.context.settings.use_ppk
    sa.use_ppk = ours and contents.notify(NotifyType.USE_PPK) is not None


def _nat_notifies(sa: "IkeSa", spi_r: bytes) -> tuple[Notify, Notify]:
    """Where we are, or something else if the peer is to believe that a NAT is before us."""
    source = sa.context.entropy(DETECTION_LENGTH) if sa.path.is_forced else b""
    return build_notifies(sa.spi_i, spi_r, local=sa.path.local, remote=sa.path.remote, source=source)


def _fragmentation(sa: "IkeSa") -> tuple[Notify, ...]:
    """That we take messages in fragments (RFC 7383 section 2.3)."""
    return (_FRAGMENTATION,) if sa.context.settings.fragment_bytes > 0 else ()


def _detect_nat(message: Inbound) -> Detection:
    header = message.header
    return detect(message.contents, header.spi_i, header.spi_r, local=message.local, remote=message.remote)


class InitOffer:
    """A responder's view of a request, with everything checked that can be before any work is done."""

    __slots__ = ("answer", "nonce_i", "proposal", "public")

    def __init__(self, contents: Contents, acceptable: Sequence[IkeProposal]) -> None:
        """Raises ExchangeRefused (NO_PROPOSAL_CHOSEN, INVALID_KE_PAYLOAD) and MalformedMessage."""
        offered = contents.one(SecurityAssociation)
        public = contents.one(KeyExchangePayload)
        self.nonce_i = contents.one(Nonce).data
        self.proposal, _, self.answer = negotiation.choose_ike(offered, acceptable)
        if self.proposal.additional_methods and contents.notify(NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED) is None:
            raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "additional key exchanges, but no way to do them")
        method = self.proposal.key_exchange[0]
        if public.method != method.transform_id:
            raise ExchangeRefused(
                NotifyType.INVALID_KE_PAYLOAD,
                f"a public value for another key exchange than {method.word}",
                data=method.transform_id.to_bytes(2),
            )
        check_public_value(method, public.data)
        self.public = public.data


def answer(sa: "IkeSa", offer: InitOffer, message: Inbound) -> None:
    """The responder's side, for a new IKE SA. Raises MalformedMessage for a public value that is no good."""
    entropy = sa.context.entropy
    public, shared = respond(offer.proposal.key_exchange[0], offer.public, entropy)
    nonce_r = entropy(NONCE_LENGTH)
    sa.nonce_i = offer.nonce_i
    install_keys(sa, offer.proposal, shared=shared, spi_r=sa.spi_r, nonce_r=nonce_r)
    sa.init_request = message.data
    learn(sa, message)
    sa.path.learn(_detect_nat(message))
    sa.give_init_answer(
        (
            offer.answer,
            KeyExchangePayload(method=offer.proposal.key_exchange[0].transform_id, data=public),
            Nonce(data=nonce_r),
            *_nat_notifies(sa, sa.spi_r),
            *_fragmentation(sa),
            _HASHES,
            _CHILDLESS,
            _FULL_TRANSCRIPT,
            *([_INTERMEDIATE] if offer.proposal.additional_methods else []),
            *([_USE_PPK] if sa.use_ppk else []),
            *([sa.context.trust.request] if sa.context.trust is not None else []),
            vendor.HAUBERK,
        ),
        local=message.local,
        remote=message.remote,
    )
