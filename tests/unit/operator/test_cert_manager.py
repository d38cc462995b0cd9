"""CertificateRequests: one for each need whoever leads, another after one that failed, none that nobody waits for."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_api.certificate import CSR_USAGES, build_request, node_dns_names
from hauberk_api.conditions import Reason
from hauberk_api.mesh import IssuerReference
from hauberk_api.names import NodeName, NodeUid
from hauberk_operator.ca import certificate_pem
from hauberk_operator.cert_manager import PATIENCE, Ask, CertManager, Obtained
from hauberk_operator.certificate_request import (
    CERTIFICATE_REQUEST,
    LONGEST_PAUSE_SECONDS,
    CertificateRequestFacts,
    Outcome,
)
from hauberk_operator.facts import Json, RequestFacts
from hauberk_operator.issuance import Wanted
from hauberk_operator.issuer import Pending
from hauberk_operator.kube import KubeError
from hauberk_operator.writes import MESH, REQUEST, Resource
from tests.unit.operator.builders import NAMESPACE, mesh_json, request_json
from tests.unit.operator.company import NOW, Company
from tests.unit.operator.fake_api import FakeApi

ISSUER = IssuerReference(name="company", ca_bundle="PEM")
KEY = ec.generate_private_key(ec.SECP256R1())
PEM = build_request(KEY, uid=NodeUid("uid-n1"), name=NodeName("n1"))
NAMES = node_dns_names(NodeUid("uid-n1"), NodeName("n1"))
COMPANY = Company("Example Corp")
FIRST, SECOND, THIRD = (f"hauberk-uid-csr-1-{attempt}" for attempt in (1, 2, 3))
READY = {"type": "Ready", "reason": "Issued", "message": "done"}
APPROVED = {"type": "Approved", "reason": "cert-manager.io", "message": "approved"}
DENIED = {"type": "Denied", "reason": "policy.example.com", "message": "not today"}
FAILED = {"type": "Ready", "status": "False", "reason": "Failed", "message": "the signer is broken"}
DENIED_READY = {"type": "Ready", "status": "False", "reason": "Denied", "message": "denied by an approval controller"}
INVALID = {"type": "InvalidRequest", "reason": "BadName", "message": "no such names here"}
PENDING = {"type": "Ready", "status": "False", "reason": "Pending", "message": 'Referenced "Issuer" not found'}


class Api(FakeApi):
    """An API server that lets the operator make no CertificateRequests, if it is told so."""

    forbidden = False

    async def create(self, resource: Resource, body: Any, *, namespace: str = "") -> Json:
        if self.forbidden:
            raise KubeError(403, "Forbidden", f"{resource.plural} is forbidden")
        return await super().create(resource, body, namespace=namespace)


class Desk:
    """An API server with one CertificateSigningRequest, and an operator that leads."""

    def __init__(self) -> None:
        self.api = Api()
        self.api.served = frozenset({CERTIFICATE_REQUEST.plural})
        self.api.add(MESH, mesh_json(spec={"certificates": {"issuer": ISSUER.to_object()}}))
        self.api.add(REQUEST, request_json("csr-1"))
        self.now = NOW
        self.news = 0
        self.leader = self.operator()
        self.ask = Ask(
            wanted_for="uid-csr-1",
            issuer=ISSUER,
            request=PEM,
            wanted=Wanted(public_key=KEY.public_key(), dns_names=NAMES, lifetime=timedelta(hours=1)),
            owner={"apiVersion": REQUEST.api_version, "kind": REQUEST.kind, "name": "csr-1", "uid": "uid-csr-1"},
        )

    def operator(self) -> CertManager:
        """What a process that has just taken the lead knows."""
        self.view = self.api.view()
        self.view.requests.put(RequestFacts.parse(request_json("csr-1")))

        def news() -> None:
            self.news += 1

        api = cast("Any", self.api)
        return CertManager(api, self.view, namespace=NAMESPACE, clock=lambda: self.now, changed=lambda: None, news=news)

    def obtain(self, ask: Ask | None = None) -> Obtained | Pending:
        """As the leader does when its watch has told it of everything."""
        self.api.created = self.now.isoformat()

        async def look() -> Obtained | Pending:
            await self.leader.sync()
            return await self.leader.obtain(ask or self.ask, [COMPANY.certificate])

        return asyncio.run(look())

    def asked(self) -> list[str]:
        return sorted(name for kind, name in self.api.objects if kind == CERTIFICATE_REQUEST.kind)

    def become(self, name: str, *conditions: Json, **status: Any) -> None:
        """What cert-manager says of one."""
        obj = self.api.objects[CERTIFICATE_REQUEST.kind, name]
        stamped = [{"status": "True", "lastTransitionTime": self.now.isoformat()} | c for c in conditions]
        self.api.add(CERTIFICATE_REQUEST, obj | {"status": {"conditions": stamped, **status}})

    def sign(self, name: str, *, names: tuple[str, ...] = NAMES) -> None:
        leaf = COMPANY.signs(key=KEY.public_key(), names=names, begin=self.now)
        self.become(name, APPROVED, READY, certificate=base64.b64encode(certificate_pem(leaf).encode()).decode())

    @property
    def fault(self) -> str:
        fault = self.leader.fault(ISSUER)
        assert fault is None or fault.reason is Reason.ISSUER_NOT_SIGNING
        return fault.message if fault is not None else ""


def test_what_is_asked_is_the_request_as_the_node_made_it() -> None:
    desk = Desk()
    assert isinstance(desk.obtain(), Pending)
    (obj,) = (obj for (kind, _), obj in desk.api.objects.items() if kind == CERTIFICATE_REQUEST.kind)
    assert obj["metadata"]["name"] == FIRST
    assert obj["metadata"]["ownerReferences"] == [desk.ask.owner]
    assert base64.b64decode(obj["spec"].pop("request")) == PEM
    assert obj["spec"] == {
        "issuerRef": {"name": "company", "kind": "Issuer", "group": "cert-manager.io"},
        "duration": "3600s",
        "usages": list(CSR_USAGES),
        "isCA": False,
    }


def test_it_is_asked_once_and_taken_when_it_is_there() -> None:
    desk = Desk()
    for _ in range(3):
        assert isinstance(desk.obtain(), Pending)
    assert desk.asked() == [FIRST]
    desk.sign(FIRST)
    obtained = desk.obtain()
    assert isinstance(obtained, Obtained)
    assert obtained.verified.root == COMPANY.certificate
    assert obtained.asked == NOW
    assert desk.fault == ""


def test_whoever_leads_next_finds_what_has_been_asked() -> None:
    desk = Desk()
    desk.obtain()
    desk.leader = desk.operator()
    assert isinstance(desk.obtain(), Pending)
    assert desk.asked() == [FIRST]


def test_two_operators_that_think_they_lead_ask_once() -> None:
    desk = Desk()
    first, second = desk.operator(), desk.operator()

    async def race() -> None:
        # Both look before either asks.
        await asyncio.gather(first.sync(), second.sync())
        for operator in (first, second):
            assert isinstance(await operator.obtain(desk.ask, [COMPANY.certificate]), Pending)

    asyncio.run(race())
    assert desk.asked() == [FIRST]


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        ((), "no approver has looked at it yet: does cert-manager run?"),
        ((APPROVED,), "it is approved, and no issuer has taken it up yet"),
        ((APPROVED, PENDING), 'Pending: Referenced "Issuer" not found'),
    ],
)
def test_what_waits_is_spoken_of_after_a_while_and_waits_on(conditions: tuple[Json, ...], why: str) -> None:
    desk = Desk()
    desk.obtain()
    desk.become(FIRST, *conditions)
    pending = desk.obtain()
    assert isinstance(pending, Pending)
    assert pending.look_in == PATIENCE.total_seconds()
    assert desk.fault == ""
    desk.now += PATIENCE
    assert isinstance(desk.obtain(), Pending)
    assert why in desk.fault
    assert desk.fault.startswith("Issuer company does not sign nodes' certificates: ")
    desk.now += timedelta(days=1)
    desk.obtain()
    assert desk.asked() == [FIRST], "the issuer may come any time"


@pytest.mark.parametrize("condition", [DENIED, FAILED, DENIED_READY, INVALID], ids=lambda c: c["reason"])
def test_one_that_comes_to_nothing_is_said_and_followed_by_another(condition: Json) -> None:
    desk = Desk()
    desk.obtain()
    desk.become(FIRST, condition)
    pending = desk.obtain()
    assert isinstance(pending, Pending)
    assert pending.look_in is not None
    assert 5 <= pending.look_in <= 6.25
    assert f"{condition['reason']}: {condition['message']}" in desk.fault
    assert desk.leader.waits("uid-csr-1") is not None
    desk.now += timedelta(seconds=pending.look_in)
    desk.obtain()
    assert desk.asked() == [SECOND], "and the one before is removed"
    assert desk.fault, "it has not signed yet"
    desk.sign(SECOND)
    assert isinstance(desk.obtain(), Obtained)
    assert desk.fault == ""


def test_a_certificate_that_is_not_what_was_asked_for_is_a_failure_like_others() -> None:
    desk = Desk()
    desk.obtain()
    desk.sign(FIRST, names=("uid-n2.default.hauberk.internal", "n2"))
    pending = desk.obtain()
    assert isinstance(pending, Pending)
    assert "a certificate came back, but it is for uid-n2" in desk.fault
    desk.now += timedelta(seconds=10)
    desk.obtain()
    assert desk.asked() == [SECOND]


def test_the_pauses_grow_to_a_limit_and_are_not_all_the_same() -> None:
    def pause(attempt: int, uid: str = "a") -> float:
        labels = {"hauberk.dev/for": uid}
        failed = FAILED | {"lastTransitionTime": NOW.isoformat()}
        facts = CertificateRequestFacts.parse(
            {
                "metadata": {"name": f"hauberk-{uid}-{attempt}", "labels": labels},
                "status": {"conditions": [failed], "failureTime": NOW.isoformat()},
            }
        )
        assert (facts.attempt, facts.outcome) == (attempt, Outcome.REFUSED)
        return (facts.next_at - NOW).total_seconds()

    pauses = [pause(attempt) for attempt in range(1, 30)]
    assert pauses[0] < 7
    assert pauses[1] > pauses[0]
    assert all(LONGEST_PAUSE_SECONDS <= late <= LONGEST_PAUSE_SECONDS * 1.25 for late in pauses[8:])
    assert len({pause(1, uid) for uid in "abcdefgh"}) > 4


def test_another_issuer_is_asked_at_once() -> None:
    desk = Desk()
    desk.obtain()
    desk.obtain(replace(desk.ask, issuer=IssuerReference(name="other", kind="ClusterIssuer", ca_bundle="PEM")))
    assert desk.asked() == [SECOND]
    assert desk.api.objects[CERTIFICATE_REQUEST.kind, SECOND]["spec"]["issuerRef"]["kind"] == "ClusterIssuer"


def test_what_somebody_else_has_put_in_the_place_of_ours_is_not_taken() -> None:
    """With the label, for another key: as if it were an attempt of ours."""
    desk = Desk()
    stranger = build_request(ec.generate_private_key(ec.SECP256R1()), uid=NodeUid("uid-n1"), name=NodeName("n1"))
    desk.obtain(replace(desk.ask, request=stranger))
    desk.sign(FIRST)
    assert isinstance(desk.obtain(), Pending)
    assert desk.asked() == [SECOND]


def test_a_name_that_is_taken_by_something_else_is_said() -> None:
    desk = Desk()
    desk.api.add(CERTIFICATE_REQUEST, {"metadata": {"name": FIRST}, "spec": {}})
    pending = desk.obtain()
    assert isinstance(pending, Pending)
    assert f"somebody else has made CertificateRequest {FIRST}: delete it" in desk.fault
    assert "spec" in desk.api.objects[CERTIFICATE_REQUEST.kind, FIRST]


def test_an_operator_that_may_not_ask_says_what_to_do() -> None:
    desk = Desk()
    desk.api.forbidden = True
    pending = desk.obtain()
    assert isinstance(pending, Pending)
    assert pending.look_in is not None
    assert "set certManager.enabled in the chart's values" in desk.fault


def test_the_sentence_stays_while_it_is_true_of_somebody() -> None:
    """Every agent is told of a change of the mesh's status."""
    desk = Desk()
    desk.obtain()
    desk.become(FIRST, FAILED)
    desk.obtain()
    said = desk.fault
    other = RequestFacts.parse(request_json("csr-0"))
    desk.view.requests.put(other)
    owner = desk.ask.owner | {"name": "csr-0", "uid": "uid-csr-0"}
    desk.obtain(replace(desk.ask, wanted_for="uid-csr-0", owner=owner))
    desk.become("hauberk-uid-csr-0-1", INVALID)
    desk.obtain(replace(desk.ask, wanted_for="uid-csr-0", owner=owner))
    assert desk.fault == said
    desk.view.requests.remove("csr-1", 99)
    assert "no such names here" in desk.fault
    desk.view.requests.remove("csr-0", 99)
    assert desk.fault == ""


