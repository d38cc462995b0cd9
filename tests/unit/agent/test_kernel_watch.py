"""What the kernel says reaches whom it concerns, and what it could not say leads to a comparison of everything."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import pytest

from hauberk_agent.kernel_watch import KINDS, KernelWatch
from hauberk_xfrm import (
    Acquire,
    Action,
    Direction,
    Event,
    Events,
    Expiry,
    Flush,
    IpAddress,
    MappingChange,
    Policy,
    PolicyFlush,
    Removal,
    ReqId,
    Selector,
    Spi,
    Template,
)

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SOFT = Expiry(destination=THERE, spi=Spi(1), reqid=ReqId(7), hard=False)
HARD = Expiry(destination=THERE, spi=Spi(2), reqid=ReqId(7), hard=True)
MOVED = MappingChange(
    destination=HERE, spi=Spi(3), reqid=ReqId(7), old_source=THERE, old_port=4500, new_source=THERE, new_port=40001
)
MISSED = Removal(destination=THERE, spi=Spi(4))
"""Of a state that ought to be there,"""
REMOVED = Removal(destination=THERE, spi=Spi(5))
"""and of one that ought not."""

_TEMPLATE = Template(source=HERE, destination=THERE, reqid=ReqId(7))
_SELECTOR = Selector(source=ip_network("10.244.1.2/32"), destination=ip_network("10.244.2.2/32"))
ASKED = Acquire(
    source=HERE,
    destination=THERE,
    selector=_SELECTOR,
    policy=Policy(selector=_SELECTOR, direction=Direction.OUT, priority=1, action=Action.ALLOW, templates=(_TEMPLATE,)),
    template=_TEMPLATE,
    sequence=1,
)


@dataclass
class Recorder:
    """The listener."""

    heard: list[str] = field(default_factory=list[str])

    def rekey(self, destination: IpAddress, spi: Spi, now: float) -> None:
        self.heard.append(f"rekey {destination} {spi}")

    def follow(self, change: MappingChange, now: float) -> None:
        self.heard.append(f"follow {change.new_source} {change.new_port}")

    def misses(self, destination: IpAddress, spi: Spi) -> bool:
        return spi == MISSED.spi

    def acquire(self, acquire: Acquire, now: float) -> None:
        self.heard.append(f"acquire {acquire.reqid}")


class Socket:
    """An event socket that has one thing to say: readable until that is read."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._reading, self._writing = os.pipe()
        os.write(self._writing, b".")
        self.closed = False

    def fileno(self) -> int:
        return self._reading

    def receive(self) -> Events:
        os.read(self._reading, 1)
        return self._events

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)
        self.closed = True


@pytest.mark.parametrize(
    ("events", "heard"),
    [
        (Events(told=(SOFT,)), ["rekey 192.0.2.2 1", "send"]),
        (Events(told=(HARD,)), ["compare", "send"]),
        (Events(told=(MOVED,)), ["follow 192.0.2.2 40001", "send"]),
        (Events(told=(MOVED, SOFT)), ["follow 192.0.2.2 40001", "rekey 192.0.2.2 1", "send"]),
        (Events(told=(ASKED,)), ["acquire 7", "send"]),
        (Events(told=(MISSED,)), ["compare", "send"]),
        (Events(told=(REMOVED,)), ["send"]),
        (Events(told=(Flush(),)), ["compare", "send"]),
        (Events(told=(PolicyFlush(),)), ["compare", "send"]),
        (Events(missed=True), ["compare", "send"]),
        (Events(told=(SOFT,), missed=True), ["rekey 192.0.2.2 1", "compare", "send"]),
    ],
)
def test_each_event_reaches_whom_it_concerns(events: Events, heard: list[str]) -> None:
    recorder, socket = Recorder(), Socket(events)

    async def hear() -> None:
        sent = asyncio.Event()

        def send() -> None:
            recorder.heard.append("send")
            sent.set()

        watch = KernelWatch(socket, recorder, reconcile=lambda: recorder.heard.append("compare"), pump=send)
        async with asyncio.timeout(10):
            await sent.wait()
        watch.close()

    asyncio.run(hear())
    assert recorder.heard == heard
    assert socket.closed


def test_nobody_listens_for_acquires_in_any_case() -> None:
    # To listen alone makes the kernel hold packets back for an answer: while a tunnel is on demand, on a socket apart.
    unanswered: type[Event] = Acquire
    assert unanswered not in KINDS
