"""Sockets and timers: two nodes' sessions over real UDP on the loopback, and what is said of an address without one."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from random import Random

import pytest

from hauberk_agent.pairing import pair_specs
from hauberk_agent.sessions import Sessions
from hauberk_agent.transport import Transport
from hauberk_api.tunnel import Encapsulation
from hauberk_ike import Datagram, EndpointSettings, SocketAddress
from hauberk_xfrm import ReqId, UdpPorts
from tests.unit.agent.fake_kernel import FakeKernel
from tests.unit.agent.mesh import node, plan, roster, tunnel
from tests.unit.agent.network import credentials
from tests.unit.ike.authority import TODAY

NODES = {"n1": node(1, addresses=("127.0.0.1",)), "n2": node(2, addresses=("127.0.0.2",))}


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def peer(host: str) -> socket.socket:
    """Somebody else's socket on the same host."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(10)
    return sock


def sessions(kernel: FakeKernel, settings: EndpointSettings | None = None) -> Sessions:
    return Sessions(
        kernel=kernel,
        directions=True,
        entropy=os.urandom,
        wall_clock=lambda: TODAY + timedelta(seconds=1),
        chance=Random(1),
        settings=settings,
    )


@pytest.mark.parametrize("encapsulation", [Encapsulation.AUTO, Encapsulation.ALWAYS])
def test_two_nodes_agree_over_udp(encapsulation: Encapsulation) -> None:
    async def story() -> None:
        port, encapsulation_port, loop = free_port(), free_port(), asyncio.get_running_loop()
        settings = EndpointSettings(encapsulation_port=encapsulation_port)
        up = asyncio.Event()
        kernels = [FakeKernel(), FakeKernel()]
        both = [sessions(kernel, settings) for kernel in kernels]
        transports = [Transport(one, port=port, encapsulation_port=encapsulation_port, bypass=False) for one in both]

        def changed() -> None:
            if all(pair.well for one in both for pair in one.pairs):
                up.set()

        for number, (one, transport) in enumerate(zip(both, transports, strict=True), start=1):
            found = roster(f"n{number}", plan(tunnel(encapsulation=encapsulation)), **NODES)
            one.on_change = changed
            transport.listen(found.own.addresses)
            assert transport.problems == ()
            one.set_credentials(credentials(number), loop.time(), renewed=False)
            one.set_wanted({}, loop.time())
            one.set_wanted(pair_specs(found, lambda _: ReqId(0x48000001), port=port), loop.time())
            transport.pump()
        try:
            async with asyncio.timeout(10):
                await up.wait()
        finally:
            for transport in transports:
                transport.close()
        assert {state.spi for state in kernels[0].complete_states()} == {
            state.spi for state in kernels[1].complete_states()
        }
        same = UdpPorts(source=encapsulation_port, destination=encapsulation_port)
        expected = None if encapsulation is Encapsulation.AUTO else same
        for kernel in kernels:
            assert {state.encapsulation for state in kernel.complete_states()} == {expected}

    asyncio.run(story())


class Listener:
    """A speaker that says nothing, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, SocketAddress, SocketAddress]] = []
        self.outbox: list[Datagram] = []
        self.woken = asyncio.Event()

    def receive_datagram(self, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float) -> None:
        self.heard.append((data, local, remote))
        self.woken.set()

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        outbox, self.outbox = self.outbox, []
        return outbox

    def get_timer(self) -> float | None:
        return None

    def handle_timer(self, now: float) -> None:
        raise AssertionError("no timer was wanted")


MARKED = b"\0\0\0\0 and IKE"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_on_the_encapsulation_port_the_kernel_keeps_esp_and_keepalives(host: str) -> None:
    async def story() -> None:
        ike, encapsulation = free_port(), free_port()
        listener = Listener()
        transport = Transport(listener, port=ike, encapsulation_port=encapsulation, bypass=False)
        transport.listen([ip_address(host)])
        assert transport.problems == ()
        with peer(host) as sock:
            for data in (b"\xff", b"\xc0\0\0\1 and the rest of an ESP packet", MARKED):
                sock.sendto(data, (host, encapsulation))
            async with asyncio.timeout(10):
                await listener.woken.wait()
            there = SocketAddress(host=ip_address(host), port=sock.getsockname()[1])
            here = SocketAddress(host=ip_address(host), port=encapsulation)
            assert listener.heard == [(MARKED, here, there)]
            # What is sent comes from the socket whose address it names, and as it is.
            for local in (here, replace(here, port=ike)):
                listener.outbox.append(Datagram(data=MARKED, local=local, remote=there))
                transport.pump()
                data, source = sock.recvfrom(100)
                assert (data, source[1]) == (MARKED, local.port)
        transport.close()

    asyncio.run(story())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_on_ikes_own_port_everything_is_heard(host: str) -> None:
    async def story() -> None:
        ike = free_port()
        listener = Listener()
        transport = Transport(listener, port=ike, encapsulation_port=free_port(), bypass=False)
        transport.listen([ip_address(host)])
        with peer(host) as sock:
            sock.sendto(b"\xff", (host, ike))
            async with asyncio.timeout(10):
                await listener.woken.wait()
        assert [(data, local.port) for data, local, _ in listener.heard] == [(b"\xff", ike)]
        transport.close()

    asyncio.run(story())


class Echo(Listener):
    """A speaker that answers at once, and counts how many it had heard whenever it was asked for what to send."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def receive_datagram(self, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float) -> None:
        super().receive_datagram(data, local=local, remote=remote, now=now)
        self.outbox.append(Datagram(data=data, local=local, remote=remote))

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        outbox = super().datagrams_to_send(now)
        if outbox:
            self.asked.append(len(self.heard))
        return outbox


