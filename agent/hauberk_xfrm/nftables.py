"""Tables of nftables in the family inet, each of which is ours as a whole: what they are made of, as netlink has it.

Used by `ClearCounter` and `SegmentClamp`. Messages and expressions as in include/uapi/linux/netfilter/nf_tables.h;
numbers are big-endian there, and registers' contents are as packets have them. A change is one transaction: between
BATCH_BEGIN and BATCH_END all of it is done, or nothing (net/netfilter/nfnetlink.c).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from errno import ENOENT
from ipaddress import IPv4Address, IPv6Address, collapse_addresses
from struct import Struct
from typing import Final

from hauberk_xfrm.attribute import Malformed, build_attribute, parse_attributes
from hauberk_xfrm.errors import XfrmError, error_from_errno
from hauberk_xfrm.netlink import NLM_F_CREATE, Message, NetlinkSocket
from hauberk_xfrm.selector import IpNetwork

_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM_NFTABLES: Final = 10
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _GETRULE, _NEWSET, _NEWSETELEM = 0, 1, 2, 3, 6, 7, 9, 12
_NLM_F_APPEND: Final = 0x800

# struct nfgenmsg: family, version (0), resource id (big-endian)
_NFGENMSG = Struct(">BBH")
_NFPROTO_INET: Final = 1
_U32 = Struct(">I")
_U64 = Struct(">Q")

_SET_INTERVAL: Final = 0x4
_ELEMENT_INTERVAL_END: Final = 0x1
_REGISTER: Final = 1
_TCP_OPTION: Final = 1
_HOST_TO_NETWORK: Final = 1

_ELEMENTS_PER_MESSAGE: Final = 1000
"""An attribute holds 64 KiB at most."""

_SEND_BUFFER_BYTES: Final = 1 << 22


class Hook(IntEnum):
    """NF_INET_*."""

    PREROUTING = 0
    FORWARD = 2
    POSTROUTING = 4


class Header(IntEnum):
    """NFT_PAYLOAD_*_HEADER."""

    NETWORK = 1
    TRANSPORT = 2


class Meta(IntEnum):
    """NFT_META_*."""

    LEN = 0
    NFPROTO = 15
    L4PROTO = 16
    SECPATH = 25


class Route(IntEnum):
    """NFT_RT_*."""

    TCPMSS = 3
    XFRM = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """An IP version: its number, where its headers have their addresses, and what nft calls its addresses' type."""

    version: int
    nfproto: int
    address_bytes: int
    source_offset: int
    destination_offset: int
    key_type: int


FAMILIES: Final = (
    Family(version=4, nfproto=2, address_bytes=4, source_offset=12, destination_offset=16, key_type=7),
    Family(version=6, nfproto=10, address_bytes=16, source_offset=8, destination_offset=24, key_type=8),
)


class Table:
    """One table, made and removed as a whole. Nothing is loaded or opened before the first call.

    Methods raise XfrmError when the kernel refuses.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._netlink = NetlinkSocket(_NETLINK_NETFILTER, send_buffer_bytes=_SEND_BUFFER_BYTES)

    def close(self) -> None:
        self._netlink.close()

    def make(self, contents: Iterable[Message]) -> None:
        """Makes the table anew with these chains, sets and rules."""
        made = [self._table(_NEWTABLE), self._table(_DELTABLE, create=False), self._table(_NEWTABLE)]
        self._commit("make", [*made, *contents])

    def remove(self) -> None:
        """Idempotent. Where there is no table nothing is written, as every change to nftables costs milliseconds."""
        if self.exists():
            self._commit("remove", [self._table(_NEWTABLE), self._table(_DELTABLE, create=False)])

    def exists(self) -> bool:
        """Reloading a firewall often flushes all tables."""
        try:
            (answer,) = self._netlink.request([Message(type=_kind(_GETTABLE), body=_header() + self._text(1))])
        except OSError as error:
            raise self._refused("look for", error.errno or 0, None) from error
        if answer.errno == ENOENT:
            return False
        if answer.errno:
            raise self._refused("look for", answer.errno, answer.reason)
        return True

    def counted(self, chain: str) -> list[int] | None:
        """The packets that each rule of a chain has counted; None if there is no such chain."""
        body = _header() + self._text(1) + _text(2, chain)
        try:
            answer = self._netlink.dump(Message(type=_kind(_GETRULE), body=body))
            if answer.errno == ENOENT:
                return None
            if answer.errno:
                raise self._refused("read", answer.errno, answer.reason)
            return [_counted(message.body) for message in answer.messages]
        except (OSError, Malformed) as error:
            raise self._refused("read", getattr(error, "errno", 0) or 0, str(error)) from error

    # What a table is made of

    def chain(self, name: str, hook: Hook, *, priority: int = 0) -> Message:
        """A base chain that lets everything pass."""
        where = build_attribute(4, _number(1, hook) + _number(2, priority & 0xFFFFFFFF))
        return _message(_NEWCHAIN, self._text(1), _text(3, name), where, _text(7, "filter"))

    def networks(self, name: str, family: Family, networks: Iterable[IpNetwork]) -> list[Message]:
        """A set of the networks of that family, whatever others there are."""
        chosen = [network for network in networks if network.version == family.version]
        messages = [
            _message(
                _NEWSET,
                self._text(1),
                _text(2, name),
                _number(3, _SET_INTERVAL),
                _number(4, family.key_type),
                _number(5, family.address_bytes),
                _number(10, family.version),
            )
        ]
        elements: list[bytes] = []
        for network in _collapsed(chosen):
            elements.append(_element(network.network_address))
            if int(network.broadcast_address) + 1 < 1 << (8 * family.address_bytes):
                elements.append(_element(network.broadcast_address + 1, end=True))
        for start in range(0, len(elements), _ELEMENTS_PER_MESSAGE):
            part = b"".join(elements[start : start + _ELEMENTS_PER_MESSAGE])
            messages.append(_message(_NEWSETELEM, self._text(1), _text(2, name), build_attribute(3, part)))
        return messages

    def rule(self, chain: str, *expressions: bytes) -> Message:
        """Appended to the chain. Expressions are done in order until one of them says no."""
        listed = build_attribute(4, b"".join(expressions))
        return _message(_NEWRULE, self._text(1), _text(2, chain), listed, flags=NLM_F_CREATE | _NLM_F_APPEND)

    def _table(self, kind: int, *, create: bool = True) -> Message:
        return _message(kind, self._text(1), flags=NLM_F_CREATE if create else 0)

    def _text(self, kind: int) -> bytes:
        return _text(kind, self._name)

    def _commit(self, what: str, messages: Sequence[Message]) -> None:
        begin, end = (
            Message(type=kind, body=_NFGENMSG.pack(0, 0, _SUBSYSTEM_NFTABLES)) for kind in (_BATCH_BEGIN, _BATCH_END)
        )
        try:
            answer = self._netlink.transact(begin, messages, end)
        except (OSError, Malformed) as error:
            raise self._refused(what, getattr(error, "errno", 0) or 0, str(error)) from error
        if answer.errno:
            raise self._refused(what, answer.errno, answer.reason)

    def _refused(self, what: str, errno: int, reason: str | None) -> XfrmError:
        return error_from_errno(what, f"nftables table inet {self._name}", errno, reason)


# Expressions. All of them work on the one register.


def load_meta(key: Meta) -> bytes:
    return _expression("meta", _number(1, _REGISTER), _number(2, key))


def load_route(key: Route) -> bytes:
    """What the packet's route says; numbers are in host order."""
    return _expression("rt", _number(1, _REGISTER), _number(2, key))


