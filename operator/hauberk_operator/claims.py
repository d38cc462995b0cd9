"""Who holds which address: the first holder of an address or pod CIDR keeps it, a later claimant is refused.

A kubelet can write any address and CIDR into its own Node. Peers send to, and accept selectors of, what an IPsecNode
says, so a claim that overlaps another node's is left out of the claimant's IPsecNode. Held is what an IPsecNode of the
same Node (by UID) holds already; among new claims the older Node goes first. Pure; called by compile.

An address that a node has borrowed out of another one's block (Calico) overrides that block, and nothing else: it is
granted if whoever holds the range around it is the lender.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from hauberk_operator.facts import ANYBODY, Loan, MemberFacts, NodeFacts
from hauberk_operator.span import Span, parse_span

MAX_ADDRESSES: Final = 16
MAX_POD_CIDRS: Final = 128
"""As many as an IPsecNode holds. With the addresses they are a peer's traffic selectors, of which IKE takes 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A claim that was refused."""

    node: str
    claim: str
    """The address or CIDR, as the Node spells it."""
    holder: str
    """The node that has it; empty when the claim is no address at all."""
    excess: int = 0
    """How many pod CIDRs the node has, if that is too many."""

    def sentence(self) -> str:
        if self.excess:
            return f"{self.node} has {self.excess} pod CIDRs, and only {MAX_POD_CIDRS} of them count"
        if not self.holder:
            return f"{self.node} claims {self.claim}, which is not an address or prefix"
        return f"{self.node} claims {self.claim}, which {self.holder} holds"


class _Claimant(NamedTuple):
    """What of a node its claims depend on."""

    name: str
    addresses: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    loans: tuple[Loan, ...]
    held: tuple[tuple[str, ...], tuple[str, ...]]
    """Addresses and pod CIDRs that its IPsecNode has."""


@dataclass(slots=True, kw_only=True)
class Granted:
    """What one node may call its own, in its Node's order."""

    addresses: list[str] = field(default_factory=list[str])
    pod_cidrs: list[str] = field(default_factory=list[str])

    def sort_like(self, node: _Claimant) -> None:
        """Back into the Node's order: the first address of a family is where peers send to."""
        self.addresses.sort(key=_positions(node.addresses).__getitem__)
        self.pod_cidrs.sort(key=_positions([*node.pod_cidrs, *(loan.address for loan in node.loans)]).__getitem__)


def settle_claims(
    nodes: Iterable[NodeFacts], members: Mapping[str, MemberFacts]
) -> tuple[dict[str, Granted], tuple[Conflict, ...]]:
    """What every node is granted (by name), and which claims were refused.

    O(n log n) in the number of claims: granted ranges are disjoint between nodes, so a claim is compared with its
    neighbours only. What was settled last is remembered, as most of what changes in a mesh are not addresses.
    """
    claimants: list[_Claimant] = []
    for node in sorted(nodes, key=lambda node: (node.created, node.name)):
        member = members.get(node.name)
        spec = member.spec if member is not None else None
        held = (spec.addresses, spec.pod_cidrs) if spec is not None and spec.node_uid == node.uid else ((), ())
        claimants.append(_Claimant(node.name, node.addresses, node.pod_cidrs, node.loans, held))
    granted, conflicts = _settle(tuple(claimants))
    return dict(granted), conflicts


@lru_cache(maxsize=1)
def _settle(ordered: Sequence[_Claimant]) -> tuple[Mapping[str, Granted], tuple[Conflict, ...]]:
    held = {node.name: frozenset((*node.held[0], *node.held[1])) for node in ordered}
    ranges = {4: _Ranges(), 6: _Ranges()}
    granted = {node.name: Granted() for node in ordered}
    conflicts: list[Conflict] = []
    for already_held in (True, False):
        for node in ordered:
            holds = held[node.name]
            for claim, span, grant in _claims(node, granted[node.name]):
                spelling = claim if span is None else span.spelling
                if (spelling in holds) is not already_held or spelling in grant:
                    continue
                holder = "" if span is None else ranges[span.version].claim(node.name, span.first, span.last)
                if holder == node.name:
                    grant.append(spelling)
                else:
                    conflicts.append(Conflict(node=node.name, claim=claim, holder=holder))
    conflicts += _settle_loans(ordered, held, ranges, granted)
    for node in ordered:
        granted[node.name].sort_like(node)
    return granted, tuple(conflicts)


