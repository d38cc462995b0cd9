"""What becomes of packets of all sizes, told inside a kernel with ESP: between pods, through a tunnel and without one.

`worlds` has one booted and starts this program (`python -m tests.kernel.path_stories RESULTS`). The measure is the
same network without tunnels: whatever it carried must arrive, or its sender be told what fits; never in clear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

from hauberk_xfrm import Action, AddPolicy, Direction, EspSizes, Mode, Policy, SegmentClamp, Selector, State
from tests.kernel.path_world import MARKER, Fate, PathWorld, path_world
from tests.kernel.two_hosts import associate, check, inside, main, over, protect, state_of

SIZES = (1200, 1280, 1281, 1400, 1426, 1446, 1447, 1499, 1500, 1501, 2000, 4000, 8946, 8947, 9000, 9001)
STREAM_BYTES = 73 * 4096

Row = tuple[int, bool, int]
"""IP version, whether the packet may not be fragmented, size."""


def sweep(world: PathWorld) -> dict[Row, Fate]:
    return {
        (family, df, size): world.fate(size, family=family, df=df)
        for family, df, size in product((4, 6), (True, False), SIZES)
    }


def streams_arrive(world: PathWorld) -> None:
    for family, back in product((4, 6), (False, True)):
        arrived = world.stream(family=family, back=back, size=STREAM_BYTES)
        check(arrived == STREAM_BYTES, f"TCP over IPv{family}, back: {back}: {arrived} bytes")


def tunnel(world: PathWorld, *, outer: int, mode: Mode = Mode.TUNNEL, clamp: int | None = None) -> State:
    """SAs and policies at both nodes, as Strict as it gets, and the clamp if its number is given."""
    left, right = world.hosts
    state = replace(state_of(mode=mode), source=left.addresses[outer], destination=right.addresses[outer])
    associate(left, right, state)
    for host, peer in ((left, right), (right, left)):
        protect(host, peer, outer=outer, mode=mode)
        for family in (4, 6):
            own, all_pods = host.pods[family], host.pods[family].supernet(new_prefix=16 if family == 4 else 32)
            anywhere = all_pods.supernet(new_prefix=0)
            for network, priority, action in ((own, 999, Action.ALLOW), (all_pods, 2000, Action.BLOCK)):
                policies = [
                    Policy(
                        selector=Selector(source=source, destination=destination),
                        direction=direction,
                        priority=priority,
                        action=action,
                    )
                    for direction, source, destination in (
                        (Direction.OUT, anywhere, network),
                        (Direction.IN, network, anywhere),
                        (Direction.FWD, network, anywhere),
                    )
                ]
                outcomes = host.xfrm.apply([AddPolicy(policy=policy) for policy in policies])
                check(outcomes == [None] * 3, outcomes)
        if clamp is not None:
            with inside(host.name):
                table = SegmentClamp()
                table.make(peer.pods.values(), inner_mtu=clamp)
                table.close()
    return state


def nothing_crossed_in_clear(world: PathWorld) -> None:
    crossed = world.crossed()
    check(len(crossed) > 100, len(crossed))
    clear = [packet for packet in crossed if MARKER in packet]
    check(clear == [], f"{len(clear)} of {len(crossed)} packets in clear")


def as_before_or_told(plain: dict[Row, Fate], now: dict[Row, Fate]) -> None:
    check(set(plain.values()) == {Fate.ARRIVES, Fate.TOLD}, plain)
    lost = [row for row, fate in now.items() if fate is Fate.LOST]
    check(lost == [], f"lost: {lost}")
    kept_back = [row for row, fate in now.items() if not row[1] and fate is not Fate.ARRIVES]
    check(kept_back == [], f"what may be fragmented does not arrive: {kept_back}")


def every_size_arrives_or_its_sender_is_told_what_fits() -> None:
    for mtu, outer in ((1500, 4), (1500, 6), (9000, 4)):
        with path_world(wire_mtu=mtu, pod_mtu=mtu) as world:
            plain = sweep(world)
            world.crossed()
            carried = EspSizes.of(over(outer, state_of())).inner_mtu(mtu)
            tunnel(world, outer=outer, clamp=carried)
            for family in (4, 6):
                world.fate(mtu, family=family, df=True)
                check(world.was_told == {carried}, f"{carried} are carried over IPv{outer}, told {world.was_told}")
            now = sweep(world)
            for row, fate in now.items():
                check(
                    not row[1] or (fate is Fate.ARRIVES) is (row[2] <= carried), f"{carried} are carried: {row} {fate}"
                )
            as_before_or_told(plain, now)
            streams_arrive(world)
            nothing_crossed_in_clear(world)


def a_router_that_tells_is_understood_and_its_word_passed_on() -> None:
    with path_world() as world:
        world.narrow(1400)
        plain = sweep(world)
        world.crossed()
        carried = EspSizes.of(state_of()).inner_mtu(1400)
        tunnel(world, outer=4, clamp=EspSizes.of(state_of()).inner_mtu(1500))
        for family in (4, 6):  # the first packet is the node's lesson, the second the pod's
            world.fate(1400, family=family, df=True)
        now = sweep(world)
        for row, fate in now.items():
            check(not row[1] or (fate is Fate.ARRIVES) is (row[2] <= carried), f"{carried} are carried: {row} {fate}")
        as_before_or_told(plain, now)
        streams_arrive(world)
        nothing_crossed_in_clear(world)


def a_deaf_pod_is_told_all_the_same_and_its_streams_arrive() -> None:
    """Whose firewall drops ICMP: what it is told is on its device. TCP needs no telling."""
    for mtu in (1500, 9000):
        with path_world(wire_mtu=mtu, pod_mtu=mtu) as world:
            for pod in ("p1", "p2"):
                world.block_icmp(pod)
            carried = EspSizes.of(state_of()).inner_mtu(mtu)
            tunnel(world, outer=4, clamp=carried)
            for family in (4, 6):
                check(world.fate(carried, family=family, df=True) is Fate.ARRIVES, f"{carried} bytes of IPv{family}")
                for size in (carried + 1, mtu):
                    check(world.fate(size, family=family, df=True) is Fate.TOLD, f"{size} bytes of IPv{family}")
                    check(world.was_told == {carried}, f"{carried} are carried, told {world.was_told}")
            streams_arrive(world)
            nothing_crossed_in_clear(world)


def without_the_clamp_the_streams_of_deaf_pods_hang() -> None:
    with path_world() as world:
        for pod in ("p1", "p2"):
            world.block_icmp(pod)
        tunnel(world, outer=4)
        for family in (4, 6):
            arrived = world.stream(family=family, size=STREAM_BYTES, seconds=1)
            check(
                arrived < STREAM_BYTES, f"IPv{family}: the story has no point, {arrived} bytes arrive without a clamp"
            )


STORIES: tuple[Callable[[], None], ...] = (
    every_size_arrives_or_its_sender_is_told_what_fits,
    a_router_that_tells_is_understood_and_its_word_passed_on,
    a_deaf_pod_is_told_all_the_same_and_its_streams_arrive,
    without_the_clamp_the_streams_of_deaf_pods_hang,
)

if __name__ == "__main__":
    main(STORIES)
