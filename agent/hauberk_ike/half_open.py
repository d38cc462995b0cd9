"""IKE SAs of strangers that have not authenticated yet: how many, from where, and who goes when there are too many.

A flood must not lock out nodes that are known: under load a COOKIE shows that a sender can receive, which leaves real
addresses only; and when the table is full somebody at an address where no peer is expected goes, the oldest of those
who hold the most. In IPv6 a network of 64 bits counts as one address, as whoever has one address there has them all; an
address where a peer is expected counts for itself, whoever else is in its network.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from hauberk_ike.config import EndpointSettings
from hauberk_ike.datagram import IpAddress, SocketAddress
from hauberk_ike.events import IkeSaId

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

Holder = bytes
"""Who holds half-open IKE SAs: an address (4 or 16 bytes), or the network of a stranger's IPv6 address (8)."""


class HalfOpenTable:
    """Counts and orders half-open IKE SAs by who holds them."""

    __slots__ = ("_holders", "_is_known", "_known", "_settings", "_strangers")

    def __init__(self, settings: EndpointSettings, is_known: Callable[[IpAddress], bool]) -> None:
        """is_known: whether a peer is expected at an address (`PeerPolicy.is_known`)."""
        self._settings = settings
        self._is_known = is_known
        self._known: dict[Holder, deque[IkeSa]] = {}
        self._strangers: dict[Holder, deque[IkeSa]] = {}
        self._holders: dict[IkeSaId, tuple[dict[Holder, deque[IkeSa]], Holder]] = {}
        """Where each was filed: who is known may change meanwhile."""

    def __len__(self) -> int:
        return len(self._holders)

    def wants_cookie(self, remote: SocketAddress) -> bool:
        """Whether a request from `remote` has to bring a cookie."""
        if len(self._holders) >= self._settings.cookie_threshold:
            return True
        table, holder = self._place(remote)
        return len(table.get(holder, ())) >= self._settings.half_open_per_address

    def victim(self) -> "IkeSa | None":
        """With a full table, the one to drop before another is added."""
        if len(self._holders) < self._settings.half_open_limit:
            return None
        table = self._strangers or self._known
        return max(table.values(), key=len)[0] if table else None

    def add(self, sa: "IkeSa") -> None:
        """Counts a new one."""
        table, holder = self._holders[sa.handle] = self._place(sa.path.remote)
        table.setdefault(holder, deque()).append(sa)

    def remove(self, sa: "IkeSa") -> None:
        """It is authenticated, or gone."""
        table, holder = self._holders.pop(sa.handle)
        waiting = table[holder]
        waiting.remove(sa)
        if not waiting:
            del table[holder]

    def _place(self, remote: SocketAddress) -> "tuple[dict[Holder, deque[IkeSa]], Holder]":
        is_known = self._is_known(remote.host)
        return self._known if is_known else self._strangers, holder_of(remote, is_known=is_known)


def holder_of(remote: SocketAddress, *, is_known: bool) -> Holder:
    """Under what name an address is counted. is_known: whether a peer is expected there."""
    address = remote.packed[:-2]
    return address if is_known or remote.host.version == 4 else address[:8]
