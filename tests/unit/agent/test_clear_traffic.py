"""What is counted of packets in clear, and how it is told."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field

from hauberk_agent.clear_traffic import ClearTraffic
from hauberk_agent.roster import Roster
from hauberk_api.plan import Phase
from hauberk_api.tunnel import Enforcement
from hauberk_xfrm import ClearPackets, IpNetwork, NotSupported, XfrmError
from tests.unit.agent.mesh import node, plan, roster, tunnel


@dataclass
class FakeCounter:
    """A kernel's table; `packets` counts as many arriving as leaving."""

    networks: list[str] | None = None
    packets: int = 0
    refuses: XfrmError | None = None
    made: list[list[str]] = field(default_factory=list[list[str]])

    def count(self, networks: Iterable[IpNetwork]) -> None:
        self._refuse()
        self.networks, self.packets = [str(network) for network in networks], 0
        self.made.append(self.networks)

    def remove(self) -> None:
        self._refuse()
        self.networks = None

    def read(self) -> ClearPackets | None:
        self._refuse()
        return None if self.networks is None else ClearPackets(arriving=self.packets, leaving=self.packets)

    def _refuse(self) -> None:
        if self.refuses is not None:
            raise self.refuses


def permissive(*peers: int, enforcement: Enforcement = Enforcement.PERMISSIVE) -> Roster:
    nodes = {f"n{number}": node(number) for number in (1, *peers)}
    return roster("n1", plan(tunnel(phase=Phase.PROTECT, enforcement=enforcement)), **nodes)


def test_peers_pods_of_permissive_tunnels_are_counted_and_nothing_else() -> None:
    counter = FakeCounter(networks=["left by an earlier run"])
    clear = ClearTraffic(counter)
    clear.follow(permissive(2, enforcement=Enforcement.STRICT), 0.0)
    assert counter.networks is None
    assert clear.total is None
    clear.follow(permissive(2), 1.0)
    assert counter.networks == ["10.244.2.0/24", "fd00:244:2::/64"]
    clear.follow(None, 2.0)
    assert counter.networks is None
    assert clear.total is None


def test_the_same_roster_leaves_the_table_alone() -> None:
    counter = FakeCounter()
    clear = ClearTraffic(counter)
    clear.follow(permissive(2), 0.0)
    clear.follow(permissive(2), 1.0)
    assert len(counter.made) == 1


def test_totals_go_on_when_the_table_is_made_anew() -> None:
    counter = FakeCounter()
    clear = ClearTraffic(counter)
    clear.follow(permissive(2), 0.0)
    counter.packets = 5
    # -> another peer: what was counted until then is taken along
    clear.follow(permissive(2, 3), 1.0)
    counter.packets = 2
    clear.look(2.0)
    assert clear.total == ClearPackets(arriving=7, leaving=7)
    # -> somebody flushes all tables
    counter.networks = None
    clear.look(3.0)
    assert len(counter.made) == 3
    counter.packets = 1
    clear.look(4.0)
    assert clear.total == ClearPackets(arriving=8, leaving=8)


def test_a_report_holds_about_the_last_minute() -> None:
    counter = FakeCounter()
    clear = ClearTraffic(counter)
    clear.follow(permissive(2), 0.0)
    assert clear.recently == 0
    counter.packets = 50
    clear.look(10.0)
    assert clear.recently == 64, "100 packets, rounded down"
    clear.look(60.0)
    assert clear.recently == 64
    clear.look(70.0)
    clear.look(80.0)
    assert clear.recently == 0
    counter.packets = 51
    clear.look(90.0)
    assert clear.recently == 2


def test_a_kernel_without_nftables_is_a_problem_only_where_something_is_to_be_counted() -> None:
    counter = FakeCounter(refuses=NotSupported("make", "table", errno.EOPNOTSUPP))
    clear = ClearTraffic(counter)
    clear.follow(permissive(2, enforcement=Enforcement.STRICT), 0.0)
    assert clear.problem is None
    clear.follow(permissive(2), 1.0)
    assert clear.problem is not None
    # -> the module is loaded
    counter.refuses = None
    clear.look(11.0)
    assert clear.problem is None
    assert counter.networks is not None
