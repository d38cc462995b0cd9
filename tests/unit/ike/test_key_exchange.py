"""Key exchange methods against published vectors, against arithmetic of another kind, and against bad public values."""

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk_ike.algorithms import KEY_EXCHANGES
from hauberk_ike.errors import MalformedMessage
from hauberk_ike.key_exchange import check_public_value, generate_key_pair, respond
from hauberk_ike.modp import MODP_2048, MODP_3072, MODP_4096, ModpGroup, ModpKeyPair
from tests.unit.ike.ml_kem_vectors import (
    CIPHERTEXT_768,
    CIPHERTEXT_1024,
    KEY_SHA256_768,
    KEY_SHA256_1024,
    SECRET_768,
    SECRET_1024,
    SEED_768,
    SEED_1024,
)

EVERY_METHOD = pytest.mark.parametrize("word", KEY_EXCHANGES)
MODP = pytest.mark.parametrize("group", [MODP_2048, MODP_3072, MODP_4096], ids=lambda group: str(group.size * 8))
ML_KEM = pytest.mark.parametrize(
    ("word", "seed", "key_sha256", "ciphertext", "secret"),
    [
        ("mlkem768", SEED_768, KEY_SHA256_768, CIPHERTEXT_768, SECRET_768),
        ("mlkem1024", SEED_1024, KEY_SHA256_1024, CIPHERTEXT_1024, SECRET_1024),
    ],
    ids=["768", "1024"],
)


def repeated(byte: int) -> Callable[[int], bytes]:
    """Entropy that has none."""
    return lambda length: bytes((byte,)) * length


@EVERY_METHOD
def test_both_sides_agree_and_what_they_send_has_its_length(word: str) -> None:
    method = KEY_EXCHANGES[word]
    ours = generate_key_pair(method, repeated(0x11))
    check_public_value(method, ours.public)
    answer, shared = respond(method, ours.public, repeated(0x22))
    assert len(answer) == method.answer_length
    assert ours.shared(answer) == shared


@EVERY_METHOD
def test_a_key_is_the_entropys_alone(word: str) -> None:
    method = KEY_EXCHANGES[word]
    assert generate_key_pair(method, repeated(0x11)).public == generate_key_pair(method, repeated(0x11)).public
    assert generate_key_pair(method, repeated(0x11)).public != generate_key_pair(method, repeated(0x12)).public


@EVERY_METHOD
@given(length=st.integers(0, 1700))
def test_pitfall_10_a_public_value_has_exactly_its_methods_length(word: str, length: int) -> None:
    method = KEY_EXCHANGES[word]
    if length == method.public_length:
        check_public_value(method, bytes(length))
    else:
        with pytest.raises(MalformedMessage):
            check_public_value(method, bytes(length))


@EVERY_METHOD
@pytest.mark.parametrize("change", [-1, 1])
def test_pitfall_10_neither_side_takes_a_value_that_is_one_byte_off(word: str, change: int) -> None:
    method = KEY_EXCHANGES[word]
    ours = generate_key_pair(method, repeated(0x11))
    answer, _ = respond(method, ours.public, repeated(0x22))
    with pytest.raises(MalformedMessage):
        respond(method, (ours.public + b"\1")[: method.public_length + change], repeated(0x22))
    with pytest.raises(MalformedMessage):
        ours.shared((answer + b"\1")[: method.answer_length + change])


@EVERY_METHOD
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_whatever_a_peer_sends_is_a_secret_or_malformed(word: str, data: st.DataObject) -> None:
    method = KEY_EXCHANGES[word]
    ours = generate_key_pair(method, repeated(0x11))
    public = data.draw(st.binary(min_size=method.public_length, max_size=method.public_length) | st.binary())
    answer = data.draw(st.binary(min_size=method.answer_length, max_size=method.answer_length) | st.binary())
    with suppress(MalformedMessage):
        respond(method, public, repeated(0x22))
        assert len(public) == method.public_length
    with suppress(MalformedMessage):
        ours.shared(answer)
        assert len(answer) == method.answer_length


# X25519


def test_x25519_is_rfc_7748s() -> None:
    # Origin: RFC 7748 section 6.1.
    secret_a = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    secret_b = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice = generate_key_pair(KEY_EXCHANGES["x25519"], lambda _: secret_a)
    bob, shared = respond(KEY_EXCHANGES["x25519"], alice.public, lambda _: secret_b)
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert alice.shared(bob) == shared
    assert shared.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


