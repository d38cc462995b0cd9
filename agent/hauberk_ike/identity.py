"""Identities (RFC 7296 section 3.5): what an IDi or IDr payload claims, and how people write it.

Configuration spells them, logs show them, policies look them up. The text of an identity is printable whatever a peer
sent, and `Identity.parse(str(identity)) == identity`. There are no wildcards, and names are compared to the letter.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Self

from cryptography import x509

from hauberk_ike.datagram import IpAddress
from hauberk_ike.errors import ExchangeRefused, RefusalReason
from hauberk_ike.numbers import IdType, NotifyType
from hauberk_ike.wire.payloads import Identification, IdInitiator, IdResponder

MAX_BYTES: Final = 1024
"""The longest identity that is looked at."""

_FQDN: Final = re.compile(rb"[A-Za-z0-9._-]{1,253}")
_RFC822: Final = re.compile(rb"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9._-]{1,253}")
_DISTINGUISHED_NAME: Final = re.compile(r"[A-Za-z0-9.]+=")
_PLAIN_KEY_ID: Final = re.compile(rb"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One identity. `data` is what stands in the payload. Raises ValueError for what is no identity of its type."""

    id_type: IdType
    data: bytes = field(repr=False, compare=False)
    text: str = field(init=False)
    """As `str` gives it; two identities of one type are the same if it is."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.data) <= MAX_BYTES:
            raise ValueError(f"an identity takes 1 to {MAX_BYTES} bytes")
        text = _TEXTS.get(self.id_type)
        if text is None:
            raise ValueError(f"identities of type {self.id_type.name} are not accepted")
        object.__setattr__(self, "text", text(self.data))

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> Self:
        """The identity that `text` spells. Raises ValueError.

        `fqdn:`, `ipv4:`, `ipv6:`, `email:`, `dn:` and `keyid:` say the type; after the last two, what
        begins with 0x is hexadecimal. Without one an address is an address, what begins as `CN=` does a distinguished
        name (RFC 4514: the most specific part first), what has an @ a mail address, and all else a host name.
        """
        prefix, colon, rest = text.partition(":")
        read = _READERS.get(prefix) if colon else None
        if read is not None:
            return cls(id_type=_PREFIXES[prefix], data=read(rest))
        for id_type, address in ((IdType.IPV4_ADDR, IPv4Address), (IdType.IPV6_ADDR, IPv6Address)):
            try:
                return cls(id_type=id_type, data=address(text).packed)
            except ValueError:
                continue
        if _DISTINGUISHED_NAME.match(text) is not None:
            return cls(id_type=IdType.DER_ASN1_DN, data=_dn(text))
        return cls(id_type=IdType.RFC822_ADDR if "@" in text else IdType.FQDN, data=_ascii(text))

    @classmethod
    def fqdn(cls, name: str) -> Self:
        """A host name. Raises ValueError."""
        return cls(id_type=IdType.FQDN, data=_ascii(name))

    @classmethod
    def address(cls, address: IpAddress) -> Self:
        """An IPv4 or IPv6 address."""
        return cls(id_type=IdType.IPV4_ADDR if address.version == 4 else IdType.IPV6_ADDR, data=address.packed)

    @classmethod
    def distinguished_name(cls, name: x509.Name) -> Self:
        """A certificate's subject, for one. Raises ValueError for an empty name."""
        return cls(id_type=IdType.DER_ASN1_DN, data=name.public_bytes())

    @classmethod
    def from_payload(cls, payload: Identification) -> Self:
        """What a peer claims to be. Raises ExchangeRefused (AUTHENTICATION_FAILED)."""
        try:
            return cls(id_type=IdType(payload.id_type), data=payload.data)
        except ValueError as error:
            # An unknown number, or one of the sentences of this module: never the peer's bytes.
            raise ExchangeRefused(
                NotifyType.AUTHENTICATION_FAILED, str(error), reason=RefusalReason.IDENTITY_MISMATCH
            ) from None

    def is_claimed_by(self, payload: Identification) -> bool:
        """Whether a payload claims this very identity."""
        if payload.id_type == self.id_type and payload.data == self.data:
            return True
        try:
            return type(self).from_payload(payload) == self
        except ExchangeRefused:
            return False

    def as_initiator(self) -> IdInitiator:
        """The IDi payload."""
        return IdInitiator(id_type=self.id_type, data=self.data)

    def as_responder(self) -> IdResponder:
        """The IDr payload."""
        return IdResponder(id_type=self.id_type, data=self.data)


