"""Chains of payloads, and messages in the clear (RFC 7296 sections 2.5, 3.1 and 3.2).

Encrypted messages are `hauberk_ike.protection`'s; it uses the chains from here.
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, Final, TypeVar

from hauberk_ike.errors import MalformedMessage, UnsupportedCritical
from hauberk_ike.numbers import FIRST_STATUS_NOTIFY, PayloadType
from hauberk_ike.wire.header import HEADER, VERSION
from hauberk_ike.wire.payloads import (
    Authentication,
    CertificatePayload,
    CertificateRequest,
    Delete,
    IdInitiator,
    IdResponder,
    KeyExchangePayload,
    Nonce,
    Notify,
    UnknownPayload,
    VendorId,
)
from hauberk_ike.wire.security_association import SecurityAssociation
from hauberk_ike.wire.traffic_selectors import TsInitiator, TsResponder

# next payload, flags, length (2) of the whole payload
GENERIC: Final = Struct("!BBH")
FLAG_CRITICAL: Final = 0x80

MAX_PAYLOADS: Final = 64
"""Per message. strongSwan's longest hold about 30."""

KnownPayload = (
    SecurityAssociation
    | KeyExchangePayload
    | IdInitiator
    | IdResponder
    | CertificatePayload
    | CertificateRequest
    | Authentication
    | Nonce
    | Notify
    | Delete
    | VendorId
    | TsInitiator
    | TsResponder
)
Payload = KnownPayload | UnknownPayload

_KINDS: Final[dict[int, type[KnownPayload]]] = {
    kind.TYPE: kind
    for kind in (
        SecurityAssociation,
        KeyExchangePayload,
        IdInitiator,
        IdResponder,
        CertificatePayload,
        CertificateRequest,
        Authentication,
        Nonce,
        Notify,
        Delete,
        VendorId,
        TsInitiator,
        TsResponder,
    )
}

# Types of RFC 7296 itself that we have no use for: their critical bit is to be ignored (section 2.5).
_UNUSED: Final = frozenset({PayloadType.CP, PayloadType.EAP})

_PARSERS: Final = {payload_type: kind.parse for payload_type, kind in _KINDS.items()}
_HEADER_LENGTH: Final = GENERIC.size

_Known = TypeVar("_Known", bound=KnownPayload)


def parse_payloads(first: int, data: bytes, offset: int = 0) -> list[Payload]:
    """The chain of payloads that fills `data` from `offset`, the first being of type `first`.

    Raises MalformedMessage, and UnsupportedCritical for an unknown payload with the critical bit. An Encrypted payload
    inside a chain counts as unknown: it can only be a message's first.
    """
    payloads: list[Payload] = []
    end = len(data)
    kind = first
    while kind:
        if len(payloads) == MAX_PAYLOADS:
            raise MalformedMessage(f"more than {MAX_PAYLOADS} payloads")
        body_start = offset + _HEADER_LENGTH
        if body_start > end:
            raise MalformedMessage("a payload is cut off")
        following, flags, length = GENERIC.unpack_from(data, offset)
        offset += length
        if length < _HEADER_LENGTH or offset > end:
            raise MalformedMessage("a payload's length does not fit its message")
        parse = _PARSERS.get(kind)
        if parse is not None:
            payloads.append(parse(data[body_start:offset]))
        elif flags & FLAG_CRITICAL and kind not in _UNUSED:
            raise UnsupportedCritical(kind)
        else:
            payloads.append(UnknownPayload(payload_type=kind, data=data[body_start:offset]))
        kind = following
    if offset != end:
        raise MalformedMessage("bytes after the last payload")
    return payloads


def build_payloads(payloads: Sequence[KnownPayload]) -> tuple[int, bytes]:
    """The type of the first payload (0 for none), and the chain."""
    parts: list[bytes] = []
    following: int = PayloadType.NONE
    for payload in reversed(payloads):
        body = payload.build()
        parts += (body, GENERIC.pack(following, 0, GENERIC.size + len(body)))
        following = payload.TYPE
    parts.reverse()
    return following, b"".join(parts)


def build_message(
    *,
    spi_i: bytes,
    spi_r: bytes,
    exchange_type: int,
    flags: int,
    message_id: int,
    payloads: Sequence[KnownPayload],
) -> bytes:
    """A whole message in the clear: IKE_SA_INIT, and errors outside any IKE SA."""
    first, chain = build_payloads(payloads)
    return HEADER.pack(spi_i, spi_r, first, VERSION, exchange_type, flags, message_id, HEADER.size + len(chain)) + chain


class Contents:
    """A message's payloads by what they are."""

    __slots__ = ("_by_kind", "_notifies", "payloads")

    def __init__(self, payloads: Iterable[Payload]) -> None:
        self.payloads = tuple(payloads)
        self._by_kind: dict[type[Payload], list[Any]] = {}
        self._notifies: dict[int, Notify] = {}
        """The first of each type: exchanges ask for several that are mostly not there."""
        for payload in self.payloads:
            kind = type(payload)
            if kind in self._by_kind:
                self._by_kind[kind].append(payload)
            else:
                self._by_kind[kind] = [payload]
            if isinstance(payload, Notify):
                self._notifies.setdefault(payload.type, payload)

    def all(self, kind: type[_Known]) -> Sequence[_Known]:
        """Every payload of a kind, in order."""
        return self._by_kind.get(kind, ())

    def maybe(self, kind: type[_Known]) -> _Known | None:
        """The payload of a kind, if there is one. Raises MalformedMessage for several."""
        found = self._by_kind.get(kind)
        if found is None:
            return None
        if len(found) > 1:
            raise MalformedMessage(f"several payloads of type {kind.TYPE.name}")
        return found[0]

    def one(self, kind: type[_Known]) -> _Known:
        """The one payload of a kind. Raises MalformedMessage if it is missing or not alone."""
        found = self._by_kind.get(kind)
        if found is not None and len(found) == 1:
            return found[0]
        raise MalformedMessage(f"{'several payloads' if found else 'no payload'} of type {kind.TYPE.name}")

    def notify(self, notify_type: int) -> Notify | None:
        """The first notify of a type."""
        return self._notifies.get(notify_type)

    def error(self) -> Notify | None:
        """The first notify that reports an error (below 16384)."""
        for notify_type, notify in self._notifies.items():
            if notify_type < FIRST_STATUS_NOTIFY:
                return notify
        return None
