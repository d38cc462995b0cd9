"""SAs and policies in the kernel, for `--install`: made for this run, and removed with it.

The order loses no packet. As a rekey's initiator both directions are installed at once: the peer's answer says that
it is ready. As its responder the inbound state stands before the answer goes out, and the outbound one, which the
kernel would use at once, waits until the peer shows that it is ready: it deletes the old CHILD SA, or sends on the new.
A replaced inbound state lingers, for packets that are under way. All the same where a peer reauthenticates, and sets
up another IKE SA with the same CHILD SA: but as it may have lost the old one, we wait for it a few seconds only.

Everything carries request ids from a band of this command's own, so that it is never taken for somebody else's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import Random, SystemRandom
from typing import Final, Protocol

from hauberk_diagnose.claims import REQIDS, Claim, Claimer
from hauberk_diagnose.selector import kernel_selectors
from hauberk_ike import ChildConfig, ChildSaUp, IkeSaId, IpAddress, Mode, PeerConfig, SpiUnavailable
from hauberk_xfrm import (
    Action,
    Aead,
    Authenc,
    Direction,
    Events,
    Expiry,
    NotFound,
    Policy,
    ReqId,
    Slot,
    Spi,
    State,
    StateDirection,
    StateDump,
    Template,
    UdpPorts,
    XfrmError,
)
from hauberk_xfrm import Mode as KernelMode
from hauberk_xfrm.succession import Succession
from hauberk_xfrm.wear import SOFT_SHARE, Wear

PRIORITY: Final = 0x0010_0000
"""Before the agent's policies, after those that other daemons make for single addresses."""
REPLAY_WINDOW: Final = 1024
LINGER_SECONDS: Final = 5.0
OUTBOUND_WAIT_SECONDS: Final = 3.0
"""How long a peer that sets up a CHILD SA anew is sent to on the old one, if it shows nothing."""
POLL_SECONDS: Final = 0.2
_SPIS: Final = range(0xC000_0000, 0xD000_0000)

_MODES: Final = {Mode.TUNNEL: KernelMode.TUNNEL, Mode.TRANSPORT: KernelMode.TRANSPORT}


class Kernel(Protocol):
    """What is needed of hauberk_xfrm.Xfrm here."""

    def allocate_spi(
        self, *, source: IpAddress, destination: IpAddress, reqid: ReqId, mode: KernelMode = KernelMode.TUNNEL
    ) -> Spi: ...
    def add_state(self, state: State) -> None: ...
    def update_state(self, state: State) -> None: ...
    def delete_state(self, *, destination: IpAddress, spi: Spi, missing_ok: bool = True) -> None: ...
    def get_state(self, destination: IpAddress, spi: Spi) -> StateDump | None: ...
    def add_policy(self, policy: Policy) -> None: ...
    def update_policy(self, policy: Policy) -> None: ...
    def delete_policy(self, policy: Policy | Slot, *, missing_ok: bool = True) -> None: ...


class Installation(Protocol):
    """Where CHILD SAs go. Methods that touch the kernel raise XfrmError, `allocate` SpiUnavailable."""

    def allocate(self, child: ChildConfig, peer: PeerConfig) -> int:
        """An SPI for an inbound SA."""
        ...

    def release(self, spi: int, peer: PeerConfig) -> None:
        """That SPI is not needed after all."""
        ...

    def up(self, event: ChildSaUp, *, now: float) -> None:
        """A CHILD SA is agreed on."""
        ...

    def down(self, spi_in: int, *, now: float) -> None:
        """A CHILD SA has ended."""
        ...

    def drop(self, ike_sa: IkeSaId, *, now: float) -> None:
        """An IKE SA has ended or was forgotten: its children end without a word."""
        ...

    def hand_over(self, old: IkeSaId, new: IkeSaId) -> None:
        """An IKE SA was rekeyed: its children belong to another one."""
        ...

    def worn(self, heard: Events) -> list[tuple[IkeSaId, int]]:
        """Which CHILD SAs have sent enough, by IKE SA and inbound SPI: as the kernel says, or where it could not say
        all, as its counters show."""
        ...

    def counters(self, spi_in: int) -> dict[str, int]:
        """What a CHILD SA has carried: `bytes_in`, `packets_in`, `bytes_out`, `packets_out`; empty if not known."""
        ...

    def handle_timer(self, now: float) -> None:
        """Does what is due."""
        ...

    def next_due(self, now: float) -> float | None:
        """When `handle_timer` is wanted."""
        ...

    def remove_everything(self) -> None:
        """Removes what is left of this run."""
        ...


