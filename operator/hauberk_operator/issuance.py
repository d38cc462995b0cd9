"""Whether what an issuer has made is what it was asked for. Pure; for cert_manager.py.

cert-manager's API leaves it to the issuer what becomes of a request. Here nothing is: key, names, purposes, life and
chain are looked at one by one before a node gets to see the certificate, and each objection names itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from hauberk_api.certificate import CLOCK_SKEW, CURVES, EXTENDED_KEY_USAGES

MAX_CAS: Final = 8
MAX_CHAIN_DEPTH: Final = 4
"""Intermediates between a node's certificate and its root; agents go no further either (hauberk_ike.trust)."""

_ASKED: Final = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})


UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises, sooner or later, of a certificate that is damaged."""


class BadBundleError(Exception):
    """What should be an issuer's CA certificates is not; the message says why."""


class BadIssuanceError(Exception):
    """A certificate is not what was asked for; the message says in what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for."""

    public_key: CertificatePublicKeyTypes
    dns_names: tuple[str, ...]
    """All of them, the identity first."""
    lifetime: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    chain: tuple[x509.Certificate, ...]
    """The node's certificate first, without the root."""
    root: x509.Certificate


def parse_bundle(pem: str) -> tuple[x509.Certificate, ...]:
    """The CAs that an issuer is known by. They need not be self-signed. Raises BadBundleError."""
    try:
        return _parse_bundle(pem)
    except UNREADABLE:
        raise BadBundleError("it does not hold PEM certificates that can be read") from None


def _parse_bundle(pem: str) -> tuple[x509.Certificate, ...]:
    found = tuple(x509.load_pem_x509_certificates(pem.encode()))
    if len(found) > MAX_CAS:
        raise BadBundleError(f"it holds {len(found)} certificates, and {MAX_CAS} are the most that agents are given")
    for certificate in found:
        name = certificate.subject.rfc4514_string()
        if not _is_ca(certificate):
            raise BadBundleError(f"it holds {name!r}, which is not a CA's certificate")
        if not _agents_verify_with(certificate):
            # An agent takes all roots of a bundle or none.
            raise BadBundleError(
                f"the key of {name!r} is neither on P-256, P-384 or P-521, nor RSA of 2048 to 8192 bits"
            )
    return tuple(dict.fromkeys(found))


def check(pem: bytes, wanted: Wanted, anchors: Collection[x509.Certificate], *, now: datetime) -> Verified:
    """What was issued, verified to lead to one of the anchors. now is aware. Raises BadIssuanceError."""
    try:
        return _check(pem, wanted, anchors, now)
    except UNREADABLE:
        raise BadIssuanceError("it can't be read as PEM certificates") from None


def _check(pem: bytes, wanted: Wanted, anchors: Collection[x509.Certificate], now: datetime) -> Verified:
    leaf, *intermediates = x509.load_pem_x509_certificates(pem)
    if leaf.public_key() != wanted.public_key:
        raise BadIssuanceError("it is for another key than the request's")
    _check_names(leaf.extensions, wanted)
    _check_purposes(leaf, leaf.extensions)
    _check_life(leaf, wanted, now)
    return _verify(leaf, intermediates, wanted, anchors, max(now, leaf.not_valid_before_utc))


def _check_names(extensions: x509.Extensions, wanted: Wanted) -> None:
    try:
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    # The identity first: agents find theirs there.
    if names != [x509.DNSName(name) for name in wanted.dns_names]:
        shown = ", ".join(str(name.value) for name in names) or "nobody"
        raise BadIssuanceError(f"it is for {shown}, and not for {', '.join(wanted.dns_names)}")


def _check_purposes(leaf: x509.Certificate, extensions: x509.Extensions) -> None:
    if _is_ca(leaf):
        raise BadIssuanceError("it is a CA's")
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = frozenset(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound as error:
        raise BadIssuanceError(f"it says nothing of what it may be used for: {error}") from None
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise BadIssuanceError("its key usage is not that of a node, which signs, but neither certificates nor lists")
    if not purposes >= _ASKED:
        raise BadIssuanceError("its extended key usages lack server auth or client auth")
    if more := purposes - frozenset(EXTENDED_KEY_USAGES):
        shown = ", ".join(sorted(oid.dotted_string for oid in more))
        raise BadIssuanceError(f"it has extended key usages that nobody asked for: {shown}")


def _check_life(leaf: x509.Certificate, wanted: Wanted, now: datetime) -> None:
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if begin > now + CLOCK_SKEW:
        raise BadIssuanceError(f"it begins at {begin.isoformat()}, which is later than the clocks of nodes may differ")
    if end <= now:
        raise BadIssuanceError(f"it ended at {end.isoformat()}")
    if end - now > wanted.lifetime + CLOCK_SKEW:
        raise BadIssuanceError(
            f"it ends at {end.isoformat()}, and its life was to be {wanted.lifetime}: limit the issuer, or make "
            "certificates.lifetimeSeconds as long"
        )


def _verify(
    leaf: x509.Certificate,
    intermediates: list[x509.Certificate],
    wanted: Wanted,
    anchors: Collection[x509.Certificate],
    at: datetime,
) -> Verified:
    """As agents do, whichever end of a connection they are."""
    builder = PolicyBuilder().store(Store(list(anchors))).time(at).max_chain_depth(MAX_CHAIN_DEPTH)
    try:
        builder.build_server_verifier(x509.DNSName(wanted.dns_names[0])).verify(leaf, intermediates)
        chain = builder.build_client_verifier().verify(leaf, intermediates).chain
    except (VerificationError, ValueError) as error:
        raise BadIssuanceError(
            f"it does not verify by the mesh's caBundle ({error}); its issuer is {leaf.issuer.rfc4514_string()!r}"
        ) from None
    return Verified(chain=tuple(chain[:-1]), root=chain[-1])


def _agents_verify_with(certificate: x509.Certificate) -> bool:
    """hauberk_ike.credentials.Trust, which is not the operator's to import; a test holds the two together."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return 2048 <= key.key_size <= 8192 and key.public_numbers().e.bit_length() <= 33
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, (*CURVES, ec.SECP521R1))


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