def test_answers_go_out_one_by_one_so_that_peers_can_work_meanwhile() -> None:
    async def story() -> None:
        port = free_port()
        echo = Echo()
        transport = Transport(echo, port=port, bypass=False)
        transport.listen([ip_address("127.0.0.1")])
        with peer("127.0.0.1") as sock:
            for data in (b"one", b"two", b"three"):
                sock.sendto(data, ("127.0.0.1", port))
            async with asyncio.timeout(10):
                while len(echo.heard) < 3:
                    echo.woken.clear()
                    await echo.woken.wait()
            assert echo.asked == [1, 2, 3]
            assert [sock.recv(100) for _ in range(3)] == [b"one", b"two", b"three"]
        transport.close()

    asyncio.run(story())


def test_without_the_encapsulation_port_ike_goes_on_and_it_is_said() -> None:
    async def story() -> None:
        listener = Listener()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            ike, encapsulation = free_port(), taken.getsockname()[1]
            transport = Transport(listener, port=ike, encapsulation_port=encapsulation, bypass=False)
            transport.listen([ip_address("127.0.0.1")])
            (problem,) = transport.problems
            assert f"UDP port {encapsulation} of 127.0.0.1 is taken" in problem
            assert "peers behind a NAT" in problem
            with peer("127.0.0.1") as sock:
                sock.sendto(b"IKE", ("127.0.0.1", ike))
                async with asyncio.timeout(10):
                    await listener.woken.wait()
        transport.listen([ip_address("127.0.0.1")])
        assert transport.problems == ()
        transport.close()

    asyncio.run(story())


def test_a_kernel_without_esp_in_udp_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sock: socket.socket) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    async def story() -> None:
        transport = Transport(Listener(), port=free_port(), encapsulation_port=free_port(), bypass=False)
        transport.listen([ip_address("::1")])
        assert "takes no ESP in UDP" in transport.problems[0]
        transport.close()

    monkeypatch.setattr("hauberk_xfrm.ike_socket.take_esp", refuse)
    asyncio.run(story())


def test_a_problem_is_logged_once_and_not_whenever_it_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        transport = Transport(Listener(), port=free_port(), bypass=False)
        for _ in range(3):
            transport.listen([ip_address("192.0.2.1")])
        transport.close()

    asyncio.run(story())
    assert len([each for each in caplog.records if "no interface" in each.getMessage()]) == 1


def test_an_address_without_a_socket_is_explained() -> None:
    async def story() -> None:
        transport = Transport(sessions(FakeKernel()), port=free_port(), bypass=False)
        transport.listen([ip_address("127.0.0.1"), ip_address("192.0.2.1")])
        (problem,) = transport.problems
        assert "no interface of this node has the address" in problem
        transport.listen([ip_address("127.0.0.1")])
        assert transport.problems == ()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.3", 0))
            other = Transport(sessions(FakeKernel()), port=taken.getsockname()[1], bypass=False)
            other.listen([ip_address("127.0.0.3")])
            assert "stop the other IKE daemon" in other.problems[0]
        transport.close()
        other.close()

    asyncio.run(story())
