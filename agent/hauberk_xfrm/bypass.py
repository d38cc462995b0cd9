"""A socket's own IPsec policy: what it sends and receives is never looked up among the node's policies.

IKE must work whatever the tunnels' policies say, or two nodes could never agree on the keys that those policies need.
Used by whoever owns IKE sockets: the agent's transport, the diagnostic command.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_IP_XFRM_POLICY: Final = 17  # linux/in.h
_IPV6_XFRM_POLICY: Final = 35  # linux/in6.h

# struct xfrm_userpolicy_info (linux/xfrm.h): the selector's addresses, ports and their masks (40 bytes), family, prefix
# lengths, protocol, padding, interface and user; lifetimes and counters (96 bytes); priority, index, direction, action,
# flags, share; padding to a multiple of eight. All zero but family and direction: allow everything.
_POLICY_INFO: Final = struct.Struct("=40xHBBB3xiI96xIIBBBB4x")
_DIRECTIONS: Final = (0, 1)  # XFRM_POLICY_IN, XFRM_POLICY_OUT


def bypass_ipsec(sock: socket.socket) -> None:
    """Lets the socket's packets pass in clear, both ways. Raises OSError (EPERM without CAP_NET_ADMIN)."""
    family = sock.family
    level, option = (
        (socket.IPPROTO_IPV6, _IPV6_XFRM_POLICY) if family == socket.AF_INET6 else (socket.IPPROTO_IP, _IP_XFRM_POLICY)
    )
    for direction in _DIRECTIONS:
        sock.setsockopt(level, option, _POLICY_INFO.pack(family, 0, 0, 0, 0, 0, 0, 0, direction, 0, 0, 0))
