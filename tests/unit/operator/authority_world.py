"""A cluster with an authority: operators that may die after any write, agents that follow the plan, and what signs for
them. Called by test_authority.py and test_delegation.py."""

from __future__ import annotations

import asyncio
import base64
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from cryptography import x509

from hauberk_api.certificate import fingerprint
from hauberk_api.names import CA_SECRET, IMPORTED_CA_SECRET
from hauberk_operator.authority import Authority
from hauberk_operator.ca import certificate_pem
from hauberk_operator.cert_manager import CertManager
from hauberk_operator.facts import Json
from hauberk_operator.issuer import Issuer
from hauberk_operator.kube import KubeError
from hauberk_operator.reconcile import reconcile
from hauberk_operator.writes import EVENT, MESH, NODE, REPORT, SECRET, Resource
from tests.unit.operator.builders import NAMESPACE, mesh_json, node_json, report_json
from tests.unit.operator.fake_api import FakeApi

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MAX_TICKS = 30


class Died(BaseException):
    """The replica is no more. Not an Exception: nobody catches it."""


class MortalApi(FakeApi):
    """An API server whose client dies after its n-th write: the write is done, and the client never hears of it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes_to_live: int | None = None
        self.forbidden = ""
        """The name of a Secret that may not be read."""

    async def find(self, resource: Resource, name: str, *, namespace: str = "") -> Json | None:
        if resource == SECRET and name == self.forbidden:
            raise KubeError(403, "Forbidden", f"secrets {name} is forbidden")
        return await super().find(resource, name, namespace=namespace)

    def _store(self, resource: Resource, obj: Json) -> Json:
        stored = super()._store(resource, obj)
        if self.writes_to_live is not None:
            self.writes_to_live -= 1
            if self.writes_to_live < 0:
                self.writes_to_live = None
                raise Died
        return stored


class Replica:
    """An operator that leads: its authority, and what it sees of the cluster."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._view = world.api.view()
        api = cast("Any", world.api)
        self.manager = CertManager(
            api, self._view, namespace=NAMESPACE, clock=lambda: world.now, changed=lambda: None, news=lambda: None
        )
        self.authority = Authority(
            api,
            self._view,
            self.manager,
            namespace=NAMESPACE,
            clock=lambda: world.now,
            changed=lambda: None,
        )

    def see(self) -> None:
        """Its watches bring it up to date."""
        now = self._world.api.view()
        self._view.meshes.replace(now.meshes.values(), sys.maxsize)
        self._view.nodes.replace(now.nodes.values(), sys.maxsize)
        self._view.reports.replace(now.reports.values(), sys.maxsize)

    async def look(self) -> None:
        self.see()
        await self.manager.sync()
        await self.authority.step()

    def issuer(self) -> Issuer | None:
        self.see()
        return self.authority.published_issuer()


class World:
    """A cluster with operators, of which one lives, and agents that follow the plan as theirs do."""

    def __init__(self, *agents: str) -> None:
        self.api = MortalApi()
        self.now = NOW
        self.agents = dict.fromkeys(agents, "")
        """Each agent's certificate, by its root."""
        self.deaf: set[str] = set()
        """Agents that do not hear of new plans."""
        self.api.add(MESH, mesh_json())
        for name in agents:
            self.api.add(NODE, node_json(name))
        self.replica = Replica(self)
        self.deaths = 0
        self.bundles: list[tuple[str, ...]] = []
        """The trust bundles that were published, one after the other, by fingerprint."""

    def change(self, **certificates: Any) -> None:
        mesh = self.api.objects[MESH.kind, "default"]
        mesh["spec"] = {"certificates": mesh["spec"].get("certificates", {}) | certificates}
        self.api.add(MESH, mesh)

    def put_secret(self, secret: Json, name: str = IMPORTED_CA_SECRET) -> None:
        self.api.add(SECRET, secret | {"metadata": {"name": name, "namespace": NAMESPACE}, "type": "kubernetes.io/tls"})

    # What happens

    def tick(self) -> None:
        """The leader looks once, and every agent does. A leader that dies on the way is succeeded by another."""
        self.api.created = self.now.isoformat()
        try:
            asyncio.run(self._lead())
        except Died:
            self.deaths += 1
            self.replica = Replica(self)
        self._follow()

    async def _lead(self) -> None:
        await self.replica.look()
        standing = self.replica.authority.standing
        for stage in reconcile(self.api.view(), standing=standing, now=self.now).stages:
            for write in stage:
                await self.api.carry_out(write)

    def _follow(self) -> None:
        plan = self.plan
        if plan is None or not plan["trustBundle"]:
            return
        trusted = tuple(fingerprint(root) for root in x509.load_pem_x509_certificates(plan["trustBundle"].encode()))
        if not self.bundles or self.bundles[-1] != trusted:
            self.bundles.append(trusted)
        living, self.api.writes_to_live = self.api.writes_to_live, None
        for name in self.agents.keys() - self.deaf:
            if self.agents[name] != plan["authority"]:
                self.agents[name] = plan["authority"]
            self.api.add(
                REPORT,
                report_json(
                    name,
                    plan=plan["generation"],
                    bundle=trusted,
                    certificate={
                        "serial": "1",
                        "notAfter": (self.now + timedelta(hours=24)).isoformat(),
                        "issuerFingerprint": self.agents[name],
                    },
                ),
            )
        self.api.writes_to_live = living

    def settle(self) -> None:
        for _ in range(MAX_TICKS):
            before = len(self.api.writes)
            self.tick()
            if len(self.api.writes) == before and self.phase == "Stable":
                return
        raise AssertionError(f"does not come to rest: {self.phase} after {self.api.writes[-5:]}")

    # What there is

    @property
    def secret(self) -> Json:
        return self.api.objects[SECRET.kind, CA_SECRET]

    @property
    def plan(self) -> Json | None:
        return self.api.objects[MESH.kind, "default"]["status"].get("plan")

    @property
    def phase(self) -> str:
        return self.api.objects[MESH.kind, "default"]["status"]["authority"]["phase"]

    @property
    def root(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(base64.b64decode(self.secret["data"]["tls.crt"]))

    @property
    def degraded(self) -> Json:
        conditions = self.api.objects[MESH.kind, "default"]["status"]["conditions"]
        return next(condition for condition in conditions if condition["type"] == "Degraded")

    def told(self) -> list[str]:
        return [obj["reason"] for (kind, _), obj in self.api.objects.items() if kind == EVENT.kind]


def settled(*agents: str) -> World:
    world = World(*agents)
    world.settle()
    return world


def rolled(world: World) -> None:
    """The one root that is left signs, is all that is trusted, and every agent that hears has its certificate."""
    assert set(world.secret["data"]) == {"tls.crt", "tls.key"}
    assert world.plan is not None
    assert world.plan["trustBundle"] == certificate_pem(world.root)
    assert world.plan["authority"] == fingerprint(world.root)
    assert {world.agents[name] for name in world.agents.keys() - world.deaf} == {fingerprint(world.root)}
