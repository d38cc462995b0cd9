"""The UDP sockets of a run: for each local address one on IKE's port, and one where ESP may come in UDP, too.

They carry what is on the wire, without a look inside, and are outside of all IPsec policies where that is permitted.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Final, cast

from hauberk_diagnose.errors import Trouble
from hauberk_ike import Datagram, IpAddress, SocketAddress
from hauberk_ike.datagram import parse_host
from hauberk_xfrm.ike_socket import open_ike_socket

_MAX_DATAGRAM: Final = 65535
_DATAGRAMS_A_TURN: Final = 64
"""After so many what they caused is acted on and sent."""


class Sockets:
    """Non-blocking, and open as long as the run."""

    def __init__(
        self, addresses: Iterable[IpAddress], *, port: int, nat_port: int | None, bypass: bool, takes_esp: bool
    ) -> None:
        """Raises Trouble.

        bypass: give the sockets an IPsec policy of their own (needs CAP_NET_ADMIN). takes_esp: let the kernel keep the
        ESP that comes to `nat_port`.
        """
        self._sockets: dict[SocketAddress, socket.socket] = {}
        ports = (port,) if nat_port is None else (port, nat_port)
        for local in [SocketAddress(host=address, port=port) for address in addresses for port in ports]:
            try:
                self._sockets[local] = open_ike_socket(
                    local.host, local.port, bypass=bypass, takes_esp=takes_esp and local.port == nat_port
                )
            except OSError as error:
                self.close()
                option = "--port" if local.port == port else "--nat-port (or --encapsulation never)"
                raise Trouble(_explain(error, local, option)) from None

    def items(self) -> Iterable[tuple[SocketAddress, socket.socket]]:
        """Each socket with its address."""
        return self._sockets.items()

    def receive(self, local: SocketAddress) -> Iterator[tuple[bytes, SocketAddress]]:
        """What has arrived, with where it came from; bounded, so that answers are not kept waiting."""
        sock = self._sockets[local]
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                data, source = cast("tuple[bytes, tuple[str, int]]", sock.recvfrom(_MAX_DATAGRAM))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # An ICMP error that a datagram of ours met: retransmission deals with it.
                continue
            try:
                yield data, SocketAddress(host=parse_host(source[0]), port=source[1])
            except ValueError:
                continue  # no address that a peer can have

    def send(self, datagram: Datagram) -> None:
        """Sends, or loses it as the network might: it will be retransmitted."""
        sock = self._sockets.get(datagram.local)
        if sock is not None:
            try:
                sock.sendto(datagram.data, (str(datagram.remote.host), datagram.remote.port))
            except OSError:
                return

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


def _explain(error: OSError, local: SocketAddress, option: str) -> str:
    where = f"UDP port {local.port} of {local.host}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where} is taken: stop the other IKE daemon, or give another {option}"
        case errno.EADDRNOTAVAIL:
            return f"{where}: no interface here has that address; give one that 'ip address' shows as --local"
        case errno.ENOPROTOOPT:
            return f"{where}: this kernel takes no ESP in UDP; give --encapsulation never"
        case errno.EACCES | errno.EPERM:
            return f"{where}: not permitted; run this as root, or give a {option} from 1024 on and no --install"
        case _:
            return f"{where}: {os.strerror(error.errno or 0)}"