def test_what_nobody_waits_for_is_removed_and_what_somebody_does_is_not() -> None:
    desk = Desk()
    desk.obtain()
    asyncio.run(desk.leader.tidy())
    assert desk.asked() == [FIRST]
    # -> a view that is late is no proof
    desk.view.requests.remove("csr-1", 99)
    asyncio.run(desk.leader.tidy())
    assert desk.asked() == [FIRST]
    # -> gone, or another one of its name
    desk.api.add(REQUEST, request_json("csr-1") | {"metadata": {"name": "csr-1", "uid": "another"}})
    asyncio.run(desk.leader.tidy())
    assert desk.asked() == []


def test_one_that_somebody_has_taken_the_owner_from_is_made_anew() -> None:
    desk = Desk()
    desk.obtain()
    del desk.api.objects[CERTIFICATE_REQUEST.kind, FIRST]["metadata"]["ownerReferences"]
    desk.api.add(CERTIFICATE_REQUEST, desk.api.objects[CERTIFICATE_REQUEST.kind, FIRST])
    asyncio.run(desk.leader.sync())
    asyncio.run(desk.leader.tidy())
    assert desk.asked() == []
    desk.obtain()
    assert desk.asked() == [FIRST]


def test_without_an_issuer_in_the_settings_nothing_is_listed() -> None:
    desk = Desk()
    desk.obtain()
    desk.api.add(MESH, mesh_json(version=200))
    desk.view.meshes.replace(desk.api.view().meshes.values(), 10_000)
    assert asyncio.run(desk.leader.sync()) is None
    assert desk.leader.waits("uid-csr-1") is not None
