"""A real cert-manager signs what our operator has approved, on a real API server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from hauberk_api.certificate import fingerprint
from hauberk_api.kinds import API_VERSION, MESH_KIND
from hauberk_api.names import NodeUid, node_identity
from tests.apiserver import ApiServer
from tests.cert_manager import CertManager, CompanyCA
from tests.integration.operator_bed import NAMESPACE, REQUESTS, Operator, OperatorBed

_names = (f"delegated-{number}" for number in itertools.count())


class World:
    """A mesh of two nodes, and a cert-manager with a company's CA."""

    def __init__(self, server: ApiServer) -> None:
        self.bed = OperatorBed(server)
        self.bed.prepare(values=["certManager.enabled=true", "certManager.caConfigMap=company-ca"])
        self.bed.add_node(1)
        self.bed.add_node(2)
        self.cert_manager = CertManager(server, logs=server.directory)
        self.cert_manager.apply_crds()
        self.ca, self.next_ca = CompanyCA("Example Corp"), CompanyCA("Example Corp, next")

    def delegate(self, issuer: str, *authorities: CompanyCA) -> None:
        bundle = "".join(ca.pem for ca in authorities or (self.ca,))
        self.bed.change_mesh({"certificates": {"issuer": {"name": issuer, "caBundle": bundle}}})

    def degraded(self, *words: str) -> bool:
        """Whether the mesh's condition says all of this; without words, whether nothing is amiss."""
        conditions = self.bed.mesh().get("status", {}).get("conditions", ())
        degraded = next((c for c in conditions if c["type"] == "Degraded"), {"status": "", "reason": "", "message": ""})
        said = f"{degraded['reason']} {degraded['message']}"
        return all(word in said for word in words) if words else degraded["status"] == "False"

    @property
    def authority(self) -> dict[str, object]:
        return self.bed.mesh().get("status", {}).get("authority") or {}

    def signs(self, authority: CompanyCA) -> bool:
        """Whether the mesh has settled on a CA."""
        mark = fingerprint(authority.certificate)
        plan = self.bed.plan()
        return self.authority.get("phase") == "Stable" and plan.get("authority") == mark == self.authority["signs"]

    def report(self, *nodes: str) -> None:
        """As agents have it that follow the plan."""
        until = (datetime.now(UTC) + timedelta(hours=24)).strftime("%Y-%m-%dT%H:%M:%SZ")
        plan = self.bed.plan()
        trusted = [fingerprint(root) for root in x509.load_pem_x509_certificates(plan["trustBundle"].encode())]
        certificate = {"serial": "1", "notAfter": until, "issuerFingerprint": plan["authority"]}
        for node in nodes or ("n1", "n2"):
            self.bed.report(node, bundle=trusted, certificate=certificate)

    def issued(self, name: str, operator: Operator) -> x509.Certificate:
        outcome = self.bed.wait_for(
            f"a certificate for {name}",
            lambda: (o := self.bed.outcome(name)).get("certificate") and o,
            operator=operator,
        )
        assert outcome["Approved"]["reason"] == "NodeIdentity"
        return x509.load_pem_x509_certificate(outcome["certificate"])

    def uid(self, request: str) -> str:
        return self.bed.get(f"{REQUESTS}/{request}")["metadata"]["uid"]


@pytest.fixture
def world() -> Iterator[World]:
    with ApiServer() as server:
        server.apply_crds()
        yield World(server)


