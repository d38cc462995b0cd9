"""The authority rolls on a real API server: overlap, distrust, imports, and leaders that are killed at every step."""

from __future__ import annotations

import base64
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_api.certificate import fingerprint
from hauberk_api.mesh import Curve
from hauberk_api.names import IMPORTED_CA_SECRET
from hauberk_operator.ca import certificate_pem, create_root, key_pem
from tests.apiserver import ApiServer
from tests.integration.operator_bed import NAMESPACE, Operator, OperatorBed

SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"


class Mesh:
    """A bed whose agents follow the plan: they report the roots that they trust, and exchange their certificates."""

    def __init__(self, bed: OperatorBed, *nodes: str) -> None:
        self.bed = bed
        self.nodes = nodes

    @property
    def authority(self) -> dict[str, object]:
        return self.bed.mesh().get("status", {}).get("authority") or {}

    @property
    def phase(self) -> str:
        return str(self.authority.get("phase", ""))

    def trusted(self) -> list[str]:
        bundle = self.bed.plan()["trustBundle"]
        return [fingerprint(root) for root in x509.load_pem_x509_certificates(bundle.encode())] if bundle else []

    def root(self) -> x509.Certificate:
        secret = self.bed.get(f"{SECRETS}/hauberk-ca")
        return x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))

    def report(self, *nodes: str) -> None:
        """As the agents of these nodes have it once they have followed the plan."""
        until = (datetime.now(UTC) + timedelta(hours=24)).strftime("%Y-%m-%dT%H:%M:%SZ")
        issuer = self.bed.plan()["authority"]
        certificate = {"serial": "1", "notAfter": until, "issuerFingerprint": issuer}
        for node in nodes or self.nodes:
            self.bed.report(node, bundle=self.trusted(), certificate=certificate)

    def reach(self, phase: str, operator: Operator | None = None) -> None:
        self.bed.wait_for(phase, lambda: self.phase == phase, operator=operator)

    def settled(self, operator: Operator) -> None:
        """One root, of which every agent has a certificate."""
        self.bed.wait_for("a plan", lambda: self.trusted() and self.bed.plan()["authority"], operator=operator)
        self.report()

    def roll(self, roll_id: str, *, mode: str = "Overlap", **certificates: str) -> None:
        self.bed.change_mesh({"certificates": {**certificates, "roll": {"id": roll_id, "mode": mode}}})


@pytest.fixture
def mesh(apiserver: ApiServer) -> Mesh:
    return Mesh(OperatorBed.anew(apiserver, nodes=2), "n1", "n2")


def signed(mesh: Mesh, name: str) -> x509.Certificate:
    """The certificate that a request of n1's agent gets now."""
    mesh.bed.ask(name, node="n1")
    outcome = mesh.bed.wait_for("a certificate", lambda: (o := mesh.bed.outcome(name)).get("certificate") and o)
    return x509.load_pem_x509_certificate(outcome["certificate"])


def test_a_roll_in_overlap(mesh: Mesh) -> None:
    with mesh.bed.operator() as operator:
        mesh.settled(operator)
        old = mesh.root()
        mesh.roll("spring", curve="P-384")
        # -> both roots are published; the old one signs until both agents trust the new one
        mesh.reach("Publishing", operator)
        mesh.bed.wait_for("both", lambda: len(mesh.trusted()) == 2, operator=operator)
        mesh.report("n1")
        signed(mesh, "meanwhile").verify_directly_issued_by(old)
        assert mesh.phase == "Publishing"
        mesh.report("n2")
        # -> the new one signs, and the old one's key is nowhere any more
        mesh.reach("Draining", operator)
        new = mesh.root()
        mesh.bed.wait_for("its sign", lambda: mesh.bed.plan()["authority"] == fingerprint(new), operator=operator)
        signed(mesh, "after").verify_directly_issued_by(new)
        assert set(mesh.bed.get(f"{SECRETS}/hauberk-ca")["data"]) == {"tls.crt", "tls.key", "previous.crt"}
        assert isinstance(key := new.public_key(), ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP384R1)
        # -> the old one goes when nobody has a certificate of it
        mesh.report("n1")
        assert set(mesh.trusted()) == {fingerprint(old), fingerprint(new)}
        mesh.report("n2")
        mesh.reach("Stable", operator)
        mesh.bed.wait_for("the end", lambda: mesh.trusted() == [fingerprint(new)], operator=operator)
        assert mesh.authority["handledRoll"] == "spring"
        for reason in ("AuthorityPrepared", "AuthoritySwitched", "AuthorityDropped"):
            assert len(mesh.bed.events(reason)) == 1
        # -> and then there is peace
        since = mesh.bed.audit_length()
        time.sleep(5)
        assert mesh.bed.operator_writes(since) == []
        assert "PRIVATE KEY" not in operator.log


