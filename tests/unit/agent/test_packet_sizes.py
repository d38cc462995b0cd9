"""What fits into a node's tunnels: by its SAs' ciphers and its paths, and what is said about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from hauberk_agent.ownership import REQIDS
from hauberk_agent.packet_sizes import POD_MTU_SECONDS, Fit, PacketSizes
from hauberk_agent.roster import Roster
from hauberk_xfrm import Aead, IpAddress, IpNetwork, IptfsOut, Mode, NotSupported, ReqId, Spi, StateDirection, StateDump
from tests.unit.agent.mesh import node, plan, roster, tunnel

GCM = Aead(name="rfc4106(gcm(aes))", key=bytes(range(20)), icv_bits=128)


class Table:
    """A clamp that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[set[IpNetwork], int] | None] = []
        self.there = False
        self.refusal: NotSupported | None = None

    def make(self, networks: Iterable[IpNetwork], *, inner_mtu: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.told.append((set(networks), inner_mtu))
        self.there = True

    def remove(self) -> None:
        self.told.append(None)
        self.there = False

    def exists(self) -> bool:
        return self.there


class Node:
    """n1 with its peers, whose paths and pods' MTU a test sets."""

    def __init__(self) -> None:
        self.table = Table()
        self.paths: dict[IpAddress, int] = {}
        self.pod_mtu: int | None = 1500
        self.asked = 0
        self.sizes = PacketSizes(
            self.table, path_mtu=lambda _, remote: self.paths.get(remote, 1500), pod_mtu=self._read_pod_mtu
        )

    def _read_pod_mtu(self, networks: Iterable[IpNetwork]) -> int | None:
        self.asked += 1
        return self.pod_mtu

    def look(self, *states: StateDump, now: float = 0.0) -> Fit | None:
        self.sizes.look(mesh(), states, now)
        return self.sizes.fit


def mesh() -> Roster:
    return roster("n1", plan(tunnel()), n1=node(1), n2=node(2), n3=node(3))


def outer(number: int) -> IpAddress:
    return next(peer.remote for peer in mesh().peers if peer.place.name == f"n{number}")


def state(to: int = 2, **changes: object) -> StateDump:
    plain = StateDump(
        source=mesh().peers[0].local,
        destination=outer(to),
        spi=Spi(0x1000 + to),
        reqid=ReqId(REQIDS.start),
        aead=GCM,
        direction=StateDirection.OUT,
        larval=False,
        algorithm=GCM.name,
        bytes=0,
        packets=0,
        add_time=None,
        use_time=None,
        last_used=None,
        sequence=0,
        replay_packets=0,
        replay_window_packets=0,
        integrity_failed=0,
    )
    return replace(plain, **changes)  # pyright: ignore[reportArgumentType]


def test_the_narrowest_tunnel_is_named_and_its_number_is_for_all() -> None:
    here = Node()
    here.paths[outer(3)] = 1400
    fit = here.look(state(2), state(3))
    assert fit == Fit(pod_mtu=1500, carried=1346, node="n3", path_mtu=1400)
    ((networks, inner_mtu),) = [told for told in here.table.told if told is not None]
    assert inner_mtu == 1346
    assert networks >= {*(n for peer in mesh().peers for n in peer.place.networks), ip_network(outer(2))}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(state(direction=StateDirection.IN), id="inbound"),
        pytest.param(state(reqid=ReqId(1)), id="somebody else's"),
        pytest.param(state(destination=ip_address("203.0.113.9")), id="no peer's"),
        pytest.param(state(mode=Mode.IPTFS), id="in pieces"),
        pytest.param(state(mode=Mode.TRANSPORT), id="between nodes"),
        pytest.param(state(aead=None), id="whose algorithm is hidden"),
    ],
)
def test_what_limits_no_pod_is_left_out(other: StateDump) -> None:
    here = Node()
    assert here.look(other) is None
    assert here.table.told == [None], "what an earlier run left goes, once"
    here.look(other)
    assert here.table.told == [None]


def test_a_peer_that_takes_whole_packets_only_limits_iptfs_too() -> None:
    fit = Node().look(state(mode=Mode.IPTFS, iptfs=IptfsOut(dont_fragment=True)))
    assert fit is not None
    assert fit.carried == 1442


def test_the_table_is_made_when_it_changes_or_is_gone_and_then_alone() -> None:
    here = Node()
    for _ in range(3):
        here.look(state())
    assert len(here.table.told) == 1
    here.table.there = False  # a firewall was reloaded
    here.look(state())
    here.paths[outer(2)] = 1400
    here.look(state())
    assert [told[1] for told in here.table.told if told is not None] == [1446, 1446, 1346]
    here.look()
    assert here.table.told[-1] is None


def test_a_kernel_without_nftables_is_a_problem_where_it_is_needed() -> None:
    here = Node()
    here.table.refusal = NotSupported("make", "nftables table inet hauberk-mss", 95)
    assert here.look(state()) is not None
    assert here.sizes.problem is not None
    here.table.refusal = None
    here.look(state())
    assert here.sizes.problem is None
    assert here.table.there


@pytest.mark.parametrize(("pod_mtu", "too_large"), [(1500, True), (1447, True), (1446, False), (None, False)])
def test_people_are_told_what_to_set_if_pods_send_too_much(pod_mtu: int | None, too_large: bool) -> None:
    here = Node()
    here.pod_mtu = pod_mtu
    fit = here.look(state())
    assert fit is not None
    assert (fit.problem is not None) is too_large
    assert fit.problem is None or "set the CNI's MTU to 1446" in fit.problem


def test_the_pods_devices_are_looked_for_now_and_then_only() -> None:
    here = Node()
    for now in (0.0, 10.0, POD_MTU_SECONDS - 1):
        here.look(state(), now=now)
    assert here.asked == 1
    here.look(state(), now=POD_MTU_SECONDS)
    assert here.asked == 2
