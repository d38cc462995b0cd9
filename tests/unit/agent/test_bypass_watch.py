"""Packets of pods that leave in clear though policies stand: when they are a bypass, and what is looked at."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import pytest

from hauberk_agent.bypass_watch import (
    DOUBT_PAUSE_SECONDS,
    DOUBT_WINDOW_SECONDS,
    PAUSE_SECONDS,
    QUIET_WINDOWS,
    WINDOW_SECONDS,
    BypassWatch,
)
from hauberk_agent.roster import Roster
from hauberk_api.plan import Phase
from hauberk_api.tunnel import PortRange, Traffic
from hauberk_xfrm import IpAddress, NetworkDevice, Passage, PermissionDenied, XfrmError, keep_outgoing
from tests.unit.agent.mesh import HOST, node, plan, roster, tunnel

DEVICES = (
    NetworkDevice(name="lo"),
    NetworkDevice(name="eth0"),
    NetworkDevice(name="up", kind="veth"),
    NetworkDevice(name="lxc1", kind="veth"),
    NetworkDevice(name="flannel.1", kind="vxlan", port=8472),
    NetworkDevice(name="hauberk0", kind="xfrm"),
)
LEAK = ("10.244.1.2", "10.244.2.2")


@dataclass
class FakeTap:
    """Shows once what it holds, and once only is it closed."""

    program: bytes
    passages: list[Passage]
    is_open: bool = True

    def take(self) -> Sequence[Passage]:
        assert self.is_open
        return self.passages

    def close(self) -> None:
        assert self.is_open
        self.is_open = False


@dataclass
class Wires:
    """What leaves, by device; and devices that can't be tapped."""

    passing: dict[str, list[tuple[str, str]]] = field(default_factory=dict[str, list[tuple[str, str]]])
    refuses: dict[str, XfrmError] = field(default_factory=dict[str, XfrmError])
    taps: dict[str, FakeTap] = field(default_factory=dict[str, FakeTap])
    asked: int = 0

    def open_tap(self, device: str, program: bytes) -> FakeTap:
        if device in self.refuses:
            raise self.refuses[device]
        passages = [
            Passage(source=ip_address(source), destination=ip_address(destination))
            for source, destination in self.passing.get(device, [])
        ]
        self.taps[device] = FakeTap(program, passages)
        return self.taps[device]

    def addressed(self, addresses: Collection[IpAddress]) -> Collection[str]:
        assert "10.250.0.1" in map(str, addresses)
        self.asked += 1
        return {"up"}

    def watch(self) -> BypassWatch:
        return BypassWatch(self.open_tap, self.addressed)


def strict(*peers: int, phase: Phase = Phase.REQUIRE) -> Roster:
    nodes = {f"n{number}": node(number) for number in (1, *peers)}
    return roster("n1", plan(tunnel(phase=phase)), **nodes)


def look(watch: BypassWatch, members: Roster, later: Roster | None = None) -> bool:
    """A whole window; later: what is wanted when it closes."""
    window = watch.open(members, DEVICES)
    assert window is not None
    window.close()
    return watch.judge(window, later or members)


def test_own_pods_packets_to_strict_peers_pods_are_looked_for_where_packets_leave() -> None:
    wires = Wires()
    window = wires.watch().open(strict(2, 3), DEVICES)
    assert list(wires.taps) == ["up", "eth0", "flannel.1"], "neither pods' devices nor encrypting ones"
    own = [ip_network(text) for text in ("10.244.1.0/24", "fd00:244:1::/64")]
    peers = [ip_network(f"{text}") for n in (2, 3) for text in (f"10.244.{n}.0/24", f"fd00:244:{n}::/64")]
    assert {tap.program for tap in wires.taps.values()} == {keep_outgoing(own, peers)}
    assert window is not None
    window.close()
    window.close()
    assert not any(tap.is_open for tap in wires.taps.values())


@pytest.mark.parametrize(
    "unprotected",
    [
        strict(2, phase=Phase.PROTECT),
        roster("n1", plan(tunnel(traffic=HOST)), n1=node(1), n2=node(2)),
        roster("n1", plan(tunnel(traffic=Traffic(protocol="TCP"))), n1=node(1), n2=node(2)),
        roster(
            "n1",
            plan(tunnel(traffic=Traffic(protocol="TCP", ports=PortRange(first=1, last=2)))),
            n1=node(1),
            n2=node(2),
        ),
        roster("n1", plan(tunnel()), n1=node(1), n2=node(2, phase=Phase.PROTECT)),
        strict(),
        None,
    ],
)
def test_where_packets_may_leave_in_clear_nothing_is_looked_at(unprotected: Roster | None) -> None:
    wires = Wires()
    assert wires.watch().open(unprotected, DEVICES) is None
    assert not wires.taps


