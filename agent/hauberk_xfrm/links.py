"""The network devices of this network namespace, as far as it counts how pods' packets travel: what kind each is of.

By RTM_GETLINK and RTM_GETADDR (rtnetlink(7)); the attributes are those of include/uapi/linux/if_link.h and if_addr.h.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct
from typing import Final

from hauberk_xfrm.address import IpAddress
from hauberk_xfrm.attribute import Malformed, parse_attributes
from hauberk_xfrm.errors import XfrmError
from hauberk_xfrm.layout import NETLINK_ROUTE
from hauberk_xfrm.netlink import Message, NetlinkSocket

# struct ifinfomsg: family, type, index, flags, change
_IFINFOMSG: Final = Struct("=BxHiII")
_PORT: Final = Struct("!H")
# struct ifaddrmsg: family, prefix length, flags, scope, index
_IFADDRMSG: Final = Struct("=BBBBI")
_RTM_NEWLINK: Final = 16
_RTM_GETLINK: Final = 18
_RTM_NEWADDR: Final = 20
_RTM_GETADDR: Final = 22
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
"""Where both are there IFA_ADDRESS is the other end's."""
_IFLA_IFNAME: Final = 3
_IFLA_LINKINFO: Final = 18
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_PORTS: Final[Mapping[str, int]] = {"vxlan": 15, "geneve": 5}
"""IFLA_VXLAN_PORT and IFLA_GENEVE_PORT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDevice:
    """`kind` is the kernel's word, such as vxlan, geneve, veth or netkit; hardware has none. `port` is an overlay's."""

    name: str
    kind: str = ""
    port: int | None = None


def network_devices() -> tuple[NetworkDevice, ...]:
    """All devices, in the kernel's order. Raises XfrmError if the kernel can't be asked."""
    return tuple(parse_device(body) for body in _dump(_RTM_GETLINK, _RTM_NEWLINK, _IFINFOMSG.size))


def addressed_devices(addresses: Collection[IpAddress]) -> frozenset[str]:
    """The names of the devices that have one of these addresses. Raises XfrmError if the kernel can't be asked."""
    indexes = {
        _IFADDRMSG.unpack_from(body)[4]
        for body in _dump(_RTM_GETADDR, _RTM_NEWADDR, _IFADDRMSG.size)
        if parse_address(body) in addresses
    }
    return frozenset(
        parse_device(body).name
        for body in _dump(_RTM_GETLINK, _RTM_NEWLINK, _IFINFOMSG.size)
        if _IFINFOMSG.unpack_from(body)[2] in indexes
    )


def _dump(request: int, answers: int, header_bytes: int) -> list[bytes]:
    """What the kernel has of a kind, of all families. Raises XfrmError."""
    netlink = NetlinkSocket(NETLINK_ROUTE)
    try:
        answer = netlink.dump(Message(type=request, body=bytes(header_bytes)))
        if answer.errno:
            raise XfrmError("list network devices", "", answer.errno, answer.reason)
        return [message.body for message in answer.messages if message.type == answers]
    except (OSError, Malformed) as error:
        raise XfrmError("list network devices", str(error), getattr(error, "errno", None) or 0) from error
    finally:
        netlink.close()


def parse_address(body: bytes) -> IpAddress | None:
    """The address in an RTM_NEWADDR. Raises Malformed."""
    attributes = dict(parse_attributes(body, _IFADDRMSG.size))
    packed = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b""))
    return ip_address(packed) if len(packed) in (4, 16) else None


def parse_device(body: bytes) -> NetworkDevice:
    """One RTM_NEWLINK. Raises Malformed."""
    attributes = dict(parse_attributes(body, _IFINFOMSG.size))
    information = dict(parse_attributes(attributes.get(_IFLA_LINKINFO, b""), 0))
    kind = _text(information.get(_IFLA_INFO_KIND, b""))
    port = None
    if kind in _PORTS:
        data = dict(parse_attributes(information.get(_IFLA_INFO_DATA, b""), 0)).get(_PORTS[kind], b"")
        port = _PORT.unpack(data)[0] if len(data) == _PORT.size else None
    return NetworkDevice(name=_text(attributes.get(_IFLA_IFNAME, b"")), kind=kind, port=port)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
