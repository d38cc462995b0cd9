"""A socket's own IPsec policy, which its packets meet in place of the node's policies."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from hauberk_xfrm.encoder import encode_socket_policy
from hauberk_xfrm.policy import Direction, Template

_IP_XFRM_POLICY: Final = 17  # linux/in.h
_IPV6_XFRM_POLICY: Final = 35  # linux/in6.h


def set_socket_policy(sock: socket.socket, direction: Direction, templates: Sequence[Template] = ()) -> None:
    """From now on the socket's packets pass by these templates, IN or OUT; without any: in clear.

    Raises OSError (EPERM without CAP_NET_ADMIN).
    """
    level, option = (
        (socket.IPPROTO_IPV6, _IPV6_XFRM_POLICY)
        if sock.family == socket.AF_INET6
        else (socket.IPPROTO_IP, _IP_XFRM_POLICY)
    )
    sock.setsockopt(level, option, encode_socket_policy(sock.family, direction, templates))