def test_packets_in_two_windows_on_end_are_a_bypass() -> None:
    wires, members = Wires(), strict(2)
    watch = wires.watch()
    # -> those on their way
    wires.passing = {"eth0": [LEAK] * 5}
    assert not look(watch, members)
    assert (watch.pause_seconds, watch.window_seconds) == (DOUBT_PAUSE_SECONDS, DOUBT_WINDOW_SECONDS)
    wires.passing = {}
    assert not look(watch, members)
    assert (watch.pause_seconds, watch.window_seconds) == (PAUSE_SECONDS, WINDOW_SECONDS)
    # -> by another device each time
    wires.passing = {"eth0": [LEAK]}
    assert not look(watch, members)
    wires.passing = {"flannel.1": [LEAK]}
    assert not look(watch, members)
    assert watch.doubtful
    assert look(watch, members)
    assert watch.device == "flannel.1"
    assert not watch.doubtful, "it is known"


def test_a_bypass_lasts_as_long_as_something_passes_and_for_a_while() -> None:
    wires, members = Wires(passing={"eth0": [LEAK]}), strict(2)
    watch = wires.watch()
    assert [look(watch, members) for _ in range(3)] == [False, True, False]
    wires.passing = {}
    assert not any(look(watch, members) for _ in range(QUIET_WINDOWS - 1))
    wires.passing = {"eth0": [LEAK]}
    assert not look(watch, members)
    wires.passing = {}
    assert not any(look(watch, members) for _ in range(QUIET_WINDOWS - 1))
    assert watch.device == "eth0"
    assert look(watch, members)
    assert watch.device is None


@pytest.mark.parametrize(
    "passage",
    [
        ("10.250.0.1", "10.244.2.2"),
        ("10.244.1.2", "10.244.3.2"),
        ("10.244.1.2", "192.0.2.1"),
        ("10.244.2.9", "10.244.2.2"),
        ("10.244.1.2", "10.244.2.9"),
        ("10.244.1.1", "10.244.2.2"),
        ("10.244.1.2", "10.244.2.1"),
    ],
)
def test_what_may_leave_in_clear_is_no_bypass_though_the_kernel_keeps_it(passage: tuple[str, str]) -> None:
    """To pods of a node that is no member, also where it has borrowed an address; and of nodes among their pods."""
    members = roster(
        "n1",
        plan(tunnel()),
        n1=node(1, addresses=("10.250.0.1", "10.244.1.1")),
        n2=node(2, addresses=("10.250.0.2", "10.244.2.1")),
        n3=node(3, tunnels=(), pod_cidrs=("10.244.3.0/24", "10.244.2.9/32")),
    )
    wires = Wires(passing={"eth0": [passage] * 9})
    watch = wires.watch()
    assert not any(look(watch, members) for _ in range(3))
    wires.passing["eth0"].append(LEAK)
    assert [look(watch, members) for _ in range(2)] == [False, True]


def test_what_may_leave_before_the_window_closes_does_not_count() -> None:
    wires = Wires(passing={"eth0": [LEAK]})
    watch = wires.watch()
    for later in (strict(3), strict(2, phase=Phase.PROTECT), strict(2, 3)):
        look(watch, strict(2), later)
    assert watch.device is None
    look(watch, strict(3), strict(2))
    look(watch, strict(3), strict(2))
    assert watch.device is None
    assert look(watch, strict(2)) is False
    window = watch.open(strict(2), DEVICES)
    assert window is not None
    window.close()
    assert not watch.judge(window, None)


def test_a_bypass_is_over_with_the_last_tunnel_that_it_could_be_of() -> None:
    wires, members = Wires(passing={"eth0": [LEAK]}), strict(2)
    watch = wires.watch()
    look(watch, members)
    look(watch, members)
    assert not watch.release(strict(2, 3))
    assert watch.device == "eth0"
    assert watch.release(strict(2, phase=Phase.PROTECT))
    assert watch.device is None
    assert not watch.release(None)
    # -> and begins anew
    assert [look(watch, members) for _ in range(2)] == [False, True]


def test_what_to_look_at_is_worked_out_once_for_a_roster_and_devices() -> None:
    wires, members = Wires(), strict(2)
    watch = wires.watch()
    for _ in range(3):
        look(watch, members)
    assert wires.asked == 1
    wires.taps.clear()
    more = (*DEVICES, NetworkDevice(name="eth1"))
    watch.open(members, more)
    assert "eth1" in wires.taps
    before = wires.taps["eth1"].program
    watch.open(strict(2, 3), more)
    assert wires.taps["eth1"].program != before
    assert wires.asked == 3


def test_a_device_that_is_gone_is_left_out_and_what_is_open_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    wires = Wires(refuses={"up": XfrmError("watch", "up", errno.ENODEV)}, passing={"eth0": [LEAK]})
    watch = wires.watch()
    assert [look(watch, strict(2)) for _ in range(2)] == [False, True]
    assert list(wires.taps) == ["eth0", "flannel.1"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_missing_capability_is_told_once_and_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    wires = Wires(refuses={"up": PermissionDenied("watch", "up", errno.EPERM, "CAP_NET_RAW is missing")})
    watch = wires.watch()
    assert [watch.open(strict(2), DEVICES) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert "CAP_NET_RAW" in caplog.text
    wires.refuses.clear()
    assert watch.open(strict(2), DEVICES) is not None
    assert watch.problem is None