class NoInstallation:
    """Without `--install`: SPIs are drawn at random, and keys are not used."""

    def __init__(self) -> None:
        self._spis: set[int] = set()

    def allocate(self, child: ChildConfig, peer: PeerConfig) -> int:
        while (spi := _SPIS.start + int.from_bytes(os.urandom(4)) % len(_SPIS)) in self._spis:
            pass
        self._spis.add(spi)
        return spi

    def release(self, spi: int, peer: PeerConfig) -> None:
        self._spis.discard(spi)

    def up(self, event: ChildSaUp, *, now: float) -> None:
        """Nothing to do."""

    def down(self, spi_in: int, *, now: float) -> None:
        self._spis.discard(spi_in)

    def drop(self, ike_sa: IkeSaId, *, now: float) -> None:
        """Nothing to do."""

    def hand_over(self, old: IkeSaId, new: IkeSaId) -> None:
        """Nothing to do."""

    def worn(self, heard: Events) -> list[tuple[IkeSaId, int]]:
        return []

    def counters(self, spi_in: int) -> dict[str, int]:
        return {}

    def handle_timer(self, now: float) -> None:
        """Nothing to do."""

    def next_due(self, now: float) -> float | None:
        return None

    def remove_everything(self) -> None:
        """Nothing to do."""


@dataclass(slots=True, kw_only=True)
class _Installed:
    """A CHILD SA in the kernel. `outbound` is the state that waits, until it is installed: at `due`, if not before."""

    ike_sa: IkeSaId
    local: IpAddress
    remote: IpAddress
    spi_in: Spi
    spi_out: Spi
    reqid: ReqId
    replaces: int | None
    policies: tuple[Policy, ...]
    outbound: State | None = field(repr=False)
    due: float | None


