"""Certificates: what is taken for a node of the mesh or for a gateway, and what is not (pitfalls 9, 10 and 11)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type  # pyright: ignore[reportPrivateUsage]
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hauberk_ike import CertificateProfile, Identity, Trust
from hauberk_ike.errors import ExchangeRefused
from hauberk_ike.numbers import NotifyType
from hauberk_ike.trust import MAX_CERTIFICATES, MAX_REMEMBERED, TrustStore
from hauberk_ike.wire.payloads import CertificatePayload
from tests.unit.ike.authority import TODAY, Authority, key_usage, rsa_key
from tests.unit.ike.party import ALICE, BOB, mesh_authority

MESH, RFC4945 = CertificateProfile.MESH, CertificateProfile.RFC4945
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\0")
P256 = ec.generate_private_key(ec.SECP256R1()).public_key()


def payload(certificate: x509.Certificate) -> CertificatePayload:
    return CertificatePayload.x509(certificate.public_bytes(Encoding.DER))


def store(*roots: Authority, profile: CertificateProfile = MESH, ml_dsa: bool = False) -> TrustStore:
    certificates = tuple(root.certificate for root in roots or (mesh_authority(),))
    return TrustStore(Trust(roots=certificates, profile=profile, ml_dsa=ml_dsa))


def verify(
    *chain: x509.Certificate,
    roots: Sequence[Authority] = (),
    identity: str | Identity = ALICE,
    at: datetime = TODAY,
    profile: CertificateProfile = MESH,
    ml_dsa: bool = False,
) -> None:
    claimed = Identity.parse(identity) if isinstance(identity, str) else identity
    found = store(*roots, profile=profile, ml_dsa=ml_dsa).verify(claimed, [payload(each) for each in chain], at=at)
    assert found.certificate == chain[0]
    assert found.public_key == chain[0].public_key()


def refusal(
    *chain: x509.Certificate,
    roots: Sequence[Authority] = (),
    identity: str | Identity = ALICE,
    at: datetime = TODAY,
    profile: CertificateProfile = MESH,
    ml_dsa: bool = False,
) -> str:
    with pytest.raises(ExchangeRefused) as caught:
        verify(*chain, roots=roots, identity=identity, at=at, profile=profile, ml_dsa=ml_dsa)
    assert caught.value.notify is NotifyType.AUTHENTICATION_FAILED
    assert str(caught.value).isprintable()
    return caught.value.reason


both_profiles = pytest.mark.parametrize("profile", CertificateProfile, ids=lambda profile: profile.value)


# Identities


def test_a_node_of_the_mesh_is_believed() -> None:
    _, leaf = mesh_authority().issue(ALICE, "node-1")
    verify(leaf)


def test_each_of_the_names_of_a_certificate_is_its_own() -> None:
    _, leaf = mesh_authority().issue(ALICE, "node-1")
    verify(leaf, identity="node-1")
    assert refusal(leaf, identity=BOB) == "IdentityMismatch"


NAMES: Sequence[x509.GeneralName] = (
    x509.DNSName("gateway.example.com"),
    x509.IPAddress(ip_address("192.0.2.1")),
    x509.IPAddress(ip_address("2001:db8::1")),
    x509.RFC822Name("gateway@example.com"),
)
SUBJECT = x509.Name(
    [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, "gateway")]
)
IDENTITIES = ("gateway.example.com", "192.0.2.1", "2001:db8::1", "gateway@example.com", "CN=gateway,O=Example")


@both_profiles
@pytest.mark.parametrize("identity", IDENTITIES)
def test_every_type_of_identity_has_its_place_in_a_certificate(identity: str, profile: CertificateProfile) -> None:
    leaf = mesh_authority().certify(P256, names=NAMES, subject=SUBJECT)
    verify(leaf, identity=identity, profile=profile)


@both_profiles
@pytest.mark.parametrize(
    "identity",
    [
        "example.com",
        "gateway.example.co",
        "agateway.example.com",
        "gateway.example.com.",
        "GATEWAY.example.com",
        "fqdn:192.0.2.1",
        "192.0.2.2",
        "::ffff:192.0.2.1",
        "2001:db8::2",
        "gateway@example.co",
        "Gateway@example.com",
        "CN=gateway",
        "O=Example,CN=gateway",
        "CN=GATEWAY,O=Example",
        "keyid:gateway.example.com",
    ],
)
def test_pitfall_11_an_identity_is_to_the_letter(identity: str, profile: CertificateProfile) -> None:
    leaf = mesh_authority().certify(P256, names=NAMES, subject=SUBJECT)
    assert refusal(leaf, identity=identity, profile=profile) == "IdentityMismatch"


@both_profiles
def test_pitfall_11_a_name_of_one_type_proves_none_of_another(profile: CertificateProfile) -> None:
    leaf = mesh_authority().certify(
        P256,
        "192.0.2.1",
        names=[x509.UniformResourceIdentifier("https://gateway.example.com"), x509.RFC822Name("a@gateway.example.com")],
    )
    for identity in ("192.0.2.1", "gateway.example.com", "CN=192.0.2.1"):
        assert refusal(leaf, identity=identity, profile=profile) == "IdentityMismatch"
    verify(leaf, identity="fqdn:192.0.2.1", profile=profile)


def test_pitfall_11_a_network_in_a_certificate_is_nobodys_address() -> None:
    leaf = mesh_authority().certify(P256, ALICE, names=[x509.IPAddress(ip_address("192.0.2.0"))])
    verify(leaf, identity="192.0.2.0")
    assert refusal(leaf, identity="192.0.2.1") == "IdentityMismatch"


def test_pitfall_11_a_wildcard_or_a_common_name_is_no_name() -> None:
    _, wildcard = mesh_authority().issue("*.default.hauberk.internal")
    assert refusal(wildcard) == "IdentityMismatch"
    _, common = mesh_authority().issue("other.default.hauberk.internal", common_name=ALICE)
    assert refusal(common) == "IdentityMismatch"


def test_pitfall_11_a_distinguished_name_is_the_subject_byte_for_byte() -> None:
    # Configuration may spell it in another string type; what a peer claims must be what its certificate says.
    leaf = mesh_authority().certify(P256, ALICE, subject=SUBJECT)
    printable = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example", _ASN1Type.PrintableString),
            x509.NameAttribute(NameOID.COMMON_NAME, "gateway", _ASN1Type.PrintableString),
        ]
    )
    assert Identity.distinguished_name(printable) == Identity.distinguished_name(SUBJECT)
    assert refusal(leaf, identity=Identity.distinguished_name(printable)) == "IdentityMismatch"


def test_a_gateways_certificate_without_alternative_names_proves_its_subject() -> None:
    leaf = mesh_authority().certify(P256, subject=SUBJECT)
    verify(leaf, identity="CN=gateway,O=Example", profile=RFC4945)
    assert refusal(leaf, identity="gateway", profile=RFC4945) == "IdentityMismatch"
    assert refusal(leaf, identity="CN=gateway,O=Example") == "CertificateInvalid"  # a node has one


# Time


@both_profiles
def test_pitfall_11_time_is_the_callers(profile: CertificateProfile) -> None:
    _, leaf = mesh_authority().issue(ALICE, not_before=TODAY, not_after=TODAY + timedelta(hours=1))
    verify(leaf, at=TODAY + timedelta(minutes=30), profile=profile)
    for at in (TODAY - timedelta(seconds=1), TODAY + timedelta(hours=1, seconds=1)):
        assert refusal(leaf, at=at, profile=profile) == "CertificateInvalid"


@both_profiles
@pytest.mark.parametrize("days", [(-20, -10), (10, 20)], ids=["expired", "not yet valid"])
@pytest.mark.parametrize("which", ["root", "intermediate"])
def test_pitfall_11_authorities_are_valid_for_a_time_too(
    which: str, days: tuple[int, int], profile: CertificateProfile
) -> None:
    begin, end = (TODAY + timedelta(days=each) for each in days)
    if which == "root":
        root = Authority("root", not_before=begin, not_after=end)
        issuing = Authority("issuing", parent=root, path_length=0)
    else:
        root = Authority("root")
        issuing = Authority("issuing", parent=root, path_length=0, not_before=begin, not_after=end)
    _, leaf = issuing.issue(ALICE)
    assert refusal(leaf, issuing.certificate, roots=[root], profile=profile) == "CertificateInvalid"


# What a certificate is for


@pytest.mark.parametrize(
    ("usages", "in_mesh", "by_rfc"),
    [
        ([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.IPSEC_IKE], True, True),
        ([ExtendedKeyUsageOID.CLIENT_AUTH], True, True),
        ([ExtendedKeyUsageOID.SERVER_AUTH], False, True),
        ([ExtendedKeyUsageOID.IPSEC_IKE], False, True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], False, True),
        ([ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.IPSEC_IKE], False, True),
        ([], True, True),
        ([ExtendedKeyUsageOID.CODE_SIGNING], False, False),
        ([ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.TIME_STAMPING], False, False),
    ],
    ids=["a node's", "client", "server", "IKE", "any", "IKE and another", "none", "code", "others"],
)
def test_pitfall_11_the_extended_key_usage_must_fit(
    usages: list[x509.ObjectIdentifier], in_mesh: bool, by_rfc: bool
) -> None:
    _, leaf = mesh_authority().issue(ALICE, usages=usages)
    for profile, good in ((MESH, in_mesh), (RFC4945, by_rfc)):
        if good:
            verify(leaf, profile=profile)
        else:
            assert refusal(leaf, profile=profile) == "CertificateInvalid"


@both_profiles
@pytest.mark.parametrize(
    "usage",
    [
        key_usage(key_agreement=True),
        key_usage(key_encipherment=True),
        key_usage(digital_signature=True, key_cert_sign=True),
    ],
    ids=["key agreement", "encipherment", "certificates"],
)
def test_pitfall_11_the_key_must_be_for_signatures(usage: x509.KeyUsage, profile: CertificateProfile) -> None:
    leaf = mesh_authority().certify(P256, ALICE, extensions={x509.KeyUsage: (usage, True)})
    assert refusal(leaf, profile=profile) == "CertificateInvalid"


def test_a_gateways_key_may_be_for_commitments_or_for_nothing_in_particular() -> None:
    commitment = mesh_authority().certify(
        P256, ALICE, extensions={x509.KeyUsage: (key_usage(content_commitment=True), True)}
    )
    verify(commitment, profile=RFC4945)
    assert refusal(commitment) == "CertificateInvalid"
    verify(mesh_authority().certify(P256, ALICE, extensions={x509.KeyUsage: None}), profile=RFC4945)


@both_profiles
def test_pitfall_11_an_unknown_critical_extension_is_refused(profile: CertificateProfile) -> None:
    leaf = mesh_authority().certify(P256, ALICE, extensions={x509.UnrecognizedExtension: (UNKNOWN, True)})
    assert refusal(leaf, profile=profile) == "CertificateInvalid"
    verify(mesh_authority().certify(P256, ALICE, extensions={x509.UnrecognizedExtension: UNKNOWN}), profile=profile)
    root = Authority("root")
    issuing = Authority("issuing", parent=root, path_length=0, extensions={x509.UnrecognizedExtension: (UNKNOWN, True)})
    assert refusal(issuing.issue(ALICE)[1], issuing.certificate, roots=[root], profile=profile) == "CertificateInvalid"


def test_a_gateways_certificate_may_lack_key_identifiers() -> None:
    root = Authority("root", extensions={x509.SubjectKeyIdentifier: None})
    issuing = Authority(
        "issuing", parent=root, path_length=0, extensions={x509.SubjectKeyIdentifier: None, x509.KeyUsage: None}
    )
    leaf = issuing.certify(P256, ALICE, extensions={x509.AuthorityKeyIdentifier: None})
    verify(leaf, issuing.certificate, roots=[root], profile=RFC4945)
    assert refusal(leaf, issuing.certificate, roots=[root]) == "CertificateInvalid"


# Chains


@both_profiles
def test_pitfall_11_path_lengths_count(profile: CertificateProfile) -> None:
    root = Authority("root", path_length=0)
    issuing = Authority("issuing", parent=root, path_length=0)
    _, leaf = issuing.issue(ALICE)
    assert refusal(leaf, issuing.certificate, roots=[root], profile=profile) == "CertificateInvalid"


@both_profiles
def test_chains_have_a_greatest_length(profile: CertificateProfile) -> None:
    authorities = [Authority("root", path_length=None)]
    for depth in range(6):
        authorities.append(Authority(f"authority {depth}", parent=authorities[-1], path_length=None))
    verify(authorities[4].issue(ALICE)[1], *authorities[4].intermediates, roots=authorities[:1], profile=profile)
    assert (
        refusal(authorities[6].issue(ALICE)[1], *authorities[6].intermediates, roots=authorities[:1], profile=profile)
        == "CertificateInvalid"
    )


@both_profiles
def test_pitfall_11_name_constraints_count(profile: CertificateProfile) -> None:
    root = Authority("root")
    constraint = x509.NameConstraints([x509.DNSName("other.hauberk.internal")], None)
    issuing = Authority("issuing", parent=root, path_length=0, name_constraints=constraint)
    _, leaf = issuing.issue(ALICE)
    assert refusal(leaf, issuing.certificate, roots=[root], profile=profile) == "CertificateInvalid"
    _, leaf = issuing.issue("node.other.hauberk.internal")
    verify(leaf, issuing.certificate, roots=[root], identity="node.other.hauberk.internal", profile=profile)


@both_profiles
@pytest.mark.parametrize(
    "constraint",
    [
        x509.NameConstraints(None, [x509.DirectoryName(x509.Name([]))]),
        x509.NameConstraints([x509.RFC822Name("example.com")], None),
        x509.NameConstraints(None, [x509.UniformResourceIdentifier("example.com")]),
    ],
    ids=["directory name", "mail", "URI"],
)
def test_pitfall_11_name_constraints_that_the_verifier_does_not_know_are_never_ignored(
    constraint: x509.NameConstraints, profile: CertificateProfile
) -> None:
    root = Authority("root")
    issuing = Authority("issuing", parent=root, path_length=0, name_constraints=constraint)
    names = [x509.RFC822Name("a@elsewhere.com"), x509.UniformResourceIdentifier("https://example.com")]
    leaf = issuing.certify(P256, ALICE, names=names, subject=SUBJECT)
    assert refusal(leaf, issuing.certificate, roots=[root], profile=profile) == "CertificateInvalid"


@both_profiles
def test_a_node_is_no_authority(profile: CertificateProfile) -> None:
    key, node = mesh_authority().issue(BOB)
    pretender = Authority("pretender", key=key)
    pretender.name = node.subject
    assert refusal(pretender.issue(ALICE)[1], node, profile=profile) == "CertificateInvalid"


@both_profiles
@pytest.mark.parametrize(
    "extensions",
    [
        {x509.BasicConstraints: (x509.BasicConstraints(ca=False, path_length=None), True)},
        {x509.BasicConstraints: None},
        {x509.KeyUsage: (key_usage(digital_signature=True, crl_sign=True), True)},
    ],
    ids=["not an authority", "nothing said", "for revocation lists only"],
)
def test_pitfall_11_an_authority_says_that_it_is_one(
    extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None], profile: CertificateProfile
) -> None:
    root = Authority("root")
    issuing = Authority("issuing", parent=root, path_length=0, extensions=extensions)
    assert refusal(issuing.issue(ALICE)[1], issuing.certificate, roots=[root], profile=profile) == "CertificateInvalid"


@both_profiles
def test_pitfall_11_an_authority_for_other_purposes_is_none(profile: CertificateProfile) -> None:
    root = Authority("root")
    issuing = Authority(
        "issuing",
        parent=root,
        path_length=0,
        extensions={x509.ExtendedKeyUsage: x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])},
    )
    assert refusal(issuing.issue(ALICE)[1], issuing.certificate, roots=[root], profile=profile) == "CertificateInvalid"


@both_profiles
def test_pitfall_11_a_certificate_that_signed_itself_is_nobodys(profile: CertificateProfile) -> None:
    stranger = Authority("stranger", extensions={x509.BasicConstraints: (x509.BasicConstraints(False, None), True)})
    own = stranger.certify(stranger.key.public_key(), ALICE, subject=stranger.name)
    own.verify_directly_issued_by(own)
    assert refusal(own, profile=profile) == "CertificateInvalid"


@both_profiles
def test_pitfall_11_a_root_is_no_peer(profile: CertificateProfile) -> None:
    names = x509.SubjectAlternativeName([x509.DNSName(ALICE)])
    root = Authority("root", extensions={x509.SubjectAlternativeName: names})
    assert refusal(root.certificate, roots=[root], profile=profile) == "CertificateInvalid"


@both_profiles
def test_an_authority_of_the_same_name_with_another_key_is_another_authority(profile: CertificateProfile) -> None:
    _, leaf = Authority("mesh root").issue(ALICE)
    assert refusal(leaf, profile=profile) == "CertificateInvalid"


def test_a_missing_intermediate_is_not_guessed() -> None:
    root = Authority("root")
    issuing = Authority("issuing", parent=root, path_length=0)
    _, leaf = issuing.issue(ALICE)
    verify(leaf, issuing.certificate, roots=[root])
    assert refusal(leaf, roots=[root]) == "CertificateInvalid"


def test_intermediates_come_in_any_order_and_with_others() -> None:
    root = Authority("root", path_length=None)
    middle = Authority("middle", parent=root)
    issuing = Authority("issuing", parent=middle, path_length=0)
    _, leaf = issuing.issue(ALICE)
    verify(leaf, middle.certificate, Authority("other").certificate, issuing.certificate, roots=[root])


def test_an_expired_copy_of_an_intermediate_is_not_in_the_way_of_the_renewed_one() -> None:
    root = Authority("root")
    begin = TODAY - timedelta(days=20)
    old = Authority("issuing", parent=root, path_length=0, not_before=begin, not_after=TODAY - timedelta(days=1))
    new = Authority("issuing", parent=root, path_length=0, key=old.key)
    _, leaf = new.issue(ALICE)
    verify(leaf, old.certificate, new.certificate, roots=[root])
    verify(leaf, new.certificate, old.certificate, roots=[root])


def test_a_certificate_that_comes_along_and_is_none_does_no_harm() -> None:
    _, leaf = mesh_authority().issue(ALICE)
    unreadable = mesh_authority().certify(ed448.Ed448PrivateKey.generate().public_key(), BOB)
    payloads = [payload(leaf), CertificatePayload.x509(b"not a certificate"), payload(unreadable)]
    assert store().verify(Identity.parse(ALICE), payloads, at=TODAY).certificate == leaf
    with pytest.raises(ExchangeRefused, match="a certificate that is none"):
        store().verify(Identity.parse(ALICE), payloads[1::-1], at=TODAY)


def test_pitfall_9_many_certificates_are_refused_before_they_are_read() -> None:
    _, leaf = mesh_authority().issue(ALICE)
    payloads = [payload(leaf), *[CertificatePayload.x509(b"x")] * (MAX_CERTIFICATES - 1)]
    store().verify(Identity.parse(ALICE), payloads, at=TODAY)
    with pytest.raises(ExchangeRefused, match="9 certificates instead of 1 to 8"):
        store().verify(Identity.parse(ALICE), [*payloads, CertificatePayload.x509(b"x")], at=TODAY)


def test_copies_of_an_intermediate_do_not_multiply_the_verifiers_work() -> None:
    evil = Authority("evil", path_length=None)
    copies = [Authority("evil", key=evil.key, path_length=None).certificate for _ in range(7)]
    assert len({copy.serial_number for copy in copies}) == 7
    with pytest.raises(ExchangeRefused) as caught:
        verify(evil.issue(ALICE)[1], *copies)
    assert "Exceeded maximum signature" not in str(caught.value)


@pytest.mark.parametrize("encoding", [1, 2, 3, 7, 9, 11, 12, 13, 14, 15, 200])
def test_pitfall_9_nothing_but_an_x509_certificate_counts_though_the_bytes_would_be_one(encoding: int) -> None:
    # 12 and 13 are "hash and URL" (CVE-2022-40617).
    _, leaf = mesh_authority().issue(ALICE)
    good = payload(leaf)
    other = CertificatePayload(encoding=encoding, data=good.data)
    with pytest.raises(ExchangeRefused, match="0 certificates"):
        store().verify(Identity.parse(ALICE), [other], at=TODAY)
    assert store().verify(Identity.parse(ALICE), [other, good], at=TODAY).certificate == leaf


# Keys


AUTHORITY_KEYS = {
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "RSA": rsa_key(),
    "ML-DSA-65": mldsa.MLDSA65PrivateKey.generate(),
}


@both_profiles
@pytest.mark.parametrize("kind", AUTHORITY_KEYS)
def test_authorities_of_every_kind_are_believed(kind: str, profile: CertificateProfile) -> None:
    root = Authority("root", key=AUTHORITY_KEYS[kind])
    issuing = Authority("issuing", key=AUTHORITY_KEYS[kind], parent=root, path_length=0)
    chain = (issuing.issue(ALICE)[1], issuing.certificate)
    verify(*chain, roots=[root], profile=profile, ml_dsa=kind == "ML-DSA-65")


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda each: each.name)
def test_certificates_may_be_signed_by_pss(digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512) -> None:
    root = Authority("root", key=rsa_key())
    pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
    verify(root.certify(P256, ALICE, algorithm=digest, rsa_padding=pss), roots=[root])


@both_profiles
def test_an_ed25519_key_is_certified_but_certifies_nothing(profile: CertificateProfile) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    verify(mesh_authority().certify(key.public_key(), ALICE), profile=profile)
    issuing = Authority("issuing", key=key, parent=mesh_authority(), path_length=0)
    assert refusal(issuing.issue(ALICE)[1], issuing.certificate, profile=profile) == "CertificateInvalid"


@both_profiles
def test_an_ml_dsa_key_is_taken_where_it_is_wanted_only(profile: CertificateProfile) -> None:
    leaf = mesh_authority().certify(mldsa.MLDSA65PrivateKey.generate().public_key(), ALICE)
    verify(leaf, profile=profile, ml_dsa=True)
    assert refusal(leaf, profile=profile) == "CertificateInvalid"
    issuing = Authority("issuing", key=AUTHORITY_KEYS["ML-DSA-65"], parent=mesh_authority(), path_length=0)
    chain = (issuing.issue(ALICE)[1], issuing.certificate)
    verify(*chain, profile=profile, ml_dsa=True)
    assert refusal(*chain, profile=profile) == "CertificateInvalid"


@both_profiles
@pytest.mark.parametrize(
    "key",
    [
        rsa_key(1024).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
        mldsa.MLDSA87PrivateKey.generate().public_key(),
    ],
    ids=["RSA of 1024 bits", "secp256k1", "Ed448", "ML-DSA-87"],
)
def test_pitfall_10_a_good_chain_to_a_key_that_we_do_not_verify_with_is_refused(
    key: CertificatePublicKeyTypes, profile: CertificateProfile
) -> None:
    leaf = mesh_authority().certify(key, ALICE)
    assert refusal(leaf, profile=profile, ml_dsa=True) == "CertificateInvalid"


@both_profiles
def test_pitfall_2_a_certificate_that_is_signed_with_sha_1_is_refused(profile: CertificateProfile) -> None:
    # The library signs no such thing; so the algorithm of a good certificate is changed, and it is signed anew.
    root = Authority("root", key=rsa_key())
    good = root.certify(P256, ALICE)
    verify(good, roots=[root], profile=profile)
    rsa_with_sha256, rsa_with_sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    to_sign = good.tbs_certificate_bytes.replace(rsa_with_sha256, rsa_with_sha1)
    signature = rsa_key().sign(to_sign, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    der = (
        good.public_bytes(Encoding.DER)
        .replace(good.tbs_certificate_bytes, to_sign)
        .replace(rsa_with_sha256, rsa_with_sha1)
        .replace(good.signature, signature)
    )
    bad = x509.load_der_x509_certificate(der)
    rsa_key().public_key().verify(bad.signature, bad.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    assert refusal(bad, roots=[root], profile=profile) == "CertificateInvalid"


# What is remembered


def test_a_chain_that_was_good_is_good_as_long_as_all_of_it_is_valid() -> None:
    root = Authority("root", not_after=TODAY + timedelta(hours=3))
    issuing = Authority("issuing", parent=root, path_length=0, not_after=TODAY + timedelta(hours=2))
    _, leaf = issuing.issue(ALICE, not_after=TODAY + timedelta(hours=1))
    for hours, authority, certificate in ((1, issuing, leaf), (2, issuing, None), (3, root, None)):
        believing = store(root)
        if certificate is None:
            _, certificate = authority.issue(ALICE, not_after=TODAY + timedelta(days=1))
        payloads = [payload(certificate), *map(payload, authority.intermediates)]
        identity = Identity.parse(ALICE)
        first = believing.verify(identity, payloads, at=TODAY)
        assert believing.verify(identity, payloads, at=TODAY + timedelta(minutes=59)) is first
        with pytest.raises(ExchangeRefused):
            believing.verify(identity, payloads, at=TODAY + timedelta(hours=hours, seconds=1))
        assert believing.verify(identity, payloads, at=TODAY).certificate == certificate


def test_a_chain_that_was_good_for_one_identity_is_not_for_another() -> None:
    believing = store()
    chain = [payload(mesh_authority().issue(ALICE)[1])]
    believing.verify(Identity.parse(ALICE), chain, at=TODAY)
    for _ in range(2):
        with pytest.raises(ExchangeRefused, match="not for bob"):
            believing.verify(Identity.parse(BOB), chain, at=TODAY)
    believing.verify(Identity.parse(ALICE), chain, at=TODAY)


def test_a_chain_is_remembered_by_all_of_its_bytes() -> None:
    believing = store()
    der = mesh_authority().issue(ALICE)[1].public_bytes(Encoding.DER)
    believing.verify(Identity.parse(ALICE), [CertificatePayload.x509(der)], at=TODAY)
    for changed in (der[:-1] + bytes((der[-1] ^ 1,)), der[:-1], der + b"\0"):
        with pytest.raises(ExchangeRefused):
            believing.verify(Identity.parse(ALICE), [CertificatePayload.x509(changed)], at=TODAY)


def test_pitfall_9_what_is_remembered_is_bounded() -> None:
    believing = store()
    _, leaf = mesh_authority().issue(ALICE)
    identity = Identity.parse(ALICE)
    first = believing.verify(identity, [payload(leaf)], at=TODAY)
    for number in range(MAX_REMEMBERED + 20):
        # The same certificate in ever new company.
        believing.verify(identity, [payload(leaf), CertificatePayload.x509(b"%d" % number)], at=TODAY)
        if number == 10:
            assert believing.verify(identity, [payload(leaf)], at=TODAY) is first
    assert len(believing._verified) == MAX_REMEMBERED  # pyright: ignore[reportPrivateUsage]
    assert believing.verify(identity, [payload(leaf)], at=TODAY) is not first  # it was used least recently


def test_nothing_bad_is_remembered() -> None:
    believing = store()
    with pytest.raises(ExchangeRefused):
        believing.verify(Identity.parse(ALICE), [payload(Authority("other").issue(ALICE)[1])], at=TODAY)
    assert not believing._verified  # pyright: ignore[reportPrivateUsage]


# Words for logs, and the request


def test_pitfall_3_a_certificates_own_words_do_not_reach_the_log_as_they_are() -> None:
    _, leaf = Authority("evil\nroot").issue(ALICE, common_name="evil\n\x1b[2Jname")
    assert refusal(leaf) == "CertificateInvalid"


@both_profiles
def test_pitfall_3_what_the_verifier_says_of_a_certificate_is_escaped(profile: CertificateProfile) -> None:
    leaf = mesh_authority().certify(
        P256, ALICE, common_name="evil\n\x1b[2Jname", usages=[ExtendedKeyUsageOID.CODE_SIGNING]
    )
    with pytest.raises(ExchangeRefused, match=r"evil") as caught:
        verify(leaf, profile=profile)
    assert str(caught.value).isprintable()


@both_profiles
def test_pitfall_3_a_subject_with_a_country_of_many_letters_is_no_warning_of_python(
    profile: CertificateProfile,
) -> None:
    # A country of seven letters: SEQUENCE { SET { SEQUENCE { 2.5.4.6, UTF8String "Germany" } } }.
    data = bytes.fromhex("30123110300e06035504060c07") + b"Germany"
    identity = Identity.parse(f"dn:0x{data.hex()}")
    with pytest.warns(UserWarning, match="length"):
        subject = x509.Name.from_bytes(data)
    good, bad = mesh_authority(), Authority("other")
    verify(good.certify(P256, ALICE, subject=subject), identity=identity, profile=profile)
    assert (
        refusal(bad.certify(P256, ALICE, subject=subject), identity=identity, profile=profile) == "CertificateInvalid"
    )


def test_the_certificate_request_names_the_roots() -> None:
    one, other = Authority("one"), Authority("two")
    request = store(one, other).request
    identifiers = [x509.SubjectKeyIdentifier.from_public_key(each.key.public_key()).digest for each in (one, other)]
    # RFC 7296 section 3.7 hashes the whole SubjectPublicKeyInfo, X.509's key identifier its bits alone.
    assert len(request.authorities) == 40
    assert request.authorities[:20] not in identifiers


def test_a_version_that_no_certificate_has_is_refused() -> None:
    """The library has an exception of its own for it, which is no ValueError."""
    _, leaf = mesh_authority().issue(ALICE)
    version_3, version_43 = bytes.fromhex("a003020102"), bytes.fromhex("a00302012a")
    der = leaf.public_bytes(Encoding.DER)
    assert version_3 in der
    with pytest.raises(ExchangeRefused, match="a certificate that is none"):
        store().verify(Identity.fqdn(ALICE), [CertificatePayload.x509(der.replace(version_3, version_43, 1))], at=TODAY)
