"""Agents for the two nodes of `path_world`, each following a directory of its own: they may be told different plans."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization

from hauberk_api.certificate import node_dns_names
from hauberk_api.kinds import API_VERSION, MESH_KIND, NODE_KIND
from hauberk_api.names import NodeName, NodeUid
from hauberk_api.node import Membership, NodeSpec
from hauberk_api.plan import Phase, Plan, PlannedTunnel
from hauberk_api.tunnel import TunnelMode
from hauberk_xfrm import Mode
from tests.kernel.path_world import PathWorld
from tests.unit.ike.authority import Authority

TUNNEL: Final = "11111111-1111-1111-1111-111111111111"
PATIENCE_SECONDS: Final = 90.0
"""Generous: the machine may be busy, and a report's details are written once a minute."""


class PathAgents:
    """One agent a node. Their state is in a directory of this world's own."""

    def __init__(self, world: PathWorld, home: Path) -> None:
        self._world = world
        self._home = home
        self._agents: dict[int, subprocess.Popen[bytes]] = {}
        self._authority = Authority()
        now = datetime.now(UTC)
        for number in (1, 2):
            directory = self._source(number)
            directory.mkdir(parents=True)
            names = node_dns_names(NodeUid(f"uid-{number}"), NodeName(f"n{number}"))
            key, certificate = self._authority.issue(
                *names, not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=1)
            )
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            (directory / "tls.key").write_bytes(pem)
            (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def tell(self, number: int, mode: TunnelMode = TunnelMode.TUNNEL) -> None:
        """What one agent is to follow: a Strict tunnel in this mode."""
        bundle = self._authority.certificate.public_bytes(serialization.Encoding.PEM).decode()
        plan = Plan(
            generation=1,
            trust_bundle=bundle,
            tunnels=(PlannedTunnel(name="mesh", uid=TUNNEL, generation=1, phase=Phase.BLOCK, mode=mode),),
        )
        objects: list[dict[str, Any]] = [
            {"kind": MESH_KIND, "metadata": {"name": "default"}, "status": {"plan": plan.to_object()}}
        ]
        for node in (1, 2):
            spec = NodeSpec(
                nodeUID=f"uid-{node}",
                addresses=(f"10.250.{node}.1", f"fd00:250:{node}::1"),
                podCIDRs=(f"10.244.{node}.0/24", f"fd00:244:{node}::/64"),
                memberships=(Membership(tunnel=TUNNEL),),
            )
            objects.append({"kind": NODE_KIND, "metadata": {"name": f"n{node}"}, "spec": spec.to_object()})
        text = "\n---\n".join(json.dumps({"apiVersion": API_VERSION, **item}) for item in objects)
        new = self._source(number) / "objects.new"
        new.write_text(text)
        new.rename(self._source(number) / "objects.yaml")

    def start(self, number: int) -> None:
        command = self._command(
            number, "run", f"--node-name=n{number}", f"--source-dir={self._source(number)}",
            f"--state-dir={self._home}/state{number}", f"--socket={self._home}/{number}.sock",
        )  # fmt: skip
        with open(self.log(number), "ab") as log:
            self._agents[number] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self) -> None:
        for agent in self._agents.values():
            agent.kill()
            agent.wait()

    def log(self, number: int) -> Path:
        return Path(f"/run/results/{self._home.name}-n{number}.log")

    def report(self, number: int) -> dict[str, Any]:
        """What the agent has said last; nothing, before it has said anything."""
        path = self._home / f"state{number}" / "report.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def states(self, number: int) -> set[tuple[int, Mode]]:
        """A node's complete states: SPI and mode."""
        dumped = self._world.hosts[number - 1].xfrm.dump_states()
        return {(state.spi, state.mode) for state in dumped if not state.larval}

    def await_pair(self, mode: Mode) -> None:
        """Until both ends hold the same SA each way, in that mode, and policies that say so.

        Where both began at once, either end has two states of its own some milliseconds before: what the peer sends by
        them comes to an SPI that is not complete yet (`XfrmAcquireError`).
        """

        def paired() -> bool:
            first, second = self.states(1), self.states(2)
            return first == second and len(first) == 2 and {found for _, found in first} == {mode}

        self.eventually(paired, f"SAs in {mode.name}")
        self.eventually(lambda: all(self._templates(number) == {mode} for number in (1, 2)), f"policies in {mode.name}")

    def eventually(self, look: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not look():
            if time.monotonic() > deadline:
                logs = "\n".join(self.log(number).read_text() for number in self._agents)
                raise AssertionError(f"not within {PATIENCE_SECONDS:.0f} s: {what}\n{logs}")
            time.sleep(0.1)

    def _templates(self, number: int) -> set[Mode]:
        policies = self._world.hosts[number - 1].xfrm.dump_policies()
        return {template.mode for policy in policies for template in policy.templates}

    def _source(self, number: int) -> Path:
        return self._home / f"source{number}"

    @staticmethod
    def _command(number: int, *arguments: str) -> list[str]:
        program = Path(sys.executable).parent / "hauberk-agent"
        return ["ip", "netns", "exec", f"n{number}", str(program), *arguments]


@contextmanager
def path_agents(
    world: PathWorld, name: str, modes: tuple[TunnelMode, TunnelMode] = (TunnelMode.TUNNEL, TunnelMode.TUNNEL)
) -> Generator[PathAgents, None, None]:
    """Both agents, running."""
    agents = PathAgents(world, Path("/run") / name)
    try:
        for number, mode in zip((1, 2), modes, strict=True):
            agents.tell(number, mode)
            agents.start(number)
        yield agents
    finally:
        agents.end()
