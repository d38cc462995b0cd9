"""Counts the packets that pass in clear though they could have been encrypted, in an nftables table of our own.

The table is called `hauberk` in the family inet. Its two chains only count, whatever else the host's firewall does:

    set clear4 { type ipv4_addr; flags interval; }                 and clear6: the peers' networks
    chain arriving { type filter hook prerouting priority 0;
                     ip saddr @clear4 meta secpath missing counter }
    chain leaving  { type filter hook postrouting priority 0;
                     ip daddr @clear4 rt ipsec missing counter }

Messages as in include/uapi/linux/netfilter/nf_tables.h; numbers are big-endian there. A change is one transaction:
between BATCH_BEGIN and BATCH_END all of it is done, or nothing (net/netfilter/nfnetlink.c).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from errno import ENOENT
from ipaddress import IPv4Address, IPv6Address, collapse_addresses
from struct import Struct

from hauberk_xfrm.attribute import Malformed, build_attribute, parse_attributes
from hauberk_xfrm.errors import XfrmError, error_from_errno
from hauberk_xfrm.netlink import NLM_F_CREATE, Message, NetlinkSocket
from hauberk_xfrm.selector import IpNetwork

_NETLINK_NETFILTER = 12
_SUBSYSTEM_NFTABLES = 10
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _GETRULE, _NEWSET, _NEWSETELEM = 0, 1, 2, 3, 6, 7, 9, 12
_NLM_F_APPEND = 0x800

# struct nfgenmsg: family, version (0), resource id (big-endian)
_NFGENMSG = Struct(">BBH")
_NFPROTO_INET = 1
_U32 = Struct(">I")
_U64 = Struct(">Q")

_TABLE = "hauberk"
_HOOK_PREROUTING, _HOOK_POSTROUTING = 0, 4
_SET_INTERVAL = 0x4
_ELEMENT_INTERVAL_END = 0x1
_REGISTER = 1
_META_NFPROTO, _META_SECPATH = 15, 25
_RT_XFRM = 4
_NETWORK_HEADER = 1

_ELEMENTS_PER_MESSAGE = 1000
"""An attribute holds 64 KiB at most."""

_SEND_BUFFER_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    version: int
    nfproto: int
    address_bytes: int
    source_offset: int
    destination_offset: int
    key_type: int
    """nft's own number of the type, which only programs that list tables read."""

    @property
    def set_name(self) -> str:
        return f"clear{self.version}"


