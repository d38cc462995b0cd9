"""Sockets and timers: two nodes' sessions over real UDP on the loopback, and what is said of an address without one."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import timedelta
from ipaddress import ip_address
from random import Random

from hauberk_agent.pairing import pair_specs
from hauberk_agent.sessions import Sessions
from hauberk_agent.transport import Transport
from hauberk_xfrm import ReqId
from tests.unit.agent.fake_kernel import FakeKernel
from tests.unit.agent.mesh import node, plan, roster, tunnel
from tests.unit.agent.network import credentials
from tests.unit.ike.authority import TODAY

NODES = {"n1": node(1, addresses=("127.0.0.1",)), "n2": node(2, addresses=("127.0.0.2",))}


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def sessions(kernel: FakeKernel) -> Sessions:
    return Sessions(
        kernel=kernel,
        directions=True,
        entropy=os.urandom,
        wall_clock=lambda: TODAY + timedelta(seconds=1),
        chance=Random(1),
    )


def test_two_nodes_agree_over_udp() -> None:
    async def story() -> None:
        port, loop = free_port(), asyncio.get_running_loop()
        up = asyncio.Event()
        kernels = [FakeKernel(), FakeKernel()]
        both = [sessions(kernel) for kernel in kernels]
        transports = [Transport(one, port=port, bypass=False) for one in both]

        def changed() -> None:
            if all(pair.well for one in both for pair in one.pairs):
                up.set()

        for number, (one, transport) in enumerate(zip(both, transports, strict=True), start=1):
            found = roster(f"n{number}", plan(tunnel()), **NODES)
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

    asyncio.run(story())


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
