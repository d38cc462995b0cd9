"""Traffic selectors: ranges of addresses, protocols and ports, and narrowing (RFC 7296 section 2.9)."""

from ipaddress import IPv4Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike import TrafficSelector
from hauberk_ike.selectors import covered, narrow
from tests.unit.ike.party import selector


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (selector("10.0.0.0/8"), selector("10.1.0.0/16"), selector("10.1.0.0/16")),
        (selector("10.0.0.0/8"), selector("11.0.0.0/8"), None),
        (selector("10.0.0.0/8"), TrafficSelector.from_network(IPv6Network("::/0")), None),
        (selector("10.0.0.0/8"), selector("10.0.0.0/8", protocol=6), selector("10.0.0.0/8", protocol=6)),
        (selector("10.0.0.0/8", protocol=17), selector("10.0.0.0/8", protocol=6), None),
        (
            selector("10.0.0.0/8", protocol=6, start_port=0, end_port=1023),
            selector("10.0.0.0/8", protocol=6, start_port=80, end_port=2000),
            selector("10.0.0.0/8", protocol=6, start_port=80, end_port=1023),
        ),
        (
            selector("10.0.0.0/8", protocol=6, start_port=1, end_port=2),
            selector("10.0.0.0/8", protocol=6, start_port=3, end_port=4),
            None,
        ),
        # OPAQUE: a range of all ports has it, a shorter one has not.
        (
            selector("10.0.0.0/8"),
            selector("10.0.0.0/8", start_port=65535, end_port=0),
            selector("10.0.0.0/8", start_port=65535, end_port=0),
        ),
        (
            selector("10.0.0.0/8", protocol=6, start_port=1, end_port=2),
            selector("10.0.0.0/8", protocol=6, start_port=65535, end_port=0),
            None,
        ),
    ],
)
def test_intersection(one: TrafficSelector, other: TrafficSelector, common: TrafficSelector | None) -> None:
    assert one.intersect(other) == other.intersect(one) == common


@pytest.mark.parametrize(
    "fields",
    [
        {"start": IPv4Address(2), "end": IPv4Address(1)},
        {"start": IPv4Address(1), "end": IPv4Address(2), "protocol": 256},
        {"start": IPv4Address(1), "end": IPv4Address(2), "start_port": 2, "end_port": 1},
        {"start": IPv4Address(1), "end": IPv4Address(2), "end_port": 65536},
    ],
)
def test_nonsense_is_refused(fields: dict[str, IPv4Address]) -> None:
    with pytest.raises(ValueError, match="traffic selector"):
        TrafficSelector(**fields)  # pyright: ignore[reportArgumentType]


def test_narrowing_keeps_the_offers_order_and_drops_what_lies_inside_another() -> None:
    packet = selector("10.0.0.7/32", protocol=6)
    offered = [packet, selector("10.0.0.0/24"), selector("192.168.0.0/16")]
    assert narrow(offered, [selector("10.0.0.0/8"), selector("192.168.9.0/24")]) == (
        selector("10.0.0.0/24"),
        selector("192.168.9.0/24"),
    )
    assert narrow(offered, [selector("10.0.0.0/8", protocol=6)]) == (selector("10.0.0.0/24", protocol=6),)
    assert narrow(offered, [selector("172.16.0.0/12")]) == ()


def test_narrowing_never_gives_more_than_fits_a_payload() -> None:
    offered = [selector(f"10.{n}.0.0/16") for n in range(255)]
    allowed = [selector("10.0.0.0/8", protocol=n) for n in range(1, 9)]
    assert len(narrow(offered, allowed)) == 255


def test_covered_wants_each_selector_inside_one() -> None:
    assert covered([selector("10.1.0.0/16"), selector("10.2.0.0/16")], [selector("10.0.0.0/8")])
    assert not covered([selector("10.1.0.0/16"), selector("11.0.0.0/16")], [selector("10.0.0.0/8")])


ranges = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)


@given(
    offered=st.lists(ranges, min_size=1, max_size=5),
    allowed=st.lists(ranges, min_size=1, max_size=5),
    address=st.integers(0, 40),
)
def test_an_address_is_in_the_narrowed_ones_if_it_was_offered_and_is_allowed(
    offered: list[list[int]], allowed: list[list[int]], address: int
) -> None:
    def build(items: list[list[int]]) -> list[TrafficSelector]:
        return [TrafficSelector(start=IPv4Address(low), end=IPv4Address(high)) for low, high in items]

    def inside(items: list[list[int]]) -> bool:
        return any(low <= address <= high for low, high in items)

    result = narrow(build(offered), build(allowed))
    assert any(int(each.start) <= address <= int(each.end) for each in result) == (inside(offered) and inside(allowed))
    assert covered(result, build(offered))
    assert covered(result, build(allowed))
