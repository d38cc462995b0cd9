"""With what either side proves who it is, and how the other's proof is judged.

An endpoint has one set of `Credentials` for all its peers. A peer that is to be treated otherwise, as one with a
pre-shared key, says so in its `PeerConfig.authentication`. Secrets are in no `repr`.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from hauberk_ike.identity import Identity
from hauberk_ike.wire.payloads import CertificatePayload

MIN_SECRET_BYTES: Final = 8
STRONG_SECRET_BYTES: Final = 32


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
class CertifiedKey:
    """A P-256 or P-384 key with its certificates, leaf first. Raises ValueError for anything else."""

    private_key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate_chain: tuple[x509.Certificate, ...]
    payloads: tuple[CertificatePayload, ...] = field(init=False, repr=False, compare=False)
    """The chain's CERT payloads."""

    def __post_init__(self) -> None:
        if not isinstance(self.private_key.curve, (ec.SECP256R1, ec.SECP384R1)):
            raise ValueError(f"keys are P-256 or P-384, not {self.private_key.curve.name}")
        if not self.certificate_chain:
            raise ValueError("a key needs a certificate")
        if self.certificate_chain[0].public_key() != self.private_key.public_key():
            raise ValueError("the first certificate is not the private key's")
        payloads = tuple(CertificatePayload.x509(each.public_bytes(Encoding.DER)) for each in self.certificate_chain)
        object.__setattr__(self, "payloads", payloads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose certificates are believed. Raises ValueError for no root."""

    roots: tuple[x509.Certificate, ...]

    def __post_init__(self) -> None:
        if not self.roots:
            raise ValueError("there is nobody to trust: no root")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who an endpoint is: an identity, a key, its certificates (leaf first), and whom it trusts.

    Raises ValueError for a key or certificates that CertifiedKey does not take, or for no root.
    """

    identity: Identity
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate_chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    key: CertifiedKey = field(init=False, repr=False, compare=False)
    trust: Trust = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key = CertifiedKey(private_key=self.private_key, certificate_chain=self.certificate_chain)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "trust", Trust(roots=self.roots))


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthentication:
    """How we and one peer prove ourselves to each other. What is None is as the endpoint's Credentials have it.

    `local_identity`: who we are to this peer. `local`: with what we prove it. `remote`: what the peer has to prove
    itself with; nothing else is taken from it.
    """

    local_identity: Identity | None = None
    local: CertifiedKey | PreSharedKey | None = None
    remote: Trust | PreSharedKey | None = None

    @classmethod
    def by_secret(cls, secret: bytes, *, local_identity: Identity | None = None) -> "PeerAuthentication":
        """The same pre-shared key for both sides."""
        key = PreSharedKey(secret=secret)
        return cls(local_identity=local_identity, local=key, remote=key)


AS_THE_ENDPOINT: Final = PeerAuthentication()
