"""A certificate authority for tests: roots, intermediates and node certificates, good ones and bad ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hauberk_ike import Credentials, Identity
from hauberk_ike.signature import PrivateKey

TODAY = datetime(2026, 6, 1, 12, tzinfo=UTC)
USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.IPSEC_IKE)


class Authority:
    """A CA, self-signed or beneath `parent`.

    `extensions` are in addition or instead of its own, by their type: None leaves one out, and a critical one is in a
    tuple of its own with True.
    """

    def __init__(
        self,
        name: str = "mesh root",
        *,
        parent: Authority | None = None,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        path_length: int | None = 1,
        name_constraints: x509.NameConstraints | None = None,
        extensions: Mapping[type[x509.ExtensionType], Extension | None] | None = None,
        not_before: datetime = TODAY - timedelta(days=30),
        not_after: datetime = TODAY + timedelta(days=3650),
    ) -> None:
        self.key: CertificateIssuerPrivateKeyTypes = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.parent = parent
        signer = parent or self
        wanted: dict[type[x509.ExtensionType], Extension | None] = {
            x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=path_length), True),
            x509.KeyUsage: (key_usage(key_cert_sign=True, crl_sign=True), True),
            x509.SubjectKeyIdentifier: x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()),
            x509.NameConstraints: (name_constraints, True) if name_constraints is not None else None,
            **(extensions or {}),
        }
        builder = _builder(self.name, signer, self.key.public_key(), not_before, not_after)
        self.certificate = signer.sign(_extended(builder, wanted))

    def sign(
        self,
        builder: x509.CertificateBuilder,
        *,
        algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = None,
        rsa_padding: padding.PSS | None = None,
    ) -> x509.Certificate:
        """Signs whatever it is given, by SHA-256 unless told otherwise."""
        if isinstance(self.key, (ed25519.Ed25519PrivateKey, mldsa.MLDSA65PrivateKey)):
            return builder.sign(self.key, None)
        return builder.sign(self.key, algorithm or hashes.SHA256(), rsa_padding=rsa_padding)

    def issue(
        self,
        *dns_names: str,
        key: ec.EllipticCurvePrivateKey | None = None,
        common_name: str = "node",
        usages: Sequence[x509.ObjectIdentifier] = USAGES,
        not_before: datetime = TODAY - timedelta(hours=1),
        not_after: datetime = TODAY + timedelta(days=1),
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """A node's key and certificate."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(
            key.public_key(),
            *dns_names,
            common_name=common_name,
            usages=usages,
            not_before=not_before,
            not_after=not_after,
        )
        return key, certificate

    def certify(
        self,
        public_key: CertificatePublicKeyTypes,
        *dns_names: str,
        common_name: str = "node",
        subject: x509.Name | None = None,
        names: Sequence[x509.GeneralName] = (),
        usages: Sequence[x509.ObjectIdentifier] = USAGES,
        extensions: Mapping[type[x509.ExtensionType], Extension | None] | None = None,
        not_before: datetime = TODAY - timedelta(hours=1),
        not_after: datetime = TODAY + timedelta(days=1),
        algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = None,
        rsa_padding: padding.PSS | None = None,
    ) -> x509.Certificate:
        """A certificate for anybody. `names` are further subjectAltNames, `extensions` as the authority's own."""
        all_names = [*(x509.DNSName(name) for name in dns_names), *names]
        wanted: dict[type[x509.ExtensionType], Extension | None] = {
            x509.BasicConstraints: (x509.BasicConstraints(ca=False, path_length=None), True),
            x509.KeyUsage: (key_usage(digital_signature=True), True),
            x509.AuthorityKeyIdentifier: x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
            x509.SubjectAlternativeName: x509.SubjectAlternativeName(all_names) if all_names else None,
            x509.ExtendedKeyUsage: x509.ExtendedKeyUsage(usages) if usages else None,
            **(extensions or {}),
        }
        subject = subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _extended(_builder(subject, self, public_key, not_before, not_after), wanted)
        return self.sign(builder, algorithm=algorithm, rsa_padding=rsa_padding)

    def credentials(
        self, identity: str, *, key: PrivateKey | None = None, roots: Sequence[Authority] = ()
    ) -> Credentials:
        """What a node of this mesh holds; intermediates are in its chain."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        leaf = self.certify(key.public_key(), identity)
        return Credentials(
            identity=Identity.fqdn(identity),
            private_key=key,
            certificate_chain=(leaf, *self.intermediates),
            roots=tuple(root.certificate for root in roots or (self.root,)),
        )

    @property
    def root(self) -> Authority:
        """The authority above all."""
        return self if self.parent is None else self.parent.root

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """What goes between a certificate of ours and the root."""
        return () if self.parent is None else (self.certificate, *self.parent.intermediates)


Extension = x509.ExtensionType | tuple[x509.ExtensionType, bool]

_RSA_KEYS: dict[int, rsa.RSAPrivateKey] = {}


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key; making one takes a while, so that there is one of each size."""
    if bits not in _RSA_KEYS:
        _RSA_KEYS[bits] = rsa.generate_private_key(65537, bits)
    return _RSA_KEYS[bits]


def key_usage(
    *,
    digital_signature: bool = False,
    content_commitment: bool = False,
    key_encipherment: bool = False,
    key_agreement: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    signer: Authority,
    public_key: CertificatePublicKeyTypes,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _extended(
    builder: x509.CertificateBuilder, wanted: Mapping[type[x509.ExtensionType], Extension | None]
) -> x509.CertificateBuilder:
    for extension in wanted.values():
        if isinstance(extension, tuple):
            builder = builder.add_extension(extension[0], critical=extension[1])
        elif extension is not None:
            builder = builder.add_extension(extension, critical=False)
    return builder
