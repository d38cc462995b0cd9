"""The chart on a real API server (etcd and kube-apiserver alone, so nothing runs): installed, tried, removed."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_api.certificate import CSR_USAGES, build_request
from hauberk_api.kinds import API_VERSION, GROUP, REPORT_KIND
from hauberk_api.names import NodeName, NodeUid
from tests.apiserver.server import ApiServer
from tests.unit.chart.helm import CHART, NAMESPACE, Helm

EXAMPLES: Final = CHART.parents[1] / "examples"
OPERATOR: Final = f"system:serviceaccount:{NAMESPACE}:hauberk-operator"
AGENT: Final = f"system:serviceaccount:{NAMESPACE}:hauberk-agent"


SIGNERS: Final = {"group": "certificates.k8s.io", "resource": "signers"}
REQUESTS: Final = {"group": "certificates.k8s.io", "resource": "certificatesigningrequests"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent's pod on a node, as the API server sees its requests."""

    node: str
    node_uid: str
    kubeconfig: Path


@pytest.fixture(scope="module")
def release(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helm]:
    """The chart installed by `helm install`; uninstalled afterwards."""
    helm = Helm(
        directory=tmp_path_factory.mktemp("helm"),
        kubeconfig=apiserver.kubeconfig,
        prefix=apiserver.command_inside(),
    )
    # The CRDs that the API server has from elsewhere, as after `kubectl apply -f crds/`.
    installed = helm.run(
        "install", "hauberk", str(CHART), f"--namespace={NAMESPACE}", "--create-namespace", "--take-ownership"
    )
    assert installed.returncode == 0, installed.stderr
    yield helm
    # No controller runs the hook here.
    removed = helm.run("uninstall", "hauberk", f"--namespace={NAMESPACE}", "--no-hooks")
    assert removed.returncode == 0, removed.stderr
    crds = apiserver.kubectl("get", "crds", "--output=name").stdout
    assert crds.count(".hauberk.dev") == 4  # they stay
    left = apiserver.kubectl(
        "get",
        "clusterroles,clusterrolebindings,validatingadmissionpolicies,flowschemas,prioritylevelconfigurations",
        "--output=name",
    ).stdout
    assert "hauberk" not in left


@pytest.fixture(scope="module")
def agent(apiserver: ApiServer, release: Helm) -> Callable[[str], Agent]:
    """Makes a Node with an agent's pod on it, and the pod's token."""
    del release
    made: dict[str, Agent] = {}

    def make(node: str) -> Agent:
        if node not in made:
            made[node] = _make_agent(apiserver, node)
        return made[node]

    return make


def test_the_api_server_takes_all_of_it_without_a_warning(apiserver: ApiServer, release: Helm) -> None:
    manifest = release.run("get", "manifest", "hauberk", f"--namespace={NAMESPACE}").stdout
    done = apiserver.kubectl(
        "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", stdin=manifest
    )
    assert "Warning" not in done.stderr
    # Expressions that don't fit the schemas would be reported here, and match nothing later.
    for policy in ("hauberk-reports", "hauberk-requests"):
        shown = json.loads(apiserver.kubectl("get", "validatingadmissionpolicy", policy, "-o", "json").stdout)
        assert not shown.get("status", {}).get("typeChecking", {}).get("expressionWarnings")


@pytest.mark.parametrize(
    ("user", "verb", "what", "allowed"),
    [
        (OPERATOR, "get", {"resource": "secrets", "name": "hauberk-ca", "namespace": NAMESPACE}, True),
        (OPERATOR, "get", {"resource": "secrets", "name": "another", "namespace": NAMESPACE}, False),
        (OPERATOR, "list", {"resource": "secrets", "namespace": NAMESPACE}, False),
        (OPERATOR, "get", {"resource": "secrets", "name": "hauberk-ca", "namespace": "default"}, False),
        (OPERATOR, "approve", SIGNERS | {"name": "hauberk.dev/node"}, True),
        (OPERATOR, "sign", SIGNERS | {"name": "hauberk.dev/node"}, True),
        (OPERATOR, "sign", SIGNERS | {"name": "kubernetes.io/kube-apiserver-client"}, False),
        (OPERATOR, "create", {"group": GROUP, "resource": "ipsecnodes"}, True),
        (OPERATOR, "patch", {"group": GROUP, "resource": "ipsectunnels", "subresource": "status"}, True),
        (OPERATOR, "create", {"group": GROUP, "resource": "ipsectunnels"}, False),
        (OPERATOR, "create", {"group": "events.k8s.io", "resource": "events", "namespace": "default"}, True),
        (OPERATOR, "patch", {"group": "events.k8s.io", "resource": "events", "namespace": "default"}, True),
        (OPERATOR, "delete", {"resource": "nodes"}, False),
        (OPERATOR, "create", {"resource": "pods", "namespace": NAMESPACE}, False),
        (AGENT, "watch", {"group": GROUP, "resource": "ipsecmeshes"}, True),
        (AGENT, "watch", {"group": GROUP, "resource": "ipsecnodes"}, True),
        (AGENT, "patch", {"group": GROUP, "resource": "ipsecnodes"}, False),
        (AGENT, "patch", {"group": GROUP, "resource": "ipsecmeshes", "subresource": "status"}, False),
        (AGENT, "create", {"group": GROUP, "resource": "ipsecreports"}, True),
        (AGENT, "delete", {"group": GROUP, "resource": "ipsecreports"}, False),
        (AGENT, "get", {"group": GROUP, "resource": "ipsectunnels"}, False),
        (AGENT, "get", {"resource": "nodes"}, False),
        (AGENT, "get", {"resource": "secrets", "name": "hauberk-ca", "namespace": NAMESPACE}, False),
        (AGENT, "sign", SIGNERS | {"name": "hauberk.dev/node"}, False),
        (AGENT, "update", REQUESTS | {"subresource": "approval"}, False),
    ],
)
def test_rights(apiserver: ApiServer, release: Helm, user: str, verb: str, what: dict[str, str], allowed: bool) -> None:
    del release
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": {"verb": verb, **what}},
    }
    answer = json.loads(apiserver.kubectl("create", "-f", "-", "--output=json", stdin=json.dumps(review)).stdout)
    assert answer["status"]["allowed"] is allowed, answer["status"]


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_api_server_takes_the_examples(apiserver: ApiServer, release: Helm, example: Path) -> None:
    del release
    done = apiserver.kubectl("apply", "--server-side", "--dry-run=server", f"--filename={example}")
    assert "Warning" not in done.stderr


