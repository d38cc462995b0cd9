"""IKE SAs of strangers that have not authenticated yet: how many, from where, and who goes when there are too many.

A flood must not lock out nodes that are known (they can't be told apart yet): under load a COOKIE shows that a sender
can receive, which leaves real addresses only; and when the table is full, the address that holds the most loses its
oldest.
"""

from collections import deque
from typing import TYPE_CHECKING

from hauberk_ike.config import EndpointSettings
from hauberk_ike.datagram import IpAddress

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class HalfOpenTable:
    """Counts and orders half-open IKE SAs by the address of their peer."""

    __slots__ = ("_by_host", "_settings", "_total")

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._by_host: dict[IpAddress, deque[IkeSa]] = {}
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def wants_cookie(self, host: IpAddress) -> bool:
        """Whether a request from `host` has to bring a cookie."""
        return (
            self._total >= self._settings.cookie_threshold
            or len(self._by_host.get(host, ())) >= self._settings.half_open_per_address
        )

    def victim(self) -> "IkeSa | None":
        """With a full table, the one to drop before another is added."""
        if self._total < self._settings.half_open_limit or not self._by_host:
            return None
        return max(self._by_host.values(), key=len)[0]

    def add(self, sa: "IkeSa") -> None:
        """Counts a new one."""
        self._by_host.setdefault(sa.path.remote.host, deque()).append(sa)
        self._total += 1

    def remove(self, sa: "IkeSa", host: IpAddress) -> None:
        """It is authenticated, or gone; `host` is where it was added from."""
        waiting = self._by_host[host]
        waiting.remove(sa)
        if not waiting:
            del self._by_host[host]
        self._total -= 1
