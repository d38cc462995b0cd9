"""What the mesh CA signs is what the agents verify."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from hauberk_api.certificate import signed_at
from hauberk_api.names import NodeName, NodeUid, node_identity
from hauberk_operator.authority import parse_secret
from hauberk_operator.ca import (
    BadAuthorityError,
    SecretSigner,
    certificate_pem,
    create_root,
    issue,
    key_pem,
    lifetime,
    load_root,
)

NOW = datetime(2026, 5, 1, tzinfo=UTC)
UID, NAME = NodeUid("6d5f4f43-5d3b-4b39-8ee9-0e1f0a7a3a11"), NodeName("n1")
ROOT = create_root(mesh="default", lifetime_seconds=10 * 365 * 86_400, now=NOW)


def leaf(
    signer: SecretSigner = ROOT, *, seconds: int = 86_400, curve: ec.EllipticCurve | None = None
) -> x509.Certificate:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    return issue(
        signer, public_key=key.public_key(), uid=UID, name=NAME, mesh="default", lifetime_seconds=seconds, now=NOW
    )


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_a_certificate_verifies_as_server_and_as_client(curve: ec.EllipticCurve) -> None:
    certificate = leaf(curve=curve)
    policy = PolicyBuilder().store(Store([ROOT.certificate])).time(NOW + timedelta(hours=1))
    identity = x509.DNSName(node_identity(UID))
    assert policy.build_server_verifier(identity).verify(certificate, [])[0] == certificate
    subjects = policy.build_client_verifier().verify(certificate, []).subjects
    assert subjects is not None
    assert identity in subjects


def test_a_certificate_of_another_root_does_not_verify() -> None:
    other = create_root(mesh="default", lifetime_seconds=86_400, now=NOW)
    verifier = PolicyBuilder().store(Store([other.certificate])).time(NOW).build_client_verifier()
    with pytest.raises(VerificationError):
        verifier.verify(leaf(), [])


def test_a_certificate_holds_the_profile_and_nothing_more() -> None:
    certificate = leaf()
    found = {extension.value.__class__: extension for extension in certificate.extensions}
    assert set(found) == {
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.SubjectAlternativeName,
        x509.SubjectKeyIdentifier,
        x509.AuthorityKeyIdentifier,
    }
    assert found[x509.BasicConstraints].value == x509.BasicConstraints(ca=False, path_length=None)
    assert list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [
        x509.DNSName(node_identity(UID)),
        x509.DNSName(NAME),
    ]
    usages = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert ExtendedKeyUsageOID.IPSEC_IKE in usages
    key_usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert key_usage.digital_signature
    assert not key_usage.key_cert_sign
    assert certificate.subject.rfc4514_string() == "CN=n1"


def test_a_certificate_lives_as_long_as_asked_and_never_longer_than_its_root() -> None:
    assert leaf(seconds=3600).not_valid_after_utc == NOW + timedelta(hours=1)
    assert leaf(seconds=3600).not_valid_before_utc == NOW - timedelta(minutes=5)
    short = create_root(mesh="default", lifetime_seconds=600, now=NOW)
    assert leaf(short, seconds=86_400).not_valid_after_utc == short.certificate.not_valid_after_utc


@pytest.mark.parametrize("seconds", [60, 599, 600, 601, 3600, 86_400])
def test_when_a_certificate_was_signed_can_be_told_from_it(seconds: int) -> None:
    """notBefore lies earlier, for clocks that are behind: of a short life by less, or it would be over at once."""
    certificate = leaf(seconds=seconds)
    assert abs(signed_at(certificate) - NOW) < timedelta(seconds=1)
    assert NOW - certificate.not_valid_before_utc <= min(timedelta(minutes=5), timedelta(seconds=seconds / 2 + 1))


def test_serials_differ() -> None:
    assert leaf().serial_number != leaf().serial_number


def test_a_long_node_name_is_whole_in_the_alternative_names() -> None:
    """The common name is cut at 64 characters (RFC 5280, ub-common-name)."""
    name = NodeName(f"{'n' * 60}.{'x' * 60}")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = issue(
        ROOT, public_key=key.public_key(), uid=UID, name=name, mesh="default", lifetime_seconds=600, now=NOW
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert x509.DNSName(name) in list(names)


@pytest.mark.parametrize(
    ("configured", "requested", "seconds"),
    [
        (86_400, None, 86_400),
        (86_400, 3_600, 3_600),
        (86_400, 200_000, 86_400),
        (86_400, 60, 600),
        (60, None, 60),
        (60, 600, 60),
    ],
)
def test_the_shorter_of_setting_and_request_counts(configured: int, requested: int | None, seconds: int) -> None:
    assert lifetime(configured_seconds=configured, requested_seconds=requested) == seconds


def test_the_root_is_a_ca_for_leaves_alone() -> None:
    constraints = ROOT.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_a_stored_root_is_read_back() -> None:
    again = load_root(certificate_pem(ROOT.certificate).encode(), key_pem(ROOT).encode(), now=NOW)
    assert again.certificate == ROOT.certificate


def test_the_key_is_in_no_repr() -> None:
    assert "key" not in repr(ROOT).lower().replace("keyusage", "")


def _rsa_pem() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _of_another_version() -> bytes:
    """A certificate that says it is of version 6."""
    der = ROOT.certificate.public_bytes(serialization.Encoding.DER)
    damaged = base64.encodebytes(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1))
    return b"-----BEGIN CERTIFICATE-----\n" + damaged + b"-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("certificate", "key", "when", "what"),
    [
        (b"", b"", NOW, "not readable PEM"),
        (certificate_pem(ROOT.certificate).encode(), b"-----BEGIN PRIVATE KEY-----\nAA==\n", NOW, "not readable PEM"),
        (_of_another_version(), key_pem(ROOT).encode(), NOW, "not readable PEM"),
        (certificate_pem(ROOT.certificate).encode(), _rsa_pem(), NOW, "not an elliptic curve key"),
        (certificate_pem(leaf()).encode(), key_pem(ROOT).encode(), NOW, "not the certificate's"),
        (certificate_pem(ROOT.certificate).encode(), key_pem(ROOT).encode(), NOW + timedelta(days=4000), "ended at"),
    ],
)
def test_a_stored_root_that_cannot_be_used_says_why(certificate: bytes, key: bytes, when: datetime, what: str) -> None:
    with pytest.raises(BadAuthorityError, match=what) as caught:
        load_root(certificate, key, now=when)
    assert "PRIVATE KEY" not in str(caught.value)


def test_a_nodes_certificate_is_no_root() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = issue(
        ROOT, public_key=key.public_key(), uid=UID, name=NAME, mesh="default", lifetime_seconds=600, now=NOW
    )
    impostor = SecretSigner(certificate=certificate, key=key)
    with pytest.raises(BadAuthorityError, match="not a self-signed root"):
        load_root(certificate_pem(certificate).encode(), key_pem(impostor).encode(), now=NOW)


@pytest.mark.parametrize("data", [None, {}, {"tls.crt": "!", "tls.key": "!"}, {"tls.crt": "AAAA"}])
def test_a_secret_of_another_form_says_so(data: dict[str, str] | None) -> None:
    with pytest.raises(BadAuthorityError, match=r"tls\.crt and tls\.key"):
        parse_secret({"data": data}, now=NOW)
