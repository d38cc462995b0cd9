"""What a change of the trusted roots, or of this node's own certificate, means for SAs that there are.

A new certificate is brought to all peers by and by. Where a root is trusted no longer, what it has authenticated is
replaced as soon as both ends have other certificates, and cut if that takes too long. Used by the sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import Final

from hauberk_agent.caretaker import Caretaker
from hauberk_agent.identity import fingerprints
from hauberk_agent.link import Link
from hauberk_agent.pair import Pair
from hauberk_agent.pair_table import PairTable
from hauberk_agent.times import Times
from hauberk_ike import Credentials

_log = logging.getLogger("hauberk.sessions")
_SPREAD_SHARE: Final = 1 / 4


class RootTrust:
    """The roots that are trusted, and until when what others have vouched for lives on."""

    def __init__(
        self,
        *,
        pairs: PairTable,
        caretaker: Caretaker,
        times: Times,
        chance: Random,
        lost: Callable[[Pair, Link], None],
    ) -> None:
        """lost: called with a link that is no more, for another one to take its place."""
        self._pairs = pairs
        self._caretaker = caretaker
        self._times = times
        self._chance = chance
        self._lost = lost
        self._trusted: frozenset[str] = frozenset()
        self._cut_at: float | None = None

    def follow(self, credentials: Credentials, now: float, *, renewed: bool, left_seconds: float) -> None:
        """Authenticates pairs anew. renewed: the certificate is another one, and the one before ends in left_seconds.

        At once where there is nothing to lose: pairs without an SA, or with one whose root is trusted no longer. Else
        within half of what is left, so that another attempt comes in time if the first one fails.
        """
        spread = min(self._times.renewed, max(left_seconds * _SPREAD_SHARE, self._times.distrusted_wait))
        trusted = frozenset(fingerprints(credentials.roots))
        distrusts, self._trusted = not self._trusted <= trusted, trusted
        if distrusts:
            self._cut_at = now + self._times.distrusted
        for pair in self._pairs.values() if renewed or distrusts else ():
            soon = now + self._chance.uniform(0, self._times.distrusted_wait)
            if pair.current is None:
                if renewed and pair.attempt is None:
                    pair.failures, pair.initiate_at = 0, soon
            elif self._distrusts(pair.current.root):
                pair.failures, pair.replace_at = 0, soon
            elif renewed:
                first = 0.0 if pair.current.ours else spread
                pair.replace_at = now + first + self._chance.uniform(0, spread)
            self._caretaker.service(pair, now)

    def next_due(self) -> float | None:
        return self._cut_at

    def handle_timer(self, now: float) -> None:
        """Cuts what has not been replaced in time."""
        if self._cut_at is None or self._cut_at > now:
            return
        self._cut_at = None
        for pair in self._pairs.values():
            for link in [link for link in pair.links.values() if self._distrusts(link.root)]:
                self._cut(pair, link, now)
            orphans = [child for child in pair.orphans if self._distrusts(child.root)]
            pair.orphans = [child for child in pair.orphans if child not in orphans]
            self._caretaker.remove(pair, orphans)
            self._caretaker.service(pair, now)

    def _distrusts(self, root: str | None) -> bool:
        """None, what an earlier run has left, is replaced by itself."""
        return root is not None and root not in self._trusted

    def _cut(self, pair: Pair, link: Link, now: float) -> None:
        _log.warning("%s: cutting SAs: the root behind its certificate is trusted no longer", pair.name)
        self._caretaker.delete(link, "its root is trusted no longer", now)
        self._caretaker.remove(pair, link.forget_children())
        self._lost(pair, link)
