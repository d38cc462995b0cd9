"""Thousands of agents in one process: all that an agent says to the API server, nothing of what it says to its peers.

What asks for certificates, composes reports and decides when they are written is the agents' own code
(hauberk_agent.identity, report and kube). What is made up is how the pairs are: up some seconds after a node has its
certificate, unwell some minute after a peer has died. The plan and the IPsecNodes are followed once for all of them;
the watches of each are sampled in watchers.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

from cryptography import x509

from benchmarks.scale.client import AgentApi, Client
from hauberk_agent.desired import Desired
from hauberk_agent.identity import Identity, IdentityKeeper, IdentityStore, Wanted, parse_roots
from hauberk_agent.kube import KubeReporter, KubeSigner, KubeSource
from hauberk_agent.pair import Failure, Pair
from hauberk_agent.pairing import pair_specs
from hauberk_agent.report import HOLD_BACK_SECONDS, Facts, Pacer, Readiness, carried_out, compose
from hauberk_agent.reporting import is_missed_by_any
from hauberk_agent.roster import Roster, compile_roster
from hauberk_agent.witness import BETWEEN_SECONDS, Inquiry, Witnesses
from hauberk_api.names import NodeName, NodeUid
from hauberk_api.report import MAX_UNWELL, ReportStatus, UnwellReason
from hauberk_xfrm import KernelAbilities, ReqId

ESTABLISH_SECONDS: Final = (1.0, 4.0)
"""How long a new node takes until all its pairs are up."""

NOTICE_SECONDS: Final = (60.0, 120.0)
"""How long a peer takes until a dead node's pair is unwell: dead peer detection, and an attempt in vain."""

