"""Sessions that search their paths on a simulated network, and the routes that follow what was found."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Mapping
from ipaddress import ip_address

import pytest

from hauberk_agent.path_search import RECHECK_SECONDS
from hauberk_agent.path_widths import PathWidths
from hauberk_agent.transport import Transport
from hauberk_ike import Datagram, IpAddress, SocketAddress
from hauberk_xfrm import XfrmError
from tests.unit.agent.network import Network, Party

IPV4_UDP = 28


class NarrowNetwork(Network):
    """Drops what is too large and may not be cut, and tells nobody."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__(size)
        self.width = width
        self.dropped = 0

    def send(self, datagram: Datagram) -> None:
        if datagram.dont_fragment and len(datagram.data) + IPV4_UDP > self.width:
            self.dropped += 1
        else:
            super().send(datagram)


class Routes:
    def __init__(self) -> None:
        self.told: list[dict[IpAddress, int]] = []
        self.refusal: XfrmError | None = None

    def follow(self, mtus: Mapping[IpAddress, int]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.told.append(dict(mtus))


def widths(party: Party, routes: Routes) -> PathWidths:
    return PathWidths(party.alive.path_searches, routes, link_mtu=lambda _, __: 1500)


def connected(size: int, width: int) -> NarrowNetwork:
    network = NarrowNetwork(size, width)
    network.start()
    network.run_until(network.connected, limit=5)
    return network


def test_each_end_finds_its_own_way_and_makes_its_routes_as_narrow() -> None:
    network = connected(2, 1400)
    routes = [Routes(), Routes()]
    keepers = [widths(party, each) for party, each in zip(network.parties, routes, strict=True)]
    for _ in range(20):
        for party, keeper in zip(network.parties, keepers, strict=True):
            keeper.look(party.alive.pairs, network.now)
            party.flush()
        network.run(1)
    assert [keeper.narrow for keeper in keepers] == [{network[2].outer: 1400}, {network[1].outer: 1400}]
    assert [each.told[-1] for each in routes] == [{network[2].outer: 1400}, {network[1].outer: 1400}]
    assert network.disagreements() == []
    assert network.flow.lost == 0
    assert network.dropped <= 16


def test_where_nothing_is_too_large_no_route_is_made_but_what_an_earlier_run_left_goes() -> None:
    network = connected(2, 1500)
    routes = Routes()
    keeper = widths(network[1], routes)
    for _ in range(3):
        keeper.look(network[1].alive.pairs, network.now)
        network[1].flush()
        network.run(2)
    assert routes.told == [{}]
    assert network.dropped == 0


def test_a_path_that_widens_and_a_peer_that_goes_take_their_routes_along() -> None:
    network = connected(3, 1400)
    routes = Routes()
    keeper = widths(network[1], routes)

    def look(seconds: int) -> None:
        for _ in range(seconds // 5):
            keeper.look(network[1].alive.pairs, network.now)
            network[1].flush()
            network.run(5)

    look(60)
    assert keeper.narrow == {network[2].outer: 1400, network[3].outer: 1400}
    for party in network.parties:
        party.want([1, 2])
    look(10)
    assert keeper.narrow == {network[2].outer: 1400}
    network.width = 1500
    network.has_traffic = False
    look(int(RECHECK_SECONDS * 1.2))
    assert keeper.narrow == routes.told[-1] == {}


def test_a_kernel_that_refuses_is_asked_again() -> None:
    network = connected(2, 1500)
    routes = Routes()
    routes.refusal = XfrmError("add", "route table", 1)
    keeper = widths(network[1], routes)
    keeper.look(network[1].alive.pairs, network.now)
    assert keeper.problem is not None
    routes.refusal = None
    keeper.look(network[1].alive.pairs, network.now)
    assert (keeper.problem, routes.told) == (None, [{}])


class Silence:
    """A speaker that says what it is given."""

    def __init__(self) -> None:
        self.said: list[Datagram] = []

    def receive_datagram(self, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float) -> None: ...

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        said, self.said = self.said, []
        return said

    def get_timer(self) -> float | None:
        return None

    def handle_timer(self, now: float) -> None: ...


@pytest.mark.parametrize(("local", "remote"), [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
def test_what_may_not_be_fragmented_is_not(private_network: None, local: str, remote: str) -> None:
    for command in (
        "link add up0 type veth peer name down0", "link set up0 up", "link set down0 up",
        "addr add 192.0.2.1/24 dev up0", "addr add 2001:db8::1/64 dev up0 nodad",
        "neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev up0",
        "neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev up0",
    ):  # fmt: skip
        subprocess.run(["ip", *command.split()], check=True)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(3)) as tap:
        tap.bind(("down0", 3))
        headers = IPV4_UDP if "." in local else 48
        whole = asyncio.run(send(local, remote, 1500 - headers, dont_fragment=True, tap=tap))
        too_large = asyncio.run(send(local, remote, 1600, dont_fragment=True, tap=tap))
        cut = asyncio.run(send(local, remote, 1600, dont_fragment=False, tap=tap))
    assert [len(packet) for packet in whole] == [1500]
    assert ":" in local or whole[0][6] & 0x40, "don't fragment"
    assert (len(too_large), len(cut)) == (0, 2)


async def send(local: str, remote: str, length: int, *, dont_fragment: bool, tap: socket.socket) -> list[bytes]:
    """The UDP packets and fragments that are on the wire then."""
    speaker = Silence()
    transport = Transport(speaker, port=5500, bypass=False)
    transport.listen([ip_address(local)])
    ends = (SocketAddress(host=ip_address(host), port=5500) for host in (local, remote))
    here, there = ends
    speaker.said.append(Datagram(data=bytes(length), local=here, remote=there, dont_fragment=dont_fragment))
    transport.pump()
    transport.close()
    packets: list[bytes] = []
    while True:
        try:
            packet = tap.recv(65536)
        except BlockingIOError:
            return packets
        if (packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_UDP) or (packet[0] >> 4 == 6 and packet[6] in (17, 44)):
            packets.append(packet)
