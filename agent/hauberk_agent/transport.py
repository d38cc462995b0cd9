"""IKE's UDP sockets, and the glue between them, the clock and whoever speaks IKE on them: the agent's sessions.

Two sockets for each of the node's own addresses, so that what we send has the source address that peers expect: one on
IKE's port, and one on the encapsulation port (4500), where the kernel keeps what is ESP and hands us the rest. Payloads
are carried as they are; what they are is the endpoint's to tell (`hauberk_ike.encapsulation`). The order of work is the
sessions' promise to the peers: what was received is acted on before anything is sent.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Protocol, cast

from hauberk_agent.deposit import Deposit
from hauberk_ike import Datagram, IpAddress, SocketAddress, parse_host
from hauberk_xfrm.ike_socket import open_ike_socket

_log = logging.getLogger("hauberk.transport")
_MAX_DATAGRAM: Final = 65535
_DATAGRAMS_A_TURN: Final = 8
"""After so many the loop gets to its other tasks."""


# IP_MTU_DISCOVER and IPV6_MTU_DISCOVER (linux/in.h, linux/in6.h), which Python does not name
_MTU_DISCOVER: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),
}
_PMTUDISC_PROBE: Final = 3


class Speaker(Protocol):
    """Who speaks IKE: `hauberk_agent.sessions.Sessions`, or whatever else has an endpoint and acts on its events."""

    def receive_datagram(self, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float) -> None: ...

    def datagrams_to_send(self, now: float) -> list[Datagram]: ...

    def get_timer(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...


class Transport:
    """Drives the sessions. Made and used within one asyncio loop, whose clock is the sessions' `now`."""

    def __init__(
        self,
        sessions: Speaker,
        *,
        port: int,
        encapsulation_port: int | None = None,
        bypass: bool = True,
        deposit: Deposit | None = None,
    ) -> None:
        """bypass: give the sockets an IPsec policy of their own (needs CAP_NET_ADMIN).

        deposit: who holds the sockets while we are away, and what an earlier agent left there.
        """
        self._sessions = sessions
        self._ports = (port,) if encapsulation_port is None else (port, encapsulation_port)
        self._encapsulation_port = encapsulation_port
        self._bypass = bypass
        self._deposit = deposit
        self._taken = deposit is None
        self._deposited: set[SocketAddress] = set()
        self._left: dict[SocketAddress, socket.socket] = {}
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[SocketAddress, socket.socket] = {}
        self._problems: dict[SocketAddress, str] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each socket that is missing. Those that are there do their work all the same."""
        return tuple(self._problems.values())

    @property
    def deposited(self) -> bool:
        """Whether all sockets outlive us, or nobody is to hold them."""
        return self._deposit is None or (self._deposit.connected and self._deposited == set(self._sockets))

    def listen(self, addresses: Iterable[IpAddress]) -> None:
        """Opens and closes sockets so that each address has its own. What fails is in `problems`: call again."""
        wanted = [SocketAddress(host=host, port=port) for host in addresses for port in self._ports]
        for local in [local for local in self._sockets if local not in wanted]:
            self._close(local)
        self._take_over()
        before, self._problems = self._problems, {}
        for local in wanted:
            if local not in self._sockets:
                try:
                    self._open(local)
                except OSError as error:
                    problem = _explain(error, local, encapsulates=local.port == self._encapsulation_port)
                    self._problems[local] = problem
                    if before.get(local) != problem:
                        _log.warning("%s", problem)
        for sock in self._left.values():
            sock.close()
        self._left.clear()
        if self._deposit is not None and set(self._sockets) != self._deposited:
            self._hand_over(self._deposit)

    def keep_deposited(self) -> None:
        """Sees to it that the sockets are held, by a holder that came late or anew, too. To be called now and then."""
        if self._deposit is not None and not self.deposited:
            self._hand_over(self._deposit)

    def close(self) -> None:
        """Closes all sockets. Nothing is sent: the kernel's SAs outlive us."""
        if self._timer is not None:
            self._timer.cancel()
        for local in list(self._sockets):
            self._close(local)
        if self._deposit is not None:
            self._deposit.close()

    def pump(self) -> None:
        """Sends what is to be sent and sets the timer anew. To be called whenever the sessions were told something."""
        try:
            self._send_all(self._loop.time())
        finally:
            self._set_timer()

    def _take_over(self) -> None:
        """What an earlier agent left, until the holder has once answered."""
        if self._deposit is not None and not self._taken:
            self._left = self._deposit.take()
            self._taken = self._deposit.problem is None

    def _hand_over(self, deposit: Deposit) -> None:
        if deposit.keep(self._sockets.values()):
            self._taken = True
            self._deposited = set(self._sockets)

    def _open(self, local: SocketAddress) -> None:
        left = self._left.pop(local, None)
        takes_esp = local.port == self._encapsulation_port
        self._sockets[local] = sock = (
            open_ike_socket(local.host, local.port, bypass=self._bypass, takes_esp=takes_esp) if left is None else left
        )
        self._loop.add_reader(sock, self._readable, sock, local)
        _log.info("listening on %s%s", local, "" if left is None else ", as the agent before did")

    def _close(self, local: SocketAddress) -> None:
        sock = self._sockets.pop(local)
        self._loop.remove_reader(sock)
        sock.close()

    def _readable(self, sock: socket.socket, local: SocketAddress) -> None:
        try:
            for _ in range(_DATAGRAMS_A_TURN):
                try:
                    data, source = cast("tuple[bytes, tuple[str, int]]", sock.recvfrom(_MAX_DATAGRAM))
                except (BlockingIOError, InterruptedError):
                    break
                except OSError as error:
                    # An ICMP error that one of our datagrams met: retransmission deals with it.
                    _log.debug("receiving on %s: %s", local, error)
                    continue
                remote = _socket_address(*source[:2])
                if remote is not None:
                    now = self._loop.time()
                    self._sessions.receive_datagram(data, local=local, remote=remote, now=now)
                    # Answers go out one by one, not when all that came is read: so that peers work while we do.
                    self._send_all(now)
        finally:
            self.pump()

    def _send_all(self, now: float) -> None:
        for datagram in self._sessions.datagrams_to_send(now):
            self._send(datagram)

    def _send(self, datagram: Datagram) -> None:
        sock = self._sockets.get(datagram.local)
        if sock is None:
            return
        try:
            if datagram.dont_fragment:
                _send_whole(sock, datagram)
            else:
                sock.sendto(datagram.data, _as_tuple(datagram.remote))
        except OSError as error:
            # As good as lost on the way: it will be retransmitted.
            _log.debug("sending to %s: %s", datagram.remote, error)

    def _set_timer(self) -> None:
        at = self._sessions.get_timer()
        if self._timer is not None:
            # One that fires early does no harm, and is set anew then: cheaper than to set it anew for every datagram.
            if at is not None and self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer = None
        try:
            self._sessions.handle_timer(self._loop.time())
        finally:
            self.pump()


