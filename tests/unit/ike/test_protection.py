"""Encrypted messages: RFC 5282's layout, recomputed with a cipher interface that is not the one in use."""

import os

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike.errors import IntegrityFailed, MalformedMessage, ProtocolError
from hauberk_ike.keys import IkeKeys, expand_ike_keys
from hauberk_ike.numbers import ExchangeType, PayloadType
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.protection import Protection
from hauberk_ike.wire.header import HEADER, Header
from hauberk_ike.wire.message import GENERIC, build_payloads, parse_payloads
from hauberk_ike.wire.payloads import Nonce, Notify

PAYLOADS = (Nonce(data=bytes(range(32))), Notify(type=16384))


GCM128 = IkeProposal.parse("aes128gcm16-prfsha256-x25519")
GCM256 = IkeProposal.parse("aes256gcm16-prfsha256-x25519")
GCM = pytest.mark.parametrize("proposal", [GCM128, GCM256], ids=str)


def pair_of(proposal: IkeProposal) -> tuple[Protection, Protection, IkeKeys]:
    """Initiator, responder, and what they know."""
    keys = expand_ike_keys(proposal, skeyseed=b"any", seed=b"thing")
    return (
        Protection(proposal, keys, initiator=True, entropy=os.urandom),
        Protection(proposal, keys, initiator=False, entropy=os.urandom),
        keys,
    )


def seal(protection: Protection, message_id: int = 1) -> bytes:
    return protection.seal(
        spi_i=b"initiatr",
        spi_r=b"respondr",
        exchange_type=ExchangeType.INFORMATIONAL,
        flags=8,
        message_id=message_id,
        payloads=PAYLOADS,
    )


def gcm_decrypt(keying: bytes, iv: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """AES-GCM by OpenSSL's streaming interface; `keying` is key and salt, nonce = salt | IV (RFC 5282 section 4)."""
    decryptor = Cipher(algorithms.AES(keying[:-4]), modes.GCM(keying[-4:] + iv, ciphertext[-16:])).decryptor()
    decryptor.authenticate_additional_data(associated)
    return decryptor.update(ciphertext[:-16]) + decryptor.finalize()


@GCM
def test_the_layout_is_rfc_5282s(proposal: IkeProposal) -> None:
    sender, _, keys = pair_of(proposal)
    key = keys.sk_ei
    data = seal(sender)
    header = Header.parse(data)
    assert header.next_payload == PayloadType.SK
    first, flags, length = GENERIC.unpack_from(data, HEADER.size)
    assert (first, flags, length) == (PayloadType.NONCE, 0, len(data) - HEADER.size)
    # Associated data: everything up to the IV. Plaintext: payloads, no padding, and the pad length.
    plaintext = gcm_decrypt(key, data[32:40], data[40:], data[:32])
    assert plaintext == build_payloads(PAYLOADS)[1] + b"\0"
    with pytest.raises(InvalidTag):
        gcm_decrypt(key, data[32:40], data[40:], data[:31] + b"?")


def test_the_iv_never_repeats() -> None:
    sender, *_ = pair_of(GCM128)
    assert len({seal(sender)[32:40] for _ in range(1000)}) == 1000


@GCM
def test_what_is_sealed_is_opened_by_the_other_side_only(proposal: IkeProposal) -> None:
    sender, receiver, *_ = pair_of(proposal)
    data = seal(sender)
    assert parse_payloads(*receiver.open(Header.parse(data), data)) == list(PAYLOADS)
    with pytest.raises(IntegrityFailed):
        sender.open(Header.parse(data), data)


@given(index=st.integers(0, 10_000), change=st.integers(1, 255))
def test_every_changed_byte_is_found(index: int, change: int) -> None:
    sender, receiver, *_ = pair_of(GCM128)
    damaged = bytearray(seal(sender))
    damaged[index % len(damaged)] ^= change
    with pytest.raises(ProtocolError):
        receiver.open(Header.parse(bytes(damaged)), bytes(damaged))


@pytest.mark.parametrize("padding", [1, 5, 255])
def test_padding_is_taken_off(padding: int) -> None:
    sealed, receiver = sealed_by_hand(build_payloads(PAYLOADS)[1] + b"?" * padding + bytes((padding,)))
    assert parse_payloads(*receiver.open(Header.parse(sealed), sealed)) == list(PAYLOADS)


def test_more_padding_than_message_is_no_message() -> None:
    sealed, receiver = sealed_by_hand(b"\xff")
    with pytest.raises(MalformedMessage, match="padding"):
        receiver.open(Header.parse(sealed), sealed)


def sealed_by_hand(plaintext: bytes) -> tuple[bytes, Protection]:
    _, receiver, keys = pair_of(GCM128)
    key = keys.sk_ei
    length = GENERIC.size + 8 + len(plaintext) + 16
    start = HEADER.pack(bytes(8), bytes(8), PayloadType.SK, 0x20, 37, 8, 1, HEADER.size + length) + GENERIC.pack(
        PayloadType.NONCE, 0, length
    )
    iv = b"some  iv"
    encryptor = Cipher(algorithms.AES(key[:16]), modes.GCM(key[16:] + iv)).encryptor()
    encryptor.authenticate_additional_data(start)
    return start + iv + encryptor.update(plaintext) + encryptor.finalize() + encryptor.tag, receiver


@pytest.mark.parametrize("size", [28, 31, 32, 40, 56])
def test_messages_that_are_too_short_are_malformed(size: int) -> None:
    _, receiver, *_ = pair_of(GCM128)
    data = (HEADER.pack(bytes(8), bytes(8), 46, 0x20, 37, 8, 1, size) + bytes(size))[:size]
    with pytest.raises(MalformedMessage):
        receiver.open(Header.parse(data), data)


def test_an_encrypted_payload_that_is_not_the_only_one_is_malformed() -> None:
    sender, receiver, *_ = pair_of(GCM128)
    data = bytearray(seal(sender))
    data[30:32] = (len(data) - HEADER.size - 4).to_bytes(2)
    with pytest.raises(MalformedMessage, match="fill"):
        receiver.open(Header.parse(bytes(data)), bytes(data))
