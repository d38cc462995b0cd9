"""A mesh comes to be, and things happen to it one after the other; each is counted for itself.

The API server, etcd, the operator's process, the chart's RBAC and admission policies, the objects and a sample of the
watches are real. The nodes have no kernels (kubelets.py, kwok), and their agents only that part which speaks to the API
server (agents.py). Called by the command line, and by tests/integration/test_scale.py with a small mesh.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.scale import keepalive
from benchmarks.scale.agents import NOTICE_SECONDS, Agents
from benchmarks.scale.audit import AuditLog, Tally
from benchmarks.scale.client import MERGE_PATCH, AgentApi, Client, Json
from benchmarks.scale.figures import Results, Say
from benchmarks.scale.kubelets import Kubelets
from benchmarks.scale.operator_process import Usage, usage
from benchmarks.scale.watchers import Watcher, events_per_watcher
from hauberk_agent.identity import Identity
from hauberk_agent.report import HOLD_BACK_SECONDS, MINIMUM_INTERVAL_SECONDS
from hauberk_agent.witness import DOUBT_SHARE, PATIENCE_SECONDS, SPREAD_SECONDS_PER_NODE
from hauberk_api.kinds import API_VERSION, MESH_NAME, MESHES, TUNNELS
from hauberk_api.names import CA_SECRET, NodeName
from hauberk_operator.authority import parse_secret
from hauberk_operator.ca import SecretSigner, issue
from tests.apiserver import ApiServer
from tests.integration.operator_bed import NAMESPACE, Operator, OperatorBed

TUNNEL: Final = "mesh"
ROLL: Final = "benchmark"
REQUEST_GOES: Final = "delete certificatesigningrequests"
"""A join's or a renewal's last write: the operator removes a settled request, but many minutes later."""
_AT_A_TIME: Final = 128
_TUNNEL_PATH: Final = f"/apis/{API_VERSION}/{TUNNELS}"
_MESH_PATH: Final = f"/apis/{API_VERSION}/{MESHES}/{MESH_NAME}"


class NotInTimeError(Exception):
    """Something did not come about; the message says what, and what the operator said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of the story. `kwok` is its program; without it the Leases are renewed by the benchmark itself."""

    nodes: int
    watchers: int = 50
    crowd: int = 200
    """How many of the nodes join together."""
    repetitions: int = 10
    """How many nodes join, renew and leave one by one."""
    patience_seconds: float = 900.0
    """How long anything may take."""
    observe_seconds: float = 0.0
    """How long is watched what dead nodes cause; 0: until everybody who may write has had the time to."""
    idle_seconds: float = 60.0
    settle_seconds: float = 8.0
    """What a change has to say after it is done, it says within so long: reports are held back for some seconds."""
    renewal_seconds: float = MINIMUM_INTERVAL_SECONDS + 5.0
    """A new certificate's serial number is in no hurry to be reported."""
    notice_seconds: tuple[float, float] = NOTICE_SECONDS
    parts: frozenset[str] = frozenset({"join", "renewal", "leave", "dead", "fifth", "roll"})
    kwok: Path | None = None
    lease_seconds: int = keepalive.LEASE_SECONDS


