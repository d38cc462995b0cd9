"""Routes that make packets to a host smaller and change nothing else, on this machine's kernel, in a namespace."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import takewhile
from pathlib import Path

import pytest

from hauberk_xfrm import IpAddress
from hauberk_xfrm.path_mtu import PathMtu, largest_device_mtu
from hauberk_xfrm.path_routes import ROUTE_MARK, ROUTE_TABLE, PathRoutes

HERE: dict[int, IpAddress] = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
FAR: dict[int, IpAddress] = {4: ip_address("198.51.100.7"), 6: ip_address("2001:db8:1::7")}
NEAR: dict[int, IpAddress] = {4: ip_address("192.0.2.9"), 6: ip_address("2001:db8::9")}


def ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


@pytest.fixture
def routes(private_network: None) -> Iterator[PathRoutes]:
    """A host with a link, and a network behind a gateway."""
    ip(
        "link set lo up",
        "link add up0 type veth peer name down0",
        "link set up0 up",
        "link set down0 up",
        "addr add 192.0.2.1/24 dev up0",
        "addr add 2001:db8::1/64 dev up0 nodad",
        "route add 198.51.100.0/24 via 192.0.2.2",
        "route add 2001:db8:1::/64 via 2001:db8::2",
    )
    opened = PathRoutes()
    yield opened
    opened.close()


def mtu(host: IpAddress, *, mark: int = 0) -> int | None:
    path = PathMtu(mark=mark)
    try:
        return path.read(HERE[host.version], host)
    finally:
        path.close()


def way(host: IpAddress) -> str:
    """By which gateway, device and source address."""
    shown = subprocess.run(["ip", "route", "get", str(host)], check=True, capture_output=True, text=True).stdout.split()
    return " ".join(f"{word} {shown[at + 1]}" for at, word in enumerate(shown) if word in ("via", "dev", "src"))


@pytest.mark.parametrize("version", [4, 6])
def test_a_host_gets_a_size_of_its_own_and_no_other_way(routes: PathRoutes, version: int) -> None:
    for host in (FAR[version], NEAR[version]):
        before = way(host)
        routes.follow({host: 1400})
        assert mtu(host) == 1400
        assert mtu(host, mark=ROUTE_MARK) == 1500, "the node's own route is seen by our mark"
        assert way(host) == before
        assert mtu(host + 1) == 1500
    routes.follow({})
    assert [mtu(FAR[version]), mtu(NEAR[version])] == [1500, 1500]


def test_both_families_and_another_size(routes: PathRoutes) -> None:
    routes.follow({FAR[4]: 1400, FAR[6]: 1380})
    assert (mtu(FAR[4]), mtu(FAR[6])) == (1400, 1380)
    routes.follow({FAR[4]: 1300, FAR[6]: 1380})
    assert (mtu(FAR[4]), mtu(FAR[6])) == (1300, 1380)
    routes.follow({FAR[6]: 1380})
    assert (mtu(FAR[4]), mtu(FAR[6])) == (1500, 1380)


def test_the_way_is_followed_where_the_node_changes_it(routes: PathRoutes) -> None:
    routes.follow({FAR[4]: 1400})
    ip("route replace 198.51.100.0/24 via 192.0.2.3")
    routes.follow({FAR[4]: 1400})
    assert "via 192.0.2.3" in way(FAR[4])
    assert mtu(FAR[4]) == 1400


def wait_until_it_listens(pid: int) -> None:
    """Until a program has a netlink socket that is in a multicast group."""
    deadline = time.monotonic() + 30
    while True:
        rows = [line.split() for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]]
        if any(int(row[2]) == pid and int(row[3], 16) for row in rows):
            return
        assert time.monotonic() < deadline, "ip monitor does not listen"
        time.sleep(0.01)


def test_nothing_is_written_where_all_is_as_wanted(routes: PathRoutes) -> None:
    routes.follow({FAR[4]: 1400, NEAR[6]: 1400})
    watch = subprocess.Popen(["ip", "monitor", "route", "rule"], stdout=subprocess.PIPE, text=True)
    try:
        wait_until_it_listens(watch.pid)
        routes.follow({FAR[4]: 1400, NEAR[6]: 1400})
        ip("route add 203.0.113.0/24 via 192.0.2.2")
        assert watch.stdout is not None
        heard = list(takewhile(lambda line: "203.0.113.0/24" not in line, watch.stdout))
        assert [line for line in heard if "proto kernel" not in line] == [], "but for addresses that are ready now"
    finally:
        watch.kill()
        watch.communicate()


def test_what_an_earlier_run_left_goes_and_nothing_else(routes: PathRoutes) -> None:
    ip("rule add pref 100 lookup 100", "route add 203.0.113.0/24 via 192.0.2.2 table 100")
    routes.follow({FAR[4]: 1400, FAR[6]: 1400})
    later = PathRoutes()
    later.follow({FAR[4]: 1380})
    assert (mtu(FAR[4]), mtu(FAR[6])) == (1380, 1500)
    later.remove()
    assert mtu(FAR[4]) == 1500
    for arguments in (("rule",), ("-6", "rule"), ("route", "show", "table", "all")):
        shown = subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
        assert str(ROUTE_TABLE) not in shown
    rules = subprocess.run(["ip", "rule"], check=True, capture_output=True, text=True).stdout
    assert "lookup 100" in rules
    later.close()


def test_the_devices_that_lead_to_networks_have_an_mtu(routes: PathRoutes) -> None:
    ip(
        "link add pod0 mtu 1400 type veth peer name pod1 mtu 1400",
        "link set pod0 up",
        "link set pod1 up",
        "route add 10.244.1.7/32 dev pod0",
        "route add fd00:244:1::7/128 dev pod0",
    )
    assert largest_device_mtu([ip_network("10.244.1.0/24")]) == 1400
    assert largest_device_mtu([ip_network("fd00:244:1::/64")]) == 1400
    assert largest_device_mtu([ip_network("10.244.0.0/16"), ip_network("192.0.2.0/24")]) == 1500
    assert largest_device_mtu([ip_network("10.99.0.0/16")]) is None


def test_where_there_is_no_way_there_is_no_size_and_no_route(routes: PathRoutes) -> None:
    nowhere = ip_address("203.0.113.9")
    assert mtu(nowhere) is None
    routes.follow({nowhere: 1400})
    assert mtu(nowhere) is None
