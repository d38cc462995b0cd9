"""Whom we believe: certificate chains, verified by `cryptography.x509.verification` against injected roots and time.

A peer's certificate must chain to a root, be for client authentication (the profile gives node certificates both
usages, and the peer is never a web server), and carry the peer's identity as a dNSName, letter for letter: no
wildcards, no common names, no other kinds of identity.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from hauberk_ike.credentials import Trust
from hauberk_ike.errors import ExchangeRefused, RefusalReason
from hauberk_ike.identity import Identity
from hauberk_ike.numbers import CertEncoding, IdType, NotifyType
from hauberk_ike.wire.payloads import CertificatePayload, CertificateRequest

MAX_CERTIFICATES: Final = 8
"""A leaf and its intermediates, of one message."""
MAX_CHAIN_DEPTH: Final = 4


class TrustStore:
    """The roots that we trust, ready for use. Remembers nothing of what peers sent."""

    __slots__ = ("_store", "request")

    def __init__(self, trust: Trust) -> None:
        self._store = Store(list(trust.roots))
        self.request = CertificateRequest(
            encoding=CertEncoding.X509_SIGNATURE, authorities=b"".join(map(_authority, trust.roots))
        )
        """The CERTREQ payload that names them."""

    def verify(self, identity: Identity, payloads: Sequence[CertificatePayload], *, at: datetime) -> x509.Certificate:
        """The peer's certificate. Raises ExchangeRefused (AUTHENTICATION_FAILED) unless it is good for `identity`.

        The first certificate is the peer's own; others are intermediates. Encodings other than X.509 are ignored, the
        hash-and-URL ones above all: nothing is ever fetched.
        """
        if identity.id_type is not IdType.FQDN:
            raise _refusal(RefusalReason.IDENTITY_MISMATCH, f"the identity {identity} is not a host name")
        name = identity.text
        leaf, intermediates = _parse_certificates(payloads)
        verifier = PolicyBuilder().store(self._store).time(at).max_chain_depth(MAX_CHAIN_DEPTH).build_client_verifier()
        try:
            verifier.verify(leaf, intermediates)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            dns_names = names.get_values_for_type(x509.DNSName)
        except VerificationError as error:
            # The text may quote the certificate's names, which are anybody's bytes.
            text = str(error).encode("unicode_escape").decode("ascii")[:300]
            raise _refusal(RefusalReason.CERTIFICATE_INVALID, f"certificate of {name}: {text}") from None
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            raise _refusal(RefusalReason.CERTIFICATE_INVALID, f"certificate of {name}: unreadable extensions") from None
        if name not in dns_names:
            raise _refusal(RefusalReason.IDENTITY_MISMATCH, f"the certificate is not for {name}")
        return leaf


def _parse_certificates(
    payloads: Sequence[CertificatePayload],
) -> tuple[x509.Certificate, list[x509.Certificate]]:
    ders = [payload.data for payload in payloads if payload.encoding == CertEncoding.X509_SIGNATURE]
    if not 1 <= len(ders) <= MAX_CERTIFICATES:
        raise _refusal(
            RefusalReason.CERTIFICATE_INVALID, f"{len(ders)} certificates instead of 1 to {MAX_CERTIFICATES}"
        )
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in ders]
    except ValueError:
        raise _refusal(RefusalReason.CERTIFICATE_INVALID, "a certificate that is none") from None
    return certificates[0], certificates[1:]


def _authority(root: x509.Certificate) -> bytes:
    """RFC 7296 section 3.7: SHA-1 of the root's public key, as a name and not as a protection."""
    spki = root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha1(spki, usedforsecurity=False).digest()


def _refusal(reason: RefusalReason, message: str) -> ExchangeRefused:
    return ExchangeRefused(NotifyType.AUTHENTICATION_FAILED, message, reason=reason)