def _send_whole(sock: socket.socket, datagram: Datagram) -> None:
    """In one packet with "don't fragment", whatever the kernel believes of the path beyond its first link."""
    option = _MTU_DISCOVER[sock.family]
    before = sock.getsockopt(*option)
    sock.setsockopt(*option, _PMTUDISC_PROBE)
    try:
        sock.sendto(datagram.data, _as_tuple(datagram.remote))
    finally:
        sock.setsockopt(*option, before)


@lru_cache(4096)
def _socket_address(host: str, port: int) -> SocketAddress | None:
    try:
        return SocketAddress(host=parse_host(host), port=port)
    except ValueError:
        # A link-local address with its interface: no node's address.
        return None


@lru_cache(4096)
def _as_tuple(address: SocketAddress) -> tuple[str, int]:
    return str(address.host), address.port


def _explain(error: OSError, local: SocketAddress, *, encapsulates: bool) -> str:
    """Why a socket is missing, and what follows from that."""
    problem = _problem(error, local)
    if not encapsulates:
        return problem
    return f"{problem}; IKE goes on without it, but ESP in UDP, and so peers behind a NAT, must wait for it"


def _problem(error: OSError, local: SocketAddress) -> str:
    where = f"UDP port {local.port} of {local.host}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where} is taken: stop the other IKE daemon on this node"
        case errno.EADDRNOTAVAIL:
            return f"{where}: no interface of this node has the address"
        case errno.ENOPROTOOPT:
            return f"{where}: this kernel takes no ESP in UDP there (XFRM is needed, and Linux 5.8 for IPv6)"
        case errno.EACCES | errno.EPERM:
            return f"{where}: not permitted, the agent needs CAP_NET_ADMIN and CAP_NET_BIND_SERVICE"
        case _:
            return f"{where}: {os.strerror(error.errno or 0)}"
