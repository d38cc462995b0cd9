"""The states that an earlier run of the agent has left in the kernel, until a pair claims them or nobody does."""

from __future__ import annotations

from collections.abc import Iterable

from hauberk_agent.link import Child
from hauberk_agent.pair import ChildSpec, PairSpec
from hauberk_ike import UdpEncapsulation
from hauberk_xfrm import ReqId, StateDump


class FoundStates:
    """By request id, which is kept on disk and outlives the agent."""

    def __init__(self) -> None:
        self._by_reqid: dict[ReqId, list[StateDump]] = {}

    def add(self, states: Iterable[StateDump]) -> None:
        for state in states:
            self._by_reqid.setdefault(state.reqid, []).append(state)

    def claim(self, spec: PairSpec, now: float) -> list[Child]:
        """A pair's: each state is one direction of a CHILD SA without an IKE SA."""
        return [
            _child_of(state, spec, child, now)
            for child in spec.children
            for state in self._by_reqid.pop(child.reqid, [])
        ]

    def give_up(self) -> list[StateDump]:
        """All that no pair has claimed by now."""
        left = [state for states in self._by_reqid.values() for state in states]
        self._by_reqid.clear()
        return left

    def without(self, states: Iterable[StateDump]) -> list[StateDump]:
        """Of these, those that do not wait here for a pair."""
        waiting = {(each.destination, each.spi) for found in self._by_reqid.values() for each in found}
        return [state for state in states if (state.destination, state.spi) not in waiting]


def _child_of(state: StateDump, spec: PairSpec, child: ChildSpec, now: float) -> Child:
    outbound = state.destination in spec.peer.place.addresses
    return Child(
        label=child.label,
        reqid=state.reqid,
        local=state.source if outbound else state.destination,
        remote=state.destination if outbound else state.source,
        spi_in=None if outbound else state.spi,
        spi_out=state.spi if outbound else None,
        since=now,
        mode=state.mode,
        outbound=outbound,
        created_at=(state.add_time or 0) if outbound else 0,
        if_id=state.if_id,
        encapsulation=_encapsulation(state, outbound=outbound),
    )


def _encapsulation(state: StateDump, *, outbound: bool) -> UdpEncapsulation | None:
    ports = state.encapsulation
    if ports is None:
        return None
    local, remote = (ports.source, ports.destination) if outbound else (ports.destination, ports.source)
    return UdpEncapsulation(local_port=local, remote_port=remote)
