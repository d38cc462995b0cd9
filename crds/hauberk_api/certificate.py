"""The certificate profile of node identities: what a request may hold and what is signed.

The agent builds its request with build_request, the operator checks it against the same rules and signs. Ed25519 is
not offered: cryptography's verifier does not take it. The extended key usages are serverAuth and clientAuth, because
the verifier wants one that it knows, beside id-kp-ipsecIKE (RFC 4945 section 5.1.3.12).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hauberk_api.names import NodeName, NodeUid, node_identity

CSR_USAGES: Final = ("digital signature", "client auth", "server auth")
"""spec.usages of the CertificateSigningRequest."""

EXTENDED_KEY_USAGES: Final = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.IPSEC_IKE,
)

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far the clocks of a mesh's nodes may be apart."""

CURVES: Final[tuple[type[ec.EllipticCurve], ...]] = (ec.SECP256R1, ec.SECP384R1)


def node_dns_names(uid: NodeUid, name: NodeName, mesh: str = "default") -> tuple[str, str]:
    """The two dNSNames of a node's certificate: its IKE identity, and the node's name."""
    return node_identity(uid, mesh), name


def build_request(key: ec.EllipticCurvePrivateKey, *, uid: NodeUid, name: NodeName, mesh: str = "default") -> bytes:
    """A PKCS#10 request (PEM) for this node's identity: CN the node's name, exactly the two dNSNames."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(n) for n in node_dns_names(uid, name, mesh)]),
            critical=False,
        )
    )
    return builder.sign(key, signature_hash(key.curve)).public_bytes(serialization.Encoding.PEM)


def signature_hash(curve: ec.EllipticCurve) -> hashes.SHA256 | hashes.SHA384:
    """The hash that goes with a curve (RFC 5656 section 6.2.1 gives the sizes)."""
    return hashes.SHA384() if curve.key_size > 256 else hashes.SHA256()


def backdated(lifetime: timedelta) -> timedelta:
    """How far notBefore lies before the signing, for clocks that are behind: CLOCK_SKEW, or half of a short life."""
    return min(CLOCK_SKEW, lifetime / 2)


def signed_at(certificate: x509.Certificate) -> datetime:
    """When a certificate of ours was signed. Its life begins there: notBefore lies earlier by backdated()."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + min(CLOCK_SKEW, (end - begin) / 3)


def dns_names(extensions: x509.Extensions) -> Sequence[str]:
    """The dNSNames of a request or certificate; empty when it has no subjectAltName."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return names.get_values_for_type(x509.DNSName)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER form, hex: how reports and the trust bundle name a root."""
    return certificate.fingerprint(hashes.SHA256()).hex()
