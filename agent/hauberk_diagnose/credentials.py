"""Keys, certificates and pre-shared keys from files."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from hauberk_diagnose.errors import Trouble
from hauberk_ike import CertificateProfile, Credentials, Identity, PreSharedKey
from hauberk_ike.signature import PrivateKey


def read_credentials(
    identity: Identity,
    *,
    certificate: Path,
    key: Path,
    authorities: Path,
    profile: CertificateProfile,
    ml_dsa: bool,
) -> Credentials:
    """Our own certificate with its intermediates, its key, and the roots that we trust. Raises Trouble."""
    try:
        return Credentials(
            identity=identity,
            private_key=_read_key(key),
            certificate_chain=_read_certificates(certificate),
            roots=_read_certificates(authorities),
            profile=profile,
            ml_dsa=ml_dsa,
        )
    except ValueError as error:
        raise Trouble(f"{certificate} with {key}: {error}") from None


def read_secret(path: Path) -> bytes:
    """A pre-shared key: the file's bytes without the newline at their end, or hexadecimal after 0x. Raises Trouble."""
    data = read_bytes(path).removesuffix(b"\n")
    try:
        secret = bytes.fromhex(data[2:].decode("ascii")) if data.startswith(b"0x") else data
        return PreSharedKey(secret=secret).secret
    except ValueError:
        # Nothing of the secret is repeated.
        raise Trouble(f"{path}: no pre-shared key: 8 bytes at the very least, or hexadecimal after 0x") from None


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises Trouble."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror or error}; name a file that can be read") from None


def _read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    data = read_bytes(path)
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return tuple(x509.load_pem_x509_certificates(data))
        return (x509.load_der_x509_certificate(data),)
    except (ValueError, x509.InvalidVersion) as error:
        raise Trouble(f"{path}: no certificate in PEM or DER ({error})") from None


def _read_key(path: Path) -> PrivateKey:
    data = read_bytes(path)
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            key = load_pem_private_key(data, None)
        else:
            key = load_der_private_key(data, None)
    except TypeError:
        raise Trouble(f"{path}: the key is encrypted; give one that is not (openssl pkey -in KEY -out PLAIN)") from None
    except ValueError:
        # The library's text is not repeated: it might quote what it read.
        raise Trouble(f"{path}: no private key in PEM or DER") from None
    if not isinstance(key, PrivateKey):
        raise Trouble(f"{path}: a key for something else; IKE takes ECDSA, RSA, Ed25519 and ML-DSA-65")
    return key
