"""Packets of our own that go by an SA, so that it shows whether ESP comes through between two nodes.

A UDP socket with IPsec policies of its own (as IKE's have, `bypass`): what it sends goes by the SA of a template,
whatever the node's policies say of such packets, and never in clear, as without that SA the kernel sends nothing. What
comes to it is taken if it came by some SA, and looked at by nobody: that it came is in the inbound state's counters.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final, Self

from hauberk_xfrm.address import IpAddress, ReqId
from hauberk_xfrm.policy import Direction, Template
from hauberk_xfrm.socket_policy import set_socket_policy
from hauberk_xfrm.state import Mode

PROBE_PORT: Final = 9470
"""The UDP port that probes come from and go to, on every node."""

_ANY_REQID: Final = ReqId(0)
_PAYLOAD: Final = b"hauberk: does ESP come through?"
_PACKETS_A_CALL: Final = 64


class EspProbe:
    """The socket of one of the node's addresses. Needs CAP_NET_ADMIN."""

    def __init__(self, host: IpAddress, *, iptfs: bool = False, port: int = PROBE_PORT) -> None:
        """iptfs: whether the kernel knows that mode. Raises OSError."""
        self._port = port
        family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Optional: an SA in transport mode needs no policy, and gets by as well.
            modes = (Mode.TUNNEL, Mode.IPTFS) if iptfs else (Mode.TUNNEL,)
            templates = [
                Template(source=None, destination=host, reqid=_ANY_REQID, mode=mode, optional=True) for mode in modes
            ]
            set_socket_policy(self._socket, Direction.IN, templates)
            self._socket.bind((str(host), port))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when probes have come: `drain` them."""
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def send(self, template: Template) -> None:
        """One packet to the template's destination, by its SA. Raises OSError: what has no SA is not sent."""
        set_socket_policy(self._socket, Direction.OUT, (template,))
        self._socket.sendto(_PAYLOAD, (str(template.destination), self._port))

    def send_by(self, device: str, destination: IpAddress) -> None:
        """One packet by an xfrm device, whose policies have to be about it: a socket's own have no interface id.

        Raises OSError.
        """
        with socket.socket(self._socket.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            sock.bind((self._socket.getsockname()[0], 0))
            sock.sendto(_PAYLOAD, (str(destination), self._port))

    def drain(self) -> None:
        """Throws away what has come."""
        with suppress(OSError):  # nothing is left, or an ICMP error that a probe met
            for _ in range(_PACKETS_A_CALL):
                self._socket.recv(1)  # recv(0) is answered without asking the kernel: nothing would be taken
