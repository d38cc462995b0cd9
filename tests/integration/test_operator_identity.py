"""Who gets a node certificate, on a real API server: real pod-bound tokens, real stamps, real refusals."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from hauberk_api.names import REVOKED_LABEL, NodeUid, node_identity
from tests.apiserver import ApiServer
from tests.integration.operator_bed import NAMESPACE, Operator, OperatorBed

SECONDS = 10.0
"""Within which a node is out of the mesh, on a slow machine."""
STRANGER = "stranger"
MAY_ASK = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {STRANGER}, namespace: {NAMESPACE}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {STRANGER}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: hauberk-agent}}
subjects: [{{kind: ServiceAccount, name: {STRANGER}, namespace: {NAMESPACE}}}]
"""

_names = (f"csr-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def bed() -> Iterator[OperatorBed]:
    """Two nodes, and a service account that may ask as well but is no agent."""
    with ApiServer() as server:
        server.apply_crds()
        bed = OperatorBed(server)
        bed.prepare()
        server.kubectl("apply", "--filename=-", stdin=MAY_ASK)
        bed.add_node(1)
        bed.add_node(2)
        yield bed


@pytest.fixture(scope="module", autouse=True)
def operator(bed: OperatorBed) -> Iterator[Operator]:
    with bed.operator() as operator:
        bed.wait_for("IPsecNodes", lambda: {"n1", "n2"} <= set(bed.members()), operator=operator)
        yield operator


def uid_of(bed: OperatorBed, node: str) -> NodeUid:
    return NodeUid(bed.get(f"/api/v1/nodes/{node}")["metadata"]["uid"])


def refusal(bed: OperatorBed, name: str) -> str:
    """The reason of a refusal; fails if a certificate was issued, and unless an Event tells of it."""
    outcome = bed.wait_for(f"an outcome of {name}", lambda: bed.outcome(name))
    assert set(outcome) == {"Denied"}, outcome
    reason: str = outcome["Denied"]["reason"]
    assert outcome["Denied"]["message"].endswith(".")
    bed.wait_for("an Event", lambda: name in [event["regarding"]["name"] for event in bed.events(reason)])
    return reason


def issued(bed: OperatorBed, name: str) -> x509.Certificate:
    outcome = bed.wait_for("a certificate", lambda: (found := bed.outcome(name)).get("certificate") and found)
    assert outcome["Approved"]["reason"] == "NodeIdentity"
    return x509.load_pem_x509_certificate(outcome["certificate"])


def test_an_agent_gets_the_certificate_of_its_own_node(bed: OperatorBed) -> None:
    bed.ask(name := next(_names), node="n1")
    certificate = issued(bed, name)
    bundle = x509.load_pem_x509_certificates(bed.plan()["trustBundle"].encode())
    identity = x509.DNSName(node_identity(uid_of(bed, "n1")))
    PolicyBuilder().store(Store(bundle)).build_server_verifier(identity).verify(certificate, [])
    PolicyBuilder().store(Store(bundle)).build_client_verifier().verify(certificate, [])
    life = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(hours=23) < life <= timedelta(hours=24)


def test_a_shorter_life_is_granted(bed: OperatorBed) -> None:
    bed.ask(name := next(_names), node="n1", expiration_seconds=600)
    assert issued(bed, name).not_valid_after_utc - datetime.now(UTC) <= timedelta(seconds=600)


def test_the_meshs_life_of_certificates_counts(bed: OperatorBed, operator: Operator) -> None:
    bed.change_mesh({"certificates": {"lifetimeSeconds": 60}})
    observed = bed.get("/apis/hauberk.dev/v1alpha1/ipsecmeshes/default")["metadata"]["generation"]
    bed.wait_for("it", lambda: bed.mesh()["status"]["observedGeneration"] == observed, operator=operator)
    bed.ask(name := next(_names), node="n2")
    assert issued(bed, name).not_valid_after_utc - datetime.now(UTC) <= timedelta(seconds=60)
    bed.change_mesh({})


def test_another_nodes_name_is_refused(bed: OperatorBed) -> None:
    """n1's token, n2's name: a compromised node cannot become another."""
    bed.ask(name := next(_names), node="n1", claims="n2")
    assert refusal(bed, name) == "NameNotAllowed"


def test_another_nodes_identity_under_its_own_name_is_refused(bed: OperatorBed) -> None:
    bed.ask(name := next(_names), node="n1", claims_uid=uid_of(bed, "n2"))
    assert refusal(bed, name) == "NameNotAllowed"


def test_a_token_that_is_bound_to_no_pod_is_refused(bed: OperatorBed) -> None:
    bed.ask(name := next(_names), node="n1", bound=False)
    assert refusal(bed, name) == "NotNodeBound"


def test_another_service_account_of_the_namespace_is_refused(bed: OperatorBed) -> None:
    bed.add_pod("stranger", node="n1", service_account=STRANGER)
    bed.ask(name := next(_names), node="n1", pod="stranger", service_account=STRANGER)
    assert refusal(bed, name) == "WrongServiceAccount"


def test_an_admin_is_no_agent(bed: OperatorBed) -> None:
    """Even who may do anything gets no node's certificate."""
    admin = bed.server.kubeconfig_for_user("admin", group="system:masters", name="an-admin")
    bed.ask(name := next(_names), node="n1", kubeconfig=admin)
    assert refusal(bed, name) == "WrongServiceAccount"


def test_a_pod_that_is_gone_when_its_request_is_judged_is_refused(bed: OperatorBed, operator: Operator) -> None:
    """The API server lets a token live on for a while after its pod."""
    bed.add_pod("brief", node="n1")
    token = bed.agent_token("brief")
    resume = operator.pause()
    try:
        bed.ask(name := next(_names), node="n1", token=token)
        bed.remove_pod("brief")
    finally:
        resume()
    assert refusal(bed, name) == "PodUnknown"


def test_a_node_that_is_gone_when_its_request_is_judged_is_refused(bed: OperatorBed, operator: Operator) -> None:
    bed.add_node(7)
    bed.wait_for("n7", lambda: "n7" in bed.members(), operator=operator)
    resume = operator.pause()
    try:
        bed.ask(name := next(_names), node="n7")
        bed.remove_node(7)
    finally:
        resume()
    assert refusal(bed, name) == "NodeUnknown"


def test_a_revoked_node_is_refused_and_in_no_tunnel(bed: OperatorBed, operator: Operator) -> None:
    bed.change_mesh({"revokedNodes": [uid_of(bed, "n2")]})
    bed.wait_for("the plan", lambda: bed.plan().get("revokedNodes"), operator=operator)
    bed.ask(name := next(_names), node="n2")
    assert refusal(bed, name) == "NodeRevoked"
    bed.change_mesh({})
    bed.wait_for("the plan", lambda: not bed.plan().get("revokedNodes"), operator=operator)


def test_a_node_revoked_by_name_stays_out_when_it_registers_again(bed: OperatorBed, operator: Operator) -> None:
    """Its kubelet comes back under another UID; the name in revokedNodes is still meant."""
    bed.add_tunnel("members")
    bed.add_node(5)
    bed.wait_for("its membership", lambda: memberships(bed, "n5"), operator=operator)
    bed.change_mesh({"revokedNodes": ["n5"]})
    bed.wait_for("its end", lambda: not memberships(bed, "n5"), operator=operator)
    bed.remove_node(5)
    bed.wait_for("its IPsecNode's end", lambda: "n5" not in bed.members(), operator=operator)
    again = bed.add_node(5)
    bed.wait_for("its UID in the plan", lambda: again in bed.plan()["revokedNodes"], operator=operator)
    assert not memberships(bed, "n5")
    bed.ask(name := next(_names), node="n5")
    assert refusal(bed, name) == "NodeRevoked"
    bed.change_mesh({})
    bed.wait_for("its membership", lambda: memberships(bed, "n5"), operator=operator)
    bed.remove_node(5)
    bed.remove_tunnel("members")
    bed.wait_for("the tunnel's end", lambda: bed.tunnel("members") is None, operator=operator)


def test_a_label_that_no_kubelet_may_write_takes_a_node_out(bed: OperatorBed, operator: Operator) -> None:
    bed.add_tunnel("members")
    bed.wait_for("its membership", lambda: memberships(bed, "n2"), operator=operator)
    began = time.monotonic()
    bed.server.kubectl("label", "node", "n2", f"{REVOKED_LABEL}=")
    bed.wait_for("its end", lambda: not memberships(bed, "n2"), operator=operator)
    bed.wait_for("its UID in the plan", lambda: uid_of(bed, "n2") in bed.plan()["revokedNodes"], operator=operator)
    assert time.monotonic() - began < SECONDS
    bed.ask(name := next(_names), node="n2")
    assert refusal(bed, name) == "NodeRevoked"
    bed.server.kubectl("label", "node", "n2", f"{REVOKED_LABEL}-")
    bed.wait_for("its membership", lambda: memberships(bed, "n2"), operator=operator)
    assert bed.plan()["revokedNodes"] == []
    bed.remove_tunnel("members")
    bed.wait_for("the tunnel's end", lambda: bed.tunnel("members") is None, operator=operator)


def test_a_deleted_node_is_gone_for_its_peers_within_seconds(bed: OperatorBed, operator: Operator) -> None:
    bed.add_tunnel("members")
    bed.add_node(6)
    bed.wait_for("its membership", lambda: memberships(bed, "n6"), operator=operator)
    began = time.monotonic()
    bed.remove_node(6)
    bed.wait_for("its IPsecNode's end", lambda: "n6" not in bed.members(), operator=operator)
    assert time.monotonic() - began < SECONDS
    bed.remove_tunnel("members")
    bed.wait_for("the tunnel's end", lambda: bed.tunnel("members") is None, operator=operator)


def memberships(bed: OperatorBed, node: str) -> list[object]:
    member = bed.members().get(node)
    return list(member["spec"].get("memberships") or ()) if member is not None else []


def pkcs10(
    bed: OperatorBed, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *more: str, ca: bool = False
) -> bytes:
    names = [node_identity(uid_of(bed, "n1")), "n1", *more]
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "n1")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_additional_names_are_refused(bed: OperatorBed) -> None:
    bed.ask(name := next(_names), node="n1", pem=pkcs10(bed, ec.generate_private_key(ec.SECP256R1()), "n2"))
    assert refusal(bed, name) == "NameNotAllowed"


