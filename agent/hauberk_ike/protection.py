"""Encrypted messages: the Encrypted payload with an AEAD cipher (RFC 7296 section 3.14, RFC 5282).

    IKE header | generic header of SK | IV (8) | ciphertext of (payloads | padding | pad length) | ICV (16)

Associated data is everything before the IV. One `Protection` belongs to one side of one IKE SA.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hauberk_ike.errors import IntegrityFailed, MalformedMessage
from hauberk_ike.numbers import PayloadType
from hauberk_ike.proposals import Encryption
from hauberk_ike.wire.header import HEADER, VERSION, Header
from hauberk_ike.wire.message import GENERIC, KnownPayload, build_payloads

# The IV is a counter: it must never repeat under one key, and need not be unpredictable (RFC 5282 section 3.1).
IV: Final = Struct("!Q")
_START: Final = HEADER.size + GENERIC.size
_NO_PADDING: Final = b"\0"


class Protection:
    """Seals what we send and opens what we receive. Keys include their 4-byte salt at the end."""

    __slots__ = ("_icv_length", "_inbound", "_inbound_salt", "_outbound", "_outbound_salt", "_sealed")

    def __init__(self, cipher: Encryption, *, key_out: bytes, key_in: bytes) -> None:
        size = cipher.key_length
        self._outbound, self._outbound_salt = AESGCM(key_out[:size]), key_out[size:]
        self._inbound, self._inbound_salt = AESGCM(key_in[:size]), key_in[size:]
        self._icv_length = cipher.icv_length
        self._sealed = 0

    def seal(
        self,
        *,
        spi_i: bytes,
        spi_r: bytes,
        exchange_type: int,
        flags: int,
        message_id: int,
        payloads: Sequence[KnownPayload],
    ) -> bytes:
        """The whole message, encrypted."""
        first, chain = build_payloads(payloads)
        payload_length = GENERIC.size + IV.size + len(chain) + len(_NO_PADDING) + self._icv_length
        start = HEADER.pack(
            spi_i,
            spi_r,
            PayloadType.SK,
            VERSION,
            exchange_type,
            flags,
            message_id,
            HEADER.size + payload_length,
        ) + GENERIC.pack(first, 0, payload_length)
        self._sealed += 1
        iv = IV.pack(self._sealed)
        return start + iv + self._outbound.encrypt(self._outbound_salt + iv, chain + _NO_PADDING, start)

    def open(self, header: Header, data: bytes) -> tuple[int, bytes]:
        """The type of the first payload inside, and the chain.

        Raises MalformedMessage if `data` is not one Encrypted payload, IntegrityFailed if it does not verify. Nothing
        inside is interpreted before it verified.
        """
        if header.next_payload != PayloadType.SK:
            raise MalformedMessage("not an encrypted message")
        if len(data) < _START + IV.size + self._icv_length + 1:
            raise MalformedMessage("an encrypted message that is cut off")
        first, _, length = GENERIC.unpack_from(data, HEADER.size)
        if length != len(data) - HEADER.size:
            raise MalformedMessage("an encrypted payload that does not fill its message")
        body = _START + IV.size
        try:
            plaintext = self._inbound.decrypt(self._inbound_salt + data[_START:body], data[body:], data[:_START])
        except InvalidTag:
            raise IntegrityFailed("integrity check failed") from None
        end = len(plaintext) - 1 - plaintext[-1]
        if end < 0:
            raise MalformedMessage("more padding than message")
        return first, plaintext[:end]
