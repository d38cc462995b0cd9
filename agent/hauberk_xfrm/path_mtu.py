"""How large packets may be: to another node, as this kernel has it, and on the devices that lead to this node's pods.

To another node that is the route's MTU, the device's, or what a router has told (RFC 1191, RFC 8201), whichever it is
that the kernel goes by; inner packets are measured by the same (`xfrm_bundle_ok` in net/xfrm/xfrm_policy.c).
"""

import fcntl
import socket
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from struct import Struct
from typing import Final

from hauberk_xfrm.address import IpAddress
from hauberk_xfrm.attribute import Malformed, parse_attributes
from hauberk_xfrm.bypass import bypass_ipsec
from hauberk_xfrm.errors import error_from_errno
from hauberk_xfrm.layout import NETLINK_ROUTE
from hauberk_xfrm.netlink import Message, NetlinkSocket
from hauberk_xfrm.selector import IpNetwork

_IP_MTU: Final = 14  # linux/in.h
_IPV6_MTU: Final = 24  # linux/in6.h
_SIOCGIFMTU: Final = 0x8921
_ANY_PORT: Final = 9
"""Nothing is sent there: a socket is told its route as it is connected."""

_RTM_GETROUTE: Final = 26
# struct rtmsg: family, prefix lengths, tos, table, protocol, scope, type, flags
_RTMSG = Struct("=BBBBBBBBI")
_RTA_DST, _RTA_OIF = 1, 4
_RTN_UNICAST: Final = 1
_UINT32 = Struct("=I")
# struct ifreq: name, MTU
_IFREQ = Struct("=16si20x")


class PathMtu:
    """A socket for each of the node's own addresses, opened as it is needed. Needs CAP_NET_ADMIN.

    mark: routes are looked up as for packets that have it.
    """

    def __init__(self, *, mark: int = 0) -> None:
        self._mark = mark
        self._sockets: dict[IpAddress, socket.socket] = {}

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def read(self, local: IpAddress, remote: IpAddress) -> int | None:
        """The largest packet from here to there; None if there is no way."""
        option = (socket.IPPROTO_IPV6, _IPV6_MTU) if local.version == 6 else (socket.IPPROTO_IP, _IP_MTU)
        try:
            sock = self._sockets.get(local) or self._open(local)
            sock.connect((str(remote), _ANY_PORT))
            return sock.getsockopt(*option)
        except OSError:
            # The address may have gone and come back.
            sock = self._sockets.pop(local, None)
            if sock is not None:
                sock.close()
            return None

    def _open(self, local: IpAddress) -> socket.socket:
        family = socket.AF_INET6 if local.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            bypass_ipsec(sock)
            if self._mark:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
            sock.bind((str(local), 0))
        except OSError:
            sock.close()
            raise
        self._sockets[local] = sock
        return sock


def largest_device_mtu(networks: Iterable[IpNetwork]) -> int | None:
    """Of the devices with routes to any part of these networks, the largest MTU; None if there are no such devices.

    For a node's own pod networks that is its pods' MTU: a bridge's, or that of the pods' own devices. Raises XfrmError.
    """
    networks = list(networks)
    route = NetlinkSocket(NETLINK_ROUTE)
    devices: set[int] = set()
    try:
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            own = [network for network in networks if network.version == version]
            if not own:
                continue
            body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            answer = route.dump(Message(type=_RTM_GETROUTE, body=body))
            if answer.errno:
                raise error_from_errno("read", "the node's routes", answer.errno, answer.reason)
            devices |= {device for message in answer.messages for device in _device_within(message.body, own)}
    except (OSError, Malformed) as error:
        raise error_from_errno("read", "the node's routes", getattr(error, "errno", 0) or 0, str(error)) from error
    finally:
        route.close()
    return max(filter(None, map(_device_mtu, devices)), default=None)


def _device_within(body: bytes, networks: Iterable[IpNetwork]) -> set[int]:
    """The device of a route, if it is one to a part of a network."""
    _, prefix_length, _, _, _, _, _, kind, _ = _RTMSG.unpack_from(body)
    attributes = dict(parse_attributes(body, _RTMSG.size))
    if kind != _RTN_UNICAST or _RTA_DST not in attributes or _RTA_OIF not in attributes:
        return set()
    destination = ip_network((ip_address(attributes[_RTA_DST]), prefix_length), strict=False)
    inside = any(
        destination.version == network.version
        and destination.prefixlen >= network.prefixlen
        and destination.network_address in network
        for network in networks
    )
    return {_UINT32.unpack(attributes[_RTA_OIF])[0]} if inside else set()


def _device_mtu(index: int) -> int | None:
    """None for a device that has gone meanwhile."""
    try:
        name = socket.if_indextoname(index)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            return int(_IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFMTU, _IFREQ.pack(name.encode(), 0)))[1])
    except OSError:
        return None
