"""Routes of our own to single hosts, which differ in one thing from those that the node has: packets are smaller.

They lie in a table of ours (ROUTE_TABLE), to which one rule of ours leads just ahead of the main table's, and are
copies of the node's own, which are looked up with a mark that passes by the rule: so nothing else about the way
changes, and what was there before is there when they go. The kernel measures outer packets by them, and inner ones by
what is then left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from errno import ENOENT, ESRCH
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6
from struct import Struct
from typing import Final

from hauberk_xfrm.address import IpAddress
from hauberk_xfrm.attribute import Malformed, build_attribute, parse_attributes
from hauberk_xfrm.errors import error_from_errno
from hauberk_xfrm.layout import NETLINK_ROUTE
from hauberk_xfrm.netlink import NLM_F_CREATE, Answer, Message, NetlinkSocket

ROUTE_TABLE: Final = 0x4842
"""Tables below 256 have names and owners."""
ROUTE_MARK: Final = 0x4842_4D54
"""Of lookups that pass by our rule; no packet has it."""
RULE_PRIORITY: Final = 32_764
"""The main table's is 32766: whoever made rules of his own comes first."""

_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_NLM_F_REPLACE: Final = 0x100
# struct rtmsg: family, prefix lengths of destination and source, tos, table, protocol, scope, type, flags
_RTMSG = Struct("=BBBBBBBBI")
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_RTA_METRICS, _RTA_TABLE, _RTA_MARK, _RTA_VIA = 8, 15, 16, 18
_RTAX_MTU: Final = 2
_RTN_UNICAST: Final = 1
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255
_RTNH_F_ONLINK: Final = 4
_PROTOCOL: Final = 73
"""RTPROT_*: who made a route. Another one than `routing` has, which keeps its own in order."""
# struct fib_rule_hdr: family, prefix lengths, tos, table, (2), action, flags
_RULE = Struct("=BBBBB2xBI")
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 6, 10, 15, 16
_FR_ACT_TO_TBL: Final = 1
_FIB_RULE_INVERT: Final = 2
_UINT32 = Struct("=I")
_GONE: Final = (ENOENT, ESRCH)
_FAMILIES: Final = {4: AF_INET, 6: AF_INET6}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How the kernel would send to a host: the attributes that a copy needs, by number."""

    attributes: tuple[tuple[int, bytes], ...]
    table: int
    mtu: int | None

    @property
    def has_gateway(self) -> bool:
        return any(kind in (_RTA_GATEWAY, _RTA_VIA) for kind, _ in self.attributes)


class PathRoutes:
    """The table and its rules. Methods raise XfrmError; nothing is opened before the first call."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_ROUTE)
        self._present: set[IpAddress] | None = None
        """What the table has; None: not known, as an earlier run may have left something."""

    def close(self) -> None:
        self._netlink.close()

    def follow(self, mtus: Mapping[IpAddress, int]) -> None:
        """Makes packets to these hosts no larger than this, and leaves those to all others alone. Idempotent."""
        present = self._dump() if self._present is None else self._present
        for version in _FAMILIES:
            self._want_rule(version, wanted=any(host.version == version for host in mtus))
        for host in present - mtus.keys():
            self._delete(host)
        self._present = set(mtus)
        for host, mtu in mtus.items():
            self._want_route(host, mtu)

    def remove(self) -> None:
        """All of it, also what an earlier run left."""
        self._present = None
        self.follow({})

    def _want_route(self, host: IpAddress, mtu: int) -> None:
        wanted, now = self._way(host, mark=ROUTE_MARK), self._way(host)
        if wanted is None:
            return  # there is no way to it: neither by a route of ours
        if now == _Way(attributes=wanted.attributes, table=ROUTE_TABLE, mtu=mtu):
            return
        body = _RTMSG.pack(
            _FAMILIES[host.version],
            host.max_prefixlen,
            0,
            0,
            0,
            _PROTOCOL,
            _SCOPE_UNIVERSE if wanted.has_gateway or host.version == 6 else _SCOPE_LINK,
            _RTN_UNICAST,
            _RTNH_F_ONLINK if wanted.has_gateway else 0,
        )
        body += build_attribute(_RTA_DST, host.packed) + build_attribute(_RTA_TABLE, _UINT32.pack(ROUTE_TABLE))
        body += b"".join(build_attribute(kind, value) for kind, value in wanted.attributes)
        body += build_attribute(_RTA_METRICS, build_attribute(_RTAX_MTU, _UINT32.pack(mtu)))
        self._do("add", host, Message(type=_RTM_NEWROUTE, body=body, flags=NLM_F_CREATE | _NLM_F_REPLACE))

    def _delete(self, host: IpAddress) -> None:
        body = _RTMSG.pack(_FAMILIES[host.version], host.max_prefixlen, 0, 0, 0, 0, _SCOPE_NOWHERE, 0, 0)
        body += build_attribute(_RTA_DST, host.packed) + build_attribute(_RTA_TABLE, _UINT32.pack(ROUTE_TABLE))
        self._do("delete", host, Message(type=_RTM_DELROUTE, body=body), missing_ok=True)

    def _way(self, host: IpAddress, *, mark: int = 0) -> _Way | None:
        """None if there is none."""
        body = _RTMSG.pack(_FAMILIES[host.version], host.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        body += build_attribute(_RTA_DST, host.packed)
        if mark:
            body += build_attribute(_RTA_MARK, _UINT32.pack(mark))
        answer = self._ask(Message(type=_RTM_GETROUTE, body=body), host)
        if answer.errno or not answer.messages:
            return None
        attributes = list(parse_attributes(answer.messages[0].body, _RTMSG.size))
        given = dict(attributes)
        table = _UINT32.unpack(given[_RTA_TABLE])[0] if _RTA_TABLE in given else 0
        metrics = dict(parse_attributes(given.get(_RTA_METRICS, b""), 0))
        return _Way(
            attributes=tuple(
                (kind, given[kind]) for kind in (_RTA_OIF, _RTA_GATEWAY, _RTA_VIA, _RTA_PREFSRC) if kind in given
            ),
            table=table,
            mtu=_UINT32.unpack(metrics[_RTAX_MTU])[0] if _RTAX_MTU in metrics else None,
        )

    def _dump(self) -> set[IpAddress]:
        """The hosts that the table has routes to."""
        found: set[IpAddress] = set()
        for version, family in _FAMILIES.items():
            body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            for message in self._dumped(Message(type=_RTM_GETROUTE, body=body)):
                given = dict(parse_attributes(message.body, _RTMSG.size))
                if given.get(_RTA_TABLE) == _UINT32.pack(ROUTE_TABLE) and _RTA_DST in given:
                    found.add(_address(version, given[_RTA_DST]))
        return found

    def _want_rule(self, version: int, *, wanted: bool) -> None:
        body = _RULE.pack(_FAMILIES[version], 0, 0, 0, 0, 0, 0)
        present = any(
            dict(parse_attributes(message.body, _RULE.size)).get(_FRA_TABLE) == _UINT32.pack(ROUTE_TABLE)
            for message in self._dumped(Message(type=_RTM_GETRULE, body=body))
        )
        if present is wanted:
            return
        body = _RULE.pack(_FAMILIES[version], 0, 0, 0, 0, _FR_ACT_TO_TBL, _FIB_RULE_INVERT)
        for kind, value in (
            (_FRA_PRIORITY, RULE_PRIORITY),
            (_FRA_FWMARK, ROUTE_MARK),
            (_FRA_FWMASK, 0xFFFFFFFF),
            (_FRA_TABLE, ROUTE_TABLE),
        ):
            body += build_attribute(kind, _UINT32.pack(value))
        if wanted:
            self._do("add", f"IPv{version} rule", Message(type=_RTM_NEWRULE, body=body, flags=NLM_F_CREATE))
        else:
            self._do("delete", f"IPv{version} rule", Message(type=_RTM_DELRULE, body=body), missing_ok=True)

    def _do(self, what: str, subject: object, message: Message, *, missing_ok: bool = False) -> None:
        answer = self._ask(message, subject)
        if answer.errno and not (missing_ok and answer.errno in _GONE):
            raise error_from_errno(what, f"route table {ROUTE_TABLE}: {subject}", answer.errno, answer.reason)

    def _ask(self, message: Message, subject: object) -> Answer:
        try:
            (answer,) = self._netlink.request([message])
        except (OSError, Malformed) as error:
            errno = getattr(error, "errno", 0) or 0
            raise error_from_errno("ask", f"route table {ROUTE_TABLE}: {subject}", errno, str(error)) from error
        return answer

    def _dumped(self, message: Message) -> tuple[Message, ...]:
        try:
            answer = self._netlink.dump(message)
        except (OSError, Malformed) as error:
            errno = getattr(error, "errno", 0) or 0
            raise error_from_errno("read", f"route table {ROUTE_TABLE}", errno, str(error)) from error
        if answer.errno:
            raise error_from_errno("read", f"route table {ROUTE_TABLE}", answer.errno, answer.reason)
        return answer.messages


def _address(version: int, packed: bytes) -> IpAddress:
    return IPv4Address(packed) if version == 4 else IPv6Address(packed)