def test_an_agent_writes_the_report_of_its_own_node(apiserver: ApiServer, agent: Callable[[str], Agent]) -> None:
    one = agent("one")
    assert _create_report(apiserver, one, name="one") == ""
    assert _patch_status(apiserver, one, name="one", node_uid=one.node_uid) == ""
    # The report stays what it was when it is written again.
    assert _patch_status(apiserver, one, name="one", node_uid=one.node_uid) == ""


def test_an_agent_asks_our_signer(apiserver: ApiServer, agent: Callable[[str], Agent]) -> None:
    """And nobody else's: tests/attacks."""
    one = agent("one")
    assert _create(apiserver, one, _signing_request(one, "hauberk.dev/node")) == ""


def test_helm_says_what_a_namespace_lacks(apiserver: ApiServer, release: Helm) -> None:
    apiserver.kubectl("create", "namespace", "locked")
    apiserver.kubectl("label", "namespace", "locked", "pod-security.kubernetes.io/enforce=restricted")
    try:
        done = release.run("install", "other", str(CHART), "--namespace=locked", "--dry-run=server")
    finally:
        apiserver.kubectl("delete", "namespace", "locked", "--wait=false")
    assert done.returncode != 0
    assert "kubectl label --overwrite namespace locked pod-security.kubernetes.io/enforce=privileged" in done.stderr


def _make_agent(apiserver: ApiServer, node: str) -> Agent:
    apiserver.kubectl(
        "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"agent-{node}", "namespace": NAMESPACE},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "hauberk-agent",
            "containers": [{"name": "agent", "image": "localhost/none"}],
        },
    }
    apiserver.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    made = json.loads(apiserver.kubectl("get", "pod", f"agent-{node}", "-n", NAMESPACE, "-o", "json").stdout)
    token = apiserver.token(
        "hauberk-agent",
        namespace=NAMESPACE,
        pod={"name": made["metadata"]["name"], "uid": made["metadata"]["uid"]},
    )
    uid = apiserver.kubectl("get", "node", node, "-o", "jsonpath={.metadata.uid}").stdout
    return Agent(node=node, node_uid=uid, kubeconfig=apiserver.kubeconfig_for_token(token, f"agent-{node}"))


def _create_report(apiserver: ApiServer, agent: Agent, *, name: str) -> str:
    return _create(apiserver, agent, {"apiVersion": API_VERSION, "kind": REPORT_KIND, "metadata": {"name": name}})


def _create(apiserver: ApiServer, agent: Agent, obj: dict[str, Any]) -> str:
    """What the API server says against it: nothing when it took it."""
    done = apiserver.kubectl("create", "-f", "-", stdin=json.dumps(obj), kubeconfig=agent.kubeconfig, check=False)
    return "" if done.returncode == 0 else done.stderr


def _patch_status(apiserver: ApiServer, agent: Agent, *, name: str, node_uid: str) -> str:
    status = {
        "nodeUID": node_uid,
        "agentVersion": "0.1.0",
        "planGeneration": 1,
        "ready": False,
        "reason": "Establishing",
        "kernel": {"release": "7.3.0", "esp": True},
    }
    patch = json.dumps({"status": status})
    arguments = ("patch", "ipsecreport", name, "--subresource=status", "--type=merge", f"--patch={patch}")
    done = apiserver.kubectl(*arguments, kubeconfig=agent.kubeconfig, check=False)
    return "" if done.returncode == 0 else done.stderr


def _signing_request(agent: Agent, signer: str) -> dict[str, Any]:

    key = ec.generate_private_key(ec.SECP256R1())
    request = build_request(key, uid=NodeUid(agent.node_uid), name=NodeName(agent.node))
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"request-{signer.replace('/', '-')}"},
        "spec": {"request": base64.b64encode(request).decode(), "signerName": signer, "usages": list(CSR_USAGES)},
    }
