"""What this kernel can do, found out by trying.

Versions and modules say little: distributions leave parts out, and clouds run kernels of their own. So each ability
is used once, on states between addresses that are for documentation only (RFC 5737, RFC 3849), with an SPI that the
kernel gave us, and removed at once. No packet can match them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from errno import EINVAL
from ipaddress import ip_address
from struct import Struct
from typing import TYPE_CHECKING

from hauberk_xfrm.address import ReqId, Spi
from hauberk_xfrm.attribute import build_attribute
from hauberk_xfrm.errors import PermissionDenied, XfrmError
from hauberk_xfrm.layout import NETLINK_ROUTE
from hauberk_xfrm.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, NetlinkSocket
from hauberk_xfrm.state import Aead, Mode, State, StateDirection

if TYPE_CHECKING:
    from hauberk_xfrm.xfrm import Xfrm

PROBE_ADDRESSES = {
    4: (ip_address("192.0.2.1"), ip_address("192.0.2.2")),
    6: (ip_address("2001:db8::1"), ip_address("2001:db8::2")),
}
"""Source and destination of the states that are tried, by family."""

# AES-GCM with a 16-byte ICV (RFC 4106), which everybody must have (RFC 8221, section 5). No packet meets this key.
_PROBE_AEAD = Aead(name="rfc4106(gcm(aes))", key=bytes(range(1, 21)), icv_bits=128)

_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_IFLA_IFNAME = 3
_IFLA_LINKINFO = 18
_IFLA_INFO_KIND = 1
# struct ifinfomsg: family, (1), type, index, flags, change
_IFINFOMSG = Struct("=BxHiII")
_PROBE_INTERFACE = b"hauberk-probe\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelAbilities:
    """`problems` are sentences for people, one for each ability that Hauberk needs and the kernel lacks: with an empty
    tuple, ESP works in both families. `sa_direction`, `iptfs` and `xfrm_interface` are extras and make no problem."""

    release: str
    xfrm: bool
    esp4: bool
    esp6: bool
    sa_direction: bool
    iptfs: bool
    xfrm_interface: bool
    problems: tuple[str, ...]


def probe_abilities(xfrm: Xfrm) -> KernelAbilities:
    """Tries everything once. Raises PermissionDenied, since without CAP_NET_ADMIN nothing can be known."""
    release = os.uname().release
    kernel = f"the kernel ({release})"
    problems: list[str] = []
    try:
        xfrm.get_state(PROBE_ADDRESSES[4][1], Spi(0))
    except PermissionDenied:
        raise
    except XfrmError as error:
        return KernelAbilities(
            release=release,
            xfrm=False,
            esp4=False,
            esp6=False,
            sa_direction=False,
            iptfs=False,
            xfrm_interface=False,
            problems=(f"{kernel} has no XFRM (CONFIG_XFRM_USER): {_words(error)}",),
        )
    sa_direction = _knows_directions(xfrm)
    esp4 = _try(xfrm, 4, Mode.TUNNEL)
    esp6 = _try(xfrm, 6, Mode.TUNNEL)
    for family, outcome in ((4, esp4), (6, esp6)):
        if outcome is not None:
            problems.append(
                f"{kernel} has no ESP for IPv{family} with AES-GCM"
                f" (modules esp{family} and gcm; CONFIG_INET{'6' if family == 6 else ''}_ESP, CONFIG_CRYPTO_GCM):"
                f" {_words(outcome)}"
            )
    return KernelAbilities(
        release=release,
        xfrm=True,
        esp4=esp4 is None,
        esp6=esp6 is None,
        sa_direction=sa_direction,
        iptfs=_try(xfrm, 4, Mode.IPTFS) is None,
        xfrm_interface=_has_xfrm_interface(),
        problems=tuple(problems),
    )


def _knows_directions(xfrm: Xfrm) -> bool:
    """True if the kernel remembers that a state which `allocate_spi` made is inbound."""
    source, destination = PROBE_ADDRESSES[4]
    spi = xfrm.allocate_spi(source=source, destination=destination, reqid=ReqId(0))
    try:
        state = xfrm.get_state(destination, spi)
    finally:
        xfrm.delete_state(destination=destination, spi=spi)
    return state is not None and state.direction is StateDirection.IN


def _try(xfrm: Xfrm, family: int, mode: Mode) -> XfrmError | None:
    """Installs a state and removes it. Returns the kernel's refusal, if it refuses."""
    source, destination = PROBE_ADDRESSES[family]
    spi = None
    try:
        spi = xfrm.allocate_spi(source=source, destination=destination, reqid=ReqId(0), mode=mode)
        xfrm.update_state(
            State(
                source=source,
                destination=destination,
                spi=spi,
                reqid=ReqId(0),
                mode=mode,
                aead=_PROBE_AEAD,
                direction=StateDirection.IN,
            )
        )
    except PermissionDenied:
        raise
    except XfrmError as error:
        return error
    finally:
        if spi is not None:
            xfrm.delete_state(destination=destination, spi=spi)
    return None


def _has_xfrm_interface() -> bool:
    """Asks for an xfrm device without an interface id, which the kernel refuses, but as the wrong thing only if it
    knows the right ones: EINVAL (since 5.17; older kernels make the device), as opposed to EOPNOTSUPP."""
    name = build_attribute(_IFLA_IFNAME, _PROBE_INTERFACE)
    kind = build_attribute(_IFLA_LINKINFO, build_attribute(_IFLA_INFO_KIND, b"xfrm\0"))
    header = _IFINFOMSG.pack(0, 0, 0, 0, 0)
    route = NetlinkSocket(NETLINK_ROUTE)
    try:
        (answer,) = route.request(
            [Message(type=_RTM_NEWLINK, body=header + name + kind, flags=NLM_F_CREATE | NLM_F_EXCL)]
        )
        if answer.errno == 0:
            route.request([Message(type=_RTM_DELLINK, body=header + name)])
        return answer.errno in (0, EINVAL)
    except OSError:
        return False
    finally:
        route.close()


def _words(error: XfrmError) -> str:
    return error.reason or os.strerror(error.errno)
