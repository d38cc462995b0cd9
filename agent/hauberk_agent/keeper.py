"""The states of our SAs in the kernel: who installs, retires and remembers them.

Used by the sessions. A state lingers for some seconds after its replacement stands: an inbound one for packets that are
under way between the nodes, an outbound one for those that are under way in our own kernel: a sender that was held up
after it had found the old one loses its packet when that is gone (XfrmOutStateInvalid in /proc/net/xfrm_stat).

Of a reqid's outbound states the one installed last is used (hauberk_xfrm.succession), also where an agent dies before
it has removed the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Final, Protocol

from hauberk_agent.link import Child
from hauberk_agent.ownership import owns_state
from hauberk_ike import ChildSaUp, IpAddress, UdpEncapsulation
from hauberk_ike import Mode as IkeMode
from hauberk_xfrm import (
    Aead,
    Authenc,
    IptfsIn,
    IptfsOut,
    Lifetime,
    Mode,
    NotFound,
    ReqId,
    Spi,
    State,
    StateDirection,
    StateDump,
    StateFlag,
    UdpPorts,
)
from hauberk_xfrm.succession import Succession

REPLAY_WINDOW: Final = 1024
"""Packets; larger than what receive queues of several CPUs put out of order."""

KERNEL_MODES: Final = {
    IkeMode.TUNNEL: Mode.TUNNEL,
    IkeMode.TRANSPORT: Mode.TRANSPORT,
    IkeMode.IPTFS: Mode.IPTFS,
}
"""What IKE agrees on, in the kernel's words."""

IPTFS_IN: Final = IptfsIn(drop_microseconds=10_000)
"""How long packets wait for one that is missing, while nothing follows: the kernel's own second is for the internet."""

_LINGER_OUTBOUND_SECONDS: Final = 3.0
"""Less than the peer's inbound state lingers."""

MAPPING_SECONDS: Final = 2
"""How often the kernel says that a peer's ESP comes from a port that we have not followed it to."""


class Kernel(Protocol):
    """What is needed of hauberk_xfrm.Xfrm here."""

    def allocate_spi(
        self, *, source: IpAddress, destination: IpAddress, reqid: ReqId, mode: Mode = Mode.TUNNEL, if_id: int = 0
    ) -> Spi: ...
    def add_state(self, state: State) -> None: ...
    def update_state(self, state: State) -> None: ...
    def delete_state(self, *, destination: IpAddress, spi: Spi, missing_ok: bool = True) -> None: ...
    def get_state(self, destination: IpAddress, spi: Spi) -> StateDump | None: ...