class Story:
    """A mesh of a size, in `async with story(...)`."""

    def __init__(
        self, size: Size, bed: OperatorBed, operator: Operator, admin: Client, say: Say, results: Results
    ) -> None:
        self.size = size
        self.results = results
        self._bed = bed
        self._operator = operator
        self._admin = admin
        self._say = say
        self._audit = AuditLog(bed.server.audit_log)
        self.kubelets = Kubelets(admin)
        self._next = 0
        self._peak_mb = 0.0
        self.watchers: list[Watcher] = []
        self.background: list[asyncio.Task[None]] = []
        """Ended with the story."""
        self.agents: Agents
        self.speaking: Client
        self.watching: Client
        self.tasks: asyncio.TaskGroup

    async def tell(self) -> None:
        """All of it, one thing after the other; the results are filled in meanwhile."""
        await self._mesh()
        await self._idle()
        parts = {
            "join": self._joins,
            "renewal": self._renewals,
            "leave": self._leaves,
            "dead": self._dead_node,
            "fifth": self._dead_fifth,
            "roll": self._roll,
        }
        for name, part in parts.items():
            if name in self.size.parts:
                await part()
        self.results.figures["operator_rss_mb"] = max(self._peak_mb, self._usage().rss_mb)

    # The parts of the story

    async def _mesh(self) -> None:
        """Most nodes have been there for long, with certificates of the CA and reports; the others join together."""
        await self._wait("a plan", self._has_plan)
        await self._admin.request("POST", _TUNNEL_PATH, _tunnel())
        crowd = min(self.size.crowd, self.size.nodes)
        self.results.figures["nodes"] = self.size.nodes
        signer = await self._signer()
        await self._all(self.size.nodes - crowd, lambda: self._settle(signer), "are there")
        await self._ready()
        self.agents.join()
        self._say(f"{self.size.nodes - crowd} nodes make a mesh")
        before, began = self._usage(), time.monotonic()
        await self._all(crowd, self._join, "registered")
        await self._ready()
        took, after = time.monotonic() - began, self._usage()
        spent = (after.cpu_seconds - before.cpu_seconds) / max(1, crowd)
        self.results.figures["operator_cpu_seconds_per_node_together"] = spent
        self._say(f"{crowd} nodes joined together in {took:.0f} s; {spent * 1000:.0f} ms of the operator's CPU each")
        await self._sample_watches()
        await self._quiet()

    async def _all(self, count: int, act: Callable[[], Awaitable[None]], what: str) -> None:
        slots = asyncio.Semaphore(_AT_A_TIME)
        done = 0

        async def one() -> None:
            nonlocal done
            async with slots:
                await act()
                done += 1
                if done % 500 == 0:
                    self._say(f"{done} nodes {what}")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one())

    async def _idle(self) -> None:
        seconds = self.size.idle_seconds
        beats, log, before = self.kubelets.heartbeats, self._audit.length(), self._usage()
        await asyncio.sleep(seconds)
        spent = self._usage().cpu_seconds - before.cpu_seconds
        tally = self._tally("idle", log)
        self.results.figures["idle_writes"] = len(tally.writes)
        self.results.figures["idle_cpu_share"] = spent / seconds
        if self.size.kwok is None:
            self.results.figures["heartbeats_per_second"] = (self.kubelets.heartbeats - beats) / seconds
        self._say(f"idle: {len(tally.writes)} writes, {spent / seconds:.1%} of a processor")

    async def _joins(self) -> None:
        figures, idle = self.results.figures, self.results.figures["idle_cpu_share"]
        log, events, took, cpu = self._audit.length(), events_per_watcher(self.watchers), 0.0, 0.0
        for number in range(1, self.size.repetitions + 1):
            began, before = time.monotonic(), self._usage()
            await self._join()
            await self._ready()
            took += time.monotonic() - began
            await asyncio.sleep(self.size.settle_seconds)
            elapsed = time.monotonic() - began
            cpu += self._usage().cpu_seconds - before.cpu_seconds - idle * elapsed
            self._say(f"join {number}: {elapsed - self.size.settle_seconds:.1f} s")
        count = self.size.repetitions
        figures["writes_per_join"] = len(self._tally("join", log).writes) / count
        figures["events_per_agent_per_join"] = (events_per_watcher(self.watchers) - events) / count
        figures["operator_cpu_seconds_per_join"] = cpu / count
        figures["seconds_to_converge"] = took / count

    async def _renewals(self) -> None:
        names = self._living()[: self.size.repetitions]
        log, events = self._audit.length(), events_per_watcher(self.watchers)
        serials = {name: self.agents.serial(name) for name in names}
        for name in names:
            self.agents.renew(name)
        await self._wait("renewals", lambda: _async(all(self.agents.serial(n) != serials[n] for n in names)))
        await asyncio.sleep(self.size.renewal_seconds)
        figures = self.results.figures
        figures["writes_per_renewal"] = len(self._tally("renewal", log).writes) / len(names)
        figures["events_per_agent_per_renewal"] = (events_per_watcher(self.watchers) - events) / len(names)
        self._say(f"{len(names)} renewals: {figures['writes_per_renewal']:.1f} writes each")

    async def _leaves(self) -> None:
        names = self._living()[-self.size.repetitions :]
        log, events = self._audit.length(), events_per_watcher(self.watchers)
        for name in names:
            self.agents.stop([name])
            await self.kubelets.remove(name)
            await self._ready()
            await asyncio.sleep(self.size.settle_seconds)
        figures = self.results.figures
        figures["writes_per_leave"] = len(self._tally("leave", log).writes) / len(names)
        figures["events_per_agent_per_leave"] = (events_per_watcher(self.watchers) - events) / len(names)
        self._say(f"{len(names)} nodes left: {figures['writes_per_leave']:.1f} writes each")

    async def _dead_node(self) -> None:
        tally = await self._die(self._living()[-1:], "dead node")
        self.results.figures["writes_per_dead_node"] = len(tally.writes)

    async def _dead_fifth(self) -> None:
        living = self._living()
        names = random.sample(living, len(living) // 5)
        tally = await self._die(names, "dead fifth")
        self.results.figures["writes_a_minute_fifth_dead"] = tally.most_a_minute()
        self.results.figures["writes_fifth_dead"] = len(tally.writes)

    async def _die(self, names: Sequence[str], what: str) -> Tally:
        log = self._audit.length()
        self.agents.die(names)
        await self.kubelets.kill(names)
        asked = (SPREAD_SECONDS_PER_NODE * len(self.kubelets.uids) + PATIENCE_SECONDS) * (1 + DOUBT_SHARE)
        seconds = self.size.observe_seconds or (self.size.notice_seconds[1] + HOLD_BACK_SECONDS + asked + 60.0)
        self._say(f"{what}: {len(names)} of {len(self.kubelets.uids)} nodes, watched for {seconds:.0f} s")
        await asyncio.sleep(seconds)
        everything = self._tally(what, log)
        tally = everything.without(REQUEST_GOES)
        if gone := len(everything.writes) - len(tally.writes):
            self._say(f"{what}: {gone} settled requests of earlier joins and renewals were removed meanwhile")
        questions = self.agents.questions
        self._say(f"{what}: {len(tally.writes)} writes, at most {tally.most_a_minute()} a minute; {questions} read")
        return tally

    async def _roll(self) -> None:
        log, events, began = self._audit.length(), events_per_watcher(self.watchers), time.monotonic()
        roll: Json = {"spec": {"certificates": {"roll": {"id": ROLL}}}}
        await self._admin.request("PATCH", _MESH_PATH, roll, content_type=MERGE_PATCH)
        said = ""

        async def over() -> bool:
            nonlocal said
            status = (await self._admin.request("GET", _MESH_PATH))["status"]["authority"]
            if status["phase"] != said:
                said = status["phase"]
                self._say(f"CA roll: {said} after {time.monotonic() - began:.0f} s")
            return status["phase"] == "Stable" and status["handledRoll"] == ROLL

        await self._wait("the end of the roll", over, pause=1.0)
        took = time.monotonic() - began
        await asyncio.sleep(self.size.settle_seconds)
        tally, figures = self._tally("CA roll", log), self.results.figures
        figures["seconds_ca_roll"] = took
        figures["writes_per_node_ca_roll"] = len(tally.writes) / len(self._living())
        figures["writes_a_minute_ca_roll"] = tally.most_a_minute()
        figures["events_per_agent_ca_roll"] = events_per_watcher(self.watchers) - events

    # What they are made of

    async def _join(self) -> None:
        name = await self.kubelets.add(self._number())
        self._start(name)

    async def _settle(self, signer: SecretSigner) -> None:
        name = await self.kubelets.settle(self._number())
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = issue(
            signer,
            public_key=key.public_key(),
            uid=self.kubelets.uids[name],
            name=NodeName(name),
            mesh=MESH_NAME,
            lifetime_seconds=86_400,
            now=datetime.now(UTC),
        )
        self._start(name, Identity(key=key, chain=(certificate,)))

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _start(self, name: str, identity: Identity | None = None) -> None:
        async def token() -> str:
            return await self.kubelets.token(name)

        api = AgentApi(self.speaking, token, settle=self._admin if identity is not None else None)
        self.agents.start(name, self.kubelets.uids[name], api, identity=identity)

    async def _signer(self) -> SecretSigner:
        """The mesh's CA, as the operator has it."""
        secret = await self._admin.request("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/{CA_SECRET}")
        return parse_secret(secret)

    async def _sample_watches(self) -> None:
        token = await self.kubelets.token(self._living()[0], pod="watches")
        self.watchers = [Watcher(self.watching, token) for _ in range(self.size.watchers)]
        for watcher in self.watchers:
            self.background.append(self.tasks.create_task(watcher.run()))
        await asyncio.sleep(self.size.settle_seconds)

    async def _quiet(self) -> None:
        """Until nobody has written anything for some seconds."""

        async def nothing() -> bool:
            log = self._audit.length()
            await asyncio.sleep(self.size.settle_seconds)
            return not self._audit.tally(log).writes

        await self._wait("silence", nothing)

    async def _ready(self) -> None:
        """Until the tunnel is ready with all nodes."""

        async def ready() -> bool:
            status: Json = (await self._admin.request("GET", f"{_TUNNEL_PATH}/{TUNNEL}")).get("status") or {}
            count = len(self.kubelets.uids)
            conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
            return status.get("nodes") == {"wanted": count, "ready": count} and conditions["Ready"] == "True"

        await self._wait("a tunnel that is ready with all nodes", ready)

    async def _has_plan(self) -> bool:
        meshes: list[Json] = (await self._admin.request("GET", f"/apis/{API_VERSION}/{MESHES}"))["items"]
        statuses: list[Json] = [mesh.get("status") or {} for mesh in meshes]
        return any(status.get("plan") for status in statuses)

    async def _wait(self, what: str, holds: Callable[[], Awaitable[bool]], *, pause: float = 0.2) -> None:
        deadline = time.monotonic() + self.size.patience_seconds
        while not await holds():
            self.agents.check()
            if not self._operator.running or time.monotonic() > deadline:
                said = "\n".join(self._operator.log.splitlines()[-20:])
                raise NotInTimeError(f"never: {what}; the operator's last words:\n{said}")
            self._usage()
            await asyncio.sleep(pause)

    def _living(self) -> list[str]:
        return [name for name in self.kubelets.uids if name not in self.kubelets.dead]

    def _usage(self) -> Usage:
        found = usage(self._operator.pid)
        self._peak_mb = max(self._peak_mb, found.rss_mb)
        return found

    def _tally(self, part: str, since: int) -> Tally:
        tally = self._audit.tally(since)
        self.results.details[part] = tally.by_what
        return tally


async def _async(value: bool) -> bool:
    return value


def _tunnel() -> Json:
    """As examples/mesh.yaml has it, but applied at once, as there is no traffic to spare."""
    return {
        "apiVersion": API_VERSION,
        "kind": "IPsecTunnel",
        "metadata": {"name": TUNNEL},
        "spec": {"rollout": "Immediate"},
    }


@asynccontextmanager
async def story(size: Size, say: Say, results: Results) -> AsyncGenerator[Story]:
    """Start API server, operator and heartbeats; end all of it. Raises LabError, or groups of what went wrong."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(ApiServer())
        server.apply_crds()
        bed = OperatorBed(server)
        bed.prepare("agent/flow-control.yaml")
        operator = stack.enter_context(bed.operator("op-1"))
        admin = await stack.enter_async_context(Client(server, admin=True, connections=128))
        told = Story(size, bed, operator, admin, say, results)
        told.speaking = await stack.enter_async_context(Client(server, admin=False, connections=64))
        told.watching = await stack.enter_async_context(Client(server, admin=False, connections=0))
        told.agents = await stack.enter_async_context(
            Agents(
                told.speaking,
                server.directory / "agents",
                chance=random.Random(),
                notice_seconds=size.notice_seconds,
            )
        )
        told.agents.follow(admin)
        told.tasks = await stack.enter_async_context(asyncio.TaskGroup())
        if size.kwok is not None:
            kwok = keepalive.start(server, size.kwok, lease_seconds=size.lease_seconds)
            stack.callback(kwok.kill)
        else:
            told.background.append(told.tasks.create_task(told.kubelets.beat()))
        try:
            yield told
        finally:
            for task in told.background:
                task.cancel()
