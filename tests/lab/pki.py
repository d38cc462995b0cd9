"""The cluster's certificates and kubeconfigs, made anew for every lab. Called by `cluster`.

One authority signs everybody: the API server (and its clients trust it), each component, each node and the admin. Keys
lie in the lab's run directory, readable to root alone, and are gone with it.
"""

import base64
import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(days=30)
# Labs on machines whose clock is stepped back a little still work.
BACKDATED = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    def write(self, directory: Path, name: str) -> None:
        """Writes NAME.crt and NAME.key."""
        write_secret(directory / f"{name}.crt", self.certificate)
        write_secret(directory / f"{name}.key", self.key)

    @classmethod
    def read(cls, directory: Path, name: str) -> "Pair":
        """Reads what `write` wrote."""
        return cls(certificate=(directory / f"{name}.crt").read_bytes(), key=(directory / f"{name}.key").read_bytes())


def new_authority(common_name: str, *, now: datetime.datetime) -> Pair:
    """A certificate authority of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name, None)
    certificate = (
        _builder(name, key.public_key(), now)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue(
    authority: Pair,
    common_name: str,
    *,
    organization: str | None = None,
    server_names: Sequence[str] = (),
    now: datetime.datetime,
) -> Pair:
    """A certificate signed by the authority: for a server when it has names (addresses or DNS), else for a client.

    Kubernetes reads the common name as the user, and the organization as the user's group.
    """
    authority_certificate = x509.load_pem_x509_certificate(authority.certificate)
    authority_key = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is not an elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server_names else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(_name(common_name, organization), key.public_key(), now)
        .issuer_name(authority_certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    if server_names:
        names = [_general_name(name) for name in server_names]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pair(builder.sign(authority_key, hashes.SHA256()), key)


def new_signing_key() -> tuple[bytes, bytes]:
    """A key pair for service account tokens: private and public, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _private_pem(key), public


def kubeconfig(*, server: str, authority: Pair, client: Pair) -> str:
    """A kubeconfig, all certificates embedded, whose only context is `lab`."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [
                {
                    "name": "lab",
                    "cluster": {"server": server, "certificate-authority-data": _base64(authority.certificate)},
                }
            ],
            "users": [
                {
                    "name": "user",
                    "user": {
                        "client-certificate-data": _base64(client.certificate),
                        "client-key-data": _base64(client.key),
                    },
                }
            ],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "user"}}],
        },
        sort_keys=False,
    )


def write_secret(path: Path, content: bytes | str) -> None:
    """Writes a file that only its owner can read, from its first moment on."""
    data = content.encode() if isinstance(content, str) else content
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def _name(common_name: str, organization: str | None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + LIFE)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(certificate=certificate.public_bytes(serialization.Encoding.PEM), key=_private_pem(key))


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