SECRET, PLAN = "secrets/hauberk-ca", "ipsecmeshes/default/status"


def killed(mesh: Mesh, point: str, until: Callable[[], object] = lambda: True) -> None:
    """A leader that dies at a point. Its container is started again under the same name, and so with its Lease."""
    with mesh.bed.operator(fault=f"kill {point}") as operator:
        mesh.bed.wait_for(f"the death {point}", lambda: not operator.running)
        assert operator.wait() == -signal.SIGKILL, operator.log
    assert until()


def killed_around(mesh: Mesh, phase: str, roots: int, *, method: str = "PUT") -> None:
    """Leaders that die on both sides of a step's two writes: the Secret, and the plan that says so."""
    where = SECRET if method == "PUT" else "/secrets"
    killed(mesh, f"before {method} {where}")
    killed(mesh, f"after {method} {where}")
    killed(mesh, f"before PATCH {PLAN}", lambda: len(mesh.trusted()) != roots or mesh.phase != phase)
    killed(mesh, f"after PATCH {PLAN}", lambda: len(mesh.trusted()) == roots and mesh.phase == phase)


@pytest.mark.long  # one that is deposed at a write is in every run
def test_a_roll_whose_leader_is_killed_before_and_after_every_write(mesh: Mesh) -> None:
    """Each time the next one finds the Secret as it is, and goes on from there."""
    killed_around(mesh, "Stable", 1, method="POST")
    old = mesh.root()
    mesh.report()
    mesh.roll("spring")
    killed_around(mesh, "Publishing", 2)
    mesh.report()
    killed_around(mesh, "Draining", 2)
    new = mesh.root()
    assert set(mesh.trusted()) == {fingerprint(old), fingerprint(new)}, "one roll, whoever led"
    mesh.report()
    killed_around(mesh, "Stable", 1)
    assert mesh.trusted() == [fingerprint(new)] == [fingerprint(mesh.root())]
    # -> the drill, in one step
    mesh.roll("leak", mode="Distrust")
    killed(mesh, f"before PUT {SECRET}", lambda: mesh.root() == new)
    killed(mesh, f"after PUT {SECRET}", lambda: mesh.root() != new)
    with mesh.bed.operator() as operator:
        mesh.bed.wait_for("its plan", lambda: mesh.trusted() == [fingerprint(mesh.root())], operator=operator)
        assert mesh.authority["handledRoll"] == "leak"
        mesh.report()
        signed(mesh, "in-the-end").verify_directly_issued_by(mesh.root())
        since = mesh.bed.audit_length()
        time.sleep(3)
        assert mesh.bed.operator_writes(since) == []


def test_a_deposed_leader_that_wakes_up_in_the_midst_of_a_step_is_refused(mesh: Mesh) -> None:
    """It has decided, and stands still before it writes; its successor takes the step; then it writes."""
    with mesh.bed.operator("sleeper") as first:
        mesh.settled(first)
    mesh.roll("spring")
    with mesh.bed.operator("sleeper", fault=f"stop before PUT {SECRET}") as sleeper:
        mesh.bed.wait_for("its sleep", sleeper.stands_still)
        with mesh.bed.operator("successor", port=9653) as successor:
            mesh.bed.wait_for("its lead", lambda: mesh.bed.leader() == "successor", operator=successor)
            mesh.reach("Publishing", successor)
            before, since = mesh.bed.get(f"{SECRETS}/hauberk-ca"), mesh.bed.audit_length()
            sleeper.wake()
            assert sleeper.wait() == 1
            assert "stopped leading" in sleeper.log
            assert mesh.bed.get(f"{SECRETS}/hauberk-ca") == before
            assert 409 in mesh.bed.answers("update", "hauberk-ca", since)