def _fqdn_text(data: bytes) -> str:
    if _FQDN.fullmatch(data) is None:
        raise ValueError("the identity is not a host name")
    text = data.decode("ascii")
    if not text[-1].isdigit():
        return text  # no address, then: those are slow to tell, and this is done for every peer
    try:
        IPv4Address(text)
    except AddressValueError:
        return text
    return f"fqdn:{text}"


def _ipv4_text(data: bytes) -> str:
    if len(data) != 4:
        raise ValueError("the identity is not an IPv4 address")
    return str(IPv4Address(data))


def _ipv6_text(data: bytes) -> str:
    if len(data) != 16:
        raise ValueError("the identity is not an IPv6 address")
    return str(IPv6Address(data))


def _rfc822_text(data: bytes) -> str:
    if _RFC822.fullmatch(data) is None:
        raise ValueError("the identity is not a mail address")
    text = data.decode("ascii")
    return f"email:{text}" if "=" in text else text


def _dn_text(data: bytes) -> str:
    name = _read_name(data)
    # Two names are one if they have the same attributes with the same text, whatever string types (UTF8String,
    # PrintableString) their encoders prefer. RFC 4514 section 2.4 lets us escape what would not print.
    text = "".join(each if each.isprintable() else _escape(each) for each in name.rfc4514_string())
    try:
        if _read_name(_dn(text)) == name:
            return text
    except ValueError:
        pass
    return f"dn:0x{data.hex()}"  # an attribute that holds what it must not: nothing that people spell


def _read_name(data: bytes) -> x509.Name:
    try:
        with warnings.catch_warnings():
            # For attributes whose lengths are not as X.520 has them: the peer's affair.
            warnings.simplefilter("ignore")
            name = x509.Name.from_bytes(data)
        if name.rdns and name.public_bytes() == data:
            return name
    except (ValueError, TypeError):
        pass
    raise ValueError("the identity is not a distinguished name")


def _escape(character: str) -> str:
    return "".join(f"\\{byte:02x}" for byte in character.encode())


def _key_id_text(data: bytes) -> str:
    if _PLAIN_KEY_ID.fullmatch(data) is not None and not data.startswith(b"0x"):
        return f"keyid:{data.decode('ascii')}"
    return f"keyid:0x{data.hex()}"


_TEXTS: Final[dict[int, Callable[[bytes], str]]] = {
    IdType.FQDN: _fqdn_text,
    IdType.IPV4_ADDR: _ipv4_text,
    IdType.IPV6_ADDR: _ipv6_text,
    IdType.RFC822_ADDR: _rfc822_text,
    IdType.DER_ASN1_DN: _dn_text,
    IdType.KEY_ID: _key_id_text,
}


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError(f"not an identity: {text!r}") from None


def _dn(text: str) -> bytes:
    if text.startswith("0x"):
        return bytes.fromhex(text[2:])
    try:
        return x509.Name.from_rfc4514_string(text).public_bytes()
    except (ValueError, TypeError):
        raise ValueError(f"not a distinguished name (RFC 4514): {text!r}") from None


def _key_id(text: str) -> bytes:
    return bytes.fromhex(text[2:]) if text.startswith("0x") else _ascii(text)


_PREFIXES: Final = {
    "fqdn": IdType.FQDN,
    "ipv4": IdType.IPV4_ADDR,
    "ipv6": IdType.IPV6_ADDR,
    "email": IdType.RFC822_ADDR,
    "dn": IdType.DER_ASN1_DN,
    "keyid": IdType.KEY_ID,
}
_READERS: Final[dict[str, Callable[[str], bytes]]] = {
    "fqdn": _ascii,
    "ipv4": lambda text: IPv4Address(text).packed,
    "ipv6": lambda text: IPv6Address(text).packed,
    "email": _ascii,
    "dn": _dn,
    "keyid": _key_id,
}
