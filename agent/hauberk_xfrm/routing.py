"""Routes, rules and xfrm devices over netlink: the part of rtnetlink that intercepting by an interface needs.

What is ours is marked with a protocol number of our own, routes and rules alike, and nothing else is ever changed.
pyroute2's IPRoute can't be used from a running loop (`netlink`); these are three small messages.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from socket import AF_INET, AF_INET6
from struct import Struct
from typing import Final, TypeVar

from hauberk_xfrm.address import IpAddress, IpNetwork
from hauberk_xfrm.attribute import Malformed, build_attribute, parse_attributes
from hauberk_xfrm.errors import XfrmError, error_from_errno
from hauberk_xfrm.layout import NETLINK_ROUTE, UINT32
from hauberk_xfrm.netlink import NLM_F_CREATE, NLM_F_EXCL, Answer, Message, NetlinkSocket
from hauberk_xfrm.route import Route, RouteKind, Rule, XfrmDevice

OUR_PROTOCOL: Final = 72
"""RTPROT_*: who made a route or a rule. Numbers from 5 on are anybody's (/etc/iproute2/rt_protos)."""

MAIN_TABLE: Final = 254
"""RT_TABLE_MAIN: where CNIs have their routes."""

# struct ifinfomsg: family, (1), type, index, flags, change
_IFINFOMSG = Struct("=BxHiII")
# struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
_RTMSG = Struct("=8BI")
# struct fib_rule_hdr: family, dst_len, src_len, tos, table, (2), action, flags
_RULE = Struct("=5B2xBI")

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_NLM_F_REPLACE: Final = 0x100
_IFF_UP: Final = 1
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_XFRM_IF_ID = 3, 18, 1, 2, 2
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 6, 7, 15
_FRA_SRC, _FRA_PRIORITY, _FRA_TABLE, _FRA_PROTOCOL = 2, 6, 15, 21
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_TO_TABLE: Final = 1  # FR_ACT_TO_TBL
_FAMILIES: Final = {4: AF_INET, 6: AF_INET6}
_VERSIONS: Final = {AF_INET: 4, AF_INET6: 6}

_KINDS: Final = frozenset(int(kind) for kind in RouteKind)

T = TypeVar("T")


