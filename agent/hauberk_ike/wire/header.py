"""The IKE header (RFC 7296 section 3.1)."""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from hauberk_ike.errors import MalformedMessage

# initiator's SPI (8), responder's SPI (8), next payload, version, exchange type, flags, message id (4), length (4)
HEADER: Final = Struct("!8s8sBBBBII")

FLAG_INITIATOR: Final = 0x08
FLAG_RESPONSE: Final = 0x20

VERSION: Final = 0x20
"""Major 2, minor 0. The minor version is ignored on receipt."""

NO_SPI: Final = bytes(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Who talks to whom, about what. `length` covers the whole message."""

    spi_i: bytes
    spi_r: bytes
    next_payload: int
    version: int
    exchange_type: int
    flags: int
    message_id: int
    length: int

    @property
    def from_initiator(self) -> bool:
        """Whether the sender is the original initiator of the IKE SA."""
        return bool(self.flags & FLAG_INITIATOR)

    @property
    def is_response(self) -> bool:
        return bool(self.flags & FLAG_RESPONSE)

    @property
    def major_version(self) -> int:
        return self.version >> 4

    @classmethod
    def parse(cls, data: bytes) -> "Header":
        """Reads the header of a datagram, which the message must fill. Raises MalformedMessage."""
        if len(data) < HEADER.size:
            raise MalformedMessage("shorter than an IKE header")
        header = cls.read(data)
        if header.length != len(data):
            raise MalformedMessage("the header's length is not the datagram's")
        return header

    @classmethod
    def read(cls, data: bytes) -> "Header":
        """What is in 28 bytes or more, whatever it says: for people to look at."""
        spi_i, spi_r, next_payload, version, exchange_type, flags, message_id, length = HEADER.unpack_from(data)
        return cls(
            spi_i=spi_i,
            spi_r=spi_r,
            next_payload=next_payload,
            version=version,
            exchange_type=exchange_type,
            flags=flags,
            message_id=message_id,
            length=length,
        )

    def build(self) -> bytes:
        """The header's 28 bytes."""
        return HEADER.pack(
            self.spi_i,
            self.spi_r,
            self.next_payload,
            self.version,
            self.exchange_type,
            self.flags,
            self.message_id,
            self.length,
        )
