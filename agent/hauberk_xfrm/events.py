"""What the kernel says by itself, on a socket of its own: acquires, expiries, removals, mapping changes, migrations.

The agent's loop watches `fileno` and calls `receive`. An event is told once and never again, and the kernel drops what
the socket can't hold (ENOBUFS). So whoever hears "missed" dumps and compares.

**An overrun.** From the first event that does not fit the kernel drops all others too, until the socket has been read
empty (`netlink_overrun` and `netlink_rcv_wake` in net/netlink/af_netlink.c), and says so but once. A dump that was made
before the socket is empty could thus miss what is dropped after it: "missed" is said only when nothing is left to read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EAGAIN, EINTR, ENOBUFS, EPROTO
from typing import Final

from hauberk_xfrm.attribute import Malformed
from hauberk_xfrm.event import Acquire, Event, Expiry, Flush, MappingChange, PolicyFlush, Removal
from hauberk_xfrm.event_decoder import decode_event
from hauberk_xfrm.layout import NETLINK_XFRM, Group, MessageType
from hauberk_xfrm.migration import Migration
from hauberk_xfrm.netlink_endpoint import RECEIVE_BUFFER_BYTES, NetlinkEndpoint, Received

_DATAGRAMS_A_CALL: Final = 64

_GROUPS: Final[dict[type[Event], Group]] = {
    Acquire: Group.ACQUIRE,
    Expiry: Group.EXPIRE,
    Flush: Group.SA,
    MappingChange: Group.MAPPING,
    Migration: Group.MIGRATE,
    PolicyFlush: Group.POLICY,
    Removal: Group.SA,
}

_UNHEARD: Final = (
    MessageType.NEWSA,
    MessageType.UPDSA,
    MessageType.NEWPOLICY,
    MessageType.UPDPOLICY,
    MessageType.DELPOLICY,
)
"""Said to the same groups, mostly of what the hearer itself has done, by the thousand when there are many peers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What was received. `missed`: there was more than the socket could hold, or that could be understood."""

    told: tuple[Event, ...] = ()
    missed: bool = False


class EventSocket:
    """Hears events of the given kinds in the network namespace of the thread that makes it. Raises OSError.

    Removal and Flush come together, of one group. What else is said of states and policies the kernel keeps to itself.
    """

    def __init__(self, kinds: Sequence[type[Event]], *, receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> None:
        self._endpoint = NetlinkEndpoint(
            NETLINK_XFRM,
            groups=sum({1 << (_GROUPS[kind] - 1) for kind in kinds}),
            waits=False,
            receive_buffer_bytes=receive_buffer_bytes,
            unheard=_UNHEARD,
        )
        self._collector = Collector(self._endpoint.receive)

    def fileno(self) -> int:
        return self._endpoint.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._endpoint.close()

    def receive(self) -> Events:
        """What has come, up to some dozens; never waits. What is left makes `fileno` readable still."""
        return self._collector.collect()


class Collector:
    """Reads datagrams and understands them; remembers an overrun until the socket is empty."""

    def __init__(self, receive: Callable[[], list[Received]]) -> None:
        self._receive = receive
        self._missed = False

    def collect(self) -> Events:
        """Raises OSError if the socket is broken."""
        told: list[Event] = []
        for _ in range(_DATAGRAMS_A_CALL):
            try:
                for kind, _, _, body in self._receive():
                    event = decode_event(kind, body)
                    if event is not None:
                        told.append(event)
            except Malformed:
                self._missed = True
            except OSError as error:
                if error.errno == EAGAIN:
                    missed, self._missed = self._missed, False
                    return Events(told=tuple(told), missed=missed)
                if error.errno in (ENOBUFS, EPROTO):
                    self._missed = True
                elif error.errno != EINTR:
                    raise
        return Events(told=tuple(told))