class Routing:
    """Requests for the network namespace of the thread that makes the first of them. All methods raise XfrmError."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_ROUTE)

    def close(self) -> None:
        """Closes the socket; nothing else changes."""
        self._netlink.close()

    def xfrm_devices(self) -> list[XfrmDevice]:
        """All of them, anybody's."""
        return self._dump("list devices", Message(type=_GETLINK, body=_IFINFOMSG.pack(0, 0, 0, 0, 0)), _parse_device)

    def add_device(self, name: str, if_id: int) -> None:
        """Makes a device and sets it up. EEXIST for a name or an interface id that is taken."""
        data = build_attribute(_IFLA_INFO_DATA, build_attribute(_IFLA_XFRM_IF_ID, UINT32.pack(if_id)))
        info = build_attribute(_IFLA_INFO_KIND, b"xfrm\0") + data
        body = (
            _IFINFOMSG.pack(0, 0, 0, _IFF_UP, _IFF_UP)
            + build_attribute(_IFLA_IFNAME, name.encode() + b"\0")
            + build_attribute(_IFLA_LINKINFO, info)
        )
        self._request("make", f"device {name}", Message(type=_NEWLINK, body=body, flags=NLM_F_CREATE | NLM_F_EXCL))

    def set_up(self, device: XfrmDevice) -> None:
        body = _IFINFOMSG.pack(0, 0, device.index, _IFF_UP, _IFF_UP)
        self._request("set up", f"device {device.name}", Message(type=_NEWLINK, body=body))

    def delete_device(self, device: XfrmDevice) -> None:
        """Its routes go with it."""
        self._request(
            "delete",
            f"device {device.name}",
            Message(type=_DELLINK, body=_IFINFOMSG.pack(0, 0, device.index, 0, 0)),
            missing=errno.ENODEV,
        )

    def routes(self) -> list[Route]:
        """Ours, of all tables."""
        return self._dump_both("list routes", _GETROUTE, _RTMSG, _parse_route)

    def others_destinations(self) -> list[IpNetwork]:
        """Where routes of the main table lead that are not ours, default routes aside."""
        return self._dump_both("list routes", _GETROUTE, _RTMSG, _parse_others_destination)

    def rules(self) -> list[Rule]:
        """Ours."""
        return self._dump_both("list rules", _GETRULE, _RULE, _parse_rule)

    def add_routes(self, routes: Sequence[Route]) -> list[XfrmError | None]:
        """In order; a route of the same table, destination and metric is replaced. Returns what became of each."""
        flags = NLM_F_CREATE | _NLM_F_REPLACE
        return self._change("add", routes, [Message(type=_NEWROUTE, body=_route(r), flags=flags) for r in routes])

    def delete_routes(self, routes: Sequence[Route]) -> list[XfrmError | None]:
        messages = [Message(type=_DELROUTE, body=_route(route)) for route in routes]
        return self._change("delete", routes, messages, missing=errno.ESRCH)

    def add_rules(self, rules: Sequence[Rule]) -> list[XfrmError | None]:
        flags = NLM_F_CREATE | NLM_F_EXCL
        return self._change("add", rules, [Message(type=_NEWRULE, body=_rule(r), flags=flags) for r in rules])

    def delete_rules(self, rules: Sequence[Rule]) -> list[XfrmError | None]:
        messages = [Message(type=_DELRULE, body=_rule(rule)) for rule in rules]
        return self._change("delete", rules, messages, missing=errno.ENOENT)

    def _change(
        self, operation: str, items: Iterable[object], messages: Sequence[Message], *, missing: int = 0
    ) -> list[XfrmError | None]:
        try:
            answers = self._netlink.request(messages)
        except OSError as error:
            raise error_from_errno(operation, "routes", error.errno or errno.EIO, None) from error
        return [
            None if answer.errno in (0, missing) else _error(operation, str(item), answer)
            for item, answer in zip(items, answers, strict=True)
        ]

    def _request(self, operation: str, subject: str, message: Message, *, missing: int = 0) -> None:
        (error,) = self._change(operation, [subject], [message], missing=missing)
        if error is not None:
            raise error

    def _dump_both(self, operation: str, kind: int, head: Struct, parse: Callable[[bytes], T | None]) -> list[T]:
        """Of IPv4 and IPv6. Each head begins with the family, and nothing else of it is asked for."""
        found: list[T] = []
        for family in _VERSIONS:
            body = bytes((family,)).ljust(head.size, b"\0")
            found += self._dump(operation, Message(type=kind, body=body), parse)
        return found

    def _dump(self, operation: str, request: Message, parse: Callable[[bytes], T | None]) -> list[T]:
        try:
            answer = self._netlink.dump(request)
            if answer.errno:
                raise _error(operation, "", answer)
            parsed = [parse(message.body) for message in answer.messages]
        except Malformed as error:
            raise XfrmError(operation, "", errno.EPROTO, str(error)) from error
        except OSError as error:
            raise error_from_errno(operation, "", error.errno or errno.EIO, None) from error
        return [item for item in parsed if item is not None]


def _error(operation: str, subject: str, answer: Answer) -> XfrmError:
    return error_from_errno(operation, subject, answer.errno, answer.reason)


def _route(route: Route) -> bytes:
    network = route.destination
    scope = _SCOPE_LINK if route.kind is RouteKind.UNICAST and network.version == 4 else _SCOPE_UNIVERSE
    family = _FAMILIES[network.version]
    body = _RTMSG.pack(family, network.prefixlen, 0, 0, 0, OUR_PROTOCOL, scope, route.kind, 0)
    body += build_attribute(_RTA_DST, network.network_address.packed)
    body += build_attribute(_RTA_TABLE, UINT32.pack(route.table))
    body += build_attribute(_RTA_PRIORITY, UINT32.pack(route.metric))
    if route.device is not None:
        body += build_attribute(_RTA_OIF, UINT32.pack(route.device))
    if route.source is not None:
        body += build_attribute(_RTA_PREFSRC, route.source.packed)
    return body


