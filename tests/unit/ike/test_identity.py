"""Identities: strict to read, safe to print, equal only if they are the same (pitfalls 3 and 11)."""

from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type  # pyright: ignore[reportPrivateUsage]
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike import Identity
from hauberk_ike.errors import ExchangeRefused
from hauberk_ike.numbers import IdType, NotifyType
from hauberk_ike.wire.payloads import IdInitiator


@pytest.mark.parametrize(
    ("text", "id_type", "data"),
    [
        ("node-1.default.hauberk.internal", IdType.FQDN, b"node-1.default.hauberk.internal"),
        ("192.0.2.1", IdType.IPV4_ADDR, b"\xc0\0\2\1"),
        ("2001:db8::1", IdType.IPV6_ADDR, ip_address("2001:db8::1").packed),
        ("gateway@example.com", IdType.RFC822_ADDR, b"gateway@example.com"),
        ("keyid:branch-7", IdType.KEY_ID, b"branch-7"),
        ("keyid:0x00ff", IdType.KEY_ID, b"\0\xff"),
        ("keyid:0x3078", IdType.KEY_ID, b"0x"),
        ("fqdn:192.0.2.1", IdType.FQDN, b"192.0.2.1"),
        ("email:a=b@example.com", IdType.RFC822_ADDR, b"a=b@example.com"),
        # The DER was written by hand after X.690: SEQUENCE { SET { SEQUENCE { 2.5.4.3, UTF8String "gw" } } }.
        ("CN=gw", IdType.DER_ASN1_DN, bytes.fromhex("300d310b300906035504030c026777")),
    ],
)
def test_an_identity_is_written_as_it_is_read(text: str, id_type: IdType, data: bytes) -> None:
    identity = Identity.parse(text)
    assert (identity.id_type, identity.data) == (id_type, data)
    assert str(identity) == text
    assert Identity.from_payload(IdInitiator(id_type=id_type, data=data)) == identity


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("dn:0x300d310b300906035504030c026777", "CN=gw"),
        ("fqdn:example.com", "example.com"),
        ("ipv4:192.0.2.1", "192.0.2.1"),
        ("ipv6:2001:DB8:0::1", "2001:db8::1"),
        ("email:gateway@example.com", "gateway@example.com"),
        ("dn:CN=gw,O=Example", "CN=gw,O=Example"),
        ("keyid:0x6162", "keyid:ab"),
    ],
)
def test_a_prefix_says_the_type(text: str, same: str) -> None:
    assert Identity.parse(text) == Identity.parse(same)
    assert str(Identity.parse(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*.example.com",
        "two words",
        "exämple.com",
        "example.com\n",
        "a" * 254,
        "fqdn:",
        "fqdn:2001:db8::1",
        "ipv4:2001:db8::1",
        "ipv4:192.0.2.256",
        "ipv6:192.0.2.1",
        "2001:db8::g",
        "@example.com",
        "a@b@c",
        "gate way@example.com",
        "email:example.com",
        "keyid:",
        "keyid:0x0",
        "keyid:0xgg",
        "CN=",
        "dn:",
        "dn:gateway",
        "NOSUCHNAME=x",
    ],
)
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Identity.parse(text)


def test_identities_of_different_types_differ_though_their_bytes_are_the_same() -> None:
    assert Identity.parse("fqdn:192.0.2.1") != Identity.parse("ipv4:192.0.2.1")
    assert Identity.parse("keyid:example.com") != Identity.parse("fqdn:example.com")


def test_host_names_are_compared_to_the_letter() -> None:
    assert Identity.parse("Example.com") != Identity.parse("example.com")
    assert Identity.parse("example.com.") != Identity.parse("example.com")


def name(*attributes: tuple[x509.ObjectIdentifier, str, _ASN1Type]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value, kind) for oid, value, kind in attributes])


def test_a_distinguished_name_is_the_same_whatever_string_type_its_encoder_prefers() -> None:
    one = name((NameOID.ORGANIZATION_NAME, "Example", _ASN1Type.UTF8String))
    other = name((NameOID.ORGANIZATION_NAME, "Example", _ASN1Type.PrintableString))
    assert one.public_bytes() != other.public_bytes()
    assert Identity.distinguished_name(one) == Identity.distinguished_name(other) == Identity.parse("O=Example")
    assert Identity.distinguished_name(one).is_claimed_by(IdInitiator(id_type=9, data=other.public_bytes()))
    case = name((NameOID.ORGANIZATION_NAME, "EXAMPLE", _ASN1Type.UTF8String))
    assert Identity.distinguished_name(one) != Identity.distinguished_name(case)


