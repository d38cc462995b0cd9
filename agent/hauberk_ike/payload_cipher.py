"""Ciphers of the Encrypted payload, one object for each direction of an IKE SA: an AEAD, or CBC with HMAC.

`hauberk_ike.protection` builds what comes before the IV, which every cipher authenticates, and reads it.
"""

import hmac
from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from hauberk_ike.algorithms import Encryption, Integrity
from hauberk_ike.errors import IntegrityFailed, MalformedMessage
from hauberk_ike.numbers import EncryptionId

_BLOCK: Final = 16
# An AEAD's IV is a counter: it must never repeat under one key, and need not be unpredictable (RFC 5282 section 3.1).
_IV: Final = Struct("!Q")
_NO_PADDING: Final = b"\0"
_AEAD_OVERHEAD: Final = _IV.size + len(_NO_PADDING)
"""What an AEAD adds beside its tag."""
# Padding may have any content (RFC 7296 section 3.14), and ends in its own length.
_PADDINGS: Final = tuple(bytes(length) + bytes((length,)) for length in range(_BLOCK))


class PayloadCipher(Protocol):
    """One direction. Not to be used in both: an AEAD's counter would repeat under the other side's key."""

    def sealed_length(self, length: int) -> int:
        """How many bytes `length` bytes of payloads become, IV and tag included."""
        ...

    def room(self, length: int) -> int:
        """How many bytes of payloads at most become no more than `length` bytes."""
        ...

    def seal(self, start: bytes, chain: bytes) -> bytes:
        """`start` and, encrypted, `chain`: a whole message."""
        ...

    def open(self, data: bytes, start: int) -> bytes:
        """The chain in a message whose IV is at `start`.

        Raises IntegrityFailed if it does not verify, and MalformedMessage if it is too short or has more padding than
        content. Nothing inside is interpreted before it verified.
        """
        ...


class _Aead(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...


class AeadCipher:
    """RFC 5282 and RFC 7634: IV (8) | ciphertext of (payloads | padding | pad length) | tag (16).

    The nonce is the key's salt and the IV; the associated data is all that comes before the IV.
    """

    __slots__ = ("_cipher", "_key", "_salt", "_sealed")

    def __init__(self, cipher: Encryption, key: bytes) -> None:
        """key: salt included."""
        # A cipher that is ready for use takes 2.5 kB, and an IKE SA seldom has anything to say: it takes 1 us to make.
        self._cipher = cipher
        self._key = key[: cipher.key_length]
        self._salt = key[cipher.key_length :]
        self._sealed = 0

    def sealed_length(self, length: int) -> int:
        return length + _AEAD_OVERHEAD + self._cipher.icv_length

    def room(self, length: int) -> int:
        return length - _AEAD_OVERHEAD - self._cipher.icv_length

    def seal(self, start: bytes, chain: bytes) -> bytes:
        self._sealed += 1
        iv = _IV.pack(self._sealed)
        return start + iv + _aead(self._cipher, self._key).encrypt(self._salt + iv, chain + _NO_PADDING, start)

    def open(self, data: bytes, start: int) -> bytes:
        body = start + _IV.size
        if len(data) < start + _AEAD_OVERHEAD + self._cipher.icv_length:
            raise MalformedMessage("an encrypted message that is cut off")
        try:
            plaintext = _aead(self._cipher, self._key).decrypt(self._salt + data[start:body], data[body:], data[:start])
        except InvalidTag:
            raise IntegrityFailed("integrity check failed") from None
        return _without_padding(plaintext)


class CbcCipher:
    """RFC 7296 section 3.14: IV (16) | ciphertext of (payloads | padding | pad length) | tag.

    The tag is over the whole message before it (encrypt, then MAC). The IV comes from `entropy`: an attacker must not
    be able to foretell it (RFC 3602 section 3).
    """

    __slots__ = ("_aes", "_entropy", "_hash_name", "_icv_length", "_integrity_key")

    def __init__(self, integrity: Integrity, key: bytes, integrity_key: bytes, entropy: Callable[[int], bytes]) -> None:
        self._aes = algorithms.AES(key)
        self._integrity_key = integrity_key
        self._hash_name = integrity.hash_name
        self._icv_length = integrity.icv_length
        self._entropy = entropy

    def sealed_length(self, length: int) -> int:
        return _BLOCK + (length // _BLOCK + 1) * _BLOCK + self._icv_length

    def room(self, length: int) -> int:
        return (length - _BLOCK - self._icv_length) // _BLOCK * _BLOCK - 1

    def seal(self, start: bytes, chain: bytes) -> bytes:
        iv = self._entropy(_BLOCK)
        encryptor = Cipher(self._aes, modes.CBC(iv)).encryptor()
        plaintext = chain + _PADDINGS[_BLOCK - 1 - len(chain) % _BLOCK]
        message = b"".join((start, iv, encryptor.update(plaintext), encryptor.finalize()))
        return message + self._tag(message)

    def open(self, data: bytes, start: int) -> bytes:
        body = start + _BLOCK
        end = len(data) - self._icv_length
        if end < body + _BLOCK or (end - body) % _BLOCK:
            raise MalformedMessage("an encrypted message that is cut off")
        if not hmac.compare_digest(self._tag(data[:end]), data[end:]):
            raise IntegrityFailed("integrity check failed")
        decryptor = Cipher(self._aes, modes.CBC(data[start:body])).decryptor()
        return _without_padding(decryptor.update(data[body:end]) + decryptor.finalize())

    def _tag(self, message: bytes) -> bytes:
        return hmac.digest(self._integrity_key, message, self._hash_name)[: self._icv_length]


def _aead(cipher: Encryption, key: bytes) -> _Aead:
    match cipher.transform_id:
        case EncryptionId.AES_GCM_16:
            return AESGCM(key)
        case EncryptionId.AES_CCM_16:
            return AESCCM(key, tag_length=cipher.icv_length)
        case EncryptionId.CHACHA20_POLY1305:
            return ChaCha20Poly1305(key)
        case _:
            raise ValueError(f"{cipher.word} is no AEAD")


def _without_padding(plaintext: bytes) -> bytes:
    end = len(plaintext) - 1 - plaintext[-1]
    if end < 0:
        raise MalformedMessage("more padding than message")
    return plaintext[:end]
