"""The smaller payloads (RFC 7296 sections 3.4 to 3.12), one after the other in the RFC's order."""

from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import ClassVar, Final, Self

from hauberk_ike.errors import MalformedMessage
from hauberk_ike.numbers import CertEncoding, IdType, PayloadType

MIN_NONCE: Final = 16
MAX_NONCE: Final = 256
MAX_DELETED_SPIS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyExchangePayload:
    """Section 3.4. `data` is the public value; whether its length is its method's is the key exchange's to say."""

    TYPE: ClassVar = PayloadType.KE
    # key exchange method (2), reserved (2); then the public value
    FIXED: ClassVar = Struct("!H2x")
    method: int
    data: bytes

    @classmethod
    def parse(cls, body: bytes) -> "KeyExchangePayload":
        """Raises MalformedMessage."""
        if len(body) <= cls.FIXED.size:
            raise MalformedMessage("a key exchange payload without a public value")
        (method,) = cls.FIXED.unpack_from(body)
        return cls(method=method, data=body[cls.FIXED.size :])

    def build(self) -> bytes:
        """The payload's body."""
        return self.FIXED.pack(self.method) + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """Section 3.5, base of IDi and IDr. AUTH covers the body as received, so `build()` gives back what was parsed."""

    # type, reserved (3, kept: AUTH covers them); then the identity
    FIXED: ClassVar = Struct("!B3s")
    id_type: int
    data: bytes
    reserved: bytes = bytes(3)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises MalformedMessage."""
        if len(body) <= cls.FIXED.size:
            raise MalformedMessage("an identification payload without an identity")
        id_type, reserved = cls.FIXED.unpack_from(body)
        return cls(id_type=id_type, data=body[cls.FIXED.size :], reserved=reserved)

    @classmethod
    def fqdn(cls, name: str) -> Self:
        """An ID_FQDN."""
        return cls(id_type=IdType.FQDN, data=name.encode("ascii"))

    def build(self) -> bytes:
        """The payload's body."""
        return self.FIXED.pack(self.id_type, self.reserved) + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class IdInitiator(Identification):
    """IDi."""

    TYPE: ClassVar = PayloadType.ID_I


