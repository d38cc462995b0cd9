"""What agents do about packets' sizes, told inside a kernel with ESP (`path_world`, `path_agents`).

`worlds` has one booted and starts this program (`python -m tests.kernel.path_agent_stories RESULTS`).
"""

from __future__ import annotations

from collections.abc import Callable

from hauberk_api.tunnel import TunnelMode
from hauberk_xfrm import Mode, SegmentClamp
from tests.kernel.path_agents import path_agents
from tests.kernel.path_stories import as_before_or_told, nothing_crossed_in_clear, streams_arrive, sweep
from tests.kernel.path_world import MARKER, Fate, PathWorld, path_world
from tests.kernel.two_hosts import check, inside, main


def trouble(world: PathWorld, before: list[dict[str, int]]) -> None:
    """Nothing has been counted since, but what Linux 7.3 loses by itself: one of some hundred packets that came in
    pieces, where the pieces' buffers lie in several pages (iptfs_pskb_extract_seq in net/xfrm/xfrm_iptfs.c)."""
    for host, then in zip(world.hosts, before, strict=True):
        counted = {name: count - then[name] for name, count in host.statistics().items() if count != then[name]}
        check(counted.keys() <= {"XfrmInError", "XfrmInBufferError"}, (host.name, counted))
        check(sum(counted.values()) < 50, (host.name, counted))


def in_iptfs_mode_everything_arrives_and_no_pod_needs_a_smaller_mtu() -> None:
    """Not even one that hears no ICMP: nobody has to be told anything that the plain network did not tell."""
    for mtu in (1500, 9000):
        with path_world(wire_mtu=mtu, pod_mtu=mtu) as world:
            for pod in ("p1", "p2"):
                world.block_icmp(pod)
            plain = sweep(world)
            world.crossed()
            with path_agents(world, f"iptfs-{mtu}", (TunnelMode.IPTFS, TunnelMode.IPTFS)) as agents:
                agents.await_pair(Mode.IPTFS)
                before = [host.statistics() for host in world.hosts]
                now = sweep(world)
                check(now == plain, {row: fate for row, fate in now.items() if plain[row] is not fate})
                trouble(world, before)
                crossed = world.crossed()
                check(not any(MARKER in packet for packet in crossed), "packets in clear")
                longest = max(map(len, crossed))
                check(longest == mtu, f"{longest} bytes on a wire of {mtu}: full packets, and none in fragments")
                streams_arrive(world)
                nothing_crossed_in_clear(world)
                trouble(world, before)
                check(all(agents.report(number)["kernel"]["iptfs"] for number in (1, 2)), agents.report(1))


def agents_make_the_streams_of_deaf_pods_fit_and_say_what_is_too_large() -> None:
    with path_world() as world:
        for pod in ("p1", "p2"):
            world.block_icmp(pod)
        with path_agents(world, "clamped") as agents:
            agents.await_pair(Mode.TUNNEL)
            agents.eventually(lambda: all(map(clamped, ("n1", "n2"))), "the clamp on both nodes")
            streams_arrive(world)
            nothing_crossed_in_clear(world)
            said = {"podMTU": 1500, "carried": 1446, "narrowest": "n2", "pathMTU": 1500}
            agents.eventually(lambda: agents.report(1).get("packets") == said, "the report's numbers")
            with inside("n1"):
                SegmentClamp().remove()  # as reloading a firewall does
            agents.eventually(lambda: clamped("n1"), "the clamp again")


def a_narrower_path_that_nobody_tells_of_is_found_and_used() -> None:
    with path_world() as world:
        world.narrow(1400)
        for node in ("n1", "n2"):
            world.block_icmp(node)  # by which the router would tell
        with path_agents(world, "narrow") as agents:
            agents.await_pair(Mode.TUNNEL)
            for number, other in ((1, "n2"), (2, "n1")):
                said = {"podMTU": 1500, "carried": 1346, "narrowest": other, "pathMTU": 1400}
                agents.eventually(lambda n=number, s=said: agents.report(n).get("packets") == s, "the path's width")
            lost = [row for row, fate in sweep(world).items() if fate is Fate.LOST]
            check(lost == [], f"lost: {lost}")
            for family in (4, 6):
                check(world.fate(1346, family=family, df=True) is Fate.ARRIVES, "what fits")
            streams_arrive(world)
            nothing_crossed_in_clear(world)


def clamped(node: str) -> bool:
    with inside(node):
        return SegmentClamp().exists()


def with_a_peer_that_does_not_do_iptfs_it_is_tunnel_mode() -> None:
    with path_world() as world:
        plain = sweep(world)
        world.crossed()
        with path_agents(world, "fallback", (TunnelMode.IPTFS, TunnelMode.TUNNEL)) as agents:
            agents.await_pair(Mode.TUNNEL)
            check(world.fate(1400, family=4, df=True) is Fate.ARRIVES, "a packet that fits")
            as_before_or_told(plain, sweep(world))
            nothing_crossed_in_clear(world)


STORIES: tuple[Callable[[], None], ...] = (
    in_iptfs_mode_everything_arrives_and_no_pod_needs_a_smaller_mtu,
    with_a_peer_that_does_not_do_iptfs_it_is_tunnel_mode,
    agents_make_the_streams_of_deaf_pods_fit_and_say_what_is_too_large,
    a_narrower_path_that_nobody_tells_of_is_found_and_used,
)

if __name__ == "__main__":
    main(STORIES)
