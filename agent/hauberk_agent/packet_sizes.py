"""How large pods' packets may be, and what is done about those that are larger.

The kernel tells senders what fits (docs/decisions/2026-11-30-packet-sizes.md). Here TCP is made to fit without being
told, and what people should set is found out for the report. Used by the agent, which looks every LOOK_SECONDS.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import Final, Protocol

from hauberk_agent.ownership import owns_state
from hauberk_agent.roster import Peer, Roster
from hauberk_ike import IpAddress
from hauberk_xfrm import EspSizes, IpNetwork, IptfsOut, Mode, State, StateDirection, StateDump, XfrmError

_log = logging.getLogger("hauberk.sizes")

LOOK_SECONDS: Final = 10.0
POD_MTU_SECONDS: Final = 300.0
"""How often the pods' devices are looked for among the node's routes, of which there may be thousands."""


class Clamp(Protocol):
    """What is needed of hauberk_xfrm.SegmentClamp here."""

    def make(self, networks: Iterable[IpNetwork], *, inner_mtu: int) -> None: ...
    def remove(self) -> None: ...
    def exists(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What fits into this node's tunnels: the narrowest one's numbers, in bytes. None: nothing is too large."""

    pod_mtu: int | None
    """How large pods' packets may be, by their devices; None: not known."""
    carried: int
    """How large one may be that goes whole,"""
    node: str
    """to this peer,"""
    path_mtu: int
    """on whose path packets are so large."""

    @property
    def problem(self) -> str | None:
        if self.pod_mtu is None or self.pod_mtu <= self.carried:
            return None
        return (
            f"pods send packets of up to {self.pod_mtu} bytes, and {self.carried} fit into the tunnel to {self.node}, "
            f"whose path carries {self.path_mtu}: set the CNI's MTU to {self.carried}, or the tunnel's mode to IPTFS"
        )


class PacketSizes:
    """`fit` is what was found out last."""

    def __init__(
        self,
        clamp: Clamp,
        *,
        path_mtu: Callable[[IpAddress, IpAddress], int | None],
        pod_mtu: Callable[[Iterable[IpNetwork]], int | None],
    ) -> None:
        """path_mtu: of packets from one address to another. pod_mtu: of the devices that lead to networks; may raise
        XfrmError."""
        self._clamp = clamp
        self._path_mtu = path_mtu
        self._read_pod_mtu = pod_mtu
        self._clamped: tuple[tuple[IpNetwork, ...], int] | None = None
        """What the table is for; None: not known, as an earlier run may have left one."""
        self._removed = False
        self._pod_mtu: int | None = None
        self._pod_mtu_until = float("-inf")
        self.fit: Fit | None = None
        self.problem: str | None = None

    def look(self, roster: Roster | None, states: Iterable[StateDump], now: float) -> None:
        """Takes in by which SAs packets go now."""
        peers = {} if roster is None else {peer.remote: peer for peer in roster.peers}
        narrowest: tuple[int, int, Peer] | None = None
        networks: list[IpNetwork] = []
        for state in states:
            peer = peers.get(state.destination)
            if peer is None or not owns_state(state) or not _limits(state):
                continue
            path = self._path_mtu(state.source, state.destination)
            carried = None if path is None else _carried(state, path)
            if path is None or carried is None:
                continue
            networks += (*peer.place.networks, *map(ip_network, peer.place.addresses))
            if narrowest is None or carried < narrowest[0]:
                narrowest = carried, path, peer
        self._make_fit(tuple(dict.fromkeys(networks)), None if narrowest is None else narrowest[0])
        before, self.fit = self.fit, None
        if narrowest is not None and roster is not None:
            carried, path, peer = narrowest
            pod_mtu = self._pods(roster, now)
            self.fit = Fit(pod_mtu=pod_mtu, carried=carried, node=peer.place.name, path_mtu=path)
            if self.fit != before and self.fit.problem is not None:
                _log.warning("%s", self.fit.problem)

    def _make_fit(self, networks: tuple[IpNetwork, ...], carried: int | None) -> None:
        """Makes the table what it should be, if it is not."""
        try:
            if carried is None or not networks:
                if self._clamped is not None or not self._removed:
                    self._clamp.remove()
                self._clamped, self._removed = None, True
            elif self._clamped != (networks, carried) or not self._clamp.exists():
                self._clamp.make(networks, inner_mtu=carried)
                self._clamped, self._removed = (networks, carried), False
            self.problem = None
        except XfrmError as error:
            self._clamped = None
            # A kernel without nftables has no table of ours either: nothing is said where nothing is needed.
            if carried is not None and self.problem != str(error):
                _log.warning("TCP can't be made to fit into tunnels, and hangs where ICMP is dropped: %s", error)
            self.problem = str(error)

    def _pods(self, roster: Roster, now: float) -> int | None:
        if now >= self._pod_mtu_until:
            self._pod_mtu_until = now + POD_MTU_SECONDS
            try:
                self._pod_mtu = self._read_pod_mtu(roster.own.networks)
            except XfrmError as error:
                self._pod_mtu = None
                _log.warning("the pods' MTU is not known: %s", error)
        return self._pod_mtu


def _limits(state: State) -> bool:
    """Whether packets go by this state, and whole."""
    if state.direction is StateDirection.IN:
        return False
    cuts = state.mode is Mode.IPTFS and not (isinstance(state.iptfs, IptfsOut) and state.iptfs.dont_fragment)
    return state.mode is Mode.TUNNEL or (state.mode is Mode.IPTFS and not cuts)


def _carried(state: StateDump, path: int) -> int | None:
    """None where the kernel keeps the algorithm to itself."""
    try:
        return _inner_mtu(EspSizes.of(state), path)
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _inner_mtu(sizes: EspSizes, path: int) -> int:
    return sizes.inner_mtu(path)
