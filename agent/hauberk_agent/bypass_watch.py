"""Whether pods' packets leave this node in clear though its policies stand: then they pass the host's IP stack by.

Devices tell of some datapaths that do (hauberk_agent.datapath); of eBPF host routing they don't, as the same devices
and programs are there where packets pass the stack. So now and then, for a moment, it is looked at what leaves.
Packets from own pods count that go to those peers' pods that a tunnel has reached Require with: no policy lets them
go. What is found makes the tunnel unready with UnsupportedDatapath; its blocks stay, as what passes the stack is
protected by them.

Used by the agent, which opens windows of `window_seconds`, each `pause_seconds` after the last one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from errno import ENODEV
from typing import Final, Protocol

from hauberk_agent.flow import host
from hauberk_agent.prefix_table import PrefixTable
from hauberk_agent.roster import Roster
from hauberk_api.plan import Phase, PlannedTunnel, reached
from hauberk_api.tunnel import TrafficType
from hauberk_xfrm import IpAddress, IpNetwork, NetworkDevice, Passage, XfrmError, keep_outgoing

_log = logging.getLogger("hauberk.bypass")

WINDOW_SECONDS: Final = 1.0
"""Long enough for any pods that talk to each other to be seen;"""

PAUSE_SECONDS: Final = 20.0
"""and seldom enough that what a tap costs is a twentieth of what it costs while it is open."""

WINDOWS: Final = 2
"""In so many windows on end there must be packets: a few may be on their way when the policies come."""

DOUBT_PAUSE_SECONDS: Final = 2.0
"""So soon after the first of them is the next, that nobody waits for longer than need be,"""

DOUBT_WINDOW_SECONDS: Final = 10.0
"""and so long, as pods may have little to say. On a sound node there is none."""

QUIET_WINDOWS: Final = 30
"""A bypass is over when so many have shown nothing: ten minutes."""

MOST_DEVICES: Final = 64

_BELOW_IP: Final = ("", "bond", "team", "vlan", "vxlan", "geneve")
"""Kinds of devices by which packets leave nodes; hardware has none."""


class Tap(Protocol):
    """What is needed of hauberk_xfrm.PacketTap here."""

    def take(self) -> Sequence[Passage]: ...
    def close(self) -> None: ...


class _Whose(Enum):
    OWN_PODS = auto()
    PROTECTED_PODS = auto()
    OTHERS = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What to look at, as of a roster and devices: it is worked out once for each."""

    roster: Roster
    devices: Collection[NetworkDevice]
    names: Sequence[str] = ()
    program: bytes = b""


class Window:
    """Open taps, and what they have shown when it is closed."""

    def __init__(self, roster: Roster, taps: Mapping[str, Tap]) -> None:
        """taps: by device. roster: of which the policies are when it is opened."""
        self.roster = roster
        self.passages: dict[str, Sequence[Passage]] = {}
        self._taps = dict(taps)

    def close(self) -> None:
        """Idempotent. Blocks for tens of milliseconds a device, so it is for another thread than the loop's."""
        while self._taps:
            device, tap = self._taps.popitem()
            try:
                self.passages[device] = tap.take()
            finally:
                tap.close()


