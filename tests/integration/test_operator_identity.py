"""Who gets a node certificate and for how long, on a real API server: real pod-bound tokens, real stamps.

Who gets none is in the table of attacks: tests/attacks.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from hauberk_api.names import REVOKED_LABEL, NodeUid, node_identity
from tests.apiserver import ApiServer
from tests.integration.operator_bed import NAMESPACE, Operator, OperatorBed

SECONDS = 10.0
"""Within which a node is out of the mesh, on a slow machine."""
_names = (f"csr-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def bed(apiserver: ApiServer) -> OperatorBed:
    return OperatorBed.anew(apiserver, nodes=2)


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


def test_the_ca_key_is_in_the_secret_alone(bed: OperatorBed, operator: Operator) -> None:
    secret = bed.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/hauberk-ca")
    assert secret["type"] == "kubernetes.io/tls"
    assert "PRIVATE KEY" not in operator.log
    assert "PRIVATE KEY" not in str(bed.mesh())
