"""The keys of a key log, for decoding: Wireshark's IKEv2 decryption table, as `hauberk_ike.key_log` writes it and as
others do (strongSwan's save-keys plugin, people)."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from hauberk_ike.algorithms import ENCRYPTIONS, INTEGRITIES, Encryption, Integrity
from hauberk_ike.errors import MalformedMessage, ProtocolError
from hauberk_ike.key_log import COMMENT
from hauberk_ike.key_log import ENCRYPTIONS as ENCRYPTION_NAMES
from hauberk_ike.key_log import INTEGRITIES as INTEGRITY_NAMES
from hauberk_ike.payload_cipher import AeadCipher, CbcCipher, PayloadCipher

_COLUMNS: Final = 8
_SPI_BYTES: Final = 8
_CIPHERS: Final = {name: ENCRYPTIONS[word] for word, name in ENCRYPTION_NAMES.items() if word in ENCRYPTIONS}
_INTEGRITIES: Final = {name: INTEGRITIES[word] for word, name in INTEGRITY_NAMES.items() if word in INTEGRITIES}


@dataclass(frozen=True, slots=True)
class Keys:
    """One line: the ciphers of what the IKE SA's initiator and responder send."""

    from_initiator: PayloadCipher = field(repr=False)
    from_responder: PayloadCipher = field(repr=False)


class KeyTable:
    """By both SPIs. An IKE SA has several lines if its keys changed on the way (IKE_INTERMEDIATE): all are tried."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._keys: dict[tuple[bytes, bytes], list[Keys]] = {}
        self.problems: list[str] = []
        """A sentence for each line that can't be used."""
        for number, line in enumerate(lines, 1):
            self._read(number, line.strip())

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def open(self, spi_i: bytes, spi_r: bytes, data: bytes, start: int, *, from_initiator: bool) -> bytes | None:
        """The chain of payloads in a message whose IV is at `start`; None if no line opens it.

        Raises ProtocolError if one does, and what is inside is nonsense.
        """
        for keys in reversed(self._keys.get((spi_i, spi_r), ())):
            cipher = keys.from_initiator if from_initiator else keys.from_responder
            try:
                return cipher.open(data, start)
            except MalformedMessage:
                raise
            except ProtocolError:
                continue
        return None

    def knows(self, spi_i: bytes, spi_r: bytes) -> bool:
        """Whether there is a line for an IKE SA."""
        return (spi_i, spi_r) in self._keys

    def _read(self, number: int, line: str) -> None:
        is_comment = line.startswith(COMMENT)
        try:
            columns = _split(line.removeprefix(COMMENT).strip())
            if columns and (len(columns) == _COLUMNS or not is_comment):
                self._take(columns)
        except ValueError as error:
            if not is_comment:
                self.problems.append(f"line {number} of the key log can't be used: {error}")

    def _take(self, columns: list[str]) -> None:
        if len(columns) != _COLUMNS:
            raise ValueError(f"it has {len(columns)} columns instead of {_COLUMNS}")
        values = [bytes.fromhex(columns[index].strip().removeprefix("0x")) for index in (0, 1, 2, 3, 5, 6)]
        spi_i, spi_r, sk_ei, sk_er, sk_ai, sk_ar = values
        cipher = _CIPHERS.get(columns[4].strip())
        integrity = _INTEGRITIES.get(columns[7].strip())
        if len(spi_i) != _SPI_BYTES or len(spi_r) != _SPI_BYTES:
            raise ValueError("its SPIs are not 8 bytes long")
        if cipher is None:
            raise ValueError(f"no decryption of {columns[4]!r} here")
        if not cipher.is_aead and integrity is None:
            raise ValueError(f"no decryption with {columns[7]!r} here")
        keys = Keys(_cipher(cipher, integrity, sk_ei, sk_ai), _cipher(cipher, integrity, sk_er, sk_ar))
        self._keys.setdefault((spi_i, spi_r), []).append(keys)


def _split(line: str) -> list[str]:
    try:
        for columns in csv.reader([line]):
            return columns
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return []


def _cipher(cipher: Encryption, integrity: Integrity | None, key: bytes, integrity_key: bytes) -> PayloadCipher:
    """Raises ValueError for keys that have not the length of their algorithm."""
    if len(key) != cipher.keying_length:
        raise ValueError(f"its keys are {len(key)} bytes long, those of {cipher.word} are {cipher.keying_length}")
    if integrity is None:
        return AeadCipher(cipher, key)
    if len(integrity_key) != integrity.key_length:
        raise ValueError(f"its integrity keys are not {integrity.key_length} bytes long")
    return CbcCipher(integrity, key, integrity_key, bytes)