def test_parts_of_a_distinguished_name_keep_their_order_and_their_limits() -> None:
    assert Identity.parse("CN=gw,O=Example") != Identity.parse("O=Example,CN=gw")
    # One organization whose name looks like two attributes.
    assert Identity.parse("O=a\\,CN=b") != Identity.parse("O=a,CN=b")


def test_pitfall_3_a_distinguished_name_with_control_characters_is_printed_escaped() -> None:
    evil = name((NameOID.COMMON_NAME, "gw\n\x1b[2J\u202eroot", _ASN1Type.UTF8String))
    identity = Identity.distinguished_name(evil)
    assert str(identity) == "CN=gw\\0a\\1b[2J\\e2\\80\\aeroot"
    assert Identity.parse(str(identity)) == identity


def test_pitfall_3_a_country_of_many_letters_is_no_warning_of_python() -> None:
    data = bytes.fromhex("3012311030") + bytes.fromhex("0e06035504060c074765726d616e79")
    assert str(Identity.from_payload(IdInitiator(id_type=9, data=data))) == f"dn:0x{data.hex()}"


@pytest.mark.parametrize(
    "payload",
    [
        IdInitiator(id_type=IdType.FQDN, data=b"a\0b"),
        IdInitiator(id_type=IdType.FQDN, data=b"a" * 254),
        IdInitiator(id_type=IdType.IPV4_ADDR, data=b"\xc0\0\2\1\0"),
        IdInitiator(id_type=IdType.IPV6_ADDR, data=b"\xc0\0\2\1"),
        IdInitiator(id_type=IdType.RFC822_ADDR, data=b"a\n@example.com"),
        IdInitiator(id_type=IdType.KEY_ID, data=b"k" * 1025),
        IdInitiator(id_type=IdType.DER_ASN1_DN, data=b"0\0"),
        IdInitiator(id_type=IdType.DER_ASN1_DN, data=bytes.fromhex("300d310b300906035504030c026777") + b"\0"),
        IdInitiator(id_type=IdType.DER_ASN1_DN, data=b"0\x80" + bytes(40)),
        IdInitiator(id_type=IdType.DER_ASN1_GN, data=b"\x82\x01a"),
        IdInitiator(id_type=200, data=b"example.com"),
    ],
    ids=lambda payload: f"{payload.id_type} {payload.data[:12]!r}",
)
def test_a_peer_that_claims_nonsense_is_refused(payload: IdInitiator) -> None:
    with pytest.raises(ExchangeRefused) as caught:
        Identity.from_payload(payload)
    assert caught.value.notify is NotifyType.AUTHENTICATION_FAILED
    assert caught.value.reason == "IdentityMismatch"
    assert str(caught.value).isprintable()


@given(st.integers(0, 255) | st.sampled_from(list(IdType)), st.binary(max_size=80))
def test_pitfall_3_any_bytes_are_refused_or_an_identity_that_prints_and_is_read_back(id_type: int, data: bytes) -> None:
    payload = IdInitiator(id_type=id_type, data=data)
    try:
        identity = Identity.from_payload(payload)
    except ExchangeRefused:
        return
    assert str(identity).isprintable()
    assert Identity.parse(str(identity)) == identity
    assert identity.is_claimed_by(payload)


_ATTRIBUTES = st.tuples(
    st.sampled_from([NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.EMAIL_ADDRESS, NameOID.SERIAL_NUMBER]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16).filter(lambda text: text.isascii())
    | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
)


@given(st.lists(_ATTRIBUTES, min_size=1, max_size=4))
def test_pitfall_3_any_distinguished_name_prints_and_is_read_back(
    attributes: list[tuple[x509.ObjectIdentifier, str]],
) -> None:
    identity = Identity.distinguished_name(name(*((oid, text, _ASN1Type.UTF8String) for oid, text in attributes)))
    assert str(identity).isprintable()
    assert Identity.parse(str(identity)) == identity
