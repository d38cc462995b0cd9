"""The agent: takes snapshots from its source and makes kernel, sessions and report follow them.

Made by hauberk_agent.cli. All the work is in one asyncio loop; every task is in the task group of `Agent.run`, and what
a task does not expect ends the agent, whose successor takes over what is in the kernel.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from random import Random
from typing import Final

from cryptography import x509

from hauberk_agent.agreed_modes import agreed_modes, in_modes
from hauberk_agent.blocked_paths import BlockedPaths
from hauberk_agent.boot_guard import BootGuard, policies_at_boot
from hauberk_agent.bypass_watch import BypassWatch
from hauberk_agent.cache import DesiredCache
from hauberk_agent.clear_traffic import LOOK_SECONDS, ClearTraffic
from hauberk_agent.client_ports import first_client_port
from hauberk_agent.clock import ClockWatch
from hauberk_agent.datapath import Datapath, find_datapath, misfits, without_blocks
from hauberk_agent.deposit import Deposit
from hauberk_agent.desired import Desired
from hauberk_agent.esp_probes import EspProbes
from hauberk_agent.health import HealthServer
from hauberk_agent.identity import Identity, IdentityKeeper, IdentityStore, Wanted, parse_roots
from hauberk_agent.interception import desired_interceptor
from hauberk_agent.kernel_watch import KINDS, KernelWatch
from hauberk_agent.lock import AgentLock
from hauberk_agent.own_pods import backstops
from hauberk_agent.packet_sizes import LOOK_SECONDS as SIZES_SECONDS
from hauberk_agent.packet_sizes import PacketSizes
from hauberk_agent.pair import PairSpec
from hauberk_agent.pairing import child_keys, pair_specs
from hauberk_agent.passage import OwnSteps
from hauberk_agent.path_widths import PathWidths
from hauberk_agent.policy import desired_policies
from hauberk_agent.reconciler import Outcome, our_states, reconcile_policies
from hauberk_agent.report import Facts, Readiness, carried_out, compose, count_up
from hauberk_agent.reporting import Reporting
from hauberk_agent.reqid import ChildKey, ReqIdTable
from hauberk_agent.roster import Roster, compile_roster
from hauberk_agent.route_reconciler import reconcile_routing
from hauberk_agent.sendable import SendableChildren
from hauberk_agent.sessions import Sessions
from hauberk_agent.source import Reporter, Signer, Source
from hauberk_agent.status_socket import StatusServer
from hauberk_agent.transport import Transport
from hauberk_agent.waiting import wait_for
from hauberk_api.names import NodeName, NodeUid
from hauberk_api.plan import Phase, reached
from hauberk_api.report import BootReport, EncapsulatedPeer, ReportStatus
from hauberk_api.tunnel import Establish
from hauberk_ike import EndpointSettings, ProposalError
from hauberk_xfrm import (
    Acquire,
    ClearCounter,
    Mode,
    NetworkDevice,
    PacketTap,
    Policy,
    ReqId,
    Route,
    Routing,
    SegmentClamp,
    Xfrm,
    XfrmError,
    addressed_devices,
    network_devices,
)
from hauberk_xfrm.path_mtu import PathMtu, largest_device_mtu
from hauberk_xfrm.path_routes import ROUTE_MARK, PathRoutes

_log = logging.getLogger("hauberk.agent")

_RECONCILE_SECONDS: Final = 30.0
_SOON_SECONDS: Final = 2.0
"""Until what has failed is tried again."""
_CACHE_SECONDS: Final = 2.0
_LOCK_SAY_SECONDS: Final = 30.0
_BREATH_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 2.0
"""How often what has gone by the SAs is looked at,"""
_LOOK_SECONDS_A_STATE: Final = 0.001
"""and how long after a look at so many: a hundredth of the time goes into that."""
_POLL_SECONDS: Final = 0.5
"""How often a pair that has SAs is looked at until it can be sent to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    node_name: NodeName
    version: str
    state_directory: Path
    ike_port: int = 500
    encapsulation_port: int = 4500
    health_port: int = 9470
    holder_socket: Path | None = None
    """Where the socket holder of this node is asked, if there is one."""
    boot_guard: bool = False
    """Whether to keep the file that the host's boot guard loads."""
    bypass_watch: bool = True
    """Whether to look, now and then, if pods' packets leave in clear past the IP stack. Needs CAP_NET_RAW."""