def _rule(rule: Rule) -> bytes:
    source_length = rule.source.prefixlen if rule.source is not None else 0
    body = _RULE.pack(_FAMILIES[rule.version], 0, source_length, 0, 0, _TO_TABLE, 0)
    if rule.source is not None:
        body += build_attribute(_FRA_SRC, rule.source.network_address.packed)
    body += build_attribute(_FRA_PRIORITY, UINT32.pack(rule.preference))
    body += build_attribute(_FRA_TABLE, UINT32.pack(rule.table))
    return body + build_attribute(_FRA_PROTOCOL, bytes((OUR_PROTOCOL,)))


def _parse_device(body: bytes) -> XfrmDevice | None:
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    attributes = dict(parse_attributes(body, _IFINFOMSG.size))
    info = dict(parse_attributes(attributes.get(_IFLA_LINKINFO, b""), 0))
    if info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0") != b"xfrm":
        return None
    data = dict(parse_attributes(info.get(_IFLA_INFO_DATA, b""), 0))
    return XfrmDevice(
        name=attributes[_IFLA_IFNAME].rstrip(b"\0").decode(),
        if_id=_number(data.get(_IFLA_XFRM_IF_ID)),
        index=index,
        up=bool(flags & _IFF_UP),
    )


def _parse_route(body: bytes) -> Route | None:
    """None for what is not ours, or of a kind that we don't make."""
    family, length, _, _, _, protocol, _, kind, _ = _RTMSG.unpack_from(body)
    if protocol != OUR_PROTOCOL or family not in _VERSIONS or kind not in _KINDS:
        return None
    attributes = dict(parse_attributes(body, _RTMSG.size))
    source = attributes.get(_RTA_PREFSRC)
    return Route(
        table=_number(attributes.get(_RTA_TABLE)),
        destination=_network(family, attributes.get(_RTA_DST), length),
        kind=RouteKind(kind),
        metric=_number(attributes.get(_RTA_PRIORITY)),
        # Routes to nowhere of IPv6 are shown with the loopback device.
        device=_number(attributes.get(_RTA_OIF)) if kind == RouteKind.UNICAST else None,
        source=_address(source) if source is not None else None,
    )


def _parse_others_destination(body: bytes) -> IpNetwork | None:
    """None for what is ours, of another table, or a default route."""
    family, length, _, _, table, protocol, _, _, _ = _RTMSG.unpack_from(body)
    if protocol == OUR_PROTOCOL or table != MAIN_TABLE or not length or family not in _VERSIONS:
        return None
    return _network(family, dict(parse_attributes(body, _RTMSG.size)).get(_RTA_DST), length)


def _parse_rule(body: bytes) -> Rule | None:
    """None for what is not ours."""
    family, _, length, _, _, _, _ = _RULE.unpack_from(body)
    attributes = dict(parse_attributes(body, _RULE.size))
    if attributes.get(_FRA_PROTOCOL) != bytes((OUR_PROTOCOL,)) or family not in _VERSIONS:
        return None
    source = attributes.get(_FRA_SRC)
    return Rule(
        version=_VERSIONS[family],
        preference=_number(attributes.get(_FRA_PRIORITY)),
        table=_number(attributes.get(_FRA_TABLE)),
        source=_network(family, source, length) if source is not None else None,
    )


def _number(value: bytes | None) -> int:
    if value is None:
        return 0
    if len(value) != UINT32.size:
        raise Malformed(f"a number of {len(value)} bytes")
    (number,) = UINT32.unpack(value)
    return number


def _address(value: bytes) -> IpAddress:
    return IPv4Address(value) if len(value) == 4 else IPv6Address(value)


def _network(family: int, value: bytes | None, length: int) -> IpNetwork:
    address = _address(value) if value is not None else (IPv4Address(0) if family == AF_INET else IPv6Address(0))
    return ip_network((address, length))
