"""Shows which packets leave by a network device, whoever has sent them and whatever they passed by on their way there.

Policies and netfilter see what passes the IP stack; a packet socket is handed all that a device is given to send, just
before (dev_queue_xmit_nit in net/core/dev.c). That costs a copy of each packet's descriptor, so none is to be open for
long.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from errno import EPERM
from ipaddress import ip_address
from typing import Final

from hauberk_xfrm.address import IpAddress
from hauberk_xfrm.errors import XfrmError, error_from_errno
from hauberk_xfrm.packet_filter import KEPT_BYTES
from hauberk_xfrm.socket_filter import attach

MOST_PACKETS: Final = 512
"""So many are read of a device. As many as that tell as much as more would."""

_ETH_P_ALL: Final = 3
"""Others are not told of what goes out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A packet that has left."""

    source: IpAddress
    destination: IpAddress


class PacketTap:
    """A socket that keeps the headers of what leaves by a device. Needs CAP_NET_RAW."""

    def __init__(self, device: str, program: bytes) -> None:
        """program: says what to keep (`packet_filter`).

        Raises XfrmError: PermissionDenied without the capability, ENODEV where there is no such device.
        """
        try:
            # Of no protocol at first: it hears nothing before it has its filter.
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
            )
        except OSError as error:
            raise _refused(device, error) from error
        try:
            attach(self._socket, program)
            self._socket.bind((device, _ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            raise _refused(device, error) from error

    def take(self) -> list[Passage]:
        """What has left since it was opened, as far as the kernel has kept it: the first ones. Never blocks."""
        taken: list[Passage] = []
        for _ in range(MOST_PACKETS):
            try:
                header = self._socket.recv(KEPT_BYTES)
            except BlockingIOError:
                break
            except OSError:  # the device has gone down (ENETDOWN): said once, before what was kept
                continue
            passage = parse_passage(header)
            if passage is not None:
                taken.append(passage)
        return taken

    def close(self) -> None:
        """Blocks until no CPU uses the socket any more (synchronize_net): tens of milliseconds."""
        self._socket.close()


def parse_passage(header: bytes) -> Passage | None:
    """Of the first bytes of a packet; None if they are no IP header (RFC 791 section 3.1, RFC 8200 section 3)."""
    version = header[0] >> 4 if header else 0
    if version == 4 and len(header) >= 20:
        return Passage(source=ip_address(header[12:16]), destination=ip_address(header[16:20]))
    if version == 6 and len(header) >= 40:
        return Passage(source=ip_address(header[8:24]), destination=ip_address(header[24:40]))
    return None


def _refused(device: str, error: OSError) -> XfrmError:
    number = error.errno or 0
    reason = "CAP_NET_RAW is missing" if number == EPERM else None
    return error_from_errno("watch what leaves by", device, number, reason)
