"""What the kernel says of states whose limits are reached (XFRM_MSG_EXPIRE), on a socket of its own.

The agent's loop watches `fileno` and calls `receive`. A soft limit is told once and never again: what was missed
(ENOBUFS) has to be seen in a dump, so `receive` says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from errno import EAGAIN, EINTR, ENOBUFS
from ipaddress import IPv4Address, IPv6Address
from socket import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    SO_RCVBUF,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_RAW,
    SOL_SOCKET,
    ntohl,
    socket,
)

from hauberk_xfrm.address import IpAddress, ReqId, Spi
from hauberk_xfrm.layout import NETLINK_XFRM, NLMSGHDR, USERSA_INFO, MessageType
from hauberk_xfrm.state import ESP

_GROUP_EXPIRE = 1 << (2 - 1)
"""XFRMNLGRP_EXPIRE, as a bit of the address that is bound (include/uapi/linux/xfrm.h)."""
_DATAGRAM_BYTES = 1 << 16
_RECEIVE_BUFFER_BYTES = 1 << 20
_DATAGRAMS_A_CALL = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """One of a state's limits is reached: a soft one, or a hard one, upon which the kernel has deleted the state."""

    destination: IpAddress
    spi: Spi
    reqid: ReqId
    hard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiries:
    """What was received. `missed`: the kernel had more to say than the socket could hold."""

    told: tuple[Expiry, ...] = ()
    missed: bool = False


class ExpirySocket:
    """Hears of expired states in the network namespace of the thread that makes it. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_XFRM)
        try:
            self._socket.setsockopt(SOL_SOCKET, SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            self._socket.bind((0, _GROUP_EXPIRE))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def receive(self) -> Expiries:
        """All that has come, up to some dozens; never waits. Raises OSError."""
        return collect(lambda: self._socket.recvfrom(_DATAGRAM_BYTES))


def collect(receive: Callable[[], tuple[bytes, tuple[int, int]]]) -> Expiries:
    """Reads datagrams until there is none (EAGAIN); only the kernel's, whose port id is 0, count. Raises OSError."""
    told: list[Expiry] = []
    missed = False
    for _ in range(_DATAGRAMS_A_CALL):
        try:
            data, sender = receive()
        except OSError as error:
            if error.errno == ENOBUFS:
                missed = True
                continue
            if error.errno in (EAGAIN, EINTR):
                break
            raise
        if sender[0] == 0:
            told += decode_expiries(data)
    return Expiries(told=tuple(told), missed=missed)


def decode_expiries(data: bytes) -> list[Expiry]:
    """The expiries of ESP states in a datagram (`struct xfrm_user_expire`); what is something else is passed over."""
    found: list[Expiry] = []
    offset = 0
    while len(data) - offset >= NLMSGHDR.size:
        length, kind, *_ = NLMSGHDR.unpack_from(data, offset)
        start = offset + NLMSGHDR.size
        if length < NLMSGHDR.size or offset + length > len(data):
            break
        if kind == MessageType.EXPIRE and length > NLMSGHDR.size + USERSA_INFO.size:
            _, daddr, spi, protocol, *_, reqid, family, _, _, _ = USERSA_INFO.unpack_from(data, start)
            if protocol == ESP and family in (AF_INET, AF_INET6):
                found.append(
                    Expiry(
                        destination=IPv4Address(daddr[:4]) if family == AF_INET else IPv6Address(daddr),
                        spi=Spi(ntohl(spi)),
                        reqid=ReqId(reqid),
                        hard=data[start + USERSA_INFO.size] != 0,
                    )
                )
        offset += (length + 3) & ~3
    return found