class BypassWatch:
    """`device` is the one by which pods' packets leave in clear, or None."""

    def __init__(
        self, open_tap: Callable[[str, bytes], Tap], addressed: Callable[[Collection[IpAddress]], Collection[str]]
    ) -> None:
        """open_tap: of a device, with a program that says what to keep. Raises XfrmError.

        addressed: gives the names of the devices that have one of these addresses. Raises XfrmError.
        """
        self._open_tap = open_tap
        self._addressed = addressed
        self._view: _View | None = None
        self._streaks: dict[str, int] = {}
        """By device: in how many windows on end there were packets."""
        self._quiet = 0
        self.device: str | None = None
        self.problem: str | None = None

    @property
    def doubtful(self) -> bool:
        """Whether the last window has shown packets, and the next will tell of what sort they are."""
        return bool(self._streaks) and self.device is None

    @property
    def pause_seconds(self) -> float:
        return DOUBT_PAUSE_SECONDS if self.doubtful else PAUSE_SECONDS

    @property
    def window_seconds(self) -> float:
        return DOUBT_WINDOW_SECONDS if self.doubtful else WINDOW_SECONDS

    def release(self, roster: Roster | None) -> bool:
        """A bypass is over with the last tunnel that it could be of. Whether `device` is another one than before."""
        if roster is not None and any(True for _ in _protected(roster)):
            return False
        found, self.device = self.device, None
        self._streaks.clear()
        return found is not None

    def open(self, roster: Roster | None, devices: Collection[NetworkDevice]) -> Window | None:
        """None where packets may leave in clear, or it can't be seen whether they do; the latter is in `problem`.

        devices: the host's.
        """
        if roster is None:
            return None
        taps: dict[str, Tap] = {}
        try:
            view = self._viewed(roster, devices)
            for device in view.names:
                try:
                    taps[device] = self._open_tap(device, view.program)
                except XfrmError as error:
                    if error.errno != ENODEV:  # it is gone since devices were listed
                        raise
            self.problem = None
        except XfrmError as error:
            self._complain(error)
        return Window(roster, taps) if taps else None

    def _viewed(self, roster: Roster, devices: Collection[NetworkDevice]) -> _View:
        view = self._view
        if view is None or view.roster is not roster or view.devices != devices:
            own, peers = roster.own.networks, list(_protected(roster))
            if own and peers:
                names = _chosen(devices, self._addressed(roster.own.addresses))
                view = _View(roster=roster, devices=devices, names=names, program=keep_outgoing(own, peers))
            else:
                view = _View(roster=roster, devices=devices)
            self._view = view
        return view

    def judge(self, window: Window, roster: Roster | None) -> bool:
        """What a closed window has shown. Whether `device` is another one than before.

        roster: the present one. Packets count that could not leave in clear when the window was opened, nor now.
        """
        before = self.device
        leaking: list[str] = []
        if roster is not None and any(window.passages.values()):
            tables = [_whose(roster)]
            if window.roster is not roster:
                tables.append(_whose(window.roster))
            leaking = [device for device, passages in window.passages.items() if _leak(passages, tables)]
        self._streaks = {device: self._streaks.get(device, 0) + 1 for device in leaking}
        self._quiet = 0 if leaking else self._quiet + 1
        if self.device is None:
            self.device = next((device for device in leaking if self._streaks[device] >= WINDOWS), None)
            if self.device is not None:
                _log.error(
                    "pods' packets leave %s in clear, past the host's IP stack and all policies: is the CNI's eBPF "
                    "host routing on?",
                    self.device,
                )
        elif self._quiet >= QUIET_WINDOWS:
            _log.info("pods' packets no longer leave %s in clear", self.device)
            self.device = None
        return self.device != before

    def _complain(self, error: XfrmError) -> None:
        if self.problem != str(error):
            self.problem = str(error)
            _log.warning("whether pods' packets pass the host's IP stack by can't be told: %s", error)


def _chosen(devices: Iterable[NetworkDevice], addressed: Collection[str]) -> list[str]:
    """By which of them packets leave the node: those that have its addresses first."""
    names = [
        device.name
        for device in devices
        if device.kind != "xfrm" and device.name != "lo" and (device.name in addressed or device.kind in _BELOW_IP)
    ]
    return sorted(names, key=lambda name: name not in addressed)[:MOST_DEVICES]


def _protected(roster: Roster) -> Iterable[IpNetwork]:
    """The networks of those peers' pods to which nothing leaves in clear."""
    for peer in roster.peers:
        if any(_protects(tunnel) for tunnel in peer.tunnels):
            yield from peer.place.networks


def _protects(tunnel: PlannedTunnel) -> bool:
    """Whether every packet to a peer's pods is the tunnel's, and must be encrypted."""
    traffic = tunnel.traffic
    return (
        traffic.type is TrafficType.POD_NETWORK
        and (traffic.protocol, traffic.ports) == (None, None)
        and reached(tunnel.phase, Phase.REQUIRE)
    )


def _whose(roster: Roster) -> PrefixTable[_Whose]:
    """Whose an address is. A node's own address may lie among its pods', and IKE and ESP go by it."""
    entries = [(network, _Whose.OTHERS) for place in roster.known for network in place.networks]
    entries += [(network, _Whose.PROTECTED_PODS) for network in _protected(roster)]
    entries += [(network, _Whose.OWN_PODS) for network in roster.own.networks]
    entries += [(host(a), _Whose.OTHERS) for place in (roster.own, *roster.known) for a in place.addresses]
    return PrefixTable(entries)


def _leak(passages: Iterable[Passage], tables: Collection[PrefixTable[_Whose]]) -> bool:
    """Whether one of them went from own pods to protected ones, by all of these tables."""
    return any(
        all(
            (table.get(passage.source), table.get(passage.destination)) == (_Whose.OWN_PODS, _Whose.PROTECTED_PODS)
            for table in tables
        )
        for passage in passages
    )
