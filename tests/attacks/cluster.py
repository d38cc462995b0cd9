"""A real API server with the chart's roles and admission policies, a real operator, and two nodes: one attacks.

Nobody runs the nodes: attackers speak with the tokens and certificates that such a node's agent and kubelet have, and
so has whoever has broken into it. Used by `on_cluster`, whose attacks are tried here.
"""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hauberk_api.kinds import API_VERSION, REPORT_KIND
from hauberk_api.names import AGENT_SERVICE_ACCOUNT, NodeUid
from tests.apiserver import ApiServer
from tests.attacks.attack import NotRefused
from tests.integration.operator_bed import NAMESPACE, Operator, OperatorBed

Json = dict[str, Any]

TUNNEL: Final = "attacked"
HUB_LABEL: Final = "node-restriction.kubernetes.io/hauberk-hub"
SECONDS: Final = 10.0
"""Within which what was refused would have come about, on a slow machine."""
ELSEWHERE: Final = "elsewhere"
STRANGER: Final = "stranger"
_STRANGERS: Final = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {ELSEWHERE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {AGENT_SERVICE_ACCOUNT}, namespace: {ELSEWHERE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {STRANGER}, namespace: {NAMESPACE}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: strangers-may-ask}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: hauberk-agent}}
subjects:
  - {{kind: ServiceAccount, name: {AGENT_SERVICE_ACCOUNT}, namespace: {ELSEWHERE}}}
  - {{kind: ServiceAccount, name: {STRANGER}, namespace: {NAMESPACE}}}
"""


class AttackedCluster:
    """The ground. Nodes n1 (the attacker's) and n2 (the victim's) stay; an attack removes what it adds."""

    def __init__(self, bed: OperatorBed, operator: Operator) -> None:
        self.bed = bed
        self.operator = operator
        self._names = (f"attack-{number}" for number in itertools.count())
        self._configs: dict[str, Path] = {}

    def new_name(self) -> str:
        return next(self._names)

    def uid(self, node: str) -> NodeUid:
        return NodeUid(self.bed.get(f"/api/v1/nodes/{node}")["metadata"]["uid"])

    # As whom

    def agent(self, node: str) -> Path:
        """A kubeconfig with the token of a node's agent."""
        name = f"agent-{node}"
        if name not in self._configs:
            self._configs[name] = self.bed.server.kubeconfig_for_token(self.bed.agent_token(name), name)
        return self._configs[name]

    def kubelet(self, node: str) -> Path:
        """A kubeconfig with the client certificate of a node's kubelet."""
        name = f"kubelet-{node}"
        if name not in self._configs:
            user = f"system:node:{node}"
            self._configs[name] = self.bed.server.kubeconfig_for_user(user, group="system:nodes", name=name)
        return self._configs[name]

    def overheard(self, request: str) -> bytes:
        """The PKCS#10 in anybody's request, as n1's agent may read it: agents may get any request by its name."""
        shown = self.bed.server.kubectl(
            "get", "csr", request, "--output=jsonpath={.spec.request}", kubeconfig=self.agent("n1")
        )
        return base64.b64decode(shown.stdout)

    # What is done, and how it is answered

    def refused_request(self, reason: str, *, node: str = "n1", **how: Any) -> str:
        """Asks for a certificate (see OperatorBed.ask). The Denied condition's message.

        Raises NotRefused unless the reason is that one, the condition says it in a sentence, and an Event tells of it.
        """
        name = self.new_name()
        self.bed.ask(name, node=node, **how)
        return self.denied(name, reason)

    def denied(self, name: str, reason: str, *, condition: str = "Denied") -> str:
        """What a request was refused with."""
        outcome: Json = self.bed.wait_for(
            f"an outcome of {name}",
            lambda: (found := self.bed.outcome(name)).keys() & {condition, "certificate"} and found,
            operator=self.operator,
        )
        if "certificate" in outcome or condition not in outcome:
            raise NotRefused(f"a certificate was issued: {outcome}")
        said, message = outcome[condition]["reason"], outcome[condition]["message"]
        if said != reason or not message.endswith("."):
            raise NotRefused(f"refused for another reason: {said}: {message}")
        self.bed.wait_for("an Event", lambda: name in [event["regarding"]["name"] for event in self.bed.events(reason)])
        return f"{reason}: {message}"

    def forbidden(self, words: str, *arguments: str, kubeconfig: Path, body: Json | None = None) -> str:
        """Runs kubectl as somebody. What the API server said; raises NotRefused unless it said no in these words."""
        stdin = json.dumps(body) if body is not None else None
        try:
            done = self.bed.server.kubectl(*arguments, stdin=stdin, kubeconfig=kubeconfig, check=False)
        except subprocess.TimeoutExpired as error:
            raise NotRefused(f"no answer: {error}") from error
        said = " ".join(done.stderr.split())
        if done.returncode == 0:
            raise NotRefused(f"the API server did it: {done.stdout}")
        if words not in said:
            raise NotRefused(f"refused in other words: {said}")
        return said

    def stays(self, what: str, holds: Callable[[], bool], *, seconds: float = 1.0) -> None:
        """Looks for a while whether something goes on to hold. Raises NotRefused."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not holds():
                raise NotRefused(f"no longer: {what}")
            time.sleep(0.1)

    def conflict(self, node: str, claim: str) -> str:
        """Waits until the mesh says that a node's claim is refused; the sentence."""

        def sentence() -> str:
            conditions: list[Json] = self.bed.mesh().get("status", {}).get("conditions") or []
            said = [c["message"] for c in conditions if c["reason"] == "AddressConflict" and c["status"] == "True"]
            return next((text for text in said if node in text and claim in text), "")

        return self.bed.wait_for(f"a conflict of {node} about {claim}", sentence, operator=self.operator)

    def member(self, node: str) -> Json:
        """The spec of a node's IPsecNode."""
        return self.bed.members()[node]["spec"]


@contextmanager
def attacked_cluster() -> Generator[AttackedCluster]:
    """The ground, for as long as the block runs. Raises LabError."""
    with ApiServer() as server:
        server.apply_crds()
        bed = OperatorBed(server)
        bed.prepare()
        server.kubectl("apply", "--filename=-", stdin=_STRANGERS)
        for number in (1, 2):
            bed.add_node(number)
        with bed.operator() as operator:
            bed.add_tunnel(
                TUNNEL,
                {
                    "rollout": "Immediate",
                    "topology": "HubAndSpoke",
                    "hubSelector": {"matchLabels": {HUB_LABEL: "true"}},
                },
            )
            ground = AttackedCluster(bed, operator)
            bed.wait_for("a plan", lambda: bed.plan()["trustBundle"] and bed.plan()["tunnels"], operator=operator)
            bed.wait_for("IPsecNodes", lambda: {"n1", "n2"} <= set(bed.members()), operator=operator)
            for node in ("n1", "n2"):
                _write_report(ground, node)
            yield ground


def report(name: str) -> Json:
    return {"apiVersion": API_VERSION, "kind": REPORT_KIND, "metadata": {"name": name}}


def _write_report(ground: AttackedCluster, node: str) -> None:
    """As its agent, which may; and not before it may write no other's: policies take a moment to be in force."""
    probe = ("create", "--dry-run=server", "--filename=-")
    ground.bed.wait_for(
        "the admission policies",
        lambda: (
            ground.bed.server.kubectl(
                *probe, stdin=json.dumps(report("nobody")), kubeconfig=ground.agent(node), check=False
            ).returncode
        ),
    )
    ground.bed.server.kubectl("create", "--filename=-", stdin=json.dumps(report(node)), kubeconfig=ground.agent(node))