def test_a_node_that_is_not_ready_holds_nothing_up(mesh: Mesh) -> None:
    mesh.bed.add_node(3, ready=False)
    with mesh.bed.operator() as operator:
        mesh.settled(operator)
        mesh.report("n3")
        mesh.roll("spring")
        mesh.reach("Publishing", operator)
        mesh.bed.wait_for("both", lambda: len(mesh.trusted()) == 2, operator=operator)
        mesh.report("n1", "n2")
        mesh.reach("Draining", operator)
        mesh.bed.wait_for("its sign", lambda: mesh.bed.plan()["authority"] == fingerprint(mesh.root()))
        mesh.report("n1", "n2")
        mesh.reach("Stable", operator)


def test_distrust_leaves_one_root_at_once(mesh: Mesh) -> None:
    with mesh.bed.operator() as operator:
        mesh.settled(operator)
        old = mesh.root()
        mesh.roll("leak", mode="Distrust")
        mesh.bed.wait_for("a new root", lambda: mesh.trusted() and fingerprint(old) not in mesh.trusted())
        assert mesh.trusted() == [fingerprint(mesh.root())]
        signed(mesh, "after").verify_directly_issued_by(mesh.root())
        (told,) = mesh.bed.events("AuthorityReplaced")
        assert told["type"] == "Warning"


def test_people_bring_their_own_authority(mesh: Mesh) -> None:
    with mesh.bed.operator() as operator:
        mesh.settled(operator)
        before = mesh.root()
        mesh.bed.change_mesh({"certificates": {"caSecret": IMPORTED_CA_SECRET}})

        def degraded(sentence: str) -> bool:
            conditions = mesh.bed.mesh()["status"]["conditions"]
            return any(c["reason"] == "AuthorityUnusable" and sentence in c["message"] for c in conditions)

        mesh.bed.wait_for("a word", lambda: degraded("there is none"), operator=operator)
        assert mesh.root() == before
        theirs = create_root(mesh="corporate", lifetime_seconds=86_400, now=datetime.now(UTC), curve=Curve.P384)
        for name, text in (("ca.crt", certificate_pem(theirs.certificate)), ("ca.key", key_pem(theirs))):
            (mesh.bed.server.directory / name).write_text(text)
        mesh.bed.server.kubectl(
            "create",
            "secret",
            "tls",
            IMPORTED_CA_SECRET,
            f"--namespace={NAMESPACE}",
            f"--cert={mesh.bed.server.directory}/ca.crt",
            f"--key={mesh.bed.server.directory}/ca.key",
        )
        # -> it is seen within a minute; a change of the mesh's settings has it looked at now
        mesh.bed.change_mesh({"certificates": {"caSecret": IMPORTED_CA_SECRET, "lifetimeSeconds": 3600}})
        mesh.reach("Publishing", operator)
        mesh.bed.wait_for("both", lambda: len(mesh.trusted()) == 2, operator=operator)
        mesh.report()
        mesh.reach("Draining", operator)
        assert mesh.root() == theirs.certificate
        assert not degraded("")


def test_a_secret_that_the_operator_may_not_read_is_said(mesh: Mesh) -> None:
    with mesh.bed.operator() as operator:
        mesh.settled(operator)
        mesh.bed.change_mesh({"certificates": {"caSecret": "somebody-elses"}})
        mesh.bed.wait_for(
            "a word",
            lambda: any("may not be read" in c["message"] for c in mesh.bed.mesh()["status"]["conditions"]),
            operator=operator,
        )
        assert operator.running
