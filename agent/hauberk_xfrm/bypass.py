"""A socket's own IPsec policy: what it sends and receives is never looked up among the node's policies.

IKE must work whatever the tunnels' policies say, or two nodes could never agree on the keys that those policies need.
Used by whoever owns IKE sockets: the agent's transport, the diagnostic command.
"""

from __future__ import annotations

import socket

from hauberk_xfrm.policy import Direction
from hauberk_xfrm.socket_policy import set_socket_policy


def bypass_ipsec(sock: socket.socket) -> None:
    """Lets the socket's packets pass in clear, both ways. Raises OSError (EPERM without CAP_NET_ADMIN)."""
    for direction in (Direction.IN, Direction.OUT):
        set_socket_policy(sock, direction)