class StateKeeper:
    """Writes states, and knows which ones are accounted for."""

    def __init__(self, kernel: Kernel, *, directions: bool, wall_clock: Callable[[], datetime]) -> None:
        """directions: whether the kernel knows a state's direction (KernelAbilities.sa_direction)."""
        self._kernel = kernel
        self._directions = directions
        self._succession = Succession(lambda: wall_clock().timestamp())
        self._lingering: list[tuple[float, int, ReqId, IpAddress, Spi]] = []
        self._order = count()
        self._known: set[tuple[IpAddress, Spi]] = set()

    def allocate(self, *, local: IpAddress, remote: IpAddress, reqid: ReqId, mode: IkeMode, if_id: int) -> Spi:
        """An SPI for packets to us, held by a larval state. Raises XfrmError."""
        return self._kernel.allocate_spi(
            source=remote, destination=local, reqid=reqid, mode=KERNEL_MODES[mode], if_id=if_id
        )

    def release(self, *, local: IpAddress, spi: Spi) -> None:
        self._kernel.delete_state(destination=local, spi=spi)

    def install_inbound(
        self,
        event: ChildSaUp,
        *,
        local: IpAddress,
        remote: IpAddress,
        reqid: ReqId,
        if_id: int,
        hard_seconds: int,
        now: float,
    ) -> Child:
        """Completes the larval state of an agreed CHILD SA. Raises XfrmError."""
        child = Child(
            label=event.label,
            reqid=reqid,
            local=local,
            remote=remote,
            mode=KERNEL_MODES[event.mode],
            if_id=if_id,
            ours=event.initiator,
            spi_in=Spi(event.spi_in),
            spi_out=Spi(event.spi_out),
            since=now,
            proposal=str(event.proposal),
            keys_out=event.keys_out,
            encapsulation=event.encapsulation,
            dont_fragment=event.dont_fragment,
        )
        state = State(
            source=remote,
            destination=local,
            spi=Spi(event.spi_in),
            reqid=reqid,
            mode=child.mode,
            if_id=child.if_id,
            aead=Aead.of(event.keys_in),
            authenc=Authenc.of(event.keys_in),
            replay_window=REPLAY_WINDOW,
            esn=event.keys_in.esn,
            direction=StateDirection.IN if self._directions else None,
            encapsulation=_inbound_ports(event.encapsulation),
            lifetime=Lifetime(hard_seconds=hard_seconds),
            mapping_seconds=MAPPING_SECONDS if event.encapsulation is not None else 0,
            # An error (ICMP) that came by it is taken if the packet that it quotes could have gone by it.
            flags=StateFlag.ICMP,
            iptfs=IPTFS_IN if child.mode is Mode.IPTFS else None,
        )
        try:
            self._kernel.update_state(state)
        except NotFound:
            # The larval state has expired meanwhile (net.core.xfrm_acq_expires); its SPI is still free.
            self._kernel.add_state(state)
        self._known.add((local, Spi(event.spi_in)))
        return child

    def install_outbound(self, child: Child, *, lifetime: Lifetime) -> None:
        """From now on the kernel sends the pair's packets with it. Raises XfrmError.

        lifetime: when it has carried enough is its sender's to notice, as the receiver's state counts the same.
        """
        if child.keys_out is None or child.spi_out is None:
            return
        state = State(
            source=child.local,
            destination=child.remote,
            spi=child.spi_out,
            reqid=child.reqid,
            mode=child.mode,
            if_id=child.if_id,
            aead=Aead.of(child.keys_out),
            authenc=Authenc.of(child.keys_out),
            replay_window=REPLAY_WINDOW,
            esn=child.keys_out.esn,
            direction=StateDirection.OUT if self._directions else None,
            encapsulation=_outbound_ports(child.encapsulation),
            lifetime=lifetime,
            created_at=self._succession.next(child.reqid),
            iptfs=IptfsOut(dont_fragment=child.dont_fragment) if child.mode is Mode.IPTFS else None,
        )
        self._kernel.add_state(state)
        self._known.add((child.remote, child.spi_out))
        child.keys_out = None
        child.outbound = True

    def move(self, child: Child, encapsulation: UdpEncapsulation) -> bool:
        """Gives an encapsulated child's states other ports, and leaves all else about them as it is.

        Returns whether that could be done: not where a state is gone, or the kernel keeps its key to itself. Raises
        XfrmError.
        """
        child.encapsulation = encapsulation
        done = True
        if child.spi_in is not None:
            done = self._rewrite(child.local, child.spi_in, _inbound_ports(encapsulation))
        if child.outbound and child.spi_out is not None:
            done = self._rewrite(child.remote, child.spi_out, _outbound_ports(encapsulation)) and done
        return done

    def _rewrite(self, destination: IpAddress, spi: Spi, ports: UdpPorts | None) -> bool:
        state = self._kernel.get_state(destination, spi)
        if state is None or state.larval or not state.has_key:
            return False
        try:
            self._kernel.update_state(replace(state.as_written(), encapsulation=ports))
        except NotFound:
            return False
        return True

    def in_use(self, child: Child) -> bool:
        """Whether a packet has arrived on the child: then its peer sends on it."""
        return child.spi_in is not None and bool(self.count_arrived(local=child.local, spi=child.spi_in))

    def count_arrived(self, *, local: IpAddress, spi: Spi) -> int | None:
        """How many packets have arrived on one of our inbound states; None if it is not there. Raises XfrmError."""
        state = self._kernel.get_state(local, spi)
        return state.packets if state is not None and not state.larval else None

    def count_sent(self, child: Child) -> int | None:
        """How many packets have gone by the child; None if its outbound state is not there. Raises XfrmError."""
        state = self._kernel.get_state(child.remote, child.spi_out) if child.spi_out is not None else None
        return state.packets if state is not None else None

    def retire(self, child: Child, *, now: float, linger: float, sends: bool = True) -> None:
        """Gives up a child; what still arrives on it is taken for so many seconds.

        sends: it has a successor, and what is about to be sent on it may go. Else nothing may from now on.
        """
        if not sends:
            self._remove_outbound(child)
        child.keys_out = None
        if child.outbound and child.spi_out is not None:
            self._let_linger(child.reqid, child.remote, child.spi_out, until=now + _LINGER_OUTBOUND_SECONDS)
        child.outbound, child.spi_out = False, None
        if child.spi_in is not None:
            self._let_linger(child.reqid, child.local, child.spi_in, until=now + linger)
            child.spi_in = None

    def _let_linger(self, reqid: ReqId, destination: IpAddress, spi: Spi, *, until: float) -> None:
        heapq.heappush(self._lingering, (until, next(self._order), reqid, destination, spi))

    def remove(self, child: Child) -> None:
        """Removes both directions at once."""
        self._remove_outbound(child)
        if child.spi_in is not None:
            self._remove(child.local, child.spi_in)
            child.spi_in = None

    def remove_lingering(self, reqid: ReqId) -> None:
        """Removes a pair's retired states before their time: it has no others any more."""
        self._succession.forget(reqid)
        for entry in [e for e in self._lingering if e[2] == reqid]:
            self._lingering.remove(entry)
            self._remove(entry[3], entry[4])
        heapq.heapify(self._lingering)

    def adopt(self, child: Child) -> None:
        """Accounts for states that an earlier run of the agent installed."""
        if child.spi_in is not None:
            self._known.add((child.local, child.spi_in))
        if child.spi_out is not None:
            self._known.add((child.remote, child.spi_out))
            self._succession.take_over(child.reqid, child.created_at)

    def unaccounted(self, states: Iterable[StateDump]) -> list[StateDump]:
        """Of a dump, the states of ours that belong to no child: not larval ones, which end by themselves."""
        return [s for s in states if owns_state(s) and not s.larval and (s.destination, s.spi) not in self._known]

    def accounts_for(self, destination: IpAddress, spi: Spi) -> bool:
        """Whether a complete state of that name is one of ours, installed or adopted and not removed since."""
        return (destination, spi) in self._known

    def vanished(self, child: Child, present: set[tuple[IpAddress, Spi]]) -> bool:
        """Whether a state of the child that should be in the kernel is not among those dumped."""
        inbound_gone = child.spi_in is not None and (child.local, child.spi_in) not in present
        outbound_gone = child.outbound and child.spi_out is not None and (child.remote, child.spi_out) not in present
        return inbound_gone or outbound_gone

    def next_due(self) -> float | None:
        return self._lingering[0][0] if self._lingering else None

    def handle_timer(self, now: float) -> None:
        """Removes the retired states whose time is over."""
        while self._lingering and self._lingering[0][0] <= now:
            entry = heapq.heappop(self._lingering)
            self._remove(entry[3], entry[4])

    def _remove_outbound(self, child: Child) -> None:
        child.keys_out = None
        if child.outbound and child.spi_out is not None:
            self._remove(child.remote, child.spi_out)
        child.outbound = False
        child.spi_out = None

    def _remove(self, destination: IpAddress, spi: Spi) -> None:
        self._known.discard((destination, spi))
        self._kernel.delete_state(destination=destination, spi=spi)


def _inbound_ports(encapsulation: UdpEncapsulation | None) -> UdpPorts | None:
    if encapsulation is None:
        return None
    return UdpPorts(source=encapsulation.remote_port, destination=encapsulation.local_port)


def _outbound_ports(encapsulation: UdpEncapsulation | None) -> UdpPorts | None:
    if encapsulation is None:
        return None
    return UdpPorts(source=encapsulation.local_port, destination=encapsulation.remote_port)
