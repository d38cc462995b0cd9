"""What is said of those who are turned away, and how much of it.

Whoever can send us a datagram can make us refuse it, as often as they like. So PeerRefused is reported a few times an
address in each period, and only of so many addresses; the rest is counted, and told in one RefusalsWithheld when the
period is over. Peers that are expected (`PeerPolicy.is_known`) have a share of their own, that no stranger uses up.
"""

from collections import Counter, deque
from collections.abc import Callable

from hauberk_ike.config import EndpointSettings
from hauberk_ike.datagram import IpAddress
from hauberk_ike.events import Event, PeerRefused, RefusalsWithheld
from hauberk_ike.half_open import Holder, holder_of


class Refusals:
    """Remembers no more than what it has reported in this period."""

    __slots__ = ("_ends_at", "_events", "_is_known", "_known", "_settings", "_strangers", "_withheld")

    def __init__(self, settings: EndpointSettings, is_known: Callable[[IpAddress], bool], events: deque[Event]) -> None:
        """What is reported goes to `events`."""
        self._settings = settings
        self._is_known = is_known
        self._events = events
        self._ends_at = float("-inf")
        self._known: Counter[Holder] = Counter()
        """How often each was reported."""
        self._strangers: Counter[Holder] = Counter()
        self._withheld: Counter[str] = Counter()
        """By reason."""

    @property
    def due(self) -> float | None:
        """When there is something to say of what was withheld."""
        return self._ends_at if self._withheld else None

    def report(self, refused: PeerRefused, now: float) -> None:
        """Reports it, or counts it if enough was said."""
        self.handle_timer(now)
        if now >= self._ends_at:
            self._ends_at = now + self._settings.refusals_seconds
            self._known.clear()
            self._strangers.clear()
        is_known = self._is_known(refused.remote.host)
        said, holder = self._known if is_known else self._strangers, holder_of(refused.remote, is_known=is_known)
        if said[holder] >= self._settings.refusals_per_address or said.total() >= self._settings.refusals_limit:
            self._withheld[refused.reason] += 1
            return
        said[holder] += 1
        self._events.append(refused)

    def handle_timer(self, now: float) -> None:
        """When the period is over: says what was withheld."""
        if self._withheld and now >= self._ends_at:
            reasons = tuple(self._withheld.most_common())
            self._withheld.clear()
            self._events.append(RefusalsWithheld(reasons=reasons, seconds=self._settings.refusals_seconds))
