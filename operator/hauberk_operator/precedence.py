"""Which tunnel carries which pair where several want the same traffic. Pure; made by compile, used by fold.

The plan's order is that of precedence: the oldest tunnel first, then by name. Of the tunnels that share traffic, a pair
belongs to the first in which it peers, and to no other: agents go by the same order (hauberk_agent.roster). A tunnel so
loses pairs to those before it. Pairs are counted by kinds of nodes: nodes that are in the same tunnels in the same
roles are alike, and 5,000 nodes of three tunnels are a handful of kinds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple

from hauberk_api.node import Role
from hauberk_api.plan import PlannedTunnel


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a tunnel loses to one before it."""

    to: str
    """That one's name."""
    pairs: int
    nodes: int
    """Of the tunnel, those that have such a pair."""


class _Kind(NamedTuple):
    """In which tunnels a node is, and in which of them as a spoke: a bit for each, the first tunnel's the lowest."""

    member: int
    spoke: int


_NOWHERE = _Kind(0, 0)


class Precedence:
    """Of the tunnels of one plan, with their members by UID and node name."""

    def __init__(self, tunnels: Sequence[PlannedTunnel], members: Mapping[str, Mapping[str, Role]]) -> None:
        self._tunnels = tuple(tunnels)
        self._bits = {tunnel.uid: 1 << place for place, tunnel in enumerate(tunnels)}
        self._rivals = [
            sum(self._bits[older.uid] for older in tunnels[:place] if older.traffic.shares(tunnel.traffic))
            for place, tunnel in enumerate(tunnels)
        ]
        """By place: the bits of the tunnels before it that share traffic with it."""
        self._carriers: dict[int, int] = {}
        kinds: dict[str, _Kind] = {}
        for uid, bit in self._bits.items():
            # Thousands of nodes are of few kinds, and so few are made.
            grown: dict[tuple[_Kind, bool], _Kind] = {}
            for name, role in members[uid].items():
                before = (kinds.get(name, _NOWHERE), role is Role.SPOKE)
                kind = grown.get(before)
                if kind is None:
                    (member, spoke), is_spoke = before
                    grown[before] = kind = _Kind(member | bit, spoke | bit if is_spoke else spoke)
                kinds[name] = kind
        self._kinds = kinds
        self._alike = Counter(kinds.values())

    def carried(self, uid: str, among: Iterable[str]) -> int:
        """How many pairs of these nodes a tunnel carries."""
        bit = self._bits[uid]
        alike = Counter(self._kinds.get(name, _NOWHERE) for name in among)
        return sum(pairs for one, other, pairs in _pairs(alike) if self._carried_by(one, other) & bit)

    def carries(self, uid: str, one: str, other: str) -> bool:
        """Whether a tunnel carries the pair of two nodes."""
        kinds = self._kinds.get(one, _NOWHERE), self._kinds.get(other, _NOWHERE)
        return bool(self._carried_by(*kinds) & self._bits[uid])

    def losses(self, uid: str) -> tuple[Loss, ...]:
        """What a tunnel loses, in the order of precedence of those that it loses to."""
        bit = self._bits[uid]
        rivals = self._rivals[bit.bit_length() - 1]
        pairs: Counter[int] = Counter()
        losing: dict[int, set[_Kind]] = {}
        if rivals:
            for one, other, count in _pairs(self._alike):
                if _shared(one, other) & bit and (first := _lowest(self._carried_by(one, other) & rivals)):
                    pairs[first] += count
                    losing.setdefault(first, set()).update((one, other))
        return tuple(
            Loss(to=tunnel.name, pairs=pairs[before], nodes=sum(self._alike[kind] for kind in losing[before]))
            for tunnel in self._tunnels
            if (before := self._bits[tunnel.uid]) in pairs
        )

    def _carried_by(self, one: _Kind, other: _Kind) -> int:
        """The bits of the tunnels that carry a pair."""
        shared = _shared(one, other)
        carriers = self._carriers.get(shared)
        if carriers is None:
            carriers = 0
            for place, rivals in enumerate(self._rivals):
                if shared & 1 << place and not carriers & rivals:
                    carriers |= 1 << place
            self._carriers[shared] = carriers
        return carriers


def _pairs(alike: Mapping[_Kind, int]) -> Iterator[tuple[_Kind, _Kind, int]]:
    """Each two kinds that have pairs, and how many."""
    for one, other in combinations_with_replacement(alike, 2):
        count = alike[one] * (alike[one] - 1) // 2 if one == other else alike[one] * alike[other]
        if count:
            yield one, other, count


def _shared(one: _Kind, other: _Kind) -> int:
    """The tunnels in which two nodes peer: both are in them, and not both as spokes."""
    return one.member & other.member & ~(one.spoke & other.spoke)


def _lowest(bits: int) -> int:
    return bits & -bits