class Agent:
    """One node's agent."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        source: Source,
        reporter: Reporter,
        kernel: Xfrm,
        signer: Signer | None = None,
        fixed_identity: Callable[[], Identity] | None = None,
        chance: Random | None = None,
        clock: ClockWatch | None = None,
    ) -> None:
        """Give a signer, which is asked for certificates, or where to read a fixed identity.

        clock: hears what time others have.
        """
        self.settings = settings
        self.source = source
        self.kernel = kernel
        self.clock = clock or ClockWatch()
        self._fixed_identity = fixed_identity
        self._chance = chance or Random(os.urandom(16))  # noqa: S311 - for jitter
        self._lock = AgentLock(settings.state_directory)
        self._cache = DesiredCache(settings.state_directory / "desired.json")
        self._boot_guard = BootGuard(settings.state_directory, wanted=settings.boot_guard)
        self.boot = BootReport(guard=self._boot_guard.found())
        self._reqids = ReqIdTable(settings.state_directory / "reqids.json")
        self._blocked = BlockedPaths(settings.state_directory / "blocked-paths.json")
        self._keeper = (
            IdentityKeeper(
                IdentityStore(settings.state_directory),
                signer,
                on_identity=self._use_identity,
                chance=self._chance,
            )
            if signer is not None
            else None
        )
        self._readiness = Readiness()
        self._cache_wake = asyncio.Event()
        self._reconcile_wake = asyncio.Event()
        self._pairs_wake = asyncio.Event()
        self._acquires: KernelWatch | None = None
        self._sizes_wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._policies: tuple[Policy, ...] = ()
        self._specs: dict[NodeUid, PairSpec] = {}
        self._modes: dict[ReqId, Mode] = {}
        self._routing = Routing()
        self._routing_problems: tuple[str, ...] = ()
        self._routing_left = True
        self._apply_problems: tuple[str, ...] = ()
        self._state_left = True
        self._identity_error: str | None = None
        self.started_at = datetime.now(UTC)
        self.desired: Desired | None = None
        self.from_cache = False
        self.roster: Roster | None = None
        self.roots: tuple[x509.Certificate, ...] = ()
        self.identity: Identity | None = None
        self.outcome: Outcome | None = None
        self.datapath = Datapath()
        self._devices: tuple[NetworkDevice, ...] = ()
        self.abilities = kernel.abilities()
        self.sessions = Sessions(
            kernel=kernel,
            directions=self.abilities.sa_direction,
            entropy=os.urandom,
            wall_clock=lambda: datetime.now(UTC),
            chance=self._chance,
            settings=EndpointSettings(encapsulation_port=settings.encapsulation_port),
            blocked=self._blocked,
        )
        self.sessions.on_change = self._pairs_changed
        self.reporting = Reporting(
            reporter,
            node_name=settings.node_name,
            compose=self._compose,
            pairs=lambda: self.sessions.pairs,
            chance=self._chance,
        )
        self._probes = EspProbes(iptfs=self.abilities.iptfs)
        self.sessions.esp_paths.probe = self._probes.send
        self._sendable = SendableChildren(self.sessions.in_use, unproved=self.sessions.esp_paths.is_unproved)
        self.clear = ClearTraffic(ClearCounter())
        self.bypass = BypassWatch(PacketTap, addressed_devices)
        self._path_mtu, self._link_mtu = PathMtu(), PathMtu(mark=ROUTE_MARK)
        self.widths = PathWidths(self.sessions.path_searches, PathRoutes(), link_mtu=self._link_mtu.read)
        self.sessions.on_path_found = self._sizes_wake.set
        self.sizes = PacketSizes(SegmentClamp(), path_mtu=self._path_mtu.read, pod_mtu=largest_device_mtu)
        self._steps = OwnSteps()
        self._carried_out: dict[str, Phase] = {}
        """By tunnel UID: the phase last carried out."""
        self._transport = Transport(
            self.sessions,
            port=settings.ike_port,
            encapsulation_port=settings.encapsulation_port,
            deposit=Deposit(settings.holder_socket) if settings.holder_socket is not None else None,
        )

    # The life of an agent

    def stop(self) -> None:
        """Ends `run`. Nothing is removed and nothing is sent: the kernel goes on."""
        self._stop.set()

    async def run(self, status: StatusServer) -> None:
        """Until stopped. Raises what a task raised; OSError when the state directory, a port or a socket fails."""
        if not await self._alone():
            return
        health = HealthServer(self.settings.health_port, ready=self.unready)
        watch: KernelWatch | None = None
        try:
            await health.start()
            await status.start()
            self._begin()
            if self.usable:
                watch = KernelWatch(
                    self.kernel.watch(*KINDS),
                    self.sessions,
                    reconcile=self._reconcile_wake.set,
                    pump=self._transport.pump,
                )
            async with asyncio.TaskGroup() as group:
                works = [
                    self.source.run(),
                    self._follow_source(),
                    self._reconcile_for_ever(),
                    self._follow_pairs(),
                    self._count_for_ever(),
                    self._watch_bypass_for_ever(),
                    self._fit_for_ever(),
                    self._look_for_ever(),
                    self.reporting.write_for_ever(),
                    self.reporting.inquire_for_ever(),
                    self._cache_for_ever(),
                ]
                if self._keeper is not None:
                    works.append(self._keeper.run())
                tasks = [group.create_task(work) for work in works]
                await self._stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            if watch is not None:
                watch.close()
            self._hear_acquires(wanted=False)
            self._transport.close()
            self._probes.close()
            self._routing.close()
            self._path_mtu.close()
            self._link_mtu.close()
            status.close()
            health.close()
            self._lock.release()
        _log.info("stopped; SAs and policies stay in the kernel")

    async def _alone(self) -> bool:
        """Waits until no other agent runs on this node. False if stopped meanwhile."""
        said_at = float("-inf")
        loop = asyncio.get_running_loop()
        while not self._lock.acquire():
            if self._stop.is_set():
                return False
            if loop.time() >= said_at + _LOCK_SAY_SECONDS:
                said_at = loop.time()
                _log.warning("another agent runs on this node (%s); waiting", self.settings.state_directory)
            await asyncio.sleep(0.1)
        return True

    def _begin(self) -> None:
        """Takes over what is in the kernel and on disk."""
        for problem in self.abilities.problems:
            _log.error("%s", problem)
        self._look_at_datapath()
        if self.usable:
            self.sessions.adopt(self.kernel.dump_states())
        cached = self._cache.load(self.settings.node_name)
        if cached is not None:
            _log.info("following the cached plan until the source answers")
            self.from_cache = True
            self.boot = self.boot.model_copy(update={"cached_plan": self._cache.lasting})
            self._follow(cached)

    # What others ask

    @property
    def usable(self) -> bool:
        """Whether this kernel has what is needed."""
        return not self.abilities.problems

    @property
    def identity_problem(self) -> str | None:
        return self._keeper.problem if self._keeper is not None else self._identity_error

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps this node from doing as planned, its peers aside."""
        reconciled = self.outcome.problems if self.outcome is not None else ()
        transport = self._transport.problems if self.usable else ()
        return (*self._apply_problems, *reconciled, *self._routing_problems, *transport)

    def unready(self) -> str | None:
        """Why the agent does not yet do what the mesh wants of this node, or None if it does."""
        if self.roster is None:
            return self.source.problem or "waiting for the mesh's plan and this node's IPsecNode"
        if self.usable and self.identity is None:
            return self.identity_problem or "waiting for a certificate"
        if self.usable and self.outcome is None:
            return "waiting for the kernel's policies"
        return None

    # Following

    async def _follow_source(self) -> None:
        async for desired in self.source.snapshots():
            first = self.desired is None or self.from_cache
            self.from_cache = False
            self._follow(desired)
            if first and desired.plan is not None and self.usable:
                # What an earlier run left and nobody wants is swept away with the next reconciliation.
                self.sessions.forget_found()
                self._reconcile_wake.set()
            self._cache_wake.set()

    def _follow(self, desired: Desired) -> None:
        """Makes everything follow a snapshot: policies stand before the first SA is asked for."""
        self.desired = desired
        self.reporting.follow(desired.nodes)
        if desired.plan is None:
            self._want_no_identity()
            return
        self._follow_roots(desired.plan.trust_bundle)
        roster = compile_roster(desired)
        if roster != self.roster:
            self.reporting.roster_changed(asyncio.get_running_loop().time())
            for problem in () if roster is None else roster.problems:
                _log.warning("%s", problem)
        self.roster = roster
        if roster is not None:
            self._want_identity(desired, roster)
        else:
            self._want_no_identity()
        self._apply()
        self.reporting.wake()

    def _apply(self) -> None:
        """Brings sockets, policies and sessions up to the roster. What fails is in `problems`, and tried again."""
        roster = self.roster
        if not self.usable:
            return
        try:
            specs = {}
            if roster is not None:
                specs = pair_specs(roster, self._reqid, port=self.settings.ike_port, iptfs=self.abilities.iptfs)
                for key in child_keys(roster):
                    self._reqid(key)
                self._reqids.save()
            self._apply_problems = ()
            self._specs = specs
        except (ProposalError, OverflowError, OSError) as error:
            self._apply_problems = (str(error),)
            _log.error("the plan can't be carried out, keeping what runs: %s", error)
            return
        if roster is not None:
            self._transport.listen(roster.own.addresses)
            self._probes.listen(roster.own.addresses)
        now = asyncio.get_running_loop().time()
        if self.outcome is None:
            # What an earlier run has left stands in for a pair; nothing is sent before the policies stand.
            self.sessions.set_wanted(specs, now)
        if self._protects:
            self._sendable.look(self.sessions.pairs, now)
        if self.bypass.release(roster):
            self._look_at_datapath()
        self._want_policies()
        self._reconcile_policies()
        self._reconcile_routing()
        self.sessions.set_wanted(specs, now)
        self._transport.pump()
        self.clear.follow(roster, now)
        self._hear_acquires(wanted=roster is not None and _asks_on_demand(roster))
        self._look_at_states()
        self._pairs_wake.set()

    def _reqid(self, key: ChildKey) -> ReqId:
        return self._reqids.assign(key)

    def _hear_acquires(self, *, wanted: bool) -> None:
        """Listens for acquires only as long as somebody answers them: packets without an SA then wait for one."""
        if not wanted and self._acquires is not None:
            self._acquires.close()
            self._acquires = None
        elif wanted and self._acquires is None:
            try:
                self._acquires = KernelWatch(
                    self.kernel.watch(Acquire),
                    self.sessions,
                    reconcile=self._reconcile_wake.set,
                    pump=self._transport.pump,
                )
            except XfrmError as error:
                self._apply_problems = (str(error),)
                _log.error("pairs can't be set up on demand: %s", error)

    def _want_policies(self) -> None:
        roster = self.roster
        policies: tuple[Policy, ...] = ()
        if roster is not None:
            policies = desired_policies(
                # What is seen to leak later keeps its blocks.
                without_blocks(roster, misfits(replace(self.datapath, leak=None), roster)),
                self._reqid,
                sendable=self._sendable.keys,
                first_client_port=first_client_port(),
            )
        self._modes = agreed_modes(self._specs.values(), self.sessions.pairs)
        self._policies = in_modes(policies, self._modes)

    @property
    def _modes_changed(self) -> bool:
        """Whether a pair has agreed on another mode than its policies are for. Most meshes have no such modes."""
        return bool(self._modes) and self._modes != agreed_modes(self._specs.values(), self.sessions.pairs)

    @property
    def _policies_stand(self) -> bool:
        """Whether the kernel was last seen to have all that the roster asks for."""
        return self.outcome is not None and not (
            self._apply_problems or self.outcome.problems or self._routing_problems
        )

    @property
    def _protects(self) -> bool:
        """Whether a tunnel is in the phase in which it counts to which peers packets can be sent."""
        return self.roster is not None and (
            self.roster.passing or any(tunnel.phase is Phase.PROTECT for tunnel in self.roster.tunnels)
        )

    def _pairs_changed(self) -> None:
        try:
            self._blocked.save()
        except OSError as error:
            _log.error("which paths pass no ESP can't be kept: %s", error)
        self.reporting.wake()
        self._pairs_wake.set()
        self._sizes_wake.set()

    async def _follow_pairs(self) -> None:
        """Where a tunnel is in Protect, has outbound policies come and go with the pairs' SAs.

        And where pairs have agreed on another mode than was wanted, has their policies follow.
        """
        loop = asyncio.get_running_loop()
        while True:
            wait = _RECONCILE_SECONDS
            if self.outcome is not None and not self._apply_problems:
                others = self._protects and self._sendable.look(self.sessions.pairs, loop.time())
                if others or self._modes_changed:
                    self._want_policies()
                    self._reconcile_policies()
                    self._reconcile_routing()
                    self.reporting.wake()
                if self._protects and self._sendable.awaits(self.sessions.pairs):
                    wait = _POLL_SECONDS
            await asyncio.sleep(_BREATH_SECONDS)
            await wait_for(self._pairs_wake, wait)

    # The kernel

    async def _reconcile_for_ever(self) -> None:
        while True:
            wait = _RECONCILE_SECONDS if not self.problems and self._transport.deposited else _SOON_SECONDS
            await wait_for(self._reconcile_wake, wait)
            if self.desired is None or self.desired.plan is None or not self.usable:
                continue
            if self._apply_problems:
                self._apply()
            elif self.roster is not None and self._transport.problems:
                self._transport.listen(self.roster.own.addresses)
            self._transport.keep_deposited()
            self._look_at_datapath()
            self._reconcile_policies()
            self._reconcile_routing()
            self._sweep()
            self.reporting.wake()

    def _look_at_datapath(self) -> None:
        """The CNI may make its devices after the agent has started, and others later."""
        try:
            self._devices = network_devices()
        except XfrmError as error:
            _log.warning("%s", error)
            return
        found = replace(find_datapath(self._devices), leak=self.bypass.device)
        if found != self.datapath:
            self.datapath = found
            self._want_policies()

    def _reconcile_policies(self) -> None:
        try:
            self.outcome = reconcile_policies(self.kernel, self._policies)
        except XfrmError as error:
            self.outcome = Outcome(problems=(str(error),))
            _log.error("the kernel's policies can't be reconciled: %s", error)

    def _reconcile_routing(self) -> None:
        """Where nothing is wanted of it, what an earlier run or plan has left is removed once."""
        roster = self.roster
        wanted = None if roster is None else desired_interceptor(roster, sendable=self._sendable.keys)
        try:
            behind = frozenset[Route]() if roster is None else backstops(roster, self._routing.others_destinations)
            if wanted is None and not behind and not self._routing_left:
                return
            self._routing_problems = reconcile_routing(self._routing, wanted, behind)
            self._routing_left = wanted is not None or bool(behind) or bool(self._routing_problems)
        except XfrmError as error:
            self._routing_problems = (str(error),)
            _log.error("the kernel's routing can't be reconciled: %s", error)

    def _sweep(self) -> None:
        """Replaces states that are missing, removes those that nobody accounts for, frees request ids."""
        try:
            states = self.kernel.dump_states()
            self.sessions.mend(states, asyncio.get_running_loop().time())
            if not self.from_cache:
                for state in self.sessions.unaccounted(states):
                    _log.info("removing %s: nobody accounts for it", state)
                    self.kernel.delete_state(destination=state.destination, spi=state.spi)
            self._transport.pump()
            in_kernel = {state.reqid for state in our_states(self.kernel.dump_states())}
            wanted = set(child_keys(self.roster)) if self.roster is not None else set[ChildKey]()
            self._reqids.release(wanted, in_kernel)
            self._reqids.save()
            self._state_left = (
                bool(in_kernel) or self._routing_left or bool(self.outcome is not None and self.outcome.present)
            )
        except (XfrmError, OSError) as error:
            _log.error("the kernel's states can't be reconciled: %s", error)

    def _look_at_states(self) -> None:
        """Whether anything of ours is in the kernel now."""
        if self._routing_left or (self.outcome is not None and self.outcome.present):
            self._state_left = True
            return
        try:
            self._state_left = bool(our_states(self.kernel.dump_states()))
        except XfrmError as error:
            _log.error("%s", error)

    # Identity

    def _follow_roots(self, bundle: str) -> None:
        """Trusts the plan's roots from this moment, whatever becomes of this node's own certificate."""
        try:
            roots = parse_roots(bundle)
        except ValueError as error:
            _log.error("the plan's trust bundle is no PEM: %s", error)
            return
        if roots == self.roots:
            return
        self.roots = roots
        if self.identity is not None:
            self._use_identity(self.identity)

    def _want_no_identity(self) -> None:
        """A mesh that is being removed would else get requests that nobody settles, and nobody removes."""
        if self._keeper is not None:
            self._keeper.want(None)

    def _want_identity(self, desired: Desired, roster: Roster) -> None:
        if desired.plan is None or not self.roots:
            return
        if self._keeper is not None:
            name, mesh = desired.own_name, desired.plan.mesh
            self._keeper.want(
                Wanted(
                    uid=roster.own.uid,
                    name=name,
                    mesh=mesh,
                    roots=self.roots,
                    authority=desired.plan.authority,
                    curve=desired.plan.curve,
                    addresses=tuple(str(address) for address in roster.own.addresses),
                )
            )
        elif self._fixed_identity is not None:
            try:
                self._use_identity(self._fixed_identity())
                self._identity_error = None
            except (OSError, ValueError) as error:
                self._identity_error = str(error)
                _log.error("%s", error)

    def _use_identity(self, identity: Identity) -> None:
        """Speaks IKE as this identity from now on."""
        try:
            credentials = identity.credentials(self.roots)
        except ValueError as error:
            _log.error("the certificate can't be used: %s", error)
            return
        before, self.identity = self.identity, identity
        renewed, left_seconds = False, inf
        if before is not None and before.certificate != identity.certificate:
            left = before.certificate.not_valid_after_utc - datetime.now(UTC)
            renewed, left_seconds = True, left / timedelta(seconds=1)
        now = asyncio.get_running_loop().time()
        self.sessions.set_credentials(credentials, now, renewed=renewed, left_seconds=left_seconds)
        self._transport.pump()
        self.reporting.wake()

    # The report

    def _compose(self, now: float) -> ReportStatus | None:
        roster = self.roster
        if roster is None:
            return None
        if not self.usable:
            self._state_left = False
        elif self._state_left and not self.sessions.pairs:
            # The last states go seconds after their pairs: what waits for an empty kernel should know at once.
            self._look_at_states()
        plan = self.desired.plan if self.desired is not None else None
        health = self._readiness.assess(
            roster,
            self.sessions.pairs,
            now,
            complete=self.reporting.is_settled(now),
            silent=self.reporting.left_to_others,
        )
        facts = Facts(
            version=self.settings.version,
            plan_generation=plan.generation if plan is not None else 0,
            roster=roster,
            abilities=self.abilities,
            identity=self.identity,
            identity_problem=self.identity_problem,
            roots=self.roots,
            problems=self.problems,
            clock_problem=self.clock.problem,
            state_left=self._state_left or self._boot_guard.there,
            phases=self._phases(roster, now),
            up=count_up(roster, self.sessions.pairs),
            encapsulated=tuple(
                EncapsulatedPeer(node=pair.name, reason=reason)
                for pair in self.sessions.pairs
                if (reason := self.sessions.esp_paths.reason(pair)) is not None
            ),
            clear_packets=self.clear.recently,
            boot=self.boot,
            datapath=self.datapath.report(),
            misfits=misfits(self.datapath, roster),
            fit=self.sizes.fit,
        )
        return compose(facts, health)

    def _phases(self, roster: Roster, now: float) -> dict[str, Phase]:
        """The phase of each tunnel that has been carried out: of the plan's, or still what was before."""
        if self.outcome is not None and not self.problems:
            carried = carried_out(roster, awaits=self._sendable.awaits(self.sessions.pairs))
            self._carried_out = self._steps.told(roster, carried, self._sendable.keys, now)
        return self._carried_out

    # Looks at what goes by the SAs

    async def _look_for_ever(self) -> None:
        """Looks at what has gone by the SAs, where that tells something."""
        loop = asyncio.get_running_loop()
        while True:
            wait = _LOOK_SECONDS
            if self.sessions.wants_looks:
                try:
                    states = self.kernel.dump_states()
                except XfrmError as error:
                    _log.error("what has gone by the SAs is not known: %s", error)
                else:
                    self.sessions.look(states, loop.time())
                    self._transport.pump()
                    wait = max(wait, len(states) * _LOOK_SECONDS_A_STATE)
            await asyncio.sleep(wait)

    async def _count_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.clear.wanted:
                self.clear.look(asyncio.get_running_loop().time())
                self.reporting.wake()

    async def _watch_bypass_for_ever(self) -> None:
        """Looks now and then whether pods' packets leave in clear although the policies stand."""
        while self.settings.bypass_watch:
            await asyncio.sleep(self.bypass.pause_seconds)
            window = self.bypass.open(self.roster, self._devices) if self._policies_stand else None
            if window is None:
                continue
            try:
                await asyncio.sleep(self.bypass.window_seconds)
            finally:
                await asyncio.to_thread(window.close)
            if self.bypass.judge(window, self.roster):
                self._look_at_datapath()
                self.reporting.wake()
            if self.bypass.doubtful:
                # Somebody may have removed our policies. The next window shows what passes by them.
                self._reconcile_wake.set()

    async def _fit_for_ever(self) -> None:
        """Sees to it that pods' packets fit into the tunnels: soon after a pair has its SAs, and every so often."""
        loop = asyncio.get_running_loop()
        while True:
            breath = _BREATH_SECONDS
            if self.usable and self.outcome is not None:
                try:
                    states = self.kernel.dump_states()
                except XfrmError as error:
                    _log.error("what fits into the tunnels is not known: %s", error)
                else:
                    self.widths.look(self.sessions.pairs, loop.time())
                    self._transport.pump()
                    before = self.sizes.fit
                    self.sizes.look(self.roster, states, loop.time())
                    if self.sizes.fit != before:
                        self.reporting.wake()
                    breath = max(breath, len(states) * _LOOK_SECONDS_A_STATE)
            await asyncio.sleep(breath)
            await wait_for(self._sizes_wake, SIZES_SECONDS)

    # The cache

    async def _cache_for_ever(self) -> None:
        while True:
            await self._cache_wake.wait()
            self._cache_wake.clear()
            if self.desired is not None:
                try:
                    self._cache.save(self.desired)
                    self._boot_guard.keep(policies_at_boot(self.roster, self._reqid))
                except OSError as error:
                    _log.error("the plan can't be cached: %s", error)
                self.boot = self.boot.model_copy(update={"cached_plan": self._cache.lasting})
                self.reporting.wake()
            await asyncio.sleep(_CACHE_SECONDS)


def _asks_on_demand(roster: Roster) -> bool:
    """Whether outbound policies stand of which packets are to ask for SAs."""
    return any(
        tunnel.establish is Establish.ON_DEMAND and reached(tunnel.phase, Phase.REQUIRE) for tunnel in roster.tunnels
    )
