"""Makes pods' TCP connections fit into tunnels without anybody's MTU being changed, in an nftables table of our own.

The kernel does the rest by itself: a packet that is too large for its tunnel is answered with the size that fits
("fragmentation needed", "packet too big"), and one that may be fragmented goes in an outer packet that is. But many
firewalls drop ICMP, and TCP then hangs. So the table, called `hauberk-mss` in the family inet, lowers the segment size
that either end of a connection announces:

    set peers4 { type ipv4_addr; flags interval; }            and peers6: what is reached by tunnels
    chain leaving { type filter hook postrouting priority mangle;
                    ip daddr @peers4 tcp flags & (syn | rst) == syn rt ipsec exists tcp option maxseg size set rt mtu
                    ip daddr @peers4 tcp flags & (syn | rst) == syn rt ipsec missing tcp option maxseg size set N }
    chain passing { type filter hook forward priority mangle;
                    ip saddr @peers4 tcp flags & (syn | rst) == syn meta secpath exists tcp option maxseg size set N }

What leaves is measured by its own route where that says that it is encrypted: one to an xfrm device does not.
Nor does a route say, where a packet has come from, how much fits in the opposite direction. For these N is the least
of all tunnels.
"""

from collections.abc import Iterable
from typing import Final

from hauberk_xfrm.netlink import Message
from hauberk_xfrm.nftables import (
    FAMILIES,
    Family,
    Header,
    Hook,
    Meta,
    Route,
    Table,
    equals,
    is_in,
    load,
    load_meta,
    load_payload,
    load_route,
    lower_tcp_option,
    mask,
    to_network_order,
)
from hauberk_xfrm.overhead import IP_HEADER_BYTES, IPV6_MIN_MTU
from hauberk_xfrm.selector import IpNetwork

_MANGLE: Final = -150
_TCP: Final = 6
_TCP_HEADER: Final = 20
_FLAGS_OFFSET: Final = 13
_SYN, _SYN_OR_RST = b"\x02", b"\x06"
_MAXSEG = (2, 2, 2)
"""The option's kind, and where in it the size is, and how long."""


class SegmentClamp:
    """The table. Methods raise XfrmError when the kernel refuses; nothing is loaded or opened before the first call."""

    def __init__(self) -> None:
        self._table = Table("hauberk-mss")

    def close(self) -> None:
        self._table.close()

    def make(self, networks: Iterable[IpNetwork], *, inner_mtu: int) -> None:
        """Makes the table anew, for connections with `networks`.

        They are reached by tunnels that carry packets of `inner_mtu` bytes, the least of them all.
        """
        networks = list(networks)
        made: list[Message] = []
        for family in FAMILIES:
            made += self._table.networks(_peers(family), family, networks)
        made += [
            self._table.chain("leaving", Hook.POSTROUTING, priority=_MANGLE),
            self._table.chain("passing", Hook.FORWARD, priority=_MANGLE),
        ]
        for family in FAMILIES:
            size = _segment_bytes(family, inner_mtu)
            made += [self._leaving(family), self._leaving_otherwise(family, size), self._passing(family, size)]
        self._table.make(made)

    def remove(self) -> None:
        """Idempotent; nothing is written where there is no table."""
        self._table.remove()

    def exists(self) -> bool:
        """Whether the table is (still) there: reloading a firewall often flushes all tables."""
        return self._table.exists()

    def _leaving(self, family: Family) -> Message:
        return self._table.rule(
            "leaving",
            *_opens_connection(family, family.destination_offset),
            load_route(Route.XFRM),
            equals(b"\1"),
            load_route(Route.TCPMSS),
            to_network_order(2),
            lower_tcp_option(*_MAXSEG),
        )

    def _leaving_otherwise(self, family: Family, size: int) -> Message:
        return self._table.rule(
            "leaving",
            *_opens_connection(family, family.destination_offset),
            load_route(Route.XFRM),
            equals(b"\0"),
            load(size.to_bytes(2)),
            lower_tcp_option(*_MAXSEG),
        )

    def _passing(self, family: Family, size: int) -> Message:
        return self._table.rule(
            "passing",
            *_opens_connection(family, family.source_offset),
            load_meta(Meta.SECPATH),
            equals(b"\1"),
            load(size.to_bytes(2)),
            lower_tcp_option(*_MAXSEG),
        )


def _segment_bytes(family: Family, inner_mtu: int) -> int:
    # An IPv6 packet of 1280 bytes is carried in any case (RFC 8200 section 5).
    carried = max(inner_mtu, IPV6_MIN_MTU) if family.version == 6 else inner_mtu
    return carried - IP_HEADER_BYTES[family.version] - _TCP_HEADER


def _peers(family: Family) -> str:
    return f"peers{family.version}"


def _opens_connection(family: Family, address_offset: int) -> tuple[bytes, ...]:
    """TCP's first packets of the family, from or to one of the peers."""
    return (
        load_meta(Meta.NFPROTO),
        equals(bytes((family.nfproto,))),
        load_meta(Meta.L4PROTO),
        equals(bytes((_TCP,))),
        load_payload(Header.TRANSPORT, _FLAGS_OFFSET, 1),
        mask(_SYN_OR_RST),
        equals(_SYN),
        load_payload(Header.NETWORK, address_offset, family.address_bytes),
        is_in(_peers(family)),
    )
