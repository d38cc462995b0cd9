"""What an issuer has made is looked at from all sides before a node gets it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from hauberk_api.certificate import CLOCK_SKEW
from hauberk_ike import Identity, Trust
from hauberk_ike.trust import TrustStore
from hauberk_ike.wire.payloads import CertificatePayload
from hauberk_operator.ca import certificate_pem
from hauberk_operator.issuance import MAX_CAS, BadBundleError, BadIssuanceError, Verified, Wanted, check, parse_bundle
from tests.unit.operator.company import CLIENT, KEY, NAMES, NOW, SERVER, Company, usage

WANTED = Wanted(public_key=KEY, dns_names=NAMES, lifetime=timedelta(hours=1))
ROOT = Company("Example Corp")
BETWEEN = Company("Example Corp Nodes", parent=ROOT)
STRANGER = Company("Somebody")


def checked(*certificates: x509.Certificate, anchors: tuple[Company, ...] = (ROOT,)) -> Verified:
    pem = "".join(map(certificate_pem, certificates)).encode()
    return check(pem, WANTED, [anchor.certificate for anchor in anchors], now=NOW)


def test_what_was_asked_for_is_taken_with_the_root_that_it_leads_to() -> None:
    leaf = ROOT.signs()
    assert checked(leaf) == Verified(chain=(leaf,), root=ROOT.certificate)
    assert checked(leaf, anchors=(STRANGER, ROOT)).root == ROOT.certificate


def test_an_rsa_authority_is_as_good() -> None:
    """It is what cert-manager makes unless it is told otherwise."""
    company = Company("RSA", key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
    leaf = company.signs()
    assert checked(leaf, anchors=(company,)).chain == (leaf,)


def test_intermediates_come_along_and_anchors_do_not() -> None:
    leaf = BETWEEN.signs()
    assert checked(leaf, BETWEEN.certificate).chain == (leaf, BETWEEN.certificate)
    assert checked(leaf, BETWEEN.certificate, ROOT.certificate).chain == (leaf, BETWEEN.certificate)
    # An intermediate that is trusted by itself is where it ends.
    found = checked(leaf, BETWEEN.certificate, anchors=(BETWEEN,))
    assert (found.chain, found.root) == ((leaf,), BETWEEN.certificate)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            lambda: ROOT.signs(key=ec.generate_private_key(ec.SECP256R1()).public_key()),
            "another key than the request's",
        ),
        (lambda: ROOT.signs(names=("uid-n2.default.hauberk.internal", "n2")), "it is for uid-n2"),
        (lambda: ROOT.signs(names=NAMES[:1]), "and not for uid-n1.default.hauberk.internal, n1"),
        (lambda: ROOT.signs(names=(*NAMES, "n2")), "it is for uid-n1.default.hauberk.internal, n1, n2"),
        (lambda: ROOT.signs(names=NAMES[::-1]), "it is for n1, uid-n1"),
        (lambda: ROOT.signs(names=None), "it is for nobody"),
        (lambda: ROOT.signs(other_names=(x509.RFC822Name("a@example.com"),)), "a@example.com"),
        (lambda: ROOT.signs(ca=True), "it is a CA's"),
        (lambda: ROOT.signs(key_usage=usage(digital_signature=True, key_cert_sign=True)), "key usage"),
        (lambda: ROOT.signs(key_usage=usage(key_encipherment=True)), "key usage"),
        (lambda: ROOT.signs(purposes=None), "nothing of what it may be used for"),
        (lambda: ROOT.signs(purposes=(SERVER,)), "lack server auth or client auth"),
        (lambda: ROOT.signs(purposes=(SERVER, CLIENT, ExtendedKeyUsageOID.CODE_SIGNING)), "nobody asked for"),
        (lambda: ROOT.signs(begin=NOW - timedelta(hours=1)), "it ended at"),
        (lambda: ROOT.signs(begin=NOW + CLOCK_SKEW * 2), "it begins at"),
        (lambda: ROOT.signs(life=timedelta(days=1)), "its life was to be 1:00:00"),
        (STRANGER.signs, "does not verify by the mesh's caBundle"),
        (BETWEEN.signs, "does not verify by the mesh's caBundle"),
    ],
)
def test_anything_else_is_not(made: Callable[[], x509.Certificate], sentence: str) -> None:
    with pytest.raises(BadIssuanceError, match=sentence):
        checked(made())


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(pem: bytes) -> None:
    with pytest.raises(BadIssuanceError, match="can't be read"):
        check(pem, WANTED, [ROOT.certificate], now=NOW)


def test_a_clock_that_is_a_little_behind_its_issuers_is_no_objection() -> None:
    leaf = ROOT.signs(begin=NOW + timedelta(seconds=3))
    assert checked(leaf).chain == (leaf,)


def test_a_bundle_holds_authorities_once_each_and_not_too_many() -> None:
    pem = certificate_pem(ROOT.certificate)
    assert parse_bundle(pem + certificate_pem(BETWEEN.certificate) + pem) == (ROOT.certificate, BETWEEN.certificate)
    for text, sentence in (
        ("", "no PEM|not hold PEM"),
        (certificate_pem(ROOT.signs()), "not a CA's certificate"),
        (pem * (MAX_CAS + 1), "the most that agents are given"),
    ):
        with pytest.raises(BadBundleError, match=sentence):
            parse_bundle(text)


@pytest.mark.parametrize(
    ("key", "taken"),
    [
        (ec.generate_private_key(ec.SECP256R1()), True),
        (ec.generate_private_key(ec.SECP384R1()), True),
        (ec.generate_private_key(ec.SECP521R1()), True),
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), True),
        (rsa.generate_private_key(public_exponent=65537, key_size=1024), False),  # noqa: S505 - refused
        (ec.generate_private_key(ec.SECP256K1()), False),
        (ed25519.Ed25519PrivateKey.generate(), False),
    ],
    ids=["P-256", "P-384", "P-521", "RSA 2048", "RSA 1024", "secp256k1", "Ed25519"],
)
def test_a_bundle_holds_what_agents_take_as_a_root_and_nothing_else(key: Any, taken: bool) -> None:
    """One root that they don't take would cost every agent all of them."""
    company = Company("Example Corp", key=key)
    try:
        Trust(roots=(company.certificate,))
    except ValueError:
        assert not taken
        with pytest.raises(BadBundleError, match="the key of 'CN=Example Corp' is neither"):
            parse_bundle(company.pem)
    else:
        assert taken
        assert parse_bundle(company.pem) == (company.certificate,)


