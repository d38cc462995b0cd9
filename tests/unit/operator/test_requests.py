"""Requests wait until the root that signs is published, and are removed when they have been settled for long."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from cryptography import x509

from hauberk_api.names import REVOKED_LABEL
from hauberk_operator.ca import Signer, create_root
from hauberk_operator.facts import MemberFacts, RequestFacts
from hauberk_operator.issuer import Issued, Issuer, Order, OwnIssuer, Pending
from hauberk_operator.kube import KubeError
from hauberk_operator.requests import KEPT, MOST_REMOVED, Requests
from hauberk_operator.writes import MEMBER, MESH, NODE, POD, REQUEST
from tests.unit.operator.builders import NAMESPACE, member_json, mesh_json, node_json, request_json
from tests.unit.operator.fake_api import FakeApi

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ROOT = create_root(mesh="default", lifetime_seconds=86_400 * 30, now=NOW)
DENIED = {"type": "Denied", "status": "True", "reason": "NameNotAllowed"}


class Desk:
    """The requests of a cluster whose node n1 has an agent."""

    def __init__(self, signer: Signer | None = ROOT) -> None:
        self.api = FakeApi()
        self.now = NOW
        self.signer = signer
        self.api.add(MESH, mesh_json())
        self.api.add(NODE, node_json("n1"))
        self.api.add(MEMBER, member_json("n1"))
        pod = {"nodeName": "n1", "serviceAccountName": "hauberk-agent"}
        self.api.add(POD, {"metadata": {"name": "agent-n1", "uid": "uid-agent-n1"}, "spec": pod, "status": {}})
        self.view = self.api.view()
        self.view.members.put(MemberFacts.parse(self.api.objects[MEMBER.kind, "n1"]))
        self.requests = self.requests_of(None)

    def requests_of(self, issuer: Issuer | None) -> Requests:
        """As they are settled by an issuer; None: by the desk's own signer."""
        return Requests(
            cast("Any", self.api),
            self.view,
            (lambda: issuer) if issuer is not None else self.issuer,
            namespace=NAMESPACE,
            clock=lambda: self.now,
        )

    def issuer(self) -> Issuer | None:
        return OwnIssuer(signer=self.signer, clock=lambda: self.now) if self.signer is not None else None

    def ask(self, name: str, **values: Any) -> None:
        self.view.requests.put(RequestFacts.parse(self.api.add(REQUEST, request_json(name, **values))))

    def step(self) -> float | None:
        return asyncio.run(self.requests.step())

    def status(self, name: str) -> dict[str, Any]:
        return self.api.objects[REQUEST.kind, name].get("status", {})

    @property
    def names(self) -> set[str]:
        return {name for kind, name in self.api.objects if kind == REQUEST.kind}


def test_a_request_waits_unapproved_until_something_signs() -> None:
    desk = Desk(signer=None)
    desk.ask("early")
    assert desk.step() == 1.0
    assert desk.status("early") == {}
    desk.signer = ROOT
    desk.step()
    certificate = x509.load_pem_x509_certificate(base64.b64decode(desk.status("early")["certificate"]))
    certificate.verify_directly_issued_by(ROOT.certificate)


def test_a_request_is_signed_by_what_signs_at_that_moment() -> None:
    desk = Desk()
    other = create_root(mesh="default", lifetime_seconds=86_400, now=NOW)
    for name, signer in (("one", ROOT), ("two", other)):
        desk.signer = signer
        desk.ask(name)
        desk.step()
        certificate = x509.load_pem_x509_certificate(base64.b64decode(desk.status(name)["certificate"]))
        certificate.verify_directly_issued_by(signer.certificate)


class SlowIssuer:
    """An issuer of somebody else's: it signs what it has been told to sign, and takes its time for the rest."""

    certificate = ROOT.certificate

    def __init__(self) -> None:
        self.ready: set[str] = set()
        self.asked: list[str] = []

    def waits(self, request: RequestFacts) -> Pending | None:
        busy = request.name in self.asked and request.name not in self.ready
        return Pending(message="it takes its time", look_in=20.0) if busy else None

    async def issue(self, order: Order) -> Issued | Pending:
        self.asked.append(order.request.name)
        if order.request.name not in self.ready:
            return Pending(message="it is asked")
        return await OwnIssuer(signer=ROOT, clock=lambda: NOW).issue(order)


def test_a_request_that_its_issuer_keeps_waiting_holds_nobody_up_and_costs_nothing() -> None:
    desk = Desk()
    slow = SlowIssuer()
    slow.ready = {"quick"}
    desk.requests = desk.requests_of(slow)
    desk.ask("slow")
    desk.ask("quick")
    desk.step()
    assert desk.status("quick")["certificate"]
    assert [c["type"] for c in desk.status("slow")["conditions"]] == ["Approved"], "that is ours to say"
    # -> nothing is read or written for it until the issuer is ready
    writes, desk.api.fault = list(desk.api.writes), KubeError(0, "Unreachable", "no call is due")
    assert desk.step() == 20.0
    desk.api.fault = None
    assert desk.api.writes == writes
    slow.ready.add("slow")
    desk.step()
    assert desk.status("slow")["certificate"]
    assert slow.asked == ["slow", "quick", "slow"]


def test_a_node_that_is_revoked_while_its_issuer_takes_its_time_gets_nothing() -> None:
    desk = Desk()
    slow = SlowIssuer()
    desk.requests = desk.requests_of(slow)
    desk.ask("slow")
    desk.step()
    desk.api.add(NODE, node_json("n1", labels={REVOKED_LABEL: ""}))
    slow.ready.add("slow")
    desk.step()
    assert "certificate" not in desk.status("slow")
    assert [c["type"] for c in desk.status("slow")["conditions"]] == ["Approved", "Failed"]


def test_settled_requests_are_removed_after_a_while_and_open_ones_never() -> None:
    desk = Desk()
    desk.ask("signed")
    desk.ask("denied", conditions=[DENIED])
    assert desk.step() == KEPT.total_seconds()
    desk.now += KEPT - timedelta(seconds=1)
    assert desk.step() == 1.0
    assert desk.names == {"signed", "denied"}
    desk.signer = None
    desk.ask("open")
    desk.now += timedelta(seconds=1)
    desk.step()
    assert desk.names == {"open"}
    assert set(desk.view.requests) == {"open"}


def test_a_crowd_of_old_requests_does_not_keep_a_new_one_waiting() -> None:
    desk = Desk()
    for number in range(MOST_REMOVED + 10):
        desk.ask(f"old-{number}", conditions=[DENIED])
    desk.now += KEPT
    desk.ask("new", created="2026-05-01T00:15:00Z")
    assert desk.step() == 0.0, "the rest in the next step"
    assert len([name for name in desk.names if name.startswith("old")]) == 10
    assert desk.status("new")["certificate"]
    desk.step()
    assert desk.names == {"new"}


def test_of_a_settled_request_nothing_is_kept_of_what_was_asked_for() -> None:
    """A mesh of thousands has as many of them when its CA has rolled."""
    asked = request_json("r1")
    waiting = RequestFacts.parse(asked)
    assert waiting.open
    assert waiting.request
    for status in ({"certificate": "c2lnbmVk"}, {"conditions": [DENIED]}):
        settled = RequestFacts.parse(asked | {"status": status})
        assert not settled.open
        assert (settled.request, settled.username, settled.extra, settled.usages) == (b"", "", {}, ())
        assert (settled.name, settled.uid, settled.signer) == (waiting.name, waiting.uid, waiting.signer)
