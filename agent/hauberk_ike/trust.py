"""Whom we believe: certificate chains, verified by `cryptography.x509.verification` against injected roots and time.

A peer's certificate must chain to a root, be fit for its purpose (`CertificateProfile`) and for signing, hold a key
that we verify with, and carry the peer's identity to the letter: a host name as dNSName, an address as iPAddress, a
mail address as rfc822Name, a distinguished name as subject. There are no wildcards and no common names, and no
certificate proves a KEY_ID.

The verifier takes an Ed25519 key in a leaf, but no certificate that is signed with one; those are refused. ML-DSA-65
it takes in both places, and we do where it is wanted (`Trust.ml_dsa`).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from hauberk_ike.credentials import CertificateProfile, Trust, authority_id
from hauberk_ike.errors import ExchangeRefused, RefusalReason
from hauberk_ike.identity import Identity
from hauberk_ike.numbers import CertEncoding, IdType, NotifyType
from hauberk_ike.signature import PublicKey, SignatureScheme, certified_key, schemes_of
from hauberk_ike.wire.payloads import CertificatePayload, CertificateRequest

MAX_CERTIFICATES: Final = 8
"""A leaf and whatever comes with it, of one message."""
MAX_CHAIN_DEPTH: Final = 4
MAX_REMEMBERED: Final = 256
"""So many chains that were found good are remembered, the ones used last."""

PURPOSES: Final = frozenset(
    {
        ExtendedKeyUsageOID.IPSEC_IKE,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
)
"""RFC 4945 section 5.1.3.12 names the first two; gateways' certificates often are TLS ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCertificate:
    """A peer's certificate with what is asked of it. Good from `not_before` to `not_after`, as its whole chain is."""

    certificate: x509.Certificate
    public_key: PublicKey
    schemes: tuple[SignatureScheme, ...]
    """By which its key verifies."""
    names: frozenset[tuple[int, bytes]]
    root: x509.Certificate
    """The one of ours that its chain leads to."""
    not_before: datetime
    not_after: datetime

    def is_for(self, identity: Identity) -> bool:
        """Whether it carries the identity, byte for byte."""
        if identity.id_type is IdType.DER_ASN1_DN:
            with warnings.catch_warnings(action="ignore"):  # for attributes with odd lengths
                return self.certificate.subject.public_bytes() == identity.data
        return (identity.id_type, identity.data) in self.names


