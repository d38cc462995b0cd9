"""Keys and certificates for both ends, made anew in each kernel: nothing secret lies in the repository.

Each kind of certificate has a root of its own; `CHAIN` has four intermediates, which each end sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.interop.terms import LEFT_IDENTITY, RIGHT_IDENTITY, Authentication

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_INTERMEDIATES = {Authentication.CHAIN: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One end's key, and its certificates, the leaf first and the root last."""

    name: str
    key: Key
    chain: tuple[x509.Certificate, ...]

    @property
    def key_pem(self) -> bytes:
        """PKCS#8, in clear."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def leaf_pem(self) -> bytes:
        return pem(self.chain[0])

    @property
    def intermediates_pem(self) -> tuple[bytes, ...]:
        return tuple(map(pem, self.chain[1:-1]))

    @property
    def root_pem(self) -> bytes:
        return pem(self.chain[-1])

    def pkcs12(self, password: bytes) -> bytes:
        """All of it, under one name, encrypted as NSS reads it."""
        return pkcs12.serialize_key_and_certificates(
            self.name.encode(), self.key, self.chain[0], self.chain[1:], serialization.BestAvailableEncryption(password)
        )


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@cache
def identities(kind: Authentication) -> tuple[Identity, Identity]:
    """Left's and right's, of one root."""
    authorities: list[tuple[Key, x509.Certificate]] = []
    for depth in range(1 + _INTERMEDIATES.get(kind, 0)):
        key = _key(kind)
        name = f"{kind.value} authority {depth}"
        certificate = _certificate(name, key, authorities[-1] if authorities else None, authority=True)
        authorities.append((key, certificate))
    above = tuple(certificate for _, certificate in reversed(authorities))
    made: list[Identity] = []
    for name in (LEFT_IDENTITY, RIGHT_IDENTITY):
        key = _key(kind)
        leaf = _certificate(name, key, authorities[-1], authority=False)
        made.append(Identity(name=name, key=key, chain=(leaf, *above)))
    left, right = made
    return left, right


def _key(kind: Authentication) -> Key:
    match kind:
        case Authentication.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case Authentication.P521:
            return ec.generate_private_key(ec.SECP521R1())
        case Authentication.RSA:
            return rsa.generate_private_key(65537, 2048)
        case _:
            return ec.generate_private_key(ec.SECP256R1())


def _certificate(
    name: str, key: Key, issuer: tuple[Key, x509.Certificate] | None, *, authority: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key, issuer_name = (issuer[0], issuer[1].subject) if issuer else (key, subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(_usage(authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.IPSEC_IKE)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    digest = hashes.SHA384() if isinstance(issuer_key, ec.EllipticCurvePrivateKey) else hashes.SHA256()
    if isinstance(issuer_key, rsa.RSAPrivateKey):
        return builder.sign(issuer_key, hashes.SHA256(), rsa_padding=padding.PKCS1v15())
    return builder.sign(issuer_key, digest)


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