def _claims(node: _Claimant, granted: Granted) -> Iterator[tuple[str, Span | None, list[str]]]:
    for address in node.addresses[:MAX_ADDRESSES]:
        # A prefix is no address, even one of a single address: the IPsecNode's schema would refuse it.
        yield address, None if "/" in address else parse_span(address), granted.addresses
    for cidr in node.pod_cidrs[:MAX_POD_CIDRS]:
        yield cidr, parse_span(cidr), granted.pod_cidrs


def _settle_loans(
    ordered: Sequence[_Claimant],
    held: Mapping[str, frozenset[str]],
    ranges: Mapping[int, _Ranges],
    granted: Mapping[str, Granted],
) -> Iterator[Conflict]:
    """Grants what nodes have borrowed, once all blocks have their holders; yields what is refused."""
    borrowers: dict[str, str] = {}
    hosts: dict[str, str] = {}
    if any(node.loans for node in ordered):
        hosts = {address: name for name, grant in granted.items() for address in grant.addresses}
    for already_held in (True, False):
        for node in ordered:
            grant = granted[node.name].pod_cidrs
            for loan in node.loans:
                span = parse_span(loan.address)
                if span is None or (span.spelling in held.get(node.name, ())) is not already_held:
                    continue
                holder = hosts.get(span.spelling.partition("/")[0])
                if holder is None:
                    holder = ranges[span.version].holder(span.first)
                    if holder in ("", loan.lender) or loan.lender == ANYBODY:
                        holder = borrowers.setdefault(span.spelling, node.name)
                if holder != node.name:
                    yield Conflict(node=node.name, claim=span.spelling, holder=holder)
                elif len(grant) < MAX_POD_CIDRS and span.spelling not in grant:
                    grant.append(span.spelling)
    for node in ordered:
        claims = len(node.pod_cidrs) + len(node.loans)
        if claims > MAX_POD_CIDRS:
            yield Conflict(node=node.name, claim="", holder="", excess=claims)


def _positions(claims: Sequence[str]) -> dict[str, int]:
    return {span.spelling: i for i, c in reversed(list(enumerate(claims))) if (span := parse_span(c)) is not None}


class _Ranges:
    """Address ranges of one family with their holders; ranges of different holders never overlap.

    What lies inside another range of the same holder is not kept by itself, so that all that is kept is disjoint, and
    a claim is found in O(log n) whatever the sizes of the ranges are.
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._holders: list[str] = []
        """Of the ranges in the order of their addresses."""

    def holder(self, address: int) -> str:
        """Who holds an address; empty when nobody does."""
        place = bisect_left(self._lasts, address)
        found = place < len(self._firsts) and self._firsts[place] <= address
        return self._holders[place] if found else ""

    def claim(self, node: str, first: int, last: int) -> str:
        """The holder after the claim: the node itself if it got it, else the one in its way."""
        begin = bisect_left(self._lasts, first)
        end = begin
        while end < len(self._firsts) and self._firsts[end] <= last:
            if self._holders[end] != node:
                return self._holders[end]
            end += 1
        if begin < end and self._firsts[begin] <= first and self._lasts[begin] >= last:
            return node
        # Prefixes nest or are disjoint: what the node has here already lies within the new one.
        self._firsts[begin:end] = [first]
        self._lasts[begin:end] = [last]
        self._holders[begin:end] = [node]
        return node
