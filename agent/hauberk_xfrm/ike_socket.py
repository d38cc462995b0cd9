"""A UDP socket for IKE: on one address of this host's, outside of IPsec policies, and taking ESP where it is to.

Used by whoever speaks IKE: the agent's transport, the diagnostic command.
"""

from __future__ import annotations

import socket
from typing import Final

from hauberk_xfrm.address import IpAddress
from hauberk_xfrm.bypass import bypass_ipsec
from hauberk_xfrm.encapsulation import take_esp

_RECEIVE_BUFFER_BYTES: Final = 1 << 21
"""A thousand peers may begin at once."""


def open_ike_socket(host: IpAddress, port: int, *, bypass: bool, takes_esp: bool) -> socket.socket:
    """A bound one, non-blocking. Raises OSError.

    bypass: give it an IPsec policy of its own (needs CAP_NET_ADMIN). takes_esp: let the kernel keep the ESP that comes
    there in UDP.
    """
    family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        if bypass:
            bypass_ipsec(sock)
        if takes_esp:
            take_esp(sock)
        sock.bind((str(host), port))
    except OSError:
        sock.close()
        raise
    return sock
