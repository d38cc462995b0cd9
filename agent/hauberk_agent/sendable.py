"""By which CHILD SAs packets can be sent to their peers: where both ends hold them.

In the phase Protect an outbound policy stands only for such a child: packets that found a policy and no SA would be
dropped, and so would those that came to a peer before it has installed its inbound SA. The initiator of a CHILD SA
knows that its peer has done so, as the responder does it before it answers. The responder knows when packets come in;
where none do, it waits for as long as its answer may have to be asked for again. And either of them waits until it
is known whether ESP comes through (hauberk_agent.esp_paths): if it does not, the pair is set up anew in UDP.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final

from hauberk_agent.link import Child
from hauberk_agent.pair import ChildSpec, Pair
from hauberk_agent.reqid import ChildKey
from hauberk_api.names import TunnelUid

ANSWER_SECONDS: Final = 4.0
"""After that the initiator has the answer, though its request had to be sent a second and a third time."""


class SendableChildren:
    """Remembers them: while SAs replace each other a child stays one that can be sent by."""

    def __init__(
        self, in_use: Callable[[Pair, Child], bool], *, unproved: Callable[[Pair], bool] = lambda _: False
    ) -> None:
        """in_use: whether a packet has come in on a child. unproved: whether a pair's ESP may not come through."""
        self._in_use = in_use
        self._unproved = unproved
        self._keys: frozenset[ChildKey] = frozenset()

    @property
    def keys(self) -> frozenset[ChildKey]:
        return self._keys

    def look(self, pairs: Collection[Pair], now: float) -> bool:
        """Takes in how the pairs are now. Returns whether anything has changed."""
        before = self._keys
        self._keys = frozenset(spec.key for pair, spec in _children(pairs) if self._can_send(pair, spec, now))
        return self._keys != before

    def awaits(self, pairs: Collection[Pair]) -> frozenset[TunnelUid]:
        """The tunnels of which a pair has its SAs and can't be sent to yet."""
        return frozenset(
            spec.key.tunnel for pair, spec in _children(pairs) if pair.sends(spec.label) and spec.key not in self._keys
        )

    def _can_send(self, pair: Pair, spec: ChildSpec, now: float) -> bool:
        if not pair.sends(spec.label):
            return False
        if spec.key in self._keys:
            return True
        child = pair.current.children.get(spec.label) if pair.current is not None else None
        if child is None or not child.outbound:
            return pair.is_well(spec.label)  # SAs of an earlier run: they have been in use
        if not pair.is_well(spec.label) or self._unproved(pair):
            return False
        if child.ours or now >= child.since + ANSWER_SECONDS:
            return True
        return self._in_use(pair, child)


def _children(pairs: Collection[Pair]) -> Iterator[tuple[Pair, ChildSpec]]:
    return ((pair, spec) for pair in pairs for spec in pair.spec.children)