class KernelInstallation:
    """With `--install`."""

    def __init__(
        self,
        kernel: Kernel,
        *,
        directions: bool,
        claim: Claimer,
        reqids_in_use: Iterable[int] = (),
        wear: Mapping[tuple[str, str], Wear] | None = None,
        chance: Random | None = None,
    ) -> None:
        """directions: whether the kernel knows a state's direction (KernelAbilities.sa_direction). reqids_in_use: those
        in the kernel already. wear: how much a peer's child may carry, by their names."""
        self._kernel = kernel
        self._directions = directions
        self._claim = claim
        self._claims: list[Claim] = []
        self._taken = set(reqids_in_use)
        self._wear = wear or {}
        self._chance = chance or SystemRandom()
        self._succession = Succession()
        self._reqids: dict[tuple[str, str], ReqId] = {}
        self._children: dict[int, _Installed] = {}
        """By inbound SPI."""
        self._policies: dict[Slot, int] = {}
        """How many children want a policy of ours: a rekeyed child's stay in place."""
        self._lingering: list[tuple[float, IpAddress, Spi]] = []
        self._allocated: dict[int, IpAddress] = {}

    def allocate(self, child: ChildConfig, peer: PeerConfig) -> int:
        try:
            spi = self._kernel.allocate_spi(
                source=peer.remote.host,
                destination=peer.local.host,
                reqid=self._reqid(peer, child.label),
                mode=_MODES[child.mode],
            )
        except XfrmError as error:
            raise SpiUnavailable(str(error)) from error
        self._allocated[spi] = peer.local.host
        return spi

    def release(self, spi: int, peer: PeerConfig) -> None:
        destination = self._allocated.pop(spi, peer.local.host)
        self._kernel.delete_state(destination=destination, spi=Spi(spi))

    def up(self, event: ChildSaUp, *, now: float) -> None:
        local, remote = event.local, event.remote
        reqid = self._reqid(event.peer, event.label)
        mode = _MODES[event.mode]
        ports = event.encapsulation
        inbound = State(
            source=remote,
            destination=local,
            spi=Spi(event.spi_in),
            reqid=reqid,
            mode=mode,
            aead=Aead.of(event.keys_in),
            authenc=Authenc.of(event.keys_in),
            replay_window=REPLAY_WINDOW,
            esn=event.keys_in.esn,
            direction=StateDirection.IN if self._directions else None,
            encapsulation=UdpPorts(source=ports.remote_port, destination=ports.local_port) if ports else None,
        )
        outbound = State(
            source=local,
            destination=remote,
            spi=Spi(event.spi_out),
            reqid=reqid,
            mode=mode,
            aead=Aead.of(event.keys_out),
            authenc=Authenc.of(event.keys_out),
            replay_window=REPLAY_WINDOW,
            esn=event.keys_out.esn,
            direction=StateDirection.OUT if self._directions else None,
            encapsulation=UdpPorts(source=ports.local_port, destination=ports.remote_port) if ports else None,
            lifetime=self._wear.get((event.peer.name, event.label), Wear()).lifetime(
                esn=event.keys_out.esn, share=self._chance.uniform(*SOFT_SHARE)
            ),
        )
        renewed = None if event.initiator or event.rekeyed_spi_in is not None else self._with_reqid(reqid)
        child = _Installed(
            ike_sa=event.ike_sa,
            local=local,
            remote=remote,
            spi_in=inbound.spi,
            spi_out=outbound.spi,
            reqid=reqid,
            replaces=event.rekeyed_spi_in if renewed is None else renewed,
            policies=_policies(event, local, remote, reqid, mode),
            # A redundant one is never sent on.
            outbound=None if event.redundant else outbound,
            due=None if renewed is None else now + OUTBOUND_WAIT_SECONDS,
        )
        self._children[event.spi_in] = child
        try:
            self._kernel.update_state(inbound)
        except NotFound:
            # The larval state has expired meanwhile (net.core.xfrm_acq_expires); its SPI is still free.
            self._kernel.add_state(inbound)
        self._allocated.pop(event.spi_in, None)
        if event.initiator or child.replaces not in self._children:
            self._install_outbound(child)
        for policy in child.policies:
            if not self._policies.get(policy.slot):
                self._kernel.add_policy(policy)
            else:
                # Ours, and perhaps to an address that the peer has left.
                self._kernel.update_policy(policy)
            self._policies[policy.slot] = self._policies.get(policy.slot, 0) + 1

    def down(self, spi_in: int, *, now: float) -> None:
        successors = [child for child in self._children.values() if child.replaces == spi_in]
        for successor in successors:
            self._install_outbound(successor)
        self._remove(spi_in, linger_until=now + LINGER_SECONDS if successors else None)

    def hand_over(self, old: IkeSaId, new: IkeSaId) -> None:
        for child in self._children.values():
            if child.ike_sa == old:
                child.ike_sa = new

    def drop(self, ike_sa: IkeSaId, *, now: float) -> None:
        ending = [spi_in for spi_in, child in self._children.items() if child.ike_sa == ike_sa]
        for spi_in in reversed(ending):  # a successor that ends too, before what it was to replace
            self.down(spi_in, now=now)

    def worn(self, heard: Events) -> list[tuple[IkeSaId, int]]:
        told = {(each.destination, each.spi) for each in heard.told if isinstance(each, Expiry) and not each.hard}
        return [
            (child.ike_sa, spi_in)
            for spi_in, child in self._children.items()
            if (child.remote, child.spi_out) in told or (heard.missed and self._is_worn(child))
        ]

    def _is_worn(self, child: _Installed) -> bool:
        state = self._kernel.get_state(child.remote, child.spi_out)
        return state is not None and state.is_worn

    def counters(self, spi_in: int) -> dict[str, int]:
        child = self._children.get(spi_in)
        if child is None:
            return {}
        inbound = self._kernel.get_state(child.local, child.spi_in)
        outbound = self._kernel.get_state(child.remote, child.spi_out)
        return {
            "bytes_in": inbound.bytes if inbound else 0,
            "packets_in": inbound.packets if inbound else 0,
            "bytes_out": outbound.bytes if outbound else 0,
            "packets_out": outbound.packets if outbound else 0,
        }

    def handle_timer(self, now: float) -> None:
        for child in self._waiting():
            state = self._kernel.get_state(child.local, child.spi_in)
            if (state is not None and state.packets) or (child.due is not None and now >= child.due):
                self._install_outbound(child)
        due = [entry for entry in self._lingering if entry[0] <= now]
        self._lingering = [entry for entry in self._lingering if entry[0] > now]
        for _, destination, spi in due:
            self._kernel.delete_state(destination=destination, spi=spi)

    def next_due(self, now: float) -> float | None:
        times = [entry[0] for entry in self._lingering]
        if self._waiting():
            times.append(now + POLL_SECONDS)
        return min(times, default=None)

    def remove_everything(self) -> None:
        for spi_in in tuple(self._children):
            self._remove(spi_in)
        for _, destination, spi in self._lingering:
            self._kernel.delete_state(destination=destination, spi=spi)
        for spi, destination in self._allocated.items():
            self._kernel.delete_state(destination=destination, spi=Spi(spi))
        self._lingering.clear()
        self._allocated.clear()
        while self._claims:
            self._claims.pop().close()

    def _waiting(self) -> list[_Installed]:
        """Those whose peer has not shown yet that it is ready."""
        return [child for child in self._children.values() if child.outbound is not None]

    def _with_reqid(self, reqid: ReqId) -> int | None:
        """The inbound SPI of the newest child with that request id: of the same peer and label."""
        return next((spi_in for spi_in, child in reversed(self._children.items()) if child.reqid == reqid), None)

    def _install_outbound(self, child: _Installed) -> None:
        state, child.outbound = child.outbound, None
        if state is not None:
            self._kernel.add_state(replace(state, created_at=self._succession.next(state.reqid)))

    def _remove(self, spi_in: int, *, linger_until: float | None = None) -> None:
        """linger_until: what is still under way is taken until then."""
        child = self._children.pop(spi_in, None)
        if child is None:
            return
        for policy in child.policies:
            left = self._policies.get(policy.slot, 0) - 1
            if left > 0:
                self._policies[policy.slot] = left
            elif left == 0:
                del self._policies[policy.slot]
                self._kernel.delete_policy(policy)
        self._kernel.delete_state(destination=child.remote, spi=child.spi_out)
        if linger_until is not None:
            self._lingering.append((linger_until, child.local, child.spi_in))
        else:
            self._kernel.delete_state(destination=child.local, spi=child.spi_in)

    def _reqid(self, peer: PeerConfig, label: str) -> ReqId:
        """One for each peer and label, and not one that is in the kernel already, from another run."""
        key = (peer.name, label)
        if key not in self._reqids:
            self._reqids[key] = self._claim_one()
        return self._reqids[key]

    def _claim_one(self) -> ReqId:
        for number in REQIDS:
            if number in self._taken:
                continue
            self._taken.add(number)
            claim = self._claim(number)
            if claim is not None:
                self._claims.append(claim)
                return ReqId(number)
        raise SpiUnavailable("all request ids are in use")


def _policies(
    event: ChildSaUp, local: IpAddress, remote: IpAddress, reqid: ReqId, mode: KernelMode
) -> tuple[Policy, ...]:
    """Inbound, forwarded (what comes out of a tunnel for somebody else), and last outbound. Raises ValueError.

    In this order no packet goes out whose answer would still be dropped.
    """
    outbound = Template(source=local, destination=remote, reqid=reqid, mode=mode)
    # Inbound any source will do: the SA authenticates its peer, whose address may change.
    inbound = Template(source=None, destination=local, reqid=reqid, mode=mode)
    directions = (Direction.IN, Direction.FWD) if mode is KernelMode.TUNNEL else (Direction.IN,)
    return (
        *(
            Policy(selector=selector, direction=direction, priority=PRIORITY, action=Action.ALLOW, templates=(inbound,))
            for selector in kernel_selectors(event.ts_remote, event.ts_local)
            for direction in directions
        ),
        *(
            Policy(
                selector=selector,
                direction=Direction.OUT,
                priority=PRIORITY,
                action=Action.ALLOW,
                templates=(outbound,),
            )
            for selector in kernel_selectors(event.ts_local, event.ts_remote)
        ),
    )