SETTLED_SECONDS: Final = 0.3
_LOOK_SECONDS: Final = 2.0
_ABLE: Final = KernelAbilities(
    release="7.3.4",
    xfrm=True,
    esp4=True,
    esp6=True,
    sa_direction=True,
    iptfs=True,
    xfrm_interface=True,
    problems=(),
)

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Agent:
    name: NodeName
    uid: NodeUid
    api: AgentApi
    pacer: Pacer
    readiness: Readiness
    inquiry: Inquiry
    notices_after: float
    since: float
    """When it was started."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: IdentityKeeper | None = None
    identity: Identity | None = None
    up_at: float | None = None
    """When all its pairs are up."""
    starting: Sequence[Pair] = ()
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])


class Agents:
    """The agents of all nodes. Used as an async context manager, inside which they live."""

    def __init__(
        self, client: Client, directory: Path, *, chance: Random, notice_seconds: tuple[float, float] = NOTICE_SECONDS
    ) -> None:
        """directory: where keys and certificates are kept, one directory for each agent.

        notice_seconds: when agents notice that a node has died; less than none is before it is.
        """
        self._client = client
        self._directory = directory
        self._chance = chance
        self._notice_seconds = notice_seconds
        self._agents: dict[str, _Agent] = {}
        self._desired: Desired | None = None
        self._following: list[asyncio.Task[None]] = []
        self._unwell: tuple[Pair, ...] = ()
        """With the dead nodes, as every living agent has it, but for when it notices."""
        self._dead: set[str] = set()
        self._witnesses = Witnesses({})
        self.questions = 0
        """How many reports of others were read, to know whether a peer is missed by others too."""

    def __len__(self) -> int:
        return len(self._agents)

    async def __aenter__(self) -> Agents:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._following, *(task for agent in self._agents.values() for task in agent.tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """Raises what has ended one of the tasks; nothing may."""
        for task in (*self._following, *(task for agent in self._agents.values() for task in agent.tasks)):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def follow(self, admin: Client) -> None:
        """Begin to follow plan and IPsecNodes."""

        async def nobody() -> str:
            return ""

        source = KubeSource(AgentApi(admin, nobody, settle=admin), NodeName(""), chance=self._chance)
        loop = asyncio.get_running_loop()
        self._following = [loop.create_task(source.run()), loop.create_task(self._follow(source))]

    def start(self, name: str, uid: NodeUid, api: AgentApi, *, identity: Identity | None = None) -> None:
        """Start the agent of a node; with an identity, one that has been there for long and was only restarted."""
        loop = asyncio.get_running_loop()
        agent = _Agent(
            name=NodeName(name),
            uid=uid,
            api=api,
            pacer=Pacer(self._chance),
            readiness=Readiness(),
            inquiry=Inquiry(self._chance),
            notices_after=self._chance.uniform(*self._notice_seconds),
            since=loop.time(),
        )
        self._agents[name] = agent
        if identity is not None:
            agent.up_at = loop.time()
        self._keep(agent, identity)
        agent.tasks.append(loop.create_task(self._report_for_ever(agent)))

    def join(self) -> None:
        """All that were started until now speak for themselves."""
        for agent in self._agents.values():
            agent.api.join()

    def renew(self, name: str) -> None:
        """Have an agent ask for another certificate, as it does when two thirds of its life are over."""
        agent = self._agents[name]
        agent.tasks.pop(0).cancel()
        self._keep(agent, None)

    def _keep(self, agent: _Agent, identity: Identity | None) -> None:
        directory = self._directory / agent.name / os.urandom(4).hex()
        directory.mkdir(parents=True)
        store = IdentityStore(directory)
        if identity is not None:
            store.save(identity)

        def use(identity: Identity) -> None:
            agent.identity = identity
            if agent.up_at is None:
                agent.up_at = asyncio.get_running_loop().time() + self._chance.uniform(*ESTABLISH_SECONDS)
            agent.wake.set()

        signer = KubeSigner(agent.api, chance=self._chance)
        agent.keeper = IdentityKeeper(store, signer, on_identity=use, chance=self._chance)
        self._want(agent)
        agent.tasks.insert(0, asyncio.get_running_loop().create_task(agent.keeper.run()))

    def serial(self, name: str) -> int:
        """Of its certificate; 0 while it has none."""
        identity = self._agents[name].identity
        return identity.certificate.serial_number if identity is not None else 0

    def stop(self, names: Collection[str]) -> None:
        """End the agents of these nodes, as when the nodes are gone."""
        for name in names:
            for task in self._agents.pop(name).tasks:
                task.cancel()

    def die(self, names: Collection[str]) -> None:
        """These nodes are dead: their peers will notice, each in its time."""
        self.stop(names)
        self._dead |= set(names)
        now = asyncio.get_running_loop().time()
        self._unwell += tuple(self._pairs(names, since=now, failure=UnwellReason.UNREACHABLE))
        for agent in self._agents.values():
            agent.wake.set()

    def _pairs(self, names: Collection[str], *, since: float, failure: UnwellReason | None = None) -> list[Pair]:
        """Pairs with these peers, seen from any other node of the mesh."""
        desired = self._desired
        assert desired is not None
        observer = next(name for name in desired.nodes if name not in names)
        nodes = {NodeName(name): desired.nodes[NodeName(name)] for name in (observer, *names)}
        roster = compile_roster(Desired(own_name=observer, plan=desired.plan, nodes=nodes))
        if roster is None:
            return []
        said = Failure(reason=failure, message="no answer") if failure is not None else None
        pairs = [
            Pair(spec=spec, wanted_since=since, fresh=False, failure=said)
            for spec in pair_specs(roster, lambda _: ReqId(1), port=500).values()
        ]
        for standing in (standing for pair in pairs for standing in pair.standings.values()):
            standing.unwell_since = since
        return pairs

    async def _follow(self, source: KubeSource) -> None:
        async for desired in source.snapshots():
            before, self._desired = self._desired, desired
            self._witnesses = Witnesses(desired.nodes)
            everyone = before is None or before.plan != desired.plan
            for agent in self._agents.values():
                if everyone or agent.identity is None:
                    self._want(agent)
                    agent.wake.set()

    def _want(self, agent: _Agent) -> None:
        desired = self._desired
        if desired is None or desired.plan is None or agent.keeper is None or agent.name not in desired.nodes:
            return
        if not (roots := _roots(desired.plan.trust_bundle)):
            return
        plan = desired.plan
        agent.keeper.want(
            Wanted(
                uid=agent.uid,
                name=agent.name,
                mesh=plan.mesh,
                roots=roots,
                authority=plan.authority,
                curve=plan.curve,
            )
        )

    async def _report_for_ever(self, agent: _Agent) -> None:
        reporter = KubeReporter(agent.api, agent.name)
        while True:
            wait = await self._report_once(agent, reporter)
            try:
                async with asyncio.timeout(wait):
                    await agent.wake.wait()
            except TimeoutError:
                continue
            agent.wake.clear()

    async def _report_once(self, agent: _Agent, reporter: KubeReporter) -> float | None:
        """As in hauberk_agent.agent. Returns the seconds until the next look, None: when woken."""
        loop = asyncio.get_running_loop()
        roster = self._roster(agent)
        if roster is None or self._desired is None or self._desired.plan is None:
            return None
        now = loop.time()
        if now < agent.since + SETTLED_SECONDS:
            return agent.since + SETTLED_SECONDS - now
        pairs, changes_at = self._seen(agent, now)
        # Its own clock: what happens to all at once, each notices in its time.
        missed = await self._missed(agent, reporter, pairs, now - agent.notices_after)
        health = agent.readiness.assess(
            roster,
            pairs,
            now - agent.notices_after,
            complete=True,
            silent=missed.keys() - agent.inquiry.alone,
        )
        report = compose(
            Facts(
                version="0.1.0",
                plan_generation=self._desired.plan.generation,
                roster=roster,
                abilities=_ABLE,
                identity=agent.identity,
                identity_problem=agent.keeper.problem if agent.keeper is not None else None,
                roots=_roots(self._desired.plan.trust_bundle),
                problems=(),
                state_left=True,
                phases=carried_out(roster, awaits=()),
            ),
            health,
        )
        due = agent.pacer.due_at(report, now, mesh_size=len(self._witnesses))
        if due is None:
            if changes_at is None and missed:
                return BETWEEN_SECONDS
            return changes_at - now if changes_at is not None else None
        if due > now:
            return min(due - now, _LOOK_SECONDS if changes_at is None else max(0.1, changes_at - now))
        try:
            await reporter.write(report)
        except OSError as error:
            agent.pacer.failed(loop.time())
            _log.warning("%s: the report can't be written: %s", agent.name, error)
        else:
            agent.pacer.wrote(report, loop.time())
        return 0.1

    async def _missed(
        self, agent: _Agent, reporter: KubeReporter, pairs: Sequence[Pair], now: float
    ) -> Mapping[NodeName, float]:
        """The peers that this agent misses and is no witness of; having asked about one of them, if that is due."""
        if pairs is not self._unwell:
            return {}
        missed = {
            name: (pair.unwell_since or now) + HOLD_BACK_SECONDS
            for pair in pairs
            if agent.name not in self._witnesses.of(name := NodeName(pair.name))
        }
        peer = agent.inquiry.due(missed, len(self._witnesses), now)

        async def read(witness: NodeName) -> ReportStatus | None:
            self.questions += 1
            return await reporter.read(witness)

        if peer is not None:
            try:
                others_miss_it = await is_missed_by_any(self._witnesses.of(peer), peer, read)
            except OSError as error:
                _log.warning("%s: what others report of %s can't be read: %s", agent.name, peer, error)
            else:
                agent.inquiry.heard(peer, others_miss_it=others_miss_it, now=now)
        return missed

    def _seen(self, agent: _Agent, now: float) -> tuple[Sequence[Pair], float | None]:
        """The pairs that are not up, and when that will be another thing to say."""
        if agent.up_at is None or now < agent.up_at:
            if not agent.starting and self._desired is not None:
                others = (n for n in self._desired.nodes if n != agent.name and n not in self._dead)
                agent.starting = self._pairs(list(islice(others, MAX_UNWELL + 1)), since=now - 3600)
            return agent.starting, now + _LOOK_SECONDS if agent.up_at is None else agent.up_at
        noticed = max((pair.unwell_since or 0.0 for pair in self._unwell), default=None)
        if noticed is None:
            return (), None
        said_at = noticed + agent.notices_after + HOLD_BACK_SECONDS
        return self._unwell, said_at if said_at > now else None

    def _roster(self, agent: _Agent) -> Roster | None:
        """What of its roster a report is made of: tunnels, and this node."""
        desired = self._desired
        if desired is None or (own := desired.nodes.get(agent.name)) is None or own.node_uid != agent.uid:
            return None
        return compile_roster(Desired(own_name=agent.name, plan=desired.plan, nodes={agent.name: own}))


@lru_cache(maxsize=8)
def _roots(bundle: str) -> tuple[x509.Certificate, ...]:
    """Parsed once for all agents."""
    return parse_roots(bundle)
