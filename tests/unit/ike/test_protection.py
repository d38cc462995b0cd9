"""Encrypted messages: the layouts of RFC 5282 and RFC 7296, recomputed with ciphers by other means than ours."""

import hmac
import os
from collections.abc import Callable
from contextlib import suppress

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike.algorithms import CHACHA20POLY1305, ENCRYPTIONS, INTEGRITIES
from hauberk_ike.errors import IntegrityFailed, MalformedMessage, ProtocolError
from hauberk_ike.keys import IkeKeys, expand_ike_keys
from hauberk_ike.numbers import ExchangeType, NotifyType, PayloadType
from hauberk_ike.payload_cipher import AeadCipher
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.protection import Protection
from hauberk_ike.wire.header import HEADER, Header
from hauberk_ike.wire.message import GENERIC, build_payloads, parse_payloads
from hauberk_ike.wire.payloads import Nonce, Notify

PAYLOADS = (Nonce(data=bytes(range(32))), Notify(type=16384))
START = HEADER.size + GENERIC.size

GCM = IkeProposal.parse("aes128gcm16-prfsha256-x25519")
CBC = IkeProposal.parse("aes128-sha256-x25519")
AEADS = [IkeProposal.parse(f"{each.word}-prfsha256-x25519") for each in ENCRYPTIONS.values() if each.is_aead]
CBCS = [
    IkeProposal.parse(f"{cipher.word}-{integrity}-x25519")
    for cipher in ENCRYPTIONS.values()
    if not cipher.is_aead
    for integrity in INTEGRITIES
]
EVERY_AEAD = pytest.mark.parametrize("proposal", AEADS, ids=str)
EVERY_CBC = pytest.mark.parametrize("proposal", CBCS, ids=str)
EVERY_CIPHER = pytest.mark.parametrize("proposal", [*AEADS, *CBCS], ids=str)
BOTH_WAYS = pytest.mark.parametrize("proposal", [GCM, CBC], ids=str)


def pair_of(proposal: IkeProposal) -> tuple[Protection, Protection, IkeKeys]:
    """Initiator, responder, and what they know."""
    keys = expand_ike_keys(proposal, skeyseed=b"any", seed=b"thing")
    return (
        Protection(proposal, keys, initiator=True, entropy=os.urandom),
        Protection(proposal, keys, initiator=False, entropy=os.urandom),
        keys,
    )


def seal(protection: Protection, message_id: int = 1, nonce: bytes = PAYLOADS[0].data) -> bytes:
    return protection.seal(
        spi_i=b"initiatr",
        spi_r=b"respondr",
        exchange_type=ExchangeType.INFORMATIONAL,
        flags=8,
        message_id=message_id,
        payloads=(Nonce(data=nonce), PAYLOADS[1]),
    )


def start_of(first: int, length: int) -> bytes:
    """All that is before the IV, for a message of that length."""
    return HEADER.pack(b"initiatr", b"respondr", PayloadType.SK, 0x20, 37, 8, 1, length) + GENERIC.pack(
        first, 0, length - HEADER.size
    )


# The ciphers, each by other means than ours


