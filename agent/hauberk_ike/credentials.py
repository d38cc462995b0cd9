"""With what either side proves who it is, and how the other's proof is judged.

An endpoint has one set of `Credentials` for all its peers. A peer that is to be treated otherwise, as one with a
pre-shared key, says so in its `PeerConfig.authentication`. Secrets are in no `repr`.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hauberk_ike.identity import Identity
from hauberk_ike.signature import PrivateKey, SignatureScheme, schemes_for, unfit
from hauberk_ike.wire.payloads import CertificatePayload

MIN_SECRET_BYTES: Final = 8
STRONG_SECRET_BYTES: Final = 32
MIN_PPK_BYTES: Final = 32
MAX_PPK_IDENTITY_BYTES: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class PreSharedKey:
    """A secret that both ends know (RFC 7296 section 2.15). Raises ValueError for less than 8 bytes.

    Whoever pretends to be the responder once can try passwords for as long as he likes: the secret has to be random,
    and not a word. See `is_short`.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < MIN_SECRET_BYTES:
            raise ValueError(f"a pre-shared key takes {MIN_SECRET_BYTES} bytes at the very least")

    @property
    def is_short(self) -> bool:
        """Whether it has less bytes than a secret has that is as strong as the keys: worth a warning."""
        return len(self.secret) < STRONG_SECRET_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Ppk:
    """A post-quantum pre-shared key (RFC 8784): both ends mix it into the keys, whatever they authenticate with.

    `identity` is what both call it. If it is `required`, there is no IKE SA without it; otherwise both go without if
    one of them does not have it. Raises ValueError for less than the 256 bits that the RFC asks for.
    """

    identity: bytes
    secret: bytes = field(repr=False)
    required: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.identity) <= MAX_PPK_IDENTITY_BYTES:
            raise ValueError(f"a PPK's identity takes 1 to {MAX_PPK_IDENTITY_BYTES} bytes")
        if len(self.secret) < MIN_PPK_BYTES:
            raise ValueError(f"a PPK takes {MIN_PPK_BYTES} bytes at the very least")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedKey:
    """A key with its certificates, leaf first: ECDSA on P-256, P-384 or P-521, RSA, Ed25519, or ML-DSA-65.

    `roots` may hold the authority above the chain, by which a peer's CERTREQ finds this key among several; it is not
    sent. Raises ValueError for another kind of key, an RSA key of less than 2,048 or more than 8,192 bits, no
    certificate, or one that is not the key's.
    """

    private_key: PrivateKey = field(repr=False)
    certificate_chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...] = ()
    schemes: tuple[SignatureScheme, ...] = field(init=False, repr=False, compare=False)
    """How it signs, best first."""
    payloads: tuple[CertificatePayload, ...] = field(init=False, repr=False, compare=False)
    """The chain's CERT payloads."""
    authorities: frozenset[bytes] = field(init=False, repr=False, compare=False)
    """The authorities above its leaf, as a CERTREQ names them."""

    def __post_init__(self) -> None:
        schemes = schemes_for(self.private_key)
        if not self.certificate_chain:
            raise ValueError("a key needs a certificate")
        if self.certificate_chain[0].public_key() != self.private_key.public_key():
            raise ValueError("the first certificate is not the private key's")
        above = self.certificate_chain[1:]
        top = self.certificate_chain[-1].issuer
        authorities = frozenset(
            authority_id(each) for each in (*above, *(root for root in self.roots if root.subject == top))
        )
        payloads = tuple(CertificatePayload.x509(each.public_bytes(Encoding.DER)) for each in self.certificate_chain)
        object.__setattr__(self, "schemes", schemes)
        object.__setattr__(self, "payloads", payloads)
        object.__setattr__(self, "authorities", authorities)


class CertificateProfile(Enum):
    """What a peer's certificate has to be like, beyond leading to a root."""

    MESH = "mesh"
    """As nodes' are: for client authentication if it names any purpose (nodes have both, and none is a web server)."""
    RFC4945 = "RFC 4945"
    """As gateways' are: for no purpose in particular, or for IKE, any, or TLS; without key identifiers if need be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose certificates are believed, and which. Raises ValueError for no root, or one that verifies nothing here.

    `ml_dsa`: peers may have ML-DSA-65 keys, which is by a draft still (draft-ietf-ipsecme-ikev2-pqc-auth).
    """

    roots: tuple[x509.Certificate, ...]
    profile: CertificateProfile = CertificateProfile.MESH
    ml_dsa: bool = False

    def __post_init__(self) -> None:
        if not self.roots:
            raise ValueError("there is nobody to trust: no root")
        for root in self.roots:
            key = root.public_key()
            refusal = unfit(key)
            if isinstance(key, ed25519.Ed25519PublicKey):
                refusal = "certificates that an Ed25519 key has signed can't be verified"
            if refusal is not None:
                raise ValueError(f"a root is of no use: {refusal}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who an endpoint is: an identity, a key, its certificates (leaf first), and whom it trusts (see Trust).

    `further_keys` are for peers that ask for other authorities, or can't verify the first key's signatures. Raises
    ValueError for what CertifiedKey or Trust does not take.
    """

    identity: Identity
    private_key: PrivateKey = field(repr=False)
    certificate_chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    further_keys: tuple[CertifiedKey, ...] = ()
    profile: CertificateProfile = CertificateProfile.MESH
    ml_dsa: bool = False
    keys: tuple[CertifiedKey, ...] = field(init=False, repr=False, compare=False)
    trust: Trust = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key = CertifiedKey(private_key=self.private_key, certificate_chain=self.certificate_chain, roots=self.roots)
        object.__setattr__(self, "keys", (key, *self.further_keys))
        object.__setattr__(self, "trust", Trust(roots=self.roots, profile=self.profile, ml_dsa=self.ml_dsa))


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthentication:
    """How we and one peer prove ourselves to each other. What is None is as the endpoint's Credentials have it.

    `local_identity`: who we are to this peer. `local`: with what we prove it; of several keys the one that the peer
    asks for. `remote`: what the peer has to prove itself with; nothing else is taken from it. As responder we ask for
    certificates before we know who is there: then the endpoint's Credentials name the authorities; likewise a PPK is
    agreed on if EndpointSettings.use_ppk says that some peer has one.
    """

    local_identity: Identity | None = None
    local: CertifiedKey | tuple[CertifiedKey, ...] | PreSharedKey | None = None
    remote: Trust | PreSharedKey | None = None
    ppk: Ppk | None = None

    @classmethod
    def by_secret(cls, secret: bytes, *, local_identity: Identity | None = None) -> "PeerAuthentication":
        """The same pre-shared key for both sides."""
        key = PreSharedKey(secret=secret)
        return cls(local_identity=local_identity, local=key, remote=key)


AS_THE_ENDPOINT: Final = PeerAuthentication()


def authority_id(certificate: x509.Certificate) -> bytes:
    """RFC 7296 section 3.7: SHA-1 of an authority's SubjectPublicKeyInfo, as a name and not as a protection."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha1(spki, usedforsecurity=False).digest()
