"""Programs for packet sockets (`socket_filter`): which packets the kernel is to keep. Used by `PacketTap`.

What stands at negative offsets is as in Documentation/networking/filter.rst. A program can't be long: a
socket's memory for such things (net.core.optmem_max, 20 KB for many years) has to hold what the kernel makes of it.
So of many networks fewer and wider ones are asked for, and whoever reads has to look once more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from hauberk_xfrm.address import IpNetwork
from hauberk_xfrm.socket_filter import AND, JUMP, JUMP_IF_EQUAL, LOAD_WORD, RETURN, instruction

KEPT_BYTES: Final = 40
"""Of each packet: an IPv6 header, or more than one of IPv4 without options."""

MOST_NETWORKS: Final = 8
"""Of a family, own or peers'."""

_PROTOCOL: Final = 0xFFFFF000
_PACKET_TYPE: Final = 0xFFFFF004
_PACKET_OUTGOING: Final = 4
_ETH_P_IP: Final = 0x0800
_ETH_P_IPV6: Final = 0x86DD


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """Where a family's headers have their addresses."""

    source: int
    destination: int


_IPV4, _IPV6 = _Header(source=12, destination=16), _Header(source=8, destination=24)


def keep_outgoing(own: Collection[IpNetwork], peers: Collection[IpNetwork]) -> bytes:
    """Keeps the headers of all packets that go out from one of these networks to one of those, and of some others.

    For a socket of type SOCK_DGRAM, to which packets begin with the IP header.
    """
    four, six = (
        [
            *_is_in(header.source, widened(_of(version, own), MOST_NETWORKS)),
            *_is_in(header.destination, widened(_of(version, peers), MOST_NETWORKS)),
            instruction(RETURN, KEPT_BYTES),
        ]
        for version, header in ((4, _IPV4), (6, _IPV6))
    )
    return b"".join(
        (
            instruction(LOAD_WORD, _PACKET_TYPE),
            *_continue_if_equal(_PACKET_OUTGOING),
            instruction(LOAD_WORD, _PROTOCOL),
            instruction(JUMP_IF_EQUAL, _ETH_P_IP, if_true=1),
            instruction(JUMP, len(four)),
            *four,
            *_continue_if_equal(_ETH_P_IPV6),
            *six,
        )
    )


def widened(networks: Iterable[IpNetwork], most: int) -> list[IpNetwork]:
    """At most so many networks of one family (more than 0), in which these are: the longest prefixes are shortened."""
    listed = list(networks)
    if not listed:
        return []
    make, bits = (IPv4Network, 32) if listed[0].version == 4 else (IPv6Network, 128)
    given = {(int(network.network_address), network.prefixlen) for network in listed}

    def shortened(longest: int) -> set[tuple[int, int]]:
        shift = bits - longest
        return {(address >> shift << shift, longest) if own > longest else (address, own) for address, own in given}

    # The longer they are the more there are: the longest ones that are few enough.
    lengths = range(max(length for _, length in given) + 1)
    longest = bisect_right(lengths, most, key=lambda length: len(shortened(length))) - 1
    return [make(network) for network in sorted(shortened(longest))]


def _of(version: int, networks: Iterable[IpNetwork]) -> list[IpNetwork]:
    return [network for network in networks if network.version == version]


def _is_in(offset: int, networks: Iterable[IpNetwork]) -> list[bytes]:
    """Goes on after these instructions if the address there is in one of the networks; else the packet is not kept."""
    rest = [instruction(RETURN, 0)]
    for network in networks:
        test = [instruction(JUMP, len(rest))]
        masks = network.netmask.packed
        for word in reversed(range(0, len(masks), 4)):
            mask, wanted = (int.from_bytes(part[word : word + 4]) for part in (masks, network.network_address.packed))
            if mask:
                test[:0] = [
                    instruction(LOAD_WORD, offset + word),
                    instruction(AND, mask),
                    instruction(JUMP_IF_EQUAL, wanted, if_false=len(test)),
                ]
        rest[:0] = test
    return rest


def _continue_if_equal(value: int) -> tuple[bytes, bytes]:
    return instruction(JUMP_IF_EQUAL, value, if_true=1), instruction(RETURN, 0)
