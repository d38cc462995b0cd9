"""A real API server with the chart's RBAC, Nodes and agents' pods that nobody runs, and operators run as in their pods.

The operator process gets a token of its service account, and the tests speak for the agents with tokens bound to their
pods. Called by the test_operator_*.py files.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_api.certificate import CSR_USAGES, build_request
from hauberk_api.kinds import API_VERSION, MESHES, NODES, REPORT_KIND, REPORTS, TUNNEL_KIND, TUNNELS
from hauberk_api.names import AGENT_SERVICE_ACCOUNT, OPERATOR_SERVICE_ACCOUNT, SIGNER, STARTUP_TAINT, NodeName, NodeUid
from hauberk_operator import faults
from tests.apiserver import ApiServer
from tests.apiserver.binaries import binary
from tests.lab.api import ApiRefused

Json = dict[str, Any]

NAMESPACE: Final = "hauberk-system"
CHART: Final = Path(__file__).resolve().parent.parent.parent / "charts" / "hauberk"
TEMPLATES: Final = ("operator/rbac.yaml", "operator/lease.yaml", "agent/rbac.yaml", "agent/admission.yaml")
OURS: Final = f"/apis/{API_VERSION}"
REQUESTS: Final = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
EVENTS: Final = "/api/v1/namespaces/default/events"
"""Of what is in no namespace."""
PATIENCE_SECONDS: Final = 30.0
HEALTH_PORT: Final = 9652


class Operator:
    """A running operator process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def rss_mb(self) -> float:
        """Its resident memory, in 10^6 bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / 1e6

    def pause(self) -> Callable[[], None]:
        """Hold it in its tracks. Returns what lets it go on; it keeps the Lease if that comes soon."""
        self._process.send_signal(signal.SIGSTOP)
        return lambda: self._process.send_signal(signal.SIGCONT)

    def stands_still(self) -> bool:
        """Whether it is held in its tracks."""
        return "\nState:\tT" in Path(f"/proc/{self._process.pid}/status").read_text()

    def wake(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self, *, signal_number: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        if self.running:
            self._process.send_signal(signal_number)
        return self.wait()

    def wait(self) -> int:
        try:
            return self._process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the operator does not end:\n{self.log}") from None


@contextlib.contextmanager
def refused(status: int) -> Generator[None]:
    """What the API server refuses with this HTTP status is as it should be."""
    try:
        yield
    except ApiRefused as refusal:
        if refusal.status != status:
            raise


class OperatorBed:
    """What the operator finds in a cluster, and hands for the tests."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self._kubeconfig: Path | None = None
        """The operator's; its token outlives any test, and an API server that has stopped."""
        self._count = 0

    @classmethod
    def anew(cls, server: ApiServer, *, nodes: int) -> Self:
        """A prepared bed with so many nodes, on a server that has nothing else of ours."""
        bed = cls(server)
        bed.clear()
        bed.prepare()
        for number in range(1, nodes + 1):
            bed.add_node(number)
        return bed

    def prepare(self, *more: str, values: Sequence[str] = ()) -> None:
        """Make the namespace, and apply the chart's service accounts, roles, admission policies and Lease, and more.

        values are settings of the chart's, NAME=VALUE.
        """
        with refused(409):  # it is there
            self._create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        shown = [part for template in (*TEMPLATES, *more) for part in ("--show-only", f"templates/{template}")]
        settings = (part for value in values for part in ("--set", value))
        command = [str(binary("helm")), "template", "hauberk", str(CHART), "--namespace", NAMESPACE, *shown, *settings]
        rendered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        self.server.kubectl("apply", "--filename=-", stdin=rendered)
        token = self.server.token(OPERATOR_SERVICE_ACCOUNT, namespace=NAMESPACE)
        self._kubeconfig = self.server.kubeconfig_for_token(token, "operator")

    def clear(self) -> None:
        """Remove whatever an earlier bed has left on the same API server, but for what `prepare` has applied."""
        plain = ("pods", "secrets", "configmaps", "events")
        namespaced = (f"/api/v1/namespaces/{NAMESPACE}/{plural}" for plural in plain)
        ours = (f"{OURS}/{plural}" for plural in (TUNNELS, MESHES, NODES, REPORTS))
        for collection in (*namespaced, *ours, "/api/v1/nodes", REQUESTS, LEASES, EVENTS):
            for found in self.get(collection)["items"]:
                path = f"{collection}/{found['metadata']['name']}"
                if found["metadata"].pop("finalizers", None):
                    self._request("PUT", path, found)
                with refused(404):  # without its finalizers it is gone
                    self._request("DELETE", f"{path}?gracePeriodSeconds=0")

    # Processes

    @contextlib.contextmanager
    def operator(self, identity: str = "op-1", *, port: int = HEALTH_PORT, fault: str = "") -> Generator[Operator]:
        """Run an operator; it is ended, if it is not yet, in the end. fault as in hauberk_operator.faults."""
        operator = self.start(identity, port=port, fault=fault)
        try:
            yield operator
        finally:
            if operator.running:
                operator.stop(signal_number=signal.SIGKILL)

    def start(self, identity: str, *, port: int = HEALTH_PORT, fault: str = "") -> Operator:
        """Start an operator under a name of its own."""
        command = ["run", f"--health=127.0.0.1:{port}", f"--identity={identity}"]
        self._count += 1
        log = self.server.directory / f"{identity}-{self._count}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command(*command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {faults.VARIABLE: fault},
            )
        return Operator(process, log)

    def uninstall(self, *, timeout: int) -> subprocess.CompletedProcess[str]:
        """Run the pre-delete hook's command."""
        return subprocess.run(
            self._command("uninstall", f"--timeout={timeout}"),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout + 60,
        )

    def probe(self, path: str, *, port: int = HEALTH_PORT) -> int:
        """The HTTP status that a probe gets; 0 if nobody answers."""
        program = (
            "import sys, urllib.request, urllib.error\n"
            "try: print(urllib.request.urlopen(sys.argv[1], timeout=5).status)\n"
            "except urllib.error.HTTPError as error: print(error.code)\n"
            "except OSError: print(0)\n"
        )
        url = f"http://127.0.0.1:{port}{path}"
        command = self.server.command_inside(sys.executable, "-c", program, url)
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)

    def _command(self, *arguments: str) -> list[str]:
        program = Path(sys.executable).parent / "hauberk-operator"
        common = [f"--namespace={NAMESPACE}", f"--kubeconfig={self._kubeconfig}"]
        return self.server.command_inside(str(program), *arguments, *common)

    # Objects

    def add_node(
        self,
        number: int,
        *,
        addresses: Sequence[str] | None = None,
        tainted: bool = False,
        ready: bool = True,
        labels: dict[str, str] | None = None,
    ) -> str:
        """A Node n<number>, as its kubelet would register it, with an agent's pod on it. Returns its UID."""
        name = f"n{number}"
        cidrs = [f"10.244.{number}.0/24", f"fd00:244:{number}::/64"]
        taints = [{"key": STARTUP_TAINT, "effect": "NoSchedule"}] if tainted else []
        node = self._create(
            "/api/v1/nodes",
            {
                "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", **(labels or {})}},
                "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs, "taints": taints},
            },
        )
        node["status"] = {
            "addresses": [
                {"type": "InternalIP", "address": address} for address in addresses or [f"10.250.0.{number}"]
            ],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False", "reason": "x", "message": "x"}],
        }
        self._request("PUT", f"/api/v1/nodes/{name}/status", node)
        self.add_pod(f"agent-{name}", node=name)
        return node["metadata"]["uid"]

    def add_pod(
        self, name: str, *, node: str, service_account: str = AGENT_SERVICE_ACCOUNT, namespace: str = NAMESPACE
    ) -> Json:
        spec: Json = {
            "nodeName": node,
            "serviceAccountName": service_account,
            "automountServiceAccountToken": False,
            "containers": [{"name": "agent", "image": "localhost/hauberk"}],
        }
        return self._create(f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": name}, "spec": spec})

    def remove_pod(self, name: str, *, namespace: str = NAMESPACE) -> None:
        self._request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0")

    def remove_node(self, number: int) -> None:
        self.remove_pod(f"agent-n{number}")
        self._request("DELETE", f"/api/v1/nodes/n{number}")

    def add_tunnel(self, name: str = "pods", spec: Json | None = None) -> Json:
        """A tunnel; one that is planned at once, if nothing else is given."""
        body = {
            "apiVersion": API_VERSION,
            "kind": TUNNEL_KIND,
            "metadata": {"name": name},
            "spec": spec if spec is not None else {"rollout": "Immediate"},
        }
        return self._create(f"{OURS}/{TUNNELS}", body)

    def remove_tunnel(self, name: str = "pods") -> None:
        self._request("DELETE", f"{OURS}/{TUNNELS}/{name}")

    def change_mesh(self, spec: Json) -> None:
        """As a person who edits it: again, if the operator has written its status meanwhile."""
        for attempt in range(10):
            mesh = self.get(f"{OURS}/{MESHES}/default")
            try:
                self._request("PUT", f"{OURS}/{MESHES}/default", mesh | {"spec": spec})
            except ApiRefused as refused:
                if refused.status != 409 or attempt == 9:
                    raise
            else:
                return

    def report(self, node: str, **status: Any) -> None:
        """What the agent on a node says of itself: following the plan in full, but for what is given."""
        path = f"{OURS}/{REPORTS}/{node}"
        tunnels = self.plan()["tunnels"]
        says: Json = {
            "nodeUID": self.get(f"/api/v1/nodes/{node}")["metadata"]["uid"],
            "agentVersion": "0.1.0",
            "planGeneration": self.plan()["generation"],
            "ready": True,
            "reason": "Following",
            "kernel": {"release": "7.3", "esp": True},
            "tunnels": [
                {"tunnel": t["uid"], "generation": t["generation"], "ready": True, "phase": t["phase"]} for t in tunnels
            ],
            "stateLeft": bool(tunnels),
        }
        try:
            report = self.get(path)
        except ApiRefused:
            body = {"apiVersion": API_VERSION, "kind": REPORT_KIND, "metadata": {"name": node}}
            report = self._create(f"{OURS}/{REPORTS}", body)
        self._request("PUT", f"{path}/status", report | {"status": says | status})

    def follow_phases(self, *nodes: str, operator: Operator, last: str) -> list[str]:
        """Report for each phase of the one tunnel that these nodes have carried it out. The phases, to the last.

        "" as the last: until the tunnel has left the plan.
        """
        seen: list[str] = []

        def phase() -> str:
            return next((tunnel["phase"] for tunnel in self.plan()["tunnels"]), "")

        while seen[-1:] != [last]:
            here = self.wait_for(
                f"what follows {seen}",
                lambda: [p for p in (phase(),) if [p] != seen[-1:] and (p or not last)],
                operator=operator,
            )[0]
            seen.append(here)
            for node in nodes:
                self.report(node)
        return seen

    def ask(
        self,
        name: str,
        *,
        node: str,
        claims: str = "",
        claims_uid: str = "",
        pod: str = "",
        service_account: str = AGENT_SERVICE_ACCOUNT,
        namespace: str = NAMESPACE,
        bound: bool = True,
        token: str = "",
        kubeconfig: Path | None = None,
        pem: bytes = b"",
        usages: Sequence[str] = CSR_USAGES,
        expiration_seconds: int | None = None,
    ) -> None:
        """Send a certificate request with a token bound to an agent's pod on a node, or as somebody else."""
        claims = claims or node
        uid = claims_uid or self.get(f"/api/v1/nodes/{claims}")["metadata"]["uid"]
        key = ec.generate_private_key(ec.SECP256R1())
        pem = pem or build_request(key, uid=NodeUid(uid), name=NodeName(claims))
        spec: Json = {"signerName": SIGNER, "usages": list(usages), "request": base64.b64encode(pem).decode()}
        if expiration_seconds is not None:
            spec["expirationSeconds"] = expiration_seconds
        body = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": spec,
        }
        if kubeconfig is None:
            token = token or self.agent_token(
                pod or f"agent-{node}", service_account=service_account, namespace=namespace, bound=bound
            )
            kubeconfig = self.server.kubeconfig_for_token(token, f"asks-{name}")
        self.server.kubectl("create", "--filename=-", stdin=yaml.safe_dump(body), kubeconfig=kubeconfig)

    def agent_token(
        self,
        pod: str,
        *,
        service_account: str = AGENT_SERVICE_ACCOUNT,
        namespace: str = NAMESPACE,
        bound: bool = True,
    ) -> str:
        where = f"/api/v1/namespaces/{namespace}/pods/{pod}"
        binding = {"name": pod, "uid": self.get(where)["metadata"]["uid"]} if bound else None
        return self.server.token(service_account, namespace=namespace, pod=binding)

    # Looking

    def get(self, path: str) -> Json:
        return self.server.api.get(path)

    def mesh(self) -> Json:
        """The IPsecMesh; empty while there is none."""
        meshes: list[Json] = self.get(f"{OURS}/{MESHES}")["items"]
        return meshes[0] if meshes else {}

    def plan(self) -> Json:
        return self.mesh().get("status", {}).get("plan") or {"generation": 0, "tunnels": [], "trustBundle": ""}

    def members(self) -> dict[str, Json]:
        return {obj["metadata"]["name"]: obj for obj in self.get(f"{OURS}/{NODES}")["items"]}

    def tunnel(self, name: str = "pods") -> Json | None:
        found = {obj["metadata"]["name"]: obj for obj in self.get(f"{OURS}/{TUNNELS}")["items"]}
        return found.get(name)

    def condition(self, kind: str, *, tunnel: str = "pods") -> Json:
        """A tunnel's condition; empty while there is none."""
        status: Json = (self.tunnel(tunnel) or {}).get("status") or {}
        conditions: dict[str, Json] = {c["type"]: c for c in status.get("conditions", ())}
        return conditions.get(kind, {})

    def outcome(self, request: str) -> Json:
        """What became of a request: {condition type: condition}, and its "certificate" (PEM) if one was issued."""
        status = self.get(f"{REQUESTS}/{request}").get("status", {})
        found: Json = {c["type"]: c for c in status.get("conditions", ())}
        if status.get("certificate"):
            found["certificate"] = base64.b64decode(status["certificate"])
        return found

    def events(self, reason: str) -> list[Json]:
        listed = self.get("/apis/events.k8s.io/v1/namespaces/default/events")["items"]
        return [event for event in listed if event["reason"] == reason]

    def leader(self) -> str:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/hauberk-operator"
        spec: Json = self.get(path).get("spec") or {}
        return spec.get("holderIdentity", "")

    def left(self) -> list[str]:
        """What of ours is left in the cluster, but for the Lease."""
        ours = [
            f"{obj['metadata']['name']} of {plural}"
            for plural in (TUNNELS, MESHES, NODES, REPORTS)
            for obj in self.get(f"{OURS}/{plural}")["items"]
        ]
        secrets = self.get(f"/api/v1/namespaces/{NAMESPACE}/secrets")["items"]
        requests = self.get(REQUESTS)["items"]
        return ours + [obj["metadata"]["name"] for obj in (*secrets, *requests)]

    def operator_writes(self, since: int) -> list[str]:
        """What operators wrote, but for the Lease, since a length of the audit log."""
        writes: list[str] = []
        with self.server.audit_log.open() as lines:
            lines.seek(since)
            for line in lines:
                event = json.loads(line)
                ours = event["user"].get("username", "").endswith(f":{OPERATOR_SERVICE_ACCOUNT}")
                reading = event["verb"] in ("get", "list", "watch")
                if (
                    ours
                    and not reading
                    and event["stage"] == "ResponseComplete"
                    and "/leases/" not in event["requestURI"]
                ):
                    writes.append(f"{event['verb']} {event['requestURI']}")
        return writes

    def answers(self, verb: str, name: str, since: int) -> list[int]:
        """The HTTP statuses of what operators asked of an object since a length of the audit log."""
        statuses: list[int] = []
        with self.server.audit_log.open() as lines:
            lines.seek(since)
            for line in lines:
                event = json.loads(line)
                ours = event["user"].get("username", "").endswith(f":{OPERATOR_SERVICE_ACCOUNT}")
                if ours and event["verb"] == verb and event.get("objectRef", {}).get("name") == name:
                    statuses.append(event["responseStatus"]["code"])
        return statuses

    def audit_length(self) -> int:
        return os.stat(self.server.audit_log).st_size

    def wait_for(self, what: str, holds: Callable[[], Any], *, operator: Operator | None = None) -> Any:
        """Wait until something holds, and return it. Fails with the operator's log when it never does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := holds()):
            if operator is not None and not operator.running:
                raise AssertionError(f"the operator ended while waiting for {what}:\n{operator.log}")
            if time.monotonic() > deadline:
                log = operator.log if operator is not None else ""
                raise AssertionError(f"never: {what}\n{log}")
            time.sleep(0.05)
        return found

    def _create(self, path: str, body: Json) -> Json:
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: Json | None = None) -> Json:
        return json.loads(self.server.api.request(method, path, body))
