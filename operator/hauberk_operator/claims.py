"""Who holds which address: the first holder of an address or pod CIDR keeps it, a later claimant is refused.

A kubelet can write any address and CIDR into its own Node. Peers send to, and accept selectors of, what an IPsecNode
says, so a claim that overlaps another node's is left out of the claimant's IPsecNode. Held is what an IPsecNode of the
same Node (by UID) holds already; among new claims the older Node goes first. Pure; called by compile.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from hauberk_operator.facts import MemberFacts, NodeFacts

MAX_CLAIMS: Final = 16
"""Addresses, and pod CIDRs, of a node that are looked at: as many as an IPsecNode holds."""

_Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A claim that was refused."""

    node: str
    claim: str
    """The address or CIDR, as the Node spells it."""
    holder: str
    """The node that has it; empty when the claim is no address at all."""

    def sentence(self) -> str:
        if not self.holder:
            return f"{self.node} claims {self.claim}, which is not an address or prefix"
        return f"{self.node} claims {self.claim}, which {self.holder} holds"


@dataclass(slots=True, kw_only=True)
class Granted:
    """What one node may call its own, in its Node's order."""

    addresses: list[str] = field(default_factory=list[str])
    pod_cidrs: list[str] = field(default_factory=list[str])

    def sort_like(self, node: NodeFacts) -> None:
        """Back into the Node's order: the first address of a family is where peers send to."""
        self.addresses.sort(key=_positions(node.addresses).__getitem__)
        self.pod_cidrs.sort(key=_positions(node.pod_cidrs).__getitem__)


def settle_claims(
    nodes: Iterable[NodeFacts], members: Mapping[str, MemberFacts]
) -> tuple[dict[str, Granted], tuple[Conflict, ...]]:
    """What every node is granted (by name), and which claims were refused.

    O(n log n) in the number of claims: granted ranges are disjoint between nodes, so a claim is compared with its
    neighbours only.
    """
    ordered = sorted(nodes, key=lambda node: (node.created, node.name))
    held: dict[str, frozenset[str]] = {}
    for node in ordered:
        member = members.get(node.name)
        if member is not None and member.spec is not None and member.spec.node_uid == node.uid:
            held[node.name] = frozenset((*member.spec.addresses, *member.spec.pod_cidrs))
    ranges = {4: _Ranges(), 6: _Ranges()}
    granted = {node.name: Granted() for node in ordered}
    conflicts: list[Conflict] = []
    for already_held in (True, False):
        for node in ordered:
            for claim, network, grant in _claims(node, granted[node.name]):
                spelling = claim if network is None else _spell(claim, network)
                if (spelling in held.get(node.name, ())) is not already_held or spelling in grant:
                    continue
                holder = "" if network is None else ranges[network.version].claim(node.name, network)
                if holder == node.name:
                    grant.append(spelling)
                else:
                    conflicts.append(Conflict(node=node.name, claim=claim, holder=holder))
    for node in ordered:
        granted[node.name].sort_like(node)
    return granted, tuple(conflicts)


def _claims(node: NodeFacts, granted: Granted) -> Iterator[tuple[str, _Network | None, list[str]]]:
    for address in node.addresses[:MAX_CLAIMS]:
        # A prefix is no address, even one of a single address: the IPsecNode's schema would refuse it.
        yield address, None if "/" in address else _parse(address), granted.addresses
    for cidr in node.pod_cidrs[:MAX_CLAIMS]:
        yield cidr, _parse(cidr), granted.pod_cidrs


def _positions(claims: Sequence[str]) -> dict[str, int]:
    return {_spell(c, n): i for i, c in reversed(list(enumerate(claims))) if (n := _parse(c)) is not None}


def _spell(claim: str, network: _Network) -> str:
    """One spelling per address or prefix, so that comparing text compares addresses."""
    return str(network) if "/" in claim else str(network.network_address)


class _Ranges:
    """Address ranges of one family with their holders; ranges of different holders never overlap."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, str]] = []
        """(first, last, holder), sorted; one holder's own ranges may nest (an address inside its pod CIDR)."""
        self._widest = 0

    def claim(self, node: str, network: _Network) -> str:
        """The holder after the claim: the node itself if it got it, else the one in its way."""
        first, last = int(network.network_address), int(network.broadcast_address)
        # Whatever overlaps begins no earlier than the widest range before `first`.
        index = bisect_left(self._ranges, (first - self._widest, 0, ""))
        while index < len(self._ranges) and self._ranges[index][0] <= last:
            begin, end, holder = self._ranges[index]
            if holder != node and begin <= last and end >= first:
                return holder
            index += 1
        insort(self._ranges, (first, last, node))
        self._widest = max(self._widest, last - first)
        return node


def _parse(claim: str) -> _Network | None:
    try:
        network = ipaddress.ip_network(claim, strict=True)
    except ValueError:
        return None
    unusable = network.prefixlen == 0 or network.is_loopback or network.is_multicast or network.is_link_local
    # The API server's CIDR and address checks refuse IPv4 in IPv6's clothes, and one Node must not spoil a write.
    unusable = unusable or (network.version == 6 and network.network_address.ipv4_mapped is not None)
    return None if unusable else network