def test_a_ca_is_refused(bed: OperatorBed) -> None:
    bed.ask(name := next(_names), node="n1", pem=pkcs10(bed, ec.generate_private_key(ec.SECP256R1()), ca=True))
    assert refusal(bed, name) == "ExtensionNotAllowed"


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP224R1()), rsa.generate_private_key(65537, 1024)],  # noqa: S505 - the attack
    ids=["P-224", "RSA 1024"],
)
def test_a_weak_key_is_refused(bed: OperatorBed, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    bed.ask(name := next(_names), node="n1", pem=pkcs10(bed, key))
    assert refusal(bed, name) == "KeyNotAllowed"


def test_other_usages_are_refused(bed: OperatorBed) -> None:
    bed.ask(name := next(_names), node="n1", usages=["client auth"])
    assert refusal(bed, name) == "UsagesNotAllowed"


def test_what_somebody_else_approved_is_judged_all_the_same(bed: OperatorBed, operator: Operator) -> None:
    """An administrator approves by mistake: the signer fails the request, and signs nothing."""
    resume = operator.pause()
    try:
        bed.ask(name := next(_names), node="n1", claims="n2")
        bed.server.kubectl("certificate", "approve", name)
    finally:
        resume()
    outcome = bed.wait_for("a failure", lambda: (found := bed.outcome(name)).get("Failed") and found)
    assert outcome["Failed"]["reason"] == "NameNotAllowed"
    assert "certificate" not in outcome


def test_the_ca_key_is_in_the_secret_alone(bed: OperatorBed, operator: Operator) -> None:
    secret = bed.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/hauberk-ca")
    assert secret["type"] == "kubernetes.io/tls"
    assert "PRIVATE KEY" not in operator.log
    assert "PRIVATE KEY" not in str(bed.mesh())