class TrustStore:
    """The roots that we trust, ready for use. Remembers a bounded number of chains that led to them."""

    __slots__ = ("_policy", "_verified", "request", "trust")

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        policy = PolicyBuilder().store(Store(list(trust.roots))).max_chain_depth(MAX_CHAIN_DEPTH)
        if trust.profile is CertificateProfile.RFC4945:
            ca_policy, ee_policy = _rfc4945_policies()
            policy = policy.extension_policies(ca_policy=ca_policy, ee_policy=ee_policy)
        self._policy = policy
        self._verified: dict[tuple[bytes, ...], VerifiedCertificate] = {}
        """By the very bytes of the certificates that came, least recently used first."""
        self.request = CertificateRequest(
            encoding=CertEncoding.X509_SIGNATURE, authorities=b"".join(map(authority_id, trust.roots))
        )
        """The CERTREQ payload that names the roots."""

    def verify(
        self, identity: Identity, payloads: Sequence[CertificatePayload], *, at: datetime
    ) -> VerifiedCertificate:
        """The peer's certificate. Raises ExchangeRefused (AUTHENTICATION_FAILED) unless it is good for `identity`.

        The first certificate is the peer's own; others are intermediates. Encodings other than X.509 are ignored, the
        hash-and-URL ones above all: nothing is ever fetched.
        """
        ders = tuple(payload.data for payload in payloads if payload.encoding == CertEncoding.X509_SIGNATURE)
        found = self._verified.pop(ders, None)
        if found is None or not found.not_before <= at <= found.not_after:
            found = self._verify_chain(identity, ders, at)
            if len(self._verified) >= MAX_REMEMBERED:
                del self._verified[next(iter(self._verified))]
        self._verified[ders] = found
        if not found.is_for(identity):
            raise _refusal(RefusalReason.IDENTITY_MISMATCH, f"the certificate is not for {identity}")
        return found

    def _verify_chain(self, identity: Identity, ders: tuple[bytes, ...], at: datetime) -> VerifiedCertificate:
        leaf, key, intermediates = self._parse(ders, at)
        try:
            with warnings.catch_warnings(action="ignore"):
                chain = self._policy.time(at).build_client_verifier().verify(leaf, intermediates).chain
            names = _names(leaf)
            self._check_key_usage(leaf)
        except VerificationError as error:
            # The text may quote the certificate's names, which are anybody's bytes.
            text = str(error).encode("unicode_escape").decode("ascii")[:300]
            raise _refusal(RefusalReason.CERTIFICATE_INVALID, f"certificate of {identity}: {text}") from None
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            raise _refusal(
                RefusalReason.CERTIFICATE_INVALID, f"certificate of {identity}: unreadable extensions"
            ) from None
        return VerifiedCertificate(
            certificate=leaf,
            public_key=key,
            schemes=schemes_of(key),
            names=names,
            root=chain[-1],
            not_before=max(each.not_valid_before_utc for each in chain),
            not_after=min(each.not_valid_after_utc for each in chain),
        )

    def _parse(
        self, ders: tuple[bytes, ...], at: datetime
    ) -> tuple[x509.Certificate, PublicKey, list[x509.Certificate]]:
        """The peer's certificate, its key, and those of the others that might be between it and a root."""
        if not 1 <= len(ders) <= MAX_CERTIFICATES:
            raise _refusal(
                RefusalReason.CERTIFICATE_INVALID, f"{len(ders)} certificates instead of 1 to {MAX_CERTIFICATES}"
            )
        leaf, key = self._parse_one(ders[0])
        # Copies that differ in nothing that makes a path, as in their serial numbers, would multiply the paths that the
        # verifier tries: 70 ms of signatures instead of 1 ms, for somebody who has proved nothing yet.
        intermediates: dict[tuple[bytes, bytes, bytes], x509.Certificate] = {}
        for der in ders[1:]:
            try:
                certificate, _ = self._parse_one(der)
            except ExchangeRefused:
                continue  # it has nothing to do with the leaf, or the verifier will miss it
            if certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
                intermediates.setdefault(_edge(certificate), certificate)
        return leaf, key, list(intermediates.values())

    def _parse_one(self, der: bytes) -> tuple[x509.Certificate, PublicKey]:
        try:
            certificate = x509.load_der_x509_certificate(der)
        except (ValueError, x509.InvalidVersion):
            raise _refusal(RefusalReason.CERTIFICATE_INVALID, "a certificate that is none") from None
        key = certified_key(certificate)
        if isinstance(key, mldsa.MLDSA65PublicKey) and not self.trust.ml_dsa:
            raise _refusal(RefusalReason.CERTIFICATE_INVALID, "ML-DSA keys are not accepted from this peer")
        return certificate, key

    def _check_key_usage(self, leaf: x509.Certificate) -> None:
        """RFC 4945 section 5.1.3.2: a key whose usage is said is for signatures. The verifier does not look at that."""
        try:
            usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        except x509.ExtensionNotFound:
            return
        if usage.digital_signature:
            return
        if usage.content_commitment and self.trust.profile is CertificateProfile.RFC4945:
            return
        raise _refusal(RefusalReason.CERTIFICATE_INVALID, "the certificate's key is not for signatures")


def _edge(certificate: x509.Certificate) -> tuple[bytes, bytes, bytes]:
    """What an intermediate connects: its subject with its key, and its issuer."""
    with warnings.catch_warnings(action="ignore"):
        return certificate.subject.public_bytes(), certificate.issuer.public_bytes(), authority_id(certificate)


def _names(leaf: x509.Certificate) -> frozenset[tuple[int, bytes]]:
    """Its subjectAltNames as identities."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    found: set[tuple[int, bytes]] = set()
    found.update((IdType.FQDN, name.encode()) for name in names.get_values_for_type(x509.DNSName))
    found.update((IdType.RFC822_ADDR, name.encode()) for name in names.get_values_for_type(x509.RFC822Name))
    for address in names.get_values_for_type(x509.IPAddress):
        match address:
            case IPv4Address():
                found.add((IdType.IPV4_ADDR, address.packed))
            case IPv6Address():
                found.add((IdType.IPV6_ADDR, address.packed))
            case _:
                pass  # a network is nobody's address
    return frozenset(found)


@cache
def _rfc4945_policies() -> tuple[ExtensionPolicy, ExtensionPolicy]:
    """For authorities and for leaves. Signatures, validity, cA, path lengths and names stay the verifier's affair."""
    ca_policy = (
        ExtensionPolicy.webpki_defaults_ca()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _has_purpose)
        .may_be_present(x509.AuthorityKeyIdentifier, Criticality.NON_CRITICAL, None)
        .may_be_present(x509.SubjectKeyIdentifier, Criticality.NON_CRITICAL, None)
    )
    ee_policy = (
        ExtensionPolicy.webpki_defaults_ee()
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _has_purpose)
        .may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
        .may_be_present(x509.AuthorityKeyIdentifier, Criticality.NON_CRITICAL, None)
    )
    return ca_policy, ee_policy


def _signs_certificates(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an authority whose key is not for certificates")


def _has_purpose(policy: Policy, certificate: x509.Certificate, usages: x509.ExtendedKeyUsage | None) -> None:
    if usages is not None and PURPOSES.isdisjoint(usages):
        raise ValueError("an extended key usage for something else")


def _refusal(reason: RefusalReason, message: str) -> ExchangeRefused:
    return ExchangeRefused(NotifyType.AUTHENTICATION_FAILED, message, reason=reason)
