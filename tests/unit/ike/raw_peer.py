"""A peer driven by hand: it can say anything in any state, with the right keys or without.

`RawPeer` speaks to one `Party`, as initiator or as responder, out of the package's wire, keys and protection, but with
none of its state machine: what a test does not send is not sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding

from hauberk_ike import Credentials, Datagram, EspProposal, IkeProposal
from hauberk_ike.authentication import prove, signed_octets
from hauberk_ike.key_exchange import KeyPair, generate_key_pair
from hauberk_ike.keys import IkeKeys, derive_ike_keys
from hauberk_ike.negotiation import offer_esp, offer_ike
from hauberk_ike.numbers import ExchangeType, HashAlgorithm, NotifyType, PayloadType
from hauberk_ike.protection import Protection
from hauberk_ike.signature import HASH_ALGORITHMS
from hauberk_ike.vendor import HAUBERK
from hauberk_ike.wire.header import FLAG_INITIATOR, FLAG_RESPONSE, HEADER, NO_SPI, VERSION, Header
from hauberk_ike.wire.message import GENERIC, Contents, KnownPayload, build_message, parse_payloads
from hauberk_ike.wire.payloads import (
    Authentication,
    CertificatePayload,
    Identification,
    IdInitiator,
    IdResponder,
    KeyExchangePayload,
    Nonce,
    Notify,
)
from hauberk_ike.wire.traffic_selectors import TsInitiator, TsResponder
from tests.unit.ike.party import Party, address, mesh_credentials, selector

DEFAULT = IkeProposal.parse("aes128gcm16-prfsha256-x25519")
ALL_HASHES = frozenset(HashAlgorithm)


class RawPeer:
    """One IKE SA with `target`, from the other end. Answers are returned as what is in them."""

    keys: IkeKeys
    protection: Protection

    def __init__(
        self,
        target: Party,
        identity: str,
        *,
        initiator: bool = True,
        credentials: Credentials | None = None,
        proposal: IkeProposal = DEFAULT,
        host: str = "192.0.2.1",
        spi: bytes = b"raw peer",
        nonce: bytes = b"a nonce of the raw peer's, 32 by",
        now: float = 1000.0,
    ) -> None:
        self.target = target
        self.identity = identity
        self.initiator = initiator
        self.credentials = credentials or mesh_credentials(identity)
        self.proposal = proposal
        self.address = address(host)
        self.now = now
        self.spi = spi
        self.nonce = nonce
        self.key_pair: KeyPair = generate_key_pair(proposal.key_exchange[0], lambda n: bytes(range(1, n + 1)))
        self.peer_spi = NO_SPI
        self.peer_nonce = b""
        self.our_init = b""
        self.peer_init = b""
        self.message_id = 1

    @property
    def spi_i(self) -> bytes:
        return self.spi if self.initiator else self.peer_spi

    @property
    def spi_r(self) -> bytes:
        return self.peer_spi if self.initiator else self.spi

    # Anything at all

    def send(self, data: bytes) -> list[Datagram]:
        """Hands bytes to the target, and returns what it sends then."""
        self.target.endpoint.receive_datagram(data, local=self.target.address, remote=self.address, now=self.now)
        return self.target.take(self.now)

    def seal(
        self,
        exchange: int,
        payloads: Sequence[KnownPayload],
        *,
        message_id: int,
        response: bool = False,
        initiator_flag: bool | None = None,
    ) -> bytes:
        """An encrypted message."""
        from_initiator = self.initiator if initiator_flag is None else initiator_flag
        return self.protection.seal(
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            exchange_type=exchange,
            flags=(FLAG_INITIATOR if from_initiator else 0) | (FLAG_RESPONSE if response else 0),
            message_id=message_id,
            payloads=payloads,
        )

    def seal_chain(
        self,
        exchange: int,
        first: int,
        chain: bytes,
        *,
        message_id: int,
        flags: int,
        fragment: tuple[int, int] | None = None,
    ) -> bytes:
        """Encrypts a chain that no builder would build: a good peer's keys, a bad peer's mind. AES-GCM only.

        `fragment`: its number and their total, if that is what it is (RFC 7383 section 2.5).
        """
        key = self.keys.sk_ei if self.initiator else self.keys.sk_er
        kind, numbers = PayloadType.SK, b""
        if fragment is not None:
            kind, numbers = PayloadType.SKF, fragment[0].to_bytes(2) + fragment[1].to_bytes(2)
        length = GENERIC.size + len(numbers) + 8 + len(chain) + 1 + 16
        start = (
            HEADER.pack(self.spi_i, self.spi_r, kind, VERSION, exchange, flags, message_id, HEADER.size + length)
            + GENERIC.pack(first, 0, length)
            + numbers
        )
        iv = b"any  IV!"
        return start + iv + AESGCM(key[:16]).encrypt(key[16:] + iv, chain + b"\0", start)

    def open(self, datagram: Datagram) -> Contents:
        """What is in an encrypted message of the target's."""
        header = Header.parse(datagram.data)
        return Contents(parse_payloads(*self.protection.open(header, datagram.data)))

    def ask(self, exchange: int, payloads: Sequence[KnownPayload]) -> Contents | None:
        """The next request; None if it is met with silence."""
        answers = self.send(self.seal(exchange, payloads, message_id=self.message_id))
        answers = [each for each in answers if Header.parse(each.data).is_response]
        if not answers:
            return None
        (answer,) = answers
        self.message_id += 1
        return self.open(answer)

    # IKE_SA_INIT

    def init_payloads(self) -> list[KnownPayload]:
        """SA, KE, Ni and what goes with them."""
        return [
            offer_ike((self.proposal,)),
            KeyExchangePayload(method=self.proposal.key_exchange[0].transform_id, data=self.key_pair.public),
            Nonce(data=self.nonce),
            Notify(type=NotifyType.SIGNATURE_HASH_ALGORITHMS, data=HASH_ALGORITHMS),
            HAUBERK,
        ]

    def init_request(self, payloads: Sequence[KnownPayload] | None = None) -> bytes:
        """The bytes of an IKE_SA_INIT request, kept for AUTH."""
        self.our_init = build_message(
            spi_i=self.spi,
            spi_r=NO_SPI,
            exchange_type=ExchangeType.IKE_SA_INIT,
            flags=FLAG_INITIATOR,
            message_id=0,
            payloads=self.init_payloads() if payloads is None else payloads,
        )
        return self.our_init

    def ask_init(self, payloads: Sequence[KnownPayload] | None = None) -> Contents | None:
        """Sends IKE_SA_INIT; takes the keys from a good answer. None if there is none."""
        answers = self.send(self.init_request(payloads))
        if not answers:
            return None
        (answer,) = answers
        header = Header.parse(answer.data)
        contents = Contents(parse_payloads(header.next_payload, answer.data, 28))
        if header.spi_r != NO_SPI:
            self.peer_spi = header.spi_r
            self._agree(answer.data, contents)
        return contents

    def take_init(self) -> Contents:
        """As responder: takes the target's IKE_SA_INIT request."""
        (request,) = self.target.take(self.now)
        header = Header.parse(request.data)
        contents = Contents(parse_payloads(header.next_payload, request.data, 28))
        self.peer_spi = header.spi_i
        self.peer_init = request.data
        return contents

    def init_answer(self, payloads: Sequence[KnownPayload] | None = None, *, spi_r: bytes | None = None) -> bytes:
        """As responder: the bytes of an answer."""
        self.our_init = build_message(
            spi_i=self.peer_spi,
            spi_r=self.spi if spi_r is None else spi_r,
            exchange_type=ExchangeType.IKE_SA_INIT,
            flags=FLAG_RESPONSE,
            message_id=0,
            payloads=self.init_payloads() if payloads is None else payloads,
        )
        return self.our_init

    def give_init(self, request: Contents, payloads: Sequence[KnownPayload] | None = None) -> Contents:
        """As responder: answers, and takes the IKE_AUTH request that follows."""
        (auth,) = self.send(self.init_answer(payloads))
        self._agree(self.peer_init, request)
        return self.open(auth)

    def _agree(self, peer_init: bytes, contents: Contents) -> None:
        self.peer_init = peer_init
        self.peer_nonce = contents.one(Nonce).data
        nonce_i, nonce_r = (self.nonce, self.peer_nonce) if self.initiator else (self.peer_nonce, self.nonce)
        self.keys = derive_ike_keys(
            self.proposal,
            shared=self.key_pair.shared(contents.one(KeyExchangePayload).data),
            nonce_i=nonce_i,
            nonce_r=nonce_r,
            spi_i=self.spi_i,
            spi_r=self.spi_r,
        )
        self.protection = Protection(
            self.proposal, self.keys, initiator=self.initiator, entropy=lambda n: bytes(range(n))
        )

    # IKE_AUTH

    def id_payload(self, name: str | None = None) -> IdInitiator | IdResponder:
        return (IdInitiator if self.initiator else IdResponder).fqdn(name or self.identity)

    def proof(
        self,
        identity: Identification,
        *,
        message: bytes | None = None,
        peer_hashes: frozenset[int] = ALL_HASHES,
    ) -> Authentication:
        """A signature with our key, over `message` or what was really sent."""
        return prove(
            self.credentials.keys[0],
            self.keys.prf,
            signed_octets(
                self.keys.prf,
                message=self.our_init if message is None else message,
                peer_nonce=self.peer_nonce,
                sk_p=self.keys.sk_pi if self.initiator else self.keys.sk_pr,
                identity=identity,
            ),
            peer_hashes,
        )

    def certificates(self) -> list[CertificatePayload]:
        return [CertificatePayload.x509(each.public_bytes(Encoding.DER)) for each in self.credentials.certificate_chain]

    def child_payloads(
        self,
        *,
        spi: int = 0x5001,
        esp: str = "aes128gcm16-esn",
        ts_i: str = "10.244.1.0/24",
        ts_r: str = "10.244.2.0/24",
    ) -> list[KnownPayload]:
        """SA, TSi, TSr."""
        return [
            offer_esp((EspProposal.parse(esp),), spi.to_bytes(4)),
            TsInitiator(selectors=(selector(ts_i),)),
            TsResponder(selectors=(selector(ts_r),)),
        ]

    def auth_payloads(
        self, *, child: Sequence[KnownPayload] | None = None, peer_hashes: frozenset[int] = ALL_HASHES
    ) -> list[KnownPayload]:
        """ID, CERT, AUTH and a child."""
        identity = self.id_payload()
        return [
            identity,
            *self.certificates(),
            self.proof(identity, peer_hashes=peer_hashes),
            *(self.child_payloads() if child is None else child),
        ]

    def set_up(self, *, child: Sequence[KnownPayload] | None = None) -> RawPeer:
        """As initiator: both exchanges, as they should be."""
        assert self.ask_init() is not None
        answer = self.ask(ExchangeType.IKE_AUTH, self.auth_payloads(child=child))
        assert answer is not None
        answer.one(Authentication)
        return self
