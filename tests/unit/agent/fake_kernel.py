"""A kernel's XFRM database in memory, as strict as the real one about what the agent relies on."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count

from hauberk_ike import IpAddress
from hauberk_xfrm import (
    AddPolicy,
    AddState,
    DeletePolicy,
    DeleteState,
    KernelAbilities,
    Mode,
    NotFound,
    Policy,
    PolicyExists,
    ReqId,
    Request,
    Slot,
    Spi,
    State,
    StateDump,
    StateExists,
    UpdatePolicy,
    UpdateState,
    XfrmError,
)

ABLE = KernelAbilities(
    release="7.3.4",
    xfrm=True,
    esp4=True,
    esp6=True,
    sa_direction=True,
    iptfs=False,
    xfrm_interface=False,
    problems=(),
)


@dataclass(slots=True)
class FakeKernel:
    """`order` holds the states' keys as they were completed.

    Of a reqid's outbound states the one is used that was added in the latest second, and of those of one second the
    oldest: a kernel takes that one when its table has grown in between (xfrm_state_look_at in net/xfrm/xfrm_state.c).
    """

    able: KernelAbilities = ABLE
    states: dict[tuple[IpAddress, Spi], StateDump] = field(default_factory=dict[tuple[IpAddress, Spi], StateDump])
    policies: dict[Slot, Policy] = field(default_factory=dict[Slot, Policy])
    order: list[tuple[IpAddress, Spi]] = field(default_factory=list[tuple[IpAddress, Spi]])
    refuse: XfrmError | None = None
    """What every new state is refused with."""
    clock: Callable[[], float] = lambda: 0.0
    """The node's wall clock, in seconds."""
    _spis: count[int] = field(default_factory=lambda: count(0xC0000001))

    def abilities(self) -> KernelAbilities:
        return self.able

    def allocate_spi(
        self, *, source: IpAddress, destination: IpAddress, reqid: ReqId, mode: Mode = Mode.TUNNEL, if_id: int = 0
    ) -> Spi:
        if self.refuse is not None:
            raise self.refuse
        spi = Spi(next(self._spis))
        larval = State(source=source, destination=destination, spi=spi, reqid=reqid, mode=mode, aead=None, if_id=if_id)
        self.states[destination, spi] = _dump(larval, larval=True)
        return spi

    def add_state(self, state: State) -> None:
        if self.refuse is not None:
            raise self.refuse
        if (state.destination, state.spi) in self.states:
            raise StateExists("add", str(state), errno.EEXIST)
        self._complete(state)

    def update_state(self, state: State) -> None:
        if self.refuse is not None:
            raise self.refuse
        found = self.states.get((state.destination, state.spi))
        if found is None:
            raise NotFound("update", str(state), errno.ESRCH)
        if found.larval:
            self._complete(state)
        elif (found.encapsulation is None) != (state.encapsulation is None):
            raise XfrmError("update", str(state), errno.EINVAL, "Invalid argument")
        else:
            # xfrm_state_update in net/xfrm/xfrm_state.c: of a complete state no more is changed than this.
            changed = replace(found, encapsulation=state.encapsulation, lifetime=state.lifetime)
            self.states[state.destination, state.spi] = changed

    def delete_state(self, *, destination: IpAddress, spi: Spi, missing_ok: bool = True) -> None:
        if self.states.pop((destination, spi), None) is None:
            if not missing_ok:
                raise NotFound("delete", f"{spi:#x}", errno.ESRCH)
            return
        if (destination, spi) in self.order:
            self.order.remove((destination, spi))

    def get_state(self, destination: IpAddress, spi: Spi) -> StateDump | None:
        return self.states.get((destination, spi))

    def add_policy(self, policy: Policy) -> None:
        if policy.slot in self.policies:
            raise PolicyExists("add", str(policy), errno.EEXIST)
        self.policies[policy.slot] = policy

    def update_policy(self, policy: Policy) -> None:
        self.policies[policy.slot] = policy

    def delete_policy(self, policy: Policy | Slot, *, missing_ok: bool = True) -> None:
        slot = policy.slot if isinstance(policy, Policy) else policy
        if self.policies.pop(slot, None) is None and not missing_ok:
            raise NotFound("delete", str(slot), errno.ENOENT)

    def dump_states(self) -> list[StateDump]:
        return list(self.states.values())

    def dump_policies(self) -> list[Policy]:
        return list(self.policies.values())

    def apply(self, requests: Sequence[Request]) -> list[XfrmError | None]:
        return [self._apply(request) for request in requests]

    def _apply(self, request: Request) -> XfrmError | None:
        try:
            match request:
                case AddState(state=state):
                    self.add_state(state)
                case UpdateState(state=state):
                    self.update_state(state)
                case DeleteState(destination=destination, spi=spi):
                    self.delete_state(destination=destination, spi=spi, missing_ok=False)
                case AddPolicy(policy=policy):
                    self.add_policy(policy)
                case UpdatePolicy(policy=policy):
                    self.update_policy(policy)
                case DeletePolicy(slot=slot):
                    self.delete_policy(slot, missing_ok=False)
        except XfrmError as error:
            return error
        return None

    def outbound(self, destination: IpAddress) -> StateDump | None:
        """The state that packets to that address leave with, where there is one reqid."""
        return _preferred(self._outbound(destination))

    def all_outbound(self, destination: IpAddress) -> list[StateDump]:
        """Of each reqid, the state that its packets to that address leave with."""
        by_reqid: dict[ReqId, list[StateDump]] = {}
        for state in self._outbound(destination):
            by_reqid.setdefault(state.reqid, []).append(state)
        return [state for states in by_reqid.values() if (state := _preferred(states)) is not None]

    def _outbound(self, destination: IpAddress) -> list[StateDump]:
        return [self.states[key] for key in self.order if key[0] == destination]

    def take(self, destination: IpAddress, spi: Spi) -> bool:
        """A packet arrives: whether there is a complete state for it."""
        state = self.states.get((destination, spi))
        if state is None or state.larval:
            return False
        self.states[destination, spi] = replace(state, packets=state.packets + 1, bytes=state.bytes + 100)
        return True

    def complete_states(self) -> list[StateDump]:
        return [state for state in self.states.values() if not state.larval]

    def _complete(self, state: State) -> None:
        assert (state.aead is None) is not (state.authenc is None)
        added = int(self.clock()) if state.created_at is None else state.created_at
        self.states[state.destination, state.spi] = replace(_dump(state, larval=False), add_time=added)
        self.order.append((state.destination, state.spi))


def _preferred(states: Sequence[StateDump]) -> StateDump | None:
    return max(states, key=lambda state: state.add_time or 0, default=None)  # the first of those that tie


def _dump(state: State, *, larval: bool) -> StateDump:
    return StateDump(
        **{each.name: getattr(state, each.name) for each in fields(State)},
        larval=larval,
        algorithm=state.aead.name if state.aead else state.authenc.cipher if state.authenc else None,
        bytes=0,
        packets=0,
        add_time=None,
        use_time=None,
        last_used=None,
        sequence=0,
        replay_packets=0,
        replay_window_packets=0,
        integrity_failed=0,
    )
