"""To which peers packets can be sent by their SAs: where both ends hold them.

In the phase Protect an outbound policy stands only for such a peer: packets that found a policy and no SA would be
dropped, and so would those that came to a peer before it has installed its inbound SA. The initiator of an IKE SA
knows that its peer has done so, as the responder does it before it answers. The responder knows when packets come in;
where none do, it waits for as long as its answer may have to be asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from hauberk_agent.link import Child
from hauberk_agent.pair import Pair
from hauberk_api.names import NodeUid

ANSWER_SECONDS: Final = 4.0
"""After that the initiator has the answer to IKE_AUTH, though its request had to be sent a second and a third time."""


class SendablePeers:
    """Remembers them: while SAs replace each other a peer stays one that can be sent to."""

    def __init__(self, in_use: Callable[[Pair, Child], bool]) -> None:
        """in_use: whether a packet has come in on a child."""
        self._in_use = in_use
        self._uids: frozenset[NodeUid] = frozenset()

    @property
    def uids(self) -> frozenset[NodeUid]:
        return self._uids

    def look(self, pairs: Collection[Pair], now: float) -> bool:
        """Takes in how the pairs are now. Returns whether anything has changed."""
        before = self._uids
        self._uids = frozenset(pair.spec.key.peer for pair in pairs if self._can_send(pair, now))
        return self._uids != before

    def awaits(self, pairs: Collection[Pair]) -> bool:
        """Whether a pair has its SAs and can't be sent to yet."""
        return any(pair.sends() and pair.spec.key.peer not in self._uids for pair in pairs)

    def _can_send(self, pair: Pair, now: float) -> bool:
        if not pair.sends():
            return False
        if pair.spec.key.peer in self._uids:
            return True
        current = pair.current
        if current is None or current.child is None or not current.child.outbound:
            return pair.well  # SAs of an earlier run: they have been in use
        if current.ours or current.up_at is None or now >= current.up_at + ANSWER_SECONDS:
            return True
        return self._in_use(pair, current.child)
