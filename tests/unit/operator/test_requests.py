"""Requests wait until the root that signs is published, and are removed when they have been settled for long."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from cryptography import x509

from hauberk_operator.ca import Signer, create_root
from hauberk_operator.facts import MemberFacts, RequestFacts
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
        self.requests = Requests(
            cast("Any", self.api), self.view, lambda: self.signer, namespace=NAMESPACE, clock=lambda: self.now
        )

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