@dataclass(frozen=True, slots=True, kw_only=True)
class IdResponder(Identification):
    """IDr."""

    TYPE: ClassVar = PayloadType.ID_R


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePayload:
    """Section 3.6. `data` is DER for X509_SIGNATURE; other encodings are values that nobody reads."""

    TYPE: ClassVar = PayloadType.CERT
    encoding: int
    data: bytes

    @classmethod
    def parse(cls, body: bytes) -> "CertificatePayload":
        """Raises MalformedMessage."""
        if len(body) < 2:
            raise MalformedMessage("a certificate payload without a certificate")
        return cls(encoding=body[0], data=body[1:])

    @classmethod
    def x509(cls, der: bytes) -> "CertificatePayload":
        """An X.509 certificate."""
        return cls(encoding=CertEncoding.X509_SIGNATURE, data=der)

    def build(self) -> bytes:
        """The payload's body."""
        return bytes((self.encoding,)) + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """Section 3.7. `authorities` is SHA-1 hashes (20 bytes each) of the trusted roots' public keys, run together."""

    TYPE: ClassVar = PayloadType.CERTREQ
    encoding: int
    authorities: bytes

    @classmethod
    def parse(cls, body: bytes) -> "CertificateRequest":
        """Raises MalformedMessage."""
        if not body:
            raise MalformedMessage("an empty certificate request")
        return cls(encoding=body[0], authorities=body[1:])

    def build(self) -> bytes:
        """The payload's body."""
        return bytes((self.encoding,)) + self.authorities


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """Section 3.8; for method 14 `data` is RFC 7427's, see `hauberk_ike.authentication`."""

    TYPE: ClassVar = PayloadType.AUTH
    # method, reserved (3); then the method's data
    FIXED: ClassVar = Struct("!B3x")
    method: int
    data: bytes

    @classmethod
    def parse(cls, body: bytes) -> "Authentication":
        """Raises MalformedMessage."""
        if len(body) <= cls.FIXED.size:
            raise MalformedMessage("an authentication payload without data")
        (method,) = cls.FIXED.unpack_from(body)
        return cls(method=method, data=body[cls.FIXED.size :])

    def build(self) -> bytes:
        """The payload's body."""
        return self.FIXED.pack(self.method) + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonce:
    """Section 3.9: 16 to 256 bytes."""

    TYPE: ClassVar = PayloadType.NONCE
    data: bytes

    @classmethod
    def parse(cls, body: bytes) -> "Nonce":
        """Raises MalformedMessage."""
        if not MIN_NONCE <= len(body) <= MAX_NONCE:
            raise MalformedMessage("a nonce that is not 16 to 256 bytes long")
        return cls(data=body)

    def build(self) -> bytes:
        """The payload's body."""
        return self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Section 3.10. `protocol` and `spi` name the SA it is about, 0 and empty for the IKE SA or none."""

    TYPE: ClassVar = PayloadType.NOTIFY
    # protocol, SPI size, notify type (2); then SPI and data
    FIXED: ClassVar = Struct("!BBH")
    type: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""

    @classmethod
    def parse(cls, body: bytes) -> "Notify":
        """Raises MalformedMessage."""
        if len(body) == cls.FIXED.size:
            return _parse_bare_notify(body)
        return cls._parse(body)

    @classmethod
    def _parse(cls, body: bytes) -> "Notify":
        if len(body) < cls.FIXED.size:
            raise MalformedMessage("a notify payload is cut off")
        protocol, spi_size, notify_type = cls.FIXED.unpack_from(body)
        start = cls.FIXED.size + spi_size
        if len(body) < start:
            raise MalformedMessage("a notify's SPI is cut off")
        return cls(type=notify_type, data=body[start:], protocol=protocol, spi=body[cls.FIXED.size : start])

    def build(self) -> bytes:
        """The payload's body."""
        return self.FIXED.pack(self.protocol, len(self.spi), self.type) + self.spi + self.data


@lru_cache(64)  # half of all notifies say nothing but their type: that their sender supports something
def _parse_bare_notify(body: bytes) -> Notify:
    return Notify._parse(body)  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Section 3.11. For the IKE SA itself `spis` is empty and `spi_size` 0."""

    TYPE: ClassVar = PayloadType.DELETE
    # protocol, SPI size, number of SPIs (2); then the SPIs
    FIXED: ClassVar = Struct("!BBH")
    protocol: int
    spi_size: int = 0
    spis: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, body: bytes) -> "Delete":
        """Raises MalformedMessage."""
        if len(body) < cls.FIXED.size:
            raise MalformedMessage("a delete payload is cut off")
        protocol, spi_size, count = cls.FIXED.unpack_from(body)
        if count > MAX_DELETED_SPIS:
            raise MalformedMessage("a delete payload with too many SPIs")
        start = cls.FIXED.size
        if len(body) != start + spi_size * count or (count and not spi_size):
            raise MalformedMessage("a delete payload's length is not its SPIs'")
        spis = tuple(body[start + index * spi_size : start + (index + 1) * spi_size] for index in range(count))
        return cls(protocol=protocol, spi_size=spi_size, spis=spis)

    def build(self) -> bytes:
        """The payload's body."""
        return self.FIXED.pack(self.protocol, self.spi_size, len(self.spis)) + b"".join(self.spis)


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorId:
    """Section 3.12."""

    TYPE: ClassVar = PayloadType.VENDOR_ID
    data: bytes

    @classmethod
    def parse(cls, body: bytes) -> "VendorId":
        """Never raises."""
        return cls(data=body)

    def build(self) -> bytes:
        """The payload's body."""
        return self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownPayload:
    """Section 2.5: a type that we don't know, without the critical bit. It is ignored."""

    payload_type: int
    data: bytes = field(repr=False)
