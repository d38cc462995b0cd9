"""Traffic selectors in text, and as the kernel's policies."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_diagnose.selector import MAX_POLICIES, kernel_selectors, parse_selector
from hauberk_xfrm import Selector


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("10.1.0.0/16", "10.1.0.0-10.1.255.255"),
        ("10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9"),
        ("10.0.0.1[tcp/80]", "10.0.0.1[6/80-80]"),
        ("2001:db8::/64[udp/1000-2000]", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff[17/1000-2000]"),
        ("10.0.0.1[icmp]", "10.0.0.1[1/0-65535]"),
        ("10.0.0.1[47]", "10.0.0.1[47/0-65535]"),
        ("10.0.0.1[6/any]", "10.0.0.1[6/0-65535]"),
        ("10.0.0.1[6/opaque]", "10.0.0.1[6/opaque]"),
    ],
)
def test_text(text: str, meaning: str) -> None:
    assert str(parse_selector(text)) == meaning


@pytest.mark.parametrize(
    "text",
    ["", "host", "10.0.0.1/8", "10.0.0.9-10.0.0.1", "10.0.0.1[tcp/", "10.0.0.1[nonsense]", "10.0.0.1[tcp/65536]",
     "10.0.0.1[tcp/9-1]", "10.0.0.1[256]", "10.0.0.1-2001:db8::1", "10.0.0.1[tcp/http]"],
)  # fmt: skip
def test_text_that_is_none_is_quoted_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match="is no traffic selector"):
        parse_selector(text)


def test_each_pair_of_one_family_is_a_policy() -> None:
    local = [parse_selector("10.1.0.0/16"), parse_selector("2001:db8:1::/48")]
    remote = [parse_selector("10.2.0.0/16[tcp/443]"), parse_selector("2001:db8:2::/48")]

    assert kernel_selectors(local, remote) == [
        Selector(
            source=ip_network("10.1.0.0/16"), destination=ip_network("10.2.0.0/16"), protocol=6, destination_port=443
        ),
        Selector(source=ip_network("2001:db8:1::/48"), destination=ip_network("2001:db8:2::/48")),
    ]


def test_protocols_that_differ_have_nothing_in_common() -> None:
    assert kernel_selectors([parse_selector("10.0.0.1[tcp]")], [parse_selector("10.0.0.2[udp]")]) == []


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 65535))
def test_port_masks_cover_exactly_the_range(one: int, other: int, port: int) -> None:
    low, high = sorted((one, other))
    source = parse_selector(f"10.0.0.1[udp/{low}-{high}]")

    covering = [
        selector
        for selector in kernel_selectors([source], [parse_selector("10.0.0.2")])
        if port & _mask(selector) == selector.source_port
    ]

    assert len(covering) == (low <= port <= high)


def _mask(selector: Selector) -> int:
    if selector.source_port_mask is None:
        return 0xFFFF if selector.source_port else 0
    return selector.source_port_mask


def test_what_the_kernel_cannot_tell_apart_is_refused() -> None:
    for text in ("10.0.0.1[tcp/opaque]", "10.0.0.1[icmp/2048-2303]"):
        with pytest.raises(ValueError, match="cannot tell"):
            kernel_selectors([parse_selector(text)], [parse_selector("10.0.0.2")])


def test_the_number_of_policies_is_bounded() -> None:
    unlucky = parse_selector("10.0.0.1-10.255.255.254[tcp/1-65534]")
    with pytest.raises(ValueError, match=f"more than {MAX_POLICIES} policies"):
        kernel_selectors([unlucky], [parse_selector("10.0.0.2")])