def gcm(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """AES-GCM by OpenSSL's streaming interface."""
    decryptor = Cipher(algorithms.AES(key), modes.GCM(nonce, ciphertext[-16:])).decryptor()
    decryptor.authenticate_additional_data(associated)
    return decryptor.update(ciphertext[:-16]) + decryptor.finalize()


def ccm(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """AES-CCM by hand (RFC 3610 sections 2.2 and 2.3), with a tag of 16 bytes and a length of 4."""

    def encrypt(block: bytes) -> bytes:
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)  # noqa: S305

    def mask(counter: int) -> bytes:
        return encrypt(bytes((3,)) + nonce + counter.to_bytes(4))

    def xor(one: bytes, other: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(one, other, strict=False))

    body = ciphertext[:-16]
    plaintext = b"".join(xor(body[at : at + 16], mask(1 + at // 16)) for at in range(0, len(body), 16))
    flags = 0x40 | (16 - 2) // 2 << 3 | 3
    header = len(associated).to_bytes(2) + associated
    blocks = bytes((flags,)) + nonce + len(plaintext).to_bytes(4)
    blocks += header + bytes(-len(header) % 16) + plaintext + bytes(-len(plaintext) % 16)
    mac = bytes(16)
    for at in range(0, len(blocks), 16):
        mac = encrypt(xor(mac, blocks[at : at + 16]))
    if xor(mac, mask(0)) != ciphertext[-16:]:
        raise InvalidTag
    return plaintext


def chacha20_poly1305(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """ChaCha20-Poly1305 out of its parts (RFC 8439 section 2.8)."""

    def chacha20(counter: int, data: bytes) -> bytes:
        stream = algorithms.ChaCha20(key, counter.to_bytes(4, "little") + nonce)
        return Cipher(stream, mode=None).encryptor().update(data)

    body, tag = ciphertext[:-16], ciphertext[-16:]
    authenticated = b"".join(part + bytes(-len(part) % 16) for part in (associated, body))
    authenticated += len(associated).to_bytes(8, "little") + len(body).to_bytes(8, "little")
    try:
        Poly1305.verify_tag(chacha20(0, bytes(32)), authenticated, tag)
    except InvalidSignature:
        raise InvalidTag from None
    return chacha20(1, body)


def opened(proposal: IkeProposal, key: bytes, data: bytes) -> bytes:
    """What an AEAD sealed: nonce = salt | IV, associated data = all before the IV (RFC 5282 sections 4 and 5.1)."""
    word, cipher = proposal.encryption[0].word, proposal.encryption[0]
    decrypt: Callable[[bytes, bytes, bytes, bytes], bytes] = (
        gcm if "gcm" in word else ccm if "ccm" in word else chacha20_poly1305
    )
    salt = key[cipher.key_length :]
    assert len(salt) == (3 if "ccm" in word else 4)
    return decrypt(key[: cipher.key_length], salt + data[START : START + 8], data[START + 8 :], data[:START])


# Layout


@EVERY_AEAD
def test_the_layout_is_rfc_5282s(proposal: IkeProposal) -> None:
    sender, _, keys = pair_of(proposal)
    data = seal(sender)
    chain = build_payloads(PAYLOADS)[1]
    assert data[:START] == start_of(PayloadType.NONCE, START + 8 + len(chain) + 1 + 16)
    assert opened(proposal, keys.sk_ei, data) == chain + b"\0"  # no padding, and the pad length
    with pytest.raises(InvalidTag):
        opened(proposal, keys.sk_ei, data[: START - 1] + b"?" + data[START:])


@EVERY_CBC
def test_the_layout_is_rfc_7296s(proposal: IkeProposal) -> None:
    sender, _, keys = pair_of(proposal)
    data = seal(sender)
    (integrity,) = proposal.integrity
    body, tag = data[: -integrity.icv_length], data[-integrity.icv_length :]
    # Encrypt, then MAC: the tag is over everything before it.
    assert tag == hmac.digest(keys.sk_ai, body, integrity.hash_name)[: integrity.key_length // 2]
    decryptor = Cipher(algorithms.AES(keys.sk_ei), modes.CBC(data[START : START + 16])).decryptor()
    plaintext = decryptor.update(body[START + 16 :]) + decryptor.finalize()
    first, flags, length = GENERIC.unpack_from(data, HEADER.size)
    assert (first, flags, length) == (PayloadType.NONCE, 0, len(data) - HEADER.size)
    assert plaintext[-1] < 16
    assert plaintext[: -1 - plaintext[-1]] == build_payloads(PAYLOADS)[1]


def test_chacha20_poly1305_is_rfc_7634s() -> None:
    # Origin: RFC 7634 appendix B, a whole message with N(SET_WINDOW_SIZE) in it.
    key = bytes(range(0x80, 0xA0)) + bytes(range(0xA0, 0xA4))
    start = bytes.fromhex("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029")
    iv = bytes.fromhex("1011121314151617")
    sealed = bytes.fromhex("610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2")
    chain = AeadCipher(CHACHA20POLY1305, key).open(start + iv + sealed, START)
    first, _, _ = GENERIC.unpack_from(start, HEADER.size)
    assert parse_payloads(first, chain) == [Notify(type=NotifyType.SET_WINDOW_SIZE, data=bytes.fromhex("0000000a"))]


def test_hmac_sha_2_is_rfc_4868s() -> None:
    # Origin: RFC 4868 sections 2.7.2.1, 2.7.2.2 and 2.7.2.3, the first of each: "Hi There" under a key of 0x0b.
    tags = {
        "sha256": "198a607eb44bfbc69903a0f1cf2bbdc5",
        "sha384": "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
        "sha512": "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
    }
    for word, integrity in INTEGRITIES.items():
        tag = hmac.digest(b"\x0b" * integrity.key_length, b"Hi There", integrity.hash_name)
        assert tag[: integrity.icv_length].hex() == tags[word]


# What opens, and what does not


@EVERY_CIPHER
@given(nonce=st.binary(min_size=16, max_size=256))
def test_what_is_sealed_is_opened_by_the_other_side_only(proposal: IkeProposal, nonce: bytes) -> None:
    sender, receiver, *_ = pair_of(proposal)
    data = seal(sender, nonce=nonce)
    assert parse_payloads(*receiver.open(Header.parse(data), data)) == [Nonce(data=nonce), PAYLOADS[1]]
    with pytest.raises(IntegrityFailed):
        sender.open(Header.parse(data), data)


@EVERY_CIPHER
def test_both_directions_have_keys_of_their_own(proposal: IkeProposal) -> None:
    initiator, responder, _ = pair_of(proposal)
    data = seal(responder)
    assert parse_payloads(*initiator.open(Header.parse(data), data)) == list(PAYLOADS)


@EVERY_CIPHER
@given(index=st.integers(0, 10_000), change=st.integers(1, 255))
def test_every_changed_byte_is_found(proposal: IkeProposal, index: int, change: int) -> None:
    sender, receiver, *_ = pair_of(proposal)
    damaged = bytearray(seal(sender))
    damaged[index % len(damaged)] ^= change
    with pytest.raises(ProtocolError):
        receiver.open(Header.parse(bytes(damaged)), bytes(damaged))


@EVERY_CIPHER
def test_no_byte_of_any_part_of_a_message_can_be_changed(proposal: IkeProposal) -> None:
    sender, receiver, *_ = pair_of(proposal)
    sealed = seal(sender)
    iv_length = proposal.encryption[0].iv_length
    icv_length = proposal.integrity[0].icv_length if proposal.integrity else 16
    parts = {
        "initiator's SPI": 0,
        "responder's SPI": 8,
        "version": 17,
        "exchange": 18,
        "flags": 19,
        "message id": 23,
        "first payload": HEADER.size,
        "critical": HEADER.size + 1,
        "IV": START,
        "ciphertext": START + iv_length,
        "padding": len(sealed) - icv_length - 1,
        "tag": len(sealed) - icv_length,
        "tag's end": len(sealed) - 1,
    }
    passed: list[str] = []
    for part, index in parts.items():
        damaged = bytearray(sealed)
        damaged[index] ^= 1
        with suppress(IntegrityFailed):
            receiver.open(Header.parse(bytes(damaged)), bytes(damaged))
            passed.append(part)
    assert passed == []


@EVERY_CIPHER
@given(cut=st.integers(1, 200))
def test_a_message_that_is_cut_off_does_not_open(proposal: IkeProposal, cut: int) -> None:
    sender, receiver, *_ = pair_of(proposal)
    data = bytearray(seal(sender)[:-cut])
    if len(data) < START:
        return
    data[24:28] = len(data).to_bytes(4)
    data[30:32] = (len(data) - HEADER.size).to_bytes(2)
    with pytest.raises(ProtocolError):
        receiver.open(Header.parse(bytes(data)), bytes(data))


# IVs


@EVERY_CIPHER
def test_the_iv_never_repeats(proposal: IkeProposal) -> None:
    sender, *_ = pair_of(proposal)
    end = START + proposal.encryption[0].iv_length
    assert len({seal(sender)[START:end] for _ in range(1000)}) == 1000


def test_the_iv_of_cbc_is_the_entropys() -> None:
    # RFC 3602 section 3: it must not be foretold, so a counter will not do.
    keys = expand_ike_keys(CBC, skeyseed=b"any", seed=b"thing")
    asked: list[int] = []

    def entropy(length: int) -> bytes:
        asked.append(length)
        return b"sixteen of chaos"

    sender = Protection(CBC, keys, initiator=True, entropy=entropy)
    assert not asked
    assert seal(sender)[START : START + 16] == b"sixteen of chaos"
    assert asked == [16]


def test_an_aead_asks_for_no_entropy() -> None:
    keys = expand_ike_keys(GCM, skeyseed=b"any", seed=b"thing")

    def entropy(length: int) -> bytes:
        raise AssertionError(f"{length} bytes of entropy")

    seal(Protection(GCM, keys, initiator=True, entropy=entropy))


# Padding


def sealed_by_hand(proposal: IkeProposal, plaintext: bytes) -> tuple[bytes, Protection]:
    """A good peer's keys and a bad peer's mind; CBC takes whole blocks only."""
    _, receiver, keys = pair_of(proposal)
    if proposal.integrity:
        start = start_of(PayloadType.NONCE, START + 16 + len(plaintext) + 16)
        encryptor = Cipher(algorithms.AES(keys.sk_ei), modes.CBC(b"sixteen of chaos")).encryptor()
        message = start + b"sixteen of chaos" + encryptor.update(plaintext) + encryptor.finalize()
        return message + hmac.digest(keys.sk_ai, message, "sha256")[:16], receiver
    start, iv = start_of(PayloadType.NONCE, START + 8 + len(plaintext) + 16), b"some  iv"
    encryptor = Cipher(algorithms.AES(keys.sk_ei[:16]), modes.GCM(keys.sk_ei[16:] + iv)).encryptor()
    encryptor.authenticate_additional_data(start)
    return start + iv + encryptor.update(plaintext) + encryptor.finalize() + encryptor.tag, receiver


@BOTH_WAYS
@pytest.mark.parametrize("more", [0, 1, 15])
def test_padding_of_any_length_and_content_is_taken_off(proposal: IkeProposal, more: int) -> None:
    chain = build_payloads(PAYLOADS)[1]
    padding = -(len(chain) + 1) % 16 + 16 * more
    sealed, receiver = sealed_by_hand(proposal, chain + b"?" * padding + bytes((padding,)))
    assert parse_payloads(*receiver.open(Header.parse(sealed), sealed)) == list(PAYLOADS)


@BOTH_WAYS
@pytest.mark.parametrize("pad_length", [16, 17, 255])
def test_more_padding_than_message_is_no_message(proposal: IkeProposal, pad_length: int) -> None:
    sealed, receiver = sealed_by_hand(proposal, bytes(15) + bytes((pad_length,)))
    with pytest.raises(MalformedMessage, match="padding"):
        receiver.open(Header.parse(sealed), sealed)


@BOTH_WAYS
def test_padding_alone_is_an_empty_message(proposal: IkeProposal) -> None:
    sealed, receiver = sealed_by_hand(proposal, bytes(15) + b"\x0f")
    assert receiver.open(Header.parse(sealed), sealed) == (PayloadType.NONCE, b"")


def test_the_padding_of_cbc_tells_nothing_before_the_tag_has_been_checked() -> None:
    # Bad padding under a bad tag is a bad tag and no more: whoever has no key learns nothing of what is inside.
    sealed, receiver = sealed_by_hand(CBC, bytes(15) + b"\xff")
    damaged = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    with pytest.raises(IntegrityFailed):
        receiver.open(Header.parse(damaged), damaged)


# Messages that are none


@EVERY_CIPHER
@pytest.mark.parametrize("size", [28, 31, 32, 40, 48, 56, 79])
def test_messages_that_are_too_short_do_not_open(proposal: IkeProposal, size: int) -> None:
    _, receiver, *_ = pair_of(proposal)
    data = (start_of(0, size) + bytes(size))[:size]
    with pytest.raises(ProtocolError):
        receiver.open(Header.parse(data), data)


@BOTH_WAYS
def test_an_encrypted_payload_that_is_not_the_only_one_is_malformed(proposal: IkeProposal) -> None:
    sender, receiver, *_ = pair_of(proposal)
    data = bytearray(seal(sender))
    data[30:32] = (len(data) - HEADER.size - 4).to_bytes(2)
    with pytest.raises(MalformedMessage, match="fill"):
        receiver.open(Header.parse(bytes(data)), bytes(data))
    data[16] = PayloadType.NONCE
    with pytest.raises(MalformedMessage, match="not an encrypted message"):
        receiver.open(Header.parse(bytes(data)), bytes(data))
