"""All IKE SAs of an endpoint, as they are looked up: by our SPI, by handle, by the first request, by when they wake.

The endpoint finds with it whom a datagram or a call is for; a rekey adds its new IKE SA to it.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable
from itertools import count
from typing import TYPE_CHECKING, Final

from hauberk_ike.config import EndpointSettings
from hauberk_ike.datagram import IpAddress, SocketAddress
from hauberk_ike.errors import UnknownIkeSa
from hauberk_ike.events import IkeSaId
from hauberk_ike.half_open import HalfOpenTable
from hauberk_ike.lifecycle import State
from hauberk_ike.wire.header import NO_SPI

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

_MAX_STALE: Final = 64


class Registry:
    """Every change to an IKE SA ends in `settle`."""

    __slots__ = ("_by_handle", "_by_spi", "_entropy", "_first_requests", "_handles", "_stale", "_wake_ups", "half_open")

    def __init__(
        self, settings: EndpointSettings, entropy: Callable[[int], bytes], is_known: Callable[[IpAddress], bool]
    ) -> None:
        self._entropy = entropy
        self._handles = count(1)
        self._by_spi: dict[bytes, IkeSa] = {}
        """By our own SPI."""
        self._by_handle: dict[IkeSaId, IkeSa] = {}
        """Those that are not dead, half-open ones included."""
        self._first_requests: dict[bytes, IkeSa] = {}
        """Responders' by their IKE_SA_INIT request (`first_request_key`): a copy makes no second one."""
        self.half_open = HalfOpenTable(settings, is_known)
        self._wake_ups: list[tuple[float, int, IkeSa]] = []
        """A heap; an entry whose time is not its IKE SA's `scheduled_at` is stale."""
        self._stale = 0

    def new_handle(self) -> IkeSaId:
        """One that was never used before."""
        return IkeSaId(next(self._handles))

    def new_spi(self) -> bytes:
        """An SPI for a new IKE SA, that no other one of ours has."""
        while (spi := self._entropy(8)) == NO_SPI or spi in self._by_spi:
            pass
        return spi

    def add(self, sa: "IkeSa") -> None:
        """Files a new one."""
        self._by_handle[sa.handle] = self._by_spi[sa.our_spi] = sa

    def add_half_open(self, sa: "IkeSa", key: bytes) -> None:
        """Files a responder's, of which nothing is known but its first request, by `first_request_key`."""
        sa.init_key = key
        sa.is_counted = True
        self._first_requests[key] = sa
        self.half_open.add(sa)
        self.add(sa)

    def by_spi(self, spi: bytes) -> "IkeSa | None":
        """By our own SPI; also one that is dead but whose last answer is remembered."""
        return self._by_spi.get(spi)

    def by_first_request(self, key: bytes) -> "IkeSa | None":
        """The one that the same request has made already."""
        return self._first_requests.get(key)

    def find(self, ike_sa: IkeSaId) -> "IkeSa":
        """By handle, as its owner knows it. Raises UnknownIkeSa."""
        sa = self._by_handle.get(ike_sa)
        if sa is None or sa.state in (State.HALF_OPEN, State.REJECTING, State.SPARE, State.REPLACED):
            raise UnknownIkeSa(f"no IKE SA {ike_sa}")
        return sa

    def alive(self) -> Iterable["IkeSa"]:
        """All that are not dead, oldest first."""
        return self._by_handle.values()

    def settle(self, sa: "IkeSa") -> None:
        """After anything was done with an IKE SA: files it where its state belongs, and sees to its next wake-up."""
        if sa.init_key is not None and sa.state is not State.HALF_OPEN:
            if sa.is_counted:
                sa.is_counted = False
                self.half_open.remove(sa)
            if sa.expires_at is None or sa.state is State.DEAD:
                del self._first_requests[sa.init_key]
                sa.init_key = None
        if sa.state is State.DEAD:
            self._by_handle.pop(sa.handle, None)
            if sa.expires_at is None:
                self._by_spi.pop(sa.our_spi, None)
                self._schedule(sa, None)
                return
        due = sa.deadline()
        if due is not None and (sa.scheduled_at is None or due < sa.scheduled_at):
            self._schedule(sa, due)

    def next_wake_up(self) -> float | None:
        """When the first of them has something to do."""
        while self._wake_ups:
            due, _, sa = self._wake_ups[0]
            if sa.scheduled_at == due:
                return due
            heapq.heappop(self._wake_ups)
            self._stale -= 1
        return None

    def take_due(self, now: float) -> "IkeSa | None":
        """The one that has waited longest for now; it is to be settled when that is done."""
        due = self.next_wake_up()
        if due is None or due > now:
            return None
        sa = heapq.heappop(self._wake_ups)[2]
        sa.scheduled_at = None
        return sa

    def _schedule(self, sa: "IkeSa", due: float | None) -> None:
        """Wakes an IKE SA at `due` and at no other time. Stale entries are swept out before they are most of the heap.

        They hold IKE SAs that are gone: in a flood, many more than there may be.
        """
        self._stale += sa.scheduled_at is not None
        sa.scheduled_at = due
        if due is not None:
            heapq.heappush(self._wake_ups, (due, sa.handle, sa))
        if self._stale > _MAX_STALE and 2 * self._stale > len(self._wake_ups):
            self._wake_ups = [entry for entry in self._wake_ups if entry[2].scheduled_at == entry[0]]
            heapq.heapify(self._wake_ups)
            self._stale = 0


def first_request_key(remote: SocketAddress, request: bytes) -> bytes:
    """Under what an IKE_SA_INIT request is remembered: a digest of it and of where it came from."""
    return hashlib.sha256(request + remote.packed).digest()