_FAMILIES = (
    _Family(version=4, nfproto=2, address_bytes=4, source_offset=12, destination_offset=16, key_type=7),
    _Family(version=6, nfproto=10, address_bytes=16, source_offset=8, destination_offset=24, key_type=8),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearPackets:
    """Since the table was made."""

    arriving: int
    leaving: int


class ClearCounter:
    """The table. Methods raise XfrmError when the kernel refuses; nothing is loaded or opened before the first call."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(_NETLINK_NETFILTER, send_buffer_bytes=_SEND_BUFFER_BYTES)

    def close(self) -> None:
        self._netlink.close()

    def count(self, networks: Iterable[IpNetwork]) -> None:
        """Makes the table anew, to count packets from and to these networks."""
        made = [_table(_NEWTABLE), _table(_DELTABLE, create=False), _table(_NEWTABLE)]
        networks = list(networks)
        for family in _FAMILIES:
            made += _set(family, [network for network in networks if network.version == family.version])
        made += [_chain("arriving", _HOOK_PREROUTING), _chain("leaving", _HOOK_POSTROUTING)]
        for family in _FAMILIES:
            made.append(_rule("arriving", family, family.source_offset, _meta(_META_SECPATH)))
            made.append(_rule("leaving", family, family.destination_offset, _routed_through_xfrm()))
        self._commit("make", made)

    def remove(self) -> None:
        """Idempotent. Where there is no table nothing is written, as every change to nftables costs milliseconds."""
        try:
            (answer,) = self._netlink.request([Message(type=_kind(_GETTABLE), body=_header() + _text(1, _TABLE))])
        except OSError as error:
            raise _refused("look for", error.errno or 0, None) from error
        if answer.errno == ENOENT:
            return
        if answer.errno:
            raise _refused("look for", answer.errno, answer.reason)
        self._commit("remove", [_table(_NEWTABLE), _table(_DELTABLE, create=False)])

    def read(self) -> ClearPackets | None:
        """What was counted, or None if the table is gone: reloading a firewall often flushes all tables."""
        arriving, leaving = self._read("arriving"), self._read("leaving")
        if arriving is None or leaving is None:
            return None
        return ClearPackets(arriving=arriving, leaving=leaving)

    def _read(self, chain: str) -> int | None:
        body = _header() + _text(1, _TABLE) + _text(2, chain)
        try:
            answer = self._netlink.dump(Message(type=_kind(_GETRULE), body=body))
            if answer.errno == ENOENT:
                return None
            if answer.errno:
                raise _refused("read", answer.errno, answer.reason)
            counted = [_counted(message.body) for message in answer.messages]
        except (OSError, Malformed) as error:
            raise _refused("read", getattr(error, "errno", 0) or 0, str(error)) from error
        return sum(counted) if len(counted) == len(_FAMILIES) else None

    def _commit(self, what: str, messages: Sequence[Message]) -> None:
        begin, end = (
            Message(type=kind, body=_NFGENMSG.pack(0, 0, _SUBSYSTEM_NFTABLES)) for kind in (_BATCH_BEGIN, _BATCH_END)
        )
        try:
            answer = self._netlink.transact(begin, messages, end)
        except (OSError, Malformed) as error:
            raise _refused(what, getattr(error, "errno", 0) or 0, str(error)) from error
        if answer.errno:
            raise _refused(what, answer.errno, answer.reason)


def _refused(what: str, errno: int, reason: str | None) -> XfrmError:
    return error_from_errno(what, f"nftables table inet {_TABLE}", errno, reason)


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


def _table(kind: int, *, create: bool = True) -> Message:
    return _message(kind, _text(1, _TABLE), flags=NLM_F_CREATE if create else 0)


def _chain(name: str, hook: int) -> Message:
    """A base chain that counts after connection tracking has seen a packet and before its source is translated."""
    where = build_attribute(4, _number(1, hook) + _number(2, 0))
    return _message(_NEWCHAIN, _text(1, _TABLE), _text(3, name), where, _text(7, "filter"))


def _set(family: _Family, networks: Sequence[IpNetwork]) -> list[Message]:
    """The set, and its elements: where each interval begins, and the first address behind it."""
    table, name = _text(1, _TABLE), family.set_name
    messages = [
        _message(
            _NEWSET,
            table,
            _text(2, name),
            _number(3, _SET_INTERVAL),
            _number(4, family.key_type),
            _number(5, family.address_bytes),
            _number(10, family.version),
        )
    ]
    elements: list[bytes] = []
    for network in _collapsed(networks):
        elements.append(_element(network.network_address))
        if int(network.broadcast_address) + 1 < 1 << (8 * family.address_bytes):
            elements.append(_element(network.broadcast_address + 1, end=True))
    for start in range(0, len(elements), _ELEMENTS_PER_MESSAGE):
        part = b"".join(elements[start : start + _ELEMENTS_PER_MESSAGE])
        messages.append(_message(_NEWSETELEM, table, _text(2, name), build_attribute(3, part)))
    return messages


def _collapsed(networks: Iterable[IpNetwork]) -> list[IpNetwork]:
    """Without overlaps, which a set refuses."""
    four, six = [n for n in networks if n.version == 4], [n for n in networks if n.version == 6]
    return [*collapse_addresses(four), *collapse_addresses(six)]


def _element(address: IPv4Address | IPv6Address, *, end: bool = False) -> bytes:
    key = build_attribute(1, build_attribute(1, address.packed))
    return build_attribute(1, key + (_number(3, _ELEMENT_INTERVAL_END) if end else b""))


def _rule(chain: str, family: _Family, address_offset: int, protected: bytes) -> Message:
    """Counts packets of the family whose address is in its set, if `protected` puts a 0 into the register."""
    expressions = (
        _meta(_META_NFPROTO),
        _equals(bytes((family.nfproto,))),
        _expression(
            "payload",
            _number(1, _REGISTER),
            _number(2, _NETWORK_HEADER),
            _number(3, address_offset),
            _number(4, family.address_bytes),
        ),
        _expression("lookup", _text(1, family.set_name), _number(2, _REGISTER)),
        protected,
        _equals(b"\0"),
        _expression("counter"),
    )
    listed = build_attribute(4, b"".join(expressions))
    return _message(_NEWRULE, _text(1, _TABLE), _text(2, chain), listed, flags=NLM_F_CREATE | _NLM_F_APPEND)


def _expression(name: str, *attributes: bytes) -> bytes:
    return build_attribute(1, _text(1, name) + build_attribute(2, b"".join(attributes)))


def _meta(key: int) -> bytes:
    return _expression("meta", _number(1, _REGISTER), _number(2, key))


def _routed_through_xfrm() -> bytes:
    return _expression("rt", _number(1, _REGISTER), _number(2, _RT_XFRM))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REGISTER), _number(2, 0), build_attribute(3, build_attribute(1, value)))


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