@pytest.mark.parametrize("anchor", [ROOT, BETWEEN], ids=["the root", "the one in between"])
def test_what_is_taken_here_peers_take(anchor: Company) -> None:
    found = checked(BETWEEN.signs(), BETWEEN.certificate, anchors=(anchor,))
    peer = TrustStore(Trust(roots=(anchor.certificate,)))
    payloads = [CertificatePayload.x509(each.public_bytes(Encoding.DER)) for each in found.chain]
    assert peer.verify(Identity.fqdn(NAMES[0]), payloads, at=NOW).root == found.root


def damaged(certificate: x509.Certificate) -> Iterator[bytes]:
    """The certificate, PEM, with each of its bytes in turn made another one."""
    der = certificate.public_bytes(Encoding.DER)
    for place in range(len(der)):
        for value in (0x00, 0x03, 0x7F, 0xFF):
            bad = base64.encodebytes(der[:place] + bytes([value]) + der[place + 1 :])
            yield b"-----BEGIN CERTIFICATE-----\n" + bad + b"-----END CERTIFICATE-----\n"


@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_byte_is_an_objection_and_no_defect() -> None:
    """Whatever else were raised would end the operator."""
    objections = 0
    for pem in damaged(ROOT.signs()):
        try:
            check(pem, WANTED, [ROOT.certificate], now=NOW)
        except BadIssuanceError:
            objections += 1
    for pem in damaged(ROOT.certificate):
        with suppress(BadBundleError):
            parse_bundle(pem.decode())
    assert objections > 1000
