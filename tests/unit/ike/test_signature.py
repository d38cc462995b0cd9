"""Signatures in AUTH payloads: what is made, what is verified, and all that is not (pitfalls 2, 10 and 11)."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from hauberk_ike import signature
from hauberk_ike.errors import ExchangeRefused
from hauberk_ike.numbers import AuthMethod, HashAlgorithm, NotifyType
from hauberk_ike.signature import (
    ECDSA_SHA256,
    ECDSA_SHA384,
    ECDSA_SHA512,
    ED25519,
    HASH_ALGORITHMS,
    ML_DSA_65,
    PSS_SHA256,
    PSS_SHA384,
    PSS_SHA512,
    SCHEMES,
    PrivateKey,
    PublicKey,
    SignatureScheme,
    certified_key,
    parse_hash_algorithms,
    schemes_for,
    schemes_of,
    sign,
)
from hauberk_ike.wire.payloads import Authentication
from tests.unit.ike.authority import Authority, rsa_key

OCTETS = b"what both ends have seen"
ALL = parse_hash_algorithms(HASH_ALGORITHMS)
NONE: frozenset[int] = frozenset()

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED = ed25519.Ed25519PrivateKey.generate()
ML = mldsa.MLDSA65PrivateKey.generate()


def made(key: PrivateKey, peer_hashes: frozenset[int] = ALL) -> Authentication:
    return sign(key, schemes_for(key), OCTETS, peer_hashes)


def method_14(identifier: bytes, signature: bytes) -> Authentication:
    return Authentication(method=AuthMethod.DIGITAL_SIGNATURE, data=bytes((len(identifier),)) + identifier + signature)


def verify(key: PublicKey, auth: Authentication, octets: bytes) -> None:
    signature.verify(key, schemes_of(key), auth, octets)


def refusal(key: PublicKey, auth: Authentication, octets: bytes = OCTETS) -> str:
    with pytest.raises(ExchangeRefused) as caught:
        verify(key, auth, octets)
    assert caught.value.notify is NotifyType.AUTHENTICATION_FAILED
    assert caught.value.reason == "SignatureInvalid"
    return str(caught.value)


# What is signed with, and what is verified


@pytest.mark.parametrize(
    ("key", "scheme"),
    [
        (P256, ECDSA_SHA256),
        (P384, ECDSA_SHA384),
        (P521, ECDSA_SHA512),
        (rsa_key(), PSS_SHA256),
        (ED, ED25519),
        (ML, ML_DSA_65),
    ],
    ids=lambda each: each.name if isinstance(each, SignatureScheme) else "",
)
def test_every_key_signs_with_its_own_scheme_and_its_public_key_verifies(
    key: PrivateKey, scheme: SignatureScheme
) -> None:
    auth = made(key)
    assert auth.method == 14
    assert auth.data[: 1 + auth.data[0]] == bytes((len(scheme.identifier),)) + scheme.identifier
    verify(key.public_key(), auth, OCTETS)
    assert refusal(key.public_key(), auth, OCTETS + b"\0") == "the signature is wrong"
    assert refusal(key.public_key(), Authentication(method=14, data=auth.data[:-1])) == "the signature is wrong"


@pytest.mark.parametrize(
    ("key", "schemes"),
    [
        (P256, [ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512]),
        (P384, [ECDSA_SHA384, ECDSA_SHA512]),
        (P521, [ECDSA_SHA512]),
        (rsa_key(), [PSS_SHA256, PSS_SHA384, PSS_SHA512]),
        (ED, [ED25519]),
        (ML, [ML_DSA_65]),
    ],
    ids=["P-256", "P-384", "P-521", "RSA", "Ed25519", "ML-DSA-65"],
)
def test_we_sign_with_a_hash_that_the_peer_takes_and_that_is_not_weaker_than_the_key(
    key: PrivateKey, schemes: list[SignatureScheme]
) -> None:
    for hash_id in HashAlgorithm:
        fitting = [scheme for scheme in schemes if scheme.hash_id is hash_id]
        if fitting:
            auth = made(key, frozenset({hash_id}))
            assert auth.data[1 : 1 + auth.data[0]] == fitting[0].identifier
            verify(key.public_key(), auth, OCTETS)
        else:
            with pytest.raises(ExchangeRefused, match="does not take signatures"):
                made(key, frozenset({hash_id}))


def test_hash_algorithms_are_read_with_an_odd_byte_at_the_end() -> None:
    assert parse_hash_algorithms(bytes.fromhex("00010002ff")) == {1, 2}
    assert parse_hash_algorithms(b"") == parse_hash_algorithms(b"\0") == NONE
    assert {2, 3, 4, 5} == ALL


@pytest.mark.parametrize("scheme", [PSS_SHA256, PSS_SHA384, PSS_SHA512], ids=lambda scheme: scheme.name)
def test_the_pss_identifiers_are_what_another_encoder_writes(scheme: SignatureScheme) -> None:
    # RFC 7427 appendix A.4 lists them. A certificate that is signed so holds the same bytes, by `cryptography`'s hand.
    digests = {2: hashes.SHA256(), 3: hashes.SHA384(), 4: hashes.SHA512()}
    digest = digests[scheme.hash_id]
    certificate = Authority("rsa", key=rsa_key()).certify(
        P256.public_key(),
        "node",
        algorithm=digest,
        rsa_padding=padding.PSS(padding.MGF1(digest), digest.digest_size),
    )
    assert certificate.tbs_certificate_bytes.count(scheme.identifier) == 1


def test_the_other_identifiers_are_what_another_encoder_writes() -> None:
    # RFC 7427 appendix A.3, RFC 8410 section 3, RFC 9881 section 2.
    ecdsa = Authority("ecdsa", key=P256)
    for digest, scheme in (
        (hashes.SHA256(), ECDSA_SHA256),
        (hashes.SHA384(), ECDSA_SHA384),
        (hashes.SHA512(), ECDSA_SHA512),
    ):
        certificate = ecdsa.certify(P256.public_key(), "node", algorithm=digest)
        assert certificate.tbs_certificate_bytes.count(scheme.identifier) == 1
    for key, scheme in ((ED, ED25519), (ML, ML_DSA_65)):
        certificate = Authority("pure", key=key).certify(P256.public_key(), "node")
        assert certificate.tbs_certificate_bytes.count(scheme.identifier) == 1


@pytest.mark.parametrize("key", [P256, P384, P521], ids=["P-256", "P-384", "P-521"])
def test_a_peer_may_sign_with_any_hash_that_we_have_named_whatever_its_curve(key: ec.EllipticCurvePrivateKey) -> None:
    # OpenIKED 7.4 signs with SHA-256 on every curve. RFC 7427 ties no hash to a curve.
    for digest, scheme in (
        (hashes.SHA256(), ECDSA_SHA256),
        (hashes.SHA384(), ECDSA_SHA384),
        (hashes.SHA512(), ECDSA_SHA512),
    ):
        auth = method_14(scheme.identifier, key.sign(OCTETS, ec.ECDSA(digest)))
        verify(key.public_key(), auth, OCTETS)
        assert refusal(key.public_key(), auth, OCTETS + b"\0") == "the signature is wrong"


# RFC 4754: what peers without RFC 7427 do


@pytest.mark.parametrize(
    ("method", "curve", "x", "y", "r", "s"),
    [
        # RFC 4754 section 8.1 and 8.2; the message is "abc".
        (
            9,
            ec.SECP256R1(),
            "2442a5cc0ecd015fa3ca31dc8e2bbc70bf42d60cbca20085e0822cb04235e970",
            "6fc98bd7e50211a4a27102fa3549df79ebcb4bf246b80945cddfe7d509bbfd7d",
            "cb28e0999b9c7715fd0a80d8e47a77079716cbbf917dd72e97566ea1c066957c",
            "86fa3bb4e26cad5bf90b7f81899256ce7594bb1ea0c89212748bff3b3d5b0315",
        ),
        (
            10,
            ec.SECP384R1(),
            "96281bf8dd5e0525ca049c048d345d3082968d10fedf5c5aca0c64e6465a97ea5ce10c9dfec21797415710721f437922",
            "447688ba94708eb6e2e4d59f6ab6d7edff9301d249fe49c33096655f5d502fad3d383b91c5e7edaa2b714cc99d5743ca",
            "fb017b914e29149432d8bac29a514640b46f53ddab2c69948084e2930f1c8f7e08e07c9c63f2d21a07dcb56a6af56eb3",
            "b263a1305e057f984d38726a1b46874109f417bca112674c528262a40a629af1cbb9f516ce0fa7d2ff630863a00e8b9f",
        ),
    ],
)
def test_the_rfcs_signatures_are_verified(method: int, curve: ec.EllipticCurve, x: str, y: str, r: str, s: str) -> None:
    key = ec.EllipticCurvePublicNumbers(int(x, 16), int(y, 16), curve).public_key()
    verify(key, Authentication(method=method, data=bytes.fromhex(r + s)), b"abc")
    assert refusal(key, Authentication(method=method, data=bytes.fromhex(s + r)), b"abc") == "the signature is wrong"


@pytest.mark.parametrize(
    ("key", "method", "length"), [(P256, 9, 64), (P384, 10, 96), (P521, 11, 132)], ids=["P-256", "P-384", "P-521"]
)
def test_a_peer_that_names_no_hashes_gets_the_methods_of_rfc_4754(
    key: ec.EllipticCurvePrivateKey, method: int, length: int
) -> None:
    auth = made(key, NONE)
    assert (auth.method, len(auth.data)) == (method, length)
    verify(key.public_key(), auth, OCTETS)
    for data in (auth.data[:-1], auth.data + b"\0", bytes(length), b"\0" + auth.data):
        assert refusal(key.public_key(), Authentication(method=method, data=data)) == "the signature is wrong"


def test_a_signature_of_rfc_4754_has_its_zeros() -> None:
    # The second number's first byte is zero for every other signature on P-521: left out, the value is the same.
    auth = made(P521, NONE)
    while auth.data[66]:
        auth = made(P521, NONE)
    verify(P521.public_key(), auth, OCTETS)
    shorter = Authentication(method=11, data=auth.data[:66] + auth.data[67:])
    assert refusal(P521.public_key(), shorter) == "the signature is wrong"


def test_a_peer_that_names_hashes_gets_nothing_older() -> None:
    with pytest.raises(ExchangeRefused, match="does not take signatures by ECDSA with sha256"):
        made(P256, frozenset({1}))


@pytest.mark.parametrize("key", [rsa_key(), ED, ML], ids=["RSA", "Ed25519", "ML-DSA-65"])
def test_pitfall_2_other_keys_have_no_older_method(key: PrivateKey) -> None:
    # For RSA it would be method 1, which is PKCS#1 v1.5.
    with pytest.raises(ExchangeRefused, match="does not take signatures"):
        made(key, NONE)


def test_a_method_of_rfc_4754_is_for_its_own_curve() -> None:
    for method, key in ((9, P384), (10, P256), (11, P256), (9, rsa_key())):
        length = {9: 64, 10: 96, 11: 132}[method]
        message = refusal(key.public_key(), Authentication(method=method, data=bytes(length)))
        assert message == "the signature algorithm does not fit the certificate's key"


# What is refused, though the signature is good


def rsa_signature(scheme: padding.PKCS1v15 | padding.PSS, algorithm: hashes.HashAlgorithm) -> bytes:
    return rsa_key().sign(OCTETS, scheme, algorithm)


SHA256_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


@pytest.mark.parametrize(
    ("identifier", "signature"),
    [
        ("300d06092a864886f70d01010b0500", rsa_signature(padding.PKCS1v15(), hashes.SHA256())),
        ("300d06092a864886f70d01010d0500", rsa_signature(padding.PKCS1v15(), hashes.SHA512())),
        ("300d06092a864886f70d0101050500", rsa_signature(padding.PKCS1v15(), hashes.SHA1())),  # noqa: S303
        # PSS with its defaults, which are SHA-1, MGF1 with SHA-1, and a salt of 20 bytes.
        (
            "300d06092a864886f70d01010a3000",
            rsa_signature(padding.PSS(padding.MGF1(hashes.SHA1()), 20), hashes.SHA1()),  # noqa: S303
        ),
        # PSS with SHA-256 and no salt; with SHA-256, but MGF1 with SHA-1 by default.
        (
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
            "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020100",
            rsa_signature(padding.PSS(padding.MGF1(hashes.SHA256()), 0), hashes.SHA256()),
        ),
        (
            "302306092a864886f70d01010a3016a00f300d06096086480165030402010500a203020120",
            rsa_signature(padding.PSS(padding.MGF1(hashes.SHA1()), 32), hashes.SHA256()),  # noqa: S303
        ),
        # The right parameters, and a trailer field that is the default and must not be there.
        (
            "304606092a864886f70d01010a3039a00f300d06096086480165030402010500"
            "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101",
            rsa_signature(SHA256_PSS, hashes.SHA256()),
        ),
        # The right ones, with a byte behind them.
        (f"{PSS_SHA256.identifier.hex()}00", rsa_signature(SHA256_PSS, hashes.SHA256())),
        ("", rsa_signature(SHA256_PSS, hashes.SHA256())),
    ],
    ids=[
        "PKCS#1 v1.5 with SHA-256",
        "PKCS#1 v1.5 with SHA-512",
        "PKCS#1 v1.5 with SHA-1",
        "PSS with defaults",
        "PSS without salt",
        "PSS with another MGF1",
        "PSS with a trailer field",
        "PSS with a byte too many",
        "nothing",
    ],
)
def test_pitfall_2_rsa_is_pss_with_the_one_set_of_parameters(identifier: str, signature: bytes) -> None:
    # CVE-2018-16151, CVE-2021-41990: each signature is good for what its identifier says.
    auth = method_14(bytes.fromhex(identifier), signature)
    assert refusal(rsa_key().public_key(), auth) == "the signature algorithm is not supported"


def test_pitfall_2_parameters_are_those_of_the_identifier_and_not_those_of_the_signature() -> None:
    for pss, digest in (
        (padding.PSS(padding.MGF1(hashes.SHA256()), 0), hashes.SHA256()),
        (padding.PSS(padding.MGF1(hashes.SHA256()), 64), hashes.SHA256()),
        (padding.PSS(padding.MGF1(hashes.SHA512()), 32), hashes.SHA256()),
        (padding.PKCS1v15(), hashes.SHA256()),
    ):
        auth = method_14(PSS_SHA256.identifier, rsa_signature(pss, digest))
        assert refusal(rsa_key().public_key(), auth) == "the signature is wrong"


def test_pitfall_2_method_1_is_refused() -> None:
    # RFC 7296 section 3.8: RSA Digital Signature, with SHA-1 or whatever hash the signature says.
    for digest in (hashes.SHA1(), hashes.SHA256()):  # noqa: S303
        auth = Authentication(method=1, data=rsa_signature(padding.PKCS1v15(), digest))
        assert refusal(rsa_key().public_key(), auth) == "authentication method 1 is not supported"


def test_pitfall_2_ecdsa_with_sha_1_is_refused() -> None:
    signature = P256.sign(OCTETS, ec.ECDSA(hashes.SHA1()))  # noqa: S303
    auth = method_14(bytes.fromhex("300906072a8648ce3d0401"), signature)
    assert refusal(P256.public_key(), auth) == "the signature algorithm is not supported"


@pytest.mark.parametrize(
    ("digest", "identifier"),
    [(hashes.SHA224(), "300a06082a8648ce3d040301"), (hashes.SHA3_256(), "300b060960864801650304030a")],
    ids=["SHA-224", "SHA3-256"],
)
def test_pitfall_2_a_hash_that_we_have_not_named_is_refused(digest: hashes.HashAlgorithm, identifier: str) -> None:
    # RFC 7427 section 4: a peer picks among those that were named to it. OIDs: RFC 5758 section 3.2, RFC 9688.
    for key in (P256, P384, P521):
        auth = method_14(bytes.fromhex(identifier), key.sign(OCTETS, ec.ECDSA(digest)))
        assert refusal(key.public_key(), auth) == "the signature algorithm is not supported"


def test_all_schemes_use_hashes_that_we_have_named() -> None:
    assert {scheme.hash_id for scheme in SCHEMES} == ALL


def test_pitfall_10_a_signature_by_one_kind_of_key_is_none_by_another() -> None:
    keys: list[PrivateKey] = [P256, P384, P521, rsa_key(), ED, ML]
    for signer in keys:
        auth = made(signer)
        for other in keys:
            if type(other) is not type(signer):
                message = refusal(other.public_key(), auth)
                assert message == "the signature algorithm does not fit the certificate's key"


def test_ml_dsa_is_pure_with_an_empty_context() -> None:
    # draft-ietf-ipsecme-ikev2-pqc-auth, "Signature Generation and Verification".
    ML.public_key().verify(made(ML).data[14:], OCTETS, b"")
    auth = method_14(ML_DSA_65.identifier, ML.sign(OCTETS, b"IKEv2"))
    assert refusal(ML.public_key(), auth) == "the signature is wrong"


@pytest.mark.parametrize(
    ("e", "n", "message"),
    [
        (65537, (1 << 1023) + 1, "2048 to 8192 bits, not 1024"),
        (65537, (1 << 2046) + 1, "2048 to 8192 bits, not 2047"),
        (65537, (1 << 8192) + 1, "2048 to 8192 bits, not 8193"),
        ((1 << 33) + 1, (1 << 2047) + 1, "exponent is too long"),
    ],
)
def test_pitfall_10_rsa_keys_have_limits(e: int, n: int, message: str) -> None:
    # Not even the products of two primes: nothing was computed with them.
    with pytest.raises(ExchangeRefused, match=message):
        certified_key(Authority().certify(rsa.RSAPublicNumbers(e=e, n=n).public_key(), "node"))


def test_rsa_keys_at_the_limits_are_taken() -> None:
    for bits in (2048, 8192):
        public_key = rsa.RSAPublicNumbers(e=65537, n=(1 << (bits - 1)) + 1).public_key()
        assert certified_key(Authority().certify(public_key, "node")) == public_key


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.BrainpoolP256R1()),
        ed448.Ed448PrivateKey.generate(),
        mldsa.MLDSA44PrivateKey.generate(),
        dsa.generate_private_key(2048),
    ],
    ids=["secp256k1", "brainpool", "Ed448", "ML-DSA-44", "DSA"],
)
def test_pitfall_10_other_keys_verify_nothing(key: CertificateIssuerPrivateKeyTypes | dsa.DSAPrivateKey) -> None:
    with pytest.raises(ExchangeRefused, match=r"not supported|not on") as caught:
        certified_key(Authority().certify(key.public_key(), "node"))
    assert caught.value.reason == "CertificateInvalid"
