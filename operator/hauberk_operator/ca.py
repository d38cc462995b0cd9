"""The mesh CA: one self-signed root that signs node certificates and nothing else.

The key is used behind one narrow interface, Signer, so that it may live elsewhere one day (an HSM).
SecretSigner holds it in memory, from the Secret that authority.py keeps; of a DelegatedRoot an issuer of cert-manager's
has the key (delegation.py). When the root is rolled to another is decided in ca_roll.py. What a request may hold is
decided in approval.py before issue() is called; issue() takes nothing of a request but its public key.

No name constraints on the root: the second SAN is the node's name, which belongs to no domain of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from hauberk_api.certificate import (
    CLOCK_SKEW,
    CURVES,
    EXTENDED_KEY_USAGES,
    backdated,
    node_dns_names,
    signature_hash,
)
from hauberk_api.mesh import Curve
from hauberk_api.names import NodeName, NodeUid

MIN_LIFETIME_SECONDS: Final = 600
"""spec.expirationSeconds of a CertificateSigningRequest has this minimum."""


class BadAuthorityError(Exception):
    """The stored CA cannot be used; the message says why."""


class Signer(Protocol):
    """The only way to the CA's key."""

    @property
    def certificate(self) -> x509.Certificate:
        """The root that verifies what sign() returns."""
        ...

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Sign a certificate that has everything but the signature."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSigner:
    """A CA whose key is in memory."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self.key, signature_hash(self.key.curve))


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegatedRoot:
    """A CA whose key an issuer has. It need not be self-signed, nor on a curve."""

    certificate: x509.Certificate


Root = SecretSigner | DelegatedRoot


def create_root(*, mesh: str, lifetime_seconds: int, now: datetime, curve: Curve = Curve.P256) -> SecretSigner:
    """A new root (pathlen 0). now is aware."""
    key = ec.generate_private_key(ec.SECP384R1() if curve is Curve.P384 else ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "hauberk.dev"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Hauberk mesh {mesh}"),
        ]
    )
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(seconds=lifetime_seconds))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificates=True), critical=True)
        .add_extension(subject_key, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False)
    )
    return SecretSigner(certificate=builder.sign(key, signature_hash(key.curve)), key=key)


def load_root(certificate_pem: bytes, key_pem: bytes, *, now: datetime | None) -> SecretSigner:
    """A stored root. Raises BadAuthorityError with a sentence about what is wrong with it. now: when it has to be
    valid, if that matters."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm):
        # Without the cause: what a parser says of a key must not reach the logs.
        raise BadAuthorityError("certificate or key is not readable PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadAuthorityError("the key is not an elliptic curve key")
    if not isinstance(key.curve, CURVES):
        raise BadAuthorityError(f"the key is on {key.curve.name}, and not on P-256 or P-384")
    if key.public_key() != certificate.public_key():
        raise BadAuthorityError("the key is not the certificate's")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        raise BadAuthorityError("the certificate is not a self-signed root") from None
    if not constraints.ca:
        raise BadAuthorityError("the certificate is not a CA's")
    if now is not None and certificate.not_valid_before_utc > now:
        raise BadAuthorityError(f"the certificate begins at {certificate.not_valid_before_utc.isoformat()}")
    if now is not None and certificate.not_valid_after_utc <= now:
        raise BadAuthorityError(f"the certificate ended at {certificate.not_valid_after_utc.isoformat()}")
    return SecretSigner(certificate=certificate, key=key)


def prove(signer: Signer, *, now: datetime) -> None:
    """Have a root that we have not made sign a certificate that is thrown away, and verify it as agents do.

    So whatever is in the root that verifiers don't take, such as constraints on names, is found before nodes depend on
    it. Raises BadAuthorityError.
    """
    name, uid = NodeName("proof"), NodeUid("00000000-0000-0000-0000-000000000000")
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf = issue(signer, public_key=key, uid=uid, name=name, mesh="default", lifetime_seconds=600, now=now)
    try:
        PolicyBuilder().store(Store([signer.certificate])).time(now).build_client_verifier().verify(leaf, [])
    except VerificationError as error:
        raise BadAuthorityError(f"what it signs does not verify: {error}") from None


def certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def key_pem(root: Root) -> str:
    """The key in the clear, PKCS#8, PEM: for the Secret alone. Empty if it is elsewhere."""
    if isinstance(root, DelegatedRoot):
        return ""
    return root.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def issue(
    signer: Signer,
    *,
    public_key: ec.EllipticCurvePublicKey,
    uid: NodeUid,
    name: NodeName,
    mesh: str,
    lifetime_seconds: int,
    now: datetime,
) -> x509.Certificate:
    """A node's certificate after hauberk_api.certificate's profile; it never outlives the root. now is aware."""
    root = signer.certificate
    life = timedelta(seconds=lifetime_seconds)
    dns_names = [x509.DNSName(dns_name) for dns_name in node_dns_names(uid, name, mesh)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
        .issuer_name(root.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - backdated(life), root.not_valid_before_utc))
        .not_valid_after(min(now + life, root.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(EXTENDED_KEY_USAGES), critical=False)
        .add_extension(x509.SubjectAlternativeName(dns_names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key(root), critical=False)
    )
    return signer.sign(builder)


def lifetime(*, configured_seconds: int, requested_seconds: int | None) -> int:
    """The life of a certificate: the mesh's, or the request's if that is shorter, never below the API's minimum."""
    if requested_seconds is None:
        return configured_seconds
    return min(configured_seconds, max(requested_seconds, MIN_LIFETIME_SECONDS))


def _authority_key(root: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        subject_key = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(_public_key(root))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key)


def _public_key(root: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = root.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadAuthorityError("the root's key is not an elliptic curve key")
    return key


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
