"""What makes a UDP socket take ESP: that goes to the states with `UdpPorts`, and only the rest comes out of the socket.

Used by whoever opens IKE's sockets for port 4500.
"""

from __future__ import annotations

import socket
from typing import Final

from hauberk_xfrm.layout import UDP_ENCAP_ESPINUDP

_UDP_ENCAP: Final = 100  # linux/udp.h


def take_esp(sock: socket.socket) -> None:
    """Lets the kernel keep what is ESP in UDP (RFC 3948), and keepalives; what remains follows a non-ESP marker.

    IPv6 needs Linux 5.8. Raises OSError (ENOPROTOOPT on a kernel that can't).
    """
    sock.setsockopt(socket.IPPROTO_UDP, _UDP_ENCAP, UDP_ENCAP_ESPINUDP)