# Points of small order on the curve and on its twist, also as numbers that are not reduced: RFC 7748 section 6.1 wants
# the all-zero secret refused. Origin: the list in the CFRG's discussion of it, "may the fourth be with you" (Cr.yp.to,
# ecdh.html, "How do I validate Curve25519 public keys?").
@pytest.mark.parametrize(
    "public",
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_pitfall_10_points_of_small_order_are_refused(public: str) -> None:
    with pytest.raises(MalformedMessage):
        respond(KEY_EXCHANGES["x25519"], bytes.fromhex(public), repeated(0x11))


# NIST's curves. Origin: RFC 5903 sections 8.1, 8.2 and 8.3.

RFC_5903 = [
    (
        "ecp256",
        "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
        "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180"
        "5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
        "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53",
        "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63"
        "56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
        "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
    ),
    (
        "ecp384",
        "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
        "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6DE3AC808ACB4BDB4C88732AEE95F41AA"
        "9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
        "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942E0308312916B8ED2960E4BD55A7448FC",
        "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571"
        "DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
        "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746",
    ),
    (
        "ecp521",
        "0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A0"
        "95AA85A30FE1C2952C6771D937BA9777F5957B2639BAB072462F68C27A57382D4A52",
        "0015417E84DBF28C0AD3C278713349DC7DF153C897A1891BD98BAB4357C9ECBE"
        "E1E3BF42E00B8E380AEAE57C2D107564941885942AF5A7F4601723C4195D176CED3E"
        "017CAE20B6641D2EEB695786D8C946146239D099E18E1D5A514C739D7CB4A10A"
        "D8A788015AC405D7799DC75E7B7D5B6CF2261A6A7F1507438BF01BEB6CA3926F9582",
        "0145BA99A847AF43793FDD0E872E7CDFA16BE30FDC780F97BCCC3F078380201E"
        "9C677D600B343757A3BDBF2A3163E4C2F869CCA7458AA4A4EFFC311F5CB151685EB9",
        "00D0B3975AC4B799F5BEA16D5E13E9AF971D5E9B984C9F39728B5E5739735A21"
        "9B97C356436ADC6E95BB0352F6BE64A6C2912D4EF2D0433CED2B6171640012D9460F"
        "015C68226383956E3BD066E797B623C27CE0EAC2F551A10C2C724D9852077B87"
        "220B6536C5C408A1D2AEBB8E86D678AE49CB57091F4732296579AB44FCD17F0FC56A",
        "01144C7D79AE6956BC8EDB8E7C787C4521CB086FA64407F97894E5E6B2D79B04"
        "D1427E73CA4BAA240A34786859810C06B3C715A3A8CC3151F2BEE417996D19F3DDEA",
    ),
]


@pytest.mark.parametrize(("word", "i", "g_i", "r", "g_r", "g_ir"), RFC_5903, ids=[row[0] for row in RFC_5903])
def test_the_curves_are_rfc_5903s(word: str, i: str, g_i: str, r: str, g_r: str, g_ir: str) -> None:
    # A key is the entropy's number reduced, plus one.
    initiator = generate_key_pair(KEY_EXCHANGES[word], lambda n: (int(i, 16) - 1).to_bytes(n))
    answer, shared = respond(KEY_EXCHANGES[word], initiator.public, lambda n: (int(r, 16) - 1).to_bytes(n))
    assert initiator.public == bytes.fromhex(g_i)
    assert answer == bytes.fromhex(g_r)
    assert shared == initiator.shared(answer) == bytes.fromhex(g_ir)


@pytest.mark.parametrize("word", ["ecp256", "ecp384", "ecp521"])
@pytest.mark.parametrize("byte", [0, 1, 255])
def test_pitfall_10_points_off_the_curve_are_refused(word: str, byte: int) -> None:
    method = KEY_EXCHANGES[word]
    ours = generate_key_pair(method, repeated(0x11))
    for public in (
        bytes(method.public_length),
        bytes((byte,)) + bytes(method.public_length - 1),
        bytes((byte,)) * method.public_length,
        ours.public[:-1] + bytes((ours.public[-1] ^ 1,)),
    ):
        with pytest.raises(MalformedMessage):
            ours.shared(public)


# MODP


def pi(bits: int) -> int:
    """The integer part of 2^bits pi, by Machin's formula: pi = 16 arctan(1/5) - 4 arctan(1/239)."""
    guard = 64

    def arctan_of_one_over(x: int) -> int:
        power = total = (1 << (bits + guard)) // x
        divisor, sign = 3, -1
        while power:
            power //= x * x
            total += sign * (power // divisor)
            divisor, sign = divisor + 2, -sign
        return total

    return (16 * arctan_of_one_over(5) - 4 * arctan_of_one_over(239)) >> guard


@pytest.mark.parametrize(
    ("group", "bits", "offset"),
    [(MODP_2048, 2048, 124476), (MODP_3072, 3072, 1690314), (MODP_4096, 4096, 240904)],
)
def test_the_primes_are_what_rfc_3526_says_they_are(group: ModpGroup, bits: int, offset: int) -> None:
    # Origin: RFC 3526 sections 3 to 5, the sentence "The prime is:" of each.
    assert group.size == bits // 8
    assert group.prime == 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (pi(bits - 130) + offset)


@MODP
@given(secret=st.integers(1, 2**320), other=st.integers(1, 2**480))
@settings(max_examples=5, deadline=None)
def test_modp_is_modular_exponentiation(group: ModpGroup, secret: int, other: int) -> None:
    pair = ModpKeyPair(group, secret)
    assert pair.public == pow(2, secret, group.prime).to_bytes(group.size)
    theirs = pow(2, other, group.prime)
    assert pair.shared(theirs.to_bytes(group.size)) == pow(theirs, secret, group.prime).to_bytes(group.size)


@MODP
def test_modp_values_keep_their_leading_zeros(group: ModpGroup) -> None:
    assert ModpKeyPair(group, 3).public == bytes(group.size - 1) + b"\x08"
    assert ModpKeyPair(group, 3).shared(bytes(group.size - 1) + b"\x02") == bytes(group.size - 1) + b"\x08"


@MODP
def test_pitfall_10_modp_values_out_of_range_are_refused(group: ModpGroup) -> None:
    # RFC 6989 section 2.1: 1 and p - 1 have orders 1 and 2, and 0, p and more are no elements at all.
    pair = ModpKeyPair.generate(group, repeated(0x11))
    for value in (0, 1, group.prime - 1, group.prime, group.prime + 1, 2 ** (8 * group.size) - 1):
        with pytest.raises(MalformedMessage):
            pair.shared(value.to_bytes(group.size))
    assert pair.shared((2).to_bytes(group.size)) == pair.public


# ML-KEM


@ML_KEM
def test_ml_kem_is_fips_203s(word: str, seed: bytes, key_sha256: str, ciphertext: bytes, secret: bytes) -> None:
    pair = generate_key_pair(KEY_EXCHANGES[word], lambda _: seed)
    assert sha256(pair.public).hexdigest() == key_sha256
    assert pair.shared(ciphertext) == secret


@ML_KEM
@given(index=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_ciphertext_that_was_tampered_with_gives_another_secret(
    word: str, seed: bytes, key_sha256: str, ciphertext: bytes, secret: bytes, index: int, change: int
) -> None:
    pair = generate_key_pair(KEY_EXCHANGES[word], lambda _: seed)
    damaged = bytearray(ciphertext)
    damaged[index % len(damaged)] ^= change
    rejected = pair.shared(bytes(damaged))
    assert rejected != secret
    assert rejected == pair.shared(bytes(damaged))


@pytest.mark.parametrize("word", ["mlkem768", "mlkem1024"])
@pytest.mark.parametrize("position", [0, 3, -35])
@pytest.mark.parametrize("coefficient", [3329, 4095])
def test_pitfall_10_an_encapsulation_key_with_a_coefficient_beyond_the_modulus_is_refused(
    word: str, position: int, coefficient: int
) -> None:
    # FIPS 203 section 7.2: each 12 bits of the key, but for its last 32 bytes, are less than q = 3329.
    method = KEY_EXCHANGES[word]
    key = bytearray(generate_key_pair(method, repeated(0x11)).public)
    position %= len(key)
    three = (int.from_bytes(key[position : position + 3], "little") & ~0xFFF) | coefficient
    key[position : position + 3] = three.to_bytes(3, "little")
    with pytest.raises(MalformedMessage):
        respond(method, bytes(key), repeated(0x22))


def test_ml_kems_encapsulation_is_never_the_same() -> None:
    # Its randomness is the library's, not the entropy's.
    method = KEY_EXCHANGES["mlkem768"]
    public = generate_key_pair(method, repeated(0x11)).public
    assert respond(method, public, repeated(0x22)) != respond(method, public, repeated(0x22))