def test_an_issuer_signs_what_the_operator_approves(world: World) -> None:
    bed, cert_manager = world.bed, world.cert_manager
    with bed.operator() as operator, cert_manager.running():
        bed.wait_for("the mesh's own authority", lambda: bed.plan()["trustBundle"], operator=operator)
        own = bed.plan()["trustBundle"]
        world.report()
        # -> an issuer that does not exist takes nothing away, and is said
        world.delegate("company")
        bed.wait_for(
            "a word", lambda: world.degraded("AuthorityUnusable", "Issuer company", "not found"), operator=operator
        )
        assert bed.events("AuthorityUnusable")
        assert bed.plan()["trustBundle"] == own
        bed.ask(name := next(_names), node="n1")
        world.issued(name, operator).verify_directly_issued_by(x509.load_pem_x509_certificate(own.encode()))
        # -> it comes, proves itself, and is rolled to in overlap
        cert_manager.issue_by("company", world.ca)
        bed.wait_for("both roots", lambda: bed.plan()["trustBundle"] == own + world.ca.pem, operator=operator)
        world.report()
        bed.wait_for("its sign", lambda: bed.plan()["authority"] == fingerprint(world.ca.certificate))
        bed.wait_for("its name", lambda: world.authority.get("issuer") == "Issuer company", operator=operator)
        bed.ask(name := next(_names), node="n1")
        certificate = world.issued(name, operator)
        # -> the old root goes when nobody has a certificate of it
        world.report()
        bed.wait_for("the end of the roll", lambda: world.signs(world.ca), operator=operator)
        assert bed.plan()["trustBundle"] == world.ca.pem
        assert world.degraded()
        # -> what n1 has is what agents verify: both ends of a connection
        uid = NodeUid(bed.get("/api/v1/nodes/n1")["metadata"]["uid"])
        verifier = PolicyBuilder().store(Store(x509.load_pem_x509_certificates(bed.plan()["trustBundle"].encode())))
        verifier.build_server_verifier(x509.DNSName(node_identity(uid))).verify(certificate, [])
        verifier.build_client_verifier().verify(certificate, [])
        life = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(hours=23) < life <= timedelta(hours=24)
        (asked,) = cert_manager.requests(world.uid(name))
        assert asked["metadata"]["ownerReferences"][0]["name"] == name
        # -> what nobody should be given nobody asks the issuer for
        bed.ask(name := next(_names), node="n1", claims="n2")
        bed.wait_for("a refusal", lambda: "Denied" in bed.outcome(name), operator=operator)
        assert cert_manager.requests(world.uid(name)) == []
        # -> the issuer is given its next CA, which agents trust by then, and the mesh follows by what it signs
        world.delegate("company", world.ca, world.next_ca)
        bed.wait_for("both CAs", lambda: bed.plan()["trustBundle"] == world.ca.pem + world.next_ca.pem)
        world.report()
        cert_manager.issue_by("company", world.next_ca)

        def led_to_the_next() -> bool:
            bed.ask(name := next(_names), node="n2")
            return world.issued(name, operator).issuer == world.next_ca.certificate.subject

        bed.wait_for("its sign", led_to_the_next, operator=operator)
        world.report()
        bed.wait_for("the end of its roll", lambda: world.signs(world.next_ca), operator=operator)
        assert world.degraded()
        # -> the key of the company's CA is with cert-manager alone
        secret = bed.get("/api/v1/namespaces/hauberk-system/secrets/hauberk-ca")
        assert not secret["data"]["tls.key"]
        assert "PRIVATE KEY" not in operator.log


def test_what_is_denied_is_said_and_asked_again_by_whoever_leads(world: World) -> None:
    bed, cert_manager = world.bed, world.cert_manager
    cert_manager.issue_by("company", world.ca, cluster=True)
    config_map = (
        "create",
        "configmap",
        "company-ca",
        f"--namespace={NAMESPACE}",
        f"--from-literal=ca.crt={world.ca.pem}",
    )
    bed.server.kubectl(*config_map)
    issuer = {"name": "company", "kind": "ClusterIssuer", "caConfigMap": {"name": "company-ca"}}
    mesh: dict[str, object] = {"apiVersion": API_VERSION, "kind": MESH_KIND, "metadata": {"name": "default"}}
    mesh["spec"] = {"certificates": {"issuer": issuer}}
    bed.server.kubectl("create", "--filename=-", stdin=yaml.safe_dump(mesh))
    with bed.operator() as operator:
        with cert_manager.running():
            # -> a mesh that begins with an issuer never has another authority
            bed.wait_for("its authority", lambda: world.signs(world.ca), operator=operator)
            assert bed.plan()["trustBundle"] == world.ca.pem
            assert [event["reason"] for event in bed.events("AuthorityCreated")] == ["AuthorityCreated"]
        # -> nobody approves now but people's own policy, and that denies
        bed.ask(denied := next(_names), node="n1")
        (first,) = bed.wait_for("the request", lambda: cert_manager.requests(world.uid(denied)), operator=operator)
        cert_manager.deny(first, "nodes are not in fashion")
        bed.wait_for("a word", lambda: world.degraded("IssuerNotSigning", "not in fashion"), operator=operator)
        assert bed.events("IssuerNotSigning")
        bed.wait_for(
            "another attempt",
            lambda: [r for r in cert_manager.requests(world.uid(denied)) if not r.get("status", {}).get("conditions")],
            operator=operator,
        )
    # -> a leader that dies with a request just made is succeeded by one that finds it
    with bed.operator(fault="kill after POST /certificaterequests") as operator:
        bed.ask(orphan := next(_names), node="n2")
        bed.wait_for("its death", lambda: not operator.running)
    made = [r["metadata"]["uid"] for r in cert_manager.requests(world.uid(orphan))]
    assert len(made) == 1
    with bed.operator() as operator, cert_manager.running():
        for name in (denied, orphan):
            world.issued(name, operator).verify_directly_issued_by(world.ca.certificate)
        assert [r["metadata"]["uid"] for r in cert_manager.requests(world.uid(orphan))] == made
        bed.wait_for("peace", world.degraded, operator=operator)
        # -> the one that was denied is gone, and so are those of requests that are gone
        assert first["metadata"]["name"] not in [r["metadata"]["name"] for r in cert_manager.requests()]
        bed.server.kubectl("delete", "csr", denied, orphan)
    with bed.operator() as operator:
        bed.wait_for("their end", lambda: cert_manager.requests() == [], operator=operator)
