"""Hears what the kernel says of the node's SAs, and has the sessions and the reconciler act on it.

Made by the agent where its kernel can do XFRM. The kernel says each thing once, so what it could not say is looked for:
an overrun wakes the reconciler, which dumps and compares everything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from hauberk_xfrm import Acquire, Event, Events, Expiry, Flush, IpAddress, MappingChange, PolicyFlush, Removal, Spi

_log = logging.getLogger("hauberk.kernel")

KINDS: Final[tuple[type[Event], ...]] = (Expiry, Flush, MappingChange, PolicyFlush, Removal)
"""No acquires: they are heard on a socket of their own, while a tunnel is set up on demand. To listen changes what the
kernel does (hauberk_xfrm.Xfrm.watch)."""


class Heard(Protocol):
    """What is needed of hauberk_xfrm.EventSocket here."""

    def fileno(self) -> int: ...
    def receive(self) -> Events: ...
    def close(self) -> None: ...


class Listener(Protocol):
    """Who acts on it: `hauberk_agent.sessions.Sessions`."""

    def misses(self, destination: IpAddress, spi: Spi) -> bool: ...
    def rekey(self, destination: IpAddress, spi: Spi, now: float) -> None: ...
    def follow(self, change: MappingChange, now: float) -> None: ...
    def acquire(self, acquire: Acquire, now: float) -> None: ...


class KernelWatch:
    """One event socket in the running loop."""

    def __init__(
        self, heard: Heard, listener: Listener, *, reconcile: Callable[[], None], pump: Callable[[], None]
    ) -> None:
        """reconcile: wakes the reconciler. pump: sends what the listener then has to say. `heard` is closed with it."""
        self._heard = heard
        self._listener = listener
        self._reconcile = reconcile
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(heard.fileno(), self._hear)

    def close(self) -> None:
        """To be called once."""
        self._loop.remove_reader(self._heard.fileno())
        self._heard.close()

    def _hear(self) -> None:
        events = self._heard.receive()
        now = self._loop.time()
        for event in events.told:
            match event:
                case Expiry(hard=True) | Flush() | PolicyFlush():
                    self._reconcile()
                case Removal() if self._listener.misses(event.destination, event.spi):
                    self._reconcile()
                case Expiry():
                    self._listener.rekey(event.destination, event.spi, now)
                case MappingChange():
                    self._listener.follow(event, now)
                case Acquire():
                    self._listener.acquire(event, now)
                case _:
                    pass
        if events.missed:
            _log.warning("the kernel had more to say than could be heard: comparing everything")
            self._reconcile()
        self._pump()