def load_payload(header: Header, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, _REGISTER), _number(2, header), _number(3, offset), _number(4, length))


def equals(value: bytes) -> bytes:
    """Goes on if the register has this."""
    return _expression("cmp", _number(1, _REGISTER), _number(2, 0), _data(3, value))


def mask(value: bytes) -> bytes:
    """Leaves these bits of the register."""
    return _expression(
        "bitwise",
        _number(1, _REGISTER),
        _number(2, _REGISTER),
        _number(3, len(value)),
        _data(4, value),
        _data(5, bytes(len(value))),
    )


def to_network_order(length: int) -> bytes:
    """Turns a number in host order round."""
    how = (_number(3, _HOST_TO_NETWORK), _number(4, length), _number(5, length))
    return _expression("byteorder", _number(1, _REGISTER), _number(2, _REGISTER), *how)


def is_in(name: str) -> bytes:
    """Goes on if the register is in a set."""
    return _expression("lookup", _text(1, name), _number(2, _REGISTER))


def load(value: bytes) -> bytes:
    return _expression("immediate", _number(1, _REGISTER), _data(2, value))


def count() -> bytes:
    return _expression("counter")


def lower_tcp_option(kind: int, offset: int, length: int) -> bytes:
    """Writes the register into an option of TCP, if it is there; a maximum segment size is lowered, never raised."""
    where = (build_attribute(2, bytes((kind,))), _number(3, offset), _number(4, length))
    return _expression("exthdr", *where, _number(6, _TCP_OPTION), _number(7, _REGISTER))


def _expression(name: str, *attributes: bytes) -> bytes:
    return build_attribute(1, _text(1, name) + build_attribute(2, b"".join(attributes)))


def _data(kind: int, value: bytes) -> bytes:
    return build_attribute(kind, build_attribute(1, value))


def _kind(message: int) -> int:
    return _SUBSYSTEM_NFTABLES << 8 | message


def _header() -> bytes:
    return _NFGENMSG.pack(_NFPROTO_INET, 0, 0)


def _message(kind: int, *attributes: bytes, flags: int = NLM_F_CREATE) -> Message:
    return Message(type=_kind(kind), body=_header() + b"".join(attributes), flags=flags)


def _text(kind: int, value: str) -> bytes:
    return build_attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return build_attribute(kind, _U32.pack(value))


def _collapsed(networks: Iterable[IpNetwork]) -> list[IpNetwork]:
    """Without overlaps, which a set refuses."""
    networks = list(networks)
    four, six = [n for n in networks if n.version == 4], [n for n in networks if n.version == 6]
    return [*collapse_addresses(four), *collapse_addresses(six)]


def _element(address: IPv4Address | IPv6Address, *, end: bool = False) -> bytes:
    key = build_attribute(1, build_attribute(1, address.packed))
    return build_attribute(1, key + (_number(3, _ELEMENT_INTERVAL_END) if end else b""))


def _counted(body: bytes) -> int:
    """The packets that a rule has counted."""
    expressions = dict(parse_attributes(body, _NFGENMSG.size)).get(4, b"")
    for _, expression in parse_attributes(expressions, 0):
        parts = dict(parse_attributes(expression, 0))
        if parts.get(1) == b"counter\0":
            packets = dict(parse_attributes(parts.get(2, b""), 0)).get(2, b"")
            if len(packets) == _U64.size:
                return int(_U64.unpack(packets)[0])
    return 0
