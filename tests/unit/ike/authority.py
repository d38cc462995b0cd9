"""A certificate authority for tests: roots, intermediates and node certificates, good ones and bad ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hauberk_ike import Credentials, Identity

TODAY = datetime(2026, 6, 1, 12, tzinfo=UTC)
USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.IPSEC_IKE)


class Authority:
    """A CA, self-signed or beneath `parent`."""

    def __init__(
        self,
        name: str = "mesh root",
        *,
        parent: Authority | None = None,
        path_length: int | None = 1,
        name_constraints: x509.NameConstraints | None = None,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.parent = parent
        signer = parent or self
        builder = (
            _builder(self.name, signer, self.key.public_key(), TODAY - timedelta(days=30), TODAY + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        )
        if name_constraints is not None:
            builder = builder.add_extension(name_constraints, critical=True)
        self.certificate = builder.sign(signer.key, hashes.SHA256())

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
        builder = (
            _builder(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]),
                self,
                key.public_key(),
                not_before,
                not_after,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names]), critical=False)
        )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return key, builder.sign(self.key, hashes.SHA256())

    def credentials(
        self, identity: str, *, key: ec.EllipticCurvePrivateKey | None = None, roots: Sequence[Authority] = ()
    ) -> Credentials:
        """What a node of this mesh holds; intermediates are in its chain."""
        key, leaf = self.issue(identity, key=key)
        chain = [leaf]
        authority = self
        while authority.parent is not None:
            chain.append(authority.certificate)
            authority = authority.parent
        return Credentials(
            identity=Identity.fqdn(identity),
            private_key=key,
            certificate_chain=tuple(chain),
            roots=tuple(root.certificate for root in roots or (authority,)),
        )


def _builder(
    subject: x509.Name,
    signer: Authority,
    public_key: ec.EllipticCurvePublicKey,
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


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
