"""Traffic Selector payloads (RFC 7296 section 3.13); the selectors themselves are `hauberk_ike.selectors`."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import ClassVar, Final, Self

from hauberk_ike.errors import MalformedMessage
from hauberk_ike.numbers import PayloadType, TsType
from hauberk_ike.selectors import TrafficSelector

# number of selectors, reserved (3)
LIST: Final = Struct("!B3x")
# type, protocol, length (2), start port (2), end port (2); then start and end address
SELECTOR: Final = Struct("!BBHHH")

MAX_SELECTORS: Final = 255


def build_selector(selector: TrafficSelector) -> bytes:
    """One selector, 16 bytes for IPv4 and 40 for IPv6."""
    kind, size = (TsType.IPV4_ADDR_RANGE, 4) if selector.start.version == 4 else (TsType.IPV6_ADDR_RANGE, 16)
    return (
        SELECTOR.pack(kind, selector.protocol, SELECTOR.size + 2 * size, selector.start_port, selector.end_port)
        + selector.start.packed
        + selector.end.packed
    )


def parse_selector(
    kind: int, protocol: int, start_port: int, end_port: int, addresses: bytes
) -> TrafficSelector | None:
    """One selector, or None for a type that we don't know. Raises MalformedMessage."""
    if kind == TsType.IPV4_ADDR_RANGE:
        family, size = IPv4Address, 4
    elif kind == TsType.IPV6_ADDR_RANGE:
        family, size = IPv6Address, 16
    else:
        return None
    if len(addresses) != 2 * size:
        raise MalformedMessage("a traffic selector's length is not its type's")
    try:
        return TrafficSelector(
            start=family(addresses[:size]),
            end=family(addresses[size:]),
            protocol=protocol,
            start_port=start_port,
            end_port=end_port,
        )
    except ValueError as error:
        raise MalformedMessage(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSelectors:
    """A list of selectors: base of TSi and TSr. Selectors of unknown types are dropped, as narrowing allows."""

    selectors: tuple[TrafficSelector, ...]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises MalformedMessage."""
        if len(body) < LIST.size:
            raise MalformedMessage("a traffic selector payload is cut off")
        (count,) = LIST.unpack_from(body)
        selectors: list[TrafficSelector] = []
        seen = 0
        offset, end = LIST.size, len(body)
        while offset < end:
            if end - offset < SELECTOR.size:
                raise MalformedMessage("a traffic selector is cut off")
            kind, protocol, length, start_port, end_port = SELECTOR.unpack_from(body, offset)
            if length < SELECTOR.size or length > end - offset:
                raise MalformedMessage("a traffic selector's length does not fit its payload")
            seen += 1
            if seen > count:
                raise MalformedMessage("more traffic selectors than the payload says")
            addresses = body[offset + SELECTOR.size : offset + length]
            selector = parse_selector(kind, protocol, start_port, end_port, addresses)
            if selector is not None:
                selectors.append(selector)
            offset += length
        if seen != count or not count:
            raise MalformedMessage("fewer traffic selectors than the payload says, or none")
        return cls(selectors=tuple(selectors))

    def build(self) -> bytes:
        """The payload's body."""
        return LIST.pack(len(self.selectors)) + b"".join(map(build_selector, self.selectors))


@dataclass(frozen=True, slots=True, kw_only=True)
class TsInitiator(TrafficSelectors):
    """TSi: traffic from the exchange's initiator."""

    TYPE: ClassVar = PayloadType.TS_I


@dataclass(frozen=True, slots=True, kw_only=True)
class TsResponder(TrafficSelectors):
    """TSr: traffic to the exchange's responder's side."""

    TYPE: ClassVar = PayloadType.TS_R
