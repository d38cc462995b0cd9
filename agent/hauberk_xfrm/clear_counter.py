"""Counts the packets that pass in clear though they could have been encrypted, in an nftables table of our own.

The table is called `hauberk` in the family inet. Its two chains only count, whatever else the host's firewall does,
after connection tracking has seen a packet and before its source is translated:

    set clear4 { type ipv4_addr; flags interval; }                 and clear6: the peers' networks
    chain arriving { type filter hook prerouting priority 0;
                     ip saddr @clear4 meta secpath missing counter }
    chain leaving  { type filter hook postrouting priority 0;
                     ip daddr @clear4 rt ipsec missing counter }
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hauberk_xfrm.netlink import Message
from hauberk_xfrm.nftables import (
    FAMILIES,
    Family,
    Header,
    Hook,
    Meta,
    Route,
    Table,
    count,
    equals,
    is_in,
    load_meta,
    load_payload,
    load_route,
)
from hauberk_xfrm.selector import IpNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearPackets:
    """Since the table was made."""

    arriving: int
    leaving: int


class ClearCounter:
    """The table. Methods raise XfrmError when the kernel refuses; nothing is loaded or opened before the first call."""

    def __init__(self) -> None:
        self._table = Table("hauberk")

    def close(self) -> None:
        self._table.close()

    def count(self, networks: Iterable[IpNetwork]) -> None:
        """Makes the table anew, to count packets from and to these networks."""
        networks = list(networks)
        made: list[Message] = []
        for family in FAMILIES:
            made += self._table.networks(_set_name(family), family, networks)
        made += [self._table.chain("arriving", Hook.PREROUTING), self._table.chain("leaving", Hook.POSTROUTING)]
        for family in FAMILIES:
            made.append(self._rule("arriving", family, family.source_offset, load_meta(Meta.SECPATH)))
            made.append(self._rule("leaving", family, family.destination_offset, load_route(Route.XFRM)))
        self._table.make(made)

    def remove(self) -> None:
        """Idempotent. Where there is no table nothing is written, as every change to nftables costs milliseconds."""
        self._table.remove()

    def read(self) -> ClearPackets | None:
        """What was counted, or None if the table is gone: reloading a firewall often flushes all tables."""
        arriving, leaving = self._read("arriving"), self._read("leaving")
        if arriving is None or leaving is None:
            return None
        return ClearPackets(arriving=arriving, leaving=leaving)

    def _read(self, chain: str) -> int | None:
        counted = self._table.counted(chain)
        return sum(counted) if counted is not None and len(counted) == len(FAMILIES) else None

    def _rule(self, chain: str, family: Family, address_offset: int, protected: bytes) -> Message:
        """Counts packets of the family whose address is in its set, if `protected` puts a 0 into the register."""
        return self._table.rule(
            chain,
            load_meta(Meta.NFPROTO),
            equals(bytes((family.nfproto,))),
            load_payload(Header.NETWORK, address_offset, family.address_bytes),
            is_in(_set_name(family)),
            protected,
            equals(b"\0"),
            count(),
        )


def _set_name(family: Family) -> str:
    return f"clear{family.version}"
