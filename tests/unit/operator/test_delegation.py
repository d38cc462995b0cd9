"""A mesh whose authority is an issuer of cert-manager's: how it comes to that, follows it, and comes away from it."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_api.certificate import fingerprint
from hauberk_api.names import NodeName, NodeUid
from hauberk_operator.approval import Grant
from hauberk_operator.certificate_request import CERTIFICATE_REQUEST
from hauberk_operator.facts import Json, RequestFacts
from hauberk_operator.issuer import Issued, Issuer, Order, Pending
from hauberk_operator.writes import CONFIG_MAP, EVENT, REQUEST
from tests.unit.operator.authority_world import MAX_TICKS, World
from tests.unit.operator.builders import KEY, NAMESPACE, request_json
from tests.unit.operator.company import Company

OURS, THEIRS = Company("Example Corp"), Company("Example Corp, next")


class Delegated(World):
    """A cluster with a cert-manager, whose issuer signs with a company's CA; with none it lets people wait."""

    def __init__(self, *agents: str) -> None:
        super().__init__(*agents)
        self.api.served = frozenset({CERTIFICATE_REQUEST.plural})
        self.company: Company | None = OURS
        self.denies = ""

    def delegate(self, *companies: Company, **more: Any) -> None:
        bundle = "".join(company.pem for company in companies or (OURS,))
        self.change(issuer={"name": "company", "caBundle": bundle}, **more)

    def tick(self) -> None:
        super().tick()
        self.act()

    def act(self) -> None:
        """What cert-manager does with what has been asked for."""
        living, self.api.writes_to_live = self.api.writes_to_live, None
        for obj in self.asked():
            if obj.get("status", {}).get("conditions"):
                continue
            if self.denies:
                denied = {"type": "Denied", "status": "True", "reason": "policy", "message": self.denies}
                obj["status"] = {"conditions": [denied], "failureTime": self.now.isoformat()}
            elif self.company is not None:
                csr = x509.load_pem_x509_csr(base64.b64decode(obj["spec"]["request"]))
                names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                leaf = self.company.signs(
                    key=csr.public_key(),
                    names=tuple(names.get_values_for_type(x509.DNSName)),
                    begin=self.now,
                    life=timedelta(seconds=int(obj["spec"]["duration"].removesuffix("s"))),
                )
                pem = leaf.public_bytes(serialization.Encoding.PEM)
                ready = {"type": "Ready", "status": "True", "reason": "Issued", "message": "done"}
                obj["status"] = {"conditions": [ready], "certificate": base64.b64encode(pem).decode()}
            self.api.add(CERTIFICATE_REQUEST, obj)
        self.api.writes_to_live = living

    def asked(self) -> list[Json]:
        return [obj for (kind, _), obj in self.api.objects.items() if kind == CERTIFICATE_REQUEST.kind]

    @property
    def authority(self) -> str:
        assert self.plan is not None
        return self.plan["authority"]

    @property
    def key(self) -> str:
        return self.secret["data"]["tls.key"]

    def order(self, name: str = "csr-1") -> Order:
        """What the operator has approved."""
        request = RequestFacts.parse(self.api.add(REQUEST, request_json(name)))
        grant = Grant(node_name=NodeName("n1"), node_uid=NodeUid("uid-n1"), public_key=KEY.public_key())
        return Order(request=request, grant=grant, lifetime_seconds=86_400)

    def issue(self, order: Order) -> Issued | Pending:
        """Ask who signs, after the leader's watches have told it of everything."""

        async def ask() -> Issued | Pending:
            await self.replica.look()
            issuer: Issuer | None = self.replica.issuer()
            assert issuer is not None
            return issuer.waits(order.request) or await issuer.issue(order)

        self.api.created = self.now.isoformat()
        return asyncio.run(ask())


def mark(company: Company) -> str:
    return fingerprint(company.certificate)


def settled(*agents: str) -> Delegated:
    world = Delegated(*agents)
    world.settle()
    return world


def delegated(*agents: str, companies: tuple[Company, ...] = (OURS,)) -> Delegated:
    """A mesh that began with the issuer."""
    world = Delegated(*agents)
    world.delegate(*companies)
    world.settle()
    return world


def test_a_mesh_that_begins_with_an_issuer_has_no_other_authority() -> None:
    world = delegated("n1", companies=(OURS, THEIRS))
    assert world.bundles == [(mark(OURS), mark(THEIRS))]
    assert world.authority == mark(OURS)
    assert world.key == ""
    assert world.told() == ["AuthorityCreated"]


def test_a_mesh_rolls_to_an_issuer_in_overlap_and_our_key_goes() -> None:
    world = settled("n1", "n2")
    own = world.authority
    world.delegate()
    world.settle()
    assert world.bundles == [(own,), (own, mark(OURS)), (mark(OURS), own), (mark(OURS),)]
    assert (world.authority, world.key) == (mark(OURS), "")
    assert world.degraded["status"] == "False"
    others = [obj for (kind, _), obj in world.api.objects.items() if kind != EVENT.kind]
    assert "PRIVATE KEY" not in str([base64.b64decode(obj["data"]["tls.key"]) for obj in others if "data" in obj])


def test_what_proved_the_issuer_is_removed_once_it_signs() -> None:
    world = settled("n1")
    world.delegate()
    world.settle()
    (proof,) = world.asked()
    assert proof["metadata"]["ownerReferences"][0]["kind"] == "IPsecMesh"
    asyncio.run(world.replica.manager.tidy())
    assert world.asked() == []


@pytest.mark.parametrize("back", [False, True], ids=["to the issuer", "back to an authority of our own"])
def test_a_replica_that_dies_after_any_write_is_succeeded_by_one_that_ends_the_roll(back: bool) -> None:
    def begin() -> Delegated:
        world = delegated("n1", "n2") if back else settled("n1", "n2")
        if back:
            world.change(issuer=None)
        else:
            world.delegate()
        return world

    calm = begin()
    begun = len(calm.api.writes)
    calm.settle()
    count = len(calm.api.writes) - begun
    assert count >= 6
    for after in range(count):
        world = begin()
        world.api.writes_to_live = after
        world.settle()
        assert world.deaths == 1, f"nobody died after write {after}"
        assert len({root for bundle in world.bundles for root in bundle}) == 2, "one roll, whoever led"
        assert len(world.bundles[-1]) == 1
        assert (world.authority == mark(OURS)) is not back
        assert bool(world.key) is back
        assert len([obj for obj in world.asked() if obj["metadata"]["name"].startswith("hauberk-proof-")]) <= 1


def test_coming_away_from_an_issuer_is_a_roll_like_any_other() -> None:
    world = delegated("n1")
    world.change(issuer=None)
    world.settle()
    own = fingerprint(world.root)
    assert world.bundles == [(mark(OURS),), (mark(OURS), own), (own, mark(OURS)), (own,)]
    assert world.key


@pytest.mark.parametrize(
    ("company", "denies", "words"),
    [
        (None, "", "no approver has looked at it yet: does cert-manager run?"),
        (OURS, "nodes are not in fashion", "policy: nodes are not in fashion"),
        (THEIRS, "", "does not verify by the mesh's caBundle"),
    ],
)
def test_an_issuer_that_proves_nothing_takes_nothing_away(company: Company | None, denies: str, words: str) -> None:
    world = settled("n1")
    own = world.authority
    world.company, world.denies = company, denies
    world.delegate()
    for _ in range(MAX_TICKS):
        world.tick()
        world.now += timedelta(seconds=10)
    assert world.bundles == [(own,)]
    assert world.degraded["reason"] == "AuthorityUnusable"
    assert words in world.degraded["message"]
    assert "Issuer company has not signed a first certificate yet" in world.degraded["message"]
    assert isinstance(world.issue(world.order()), Issued), "our own key goes on signing"
    # -> and what is mended is taken up
    world.company, world.denies = OURS, ""
    for _ in range(MAX_TICKS):
        world.tick()
        world.now += timedelta(seconds=60)
    assert world.authority == mark(OURS)


def test_where_there_is_no_cert_manager_that_is_said() -> None:
    world = settled("n1")
    world.api.served = frozenset()
    world.delegate()
    world.tick()
    world.tick()
    assert "Issuer company can't be asked: the API server has no CertificateRequests" in world.degraded["message"]


def test_when_the_issuer_signs_with_its_next_ca_the_mesh_follows() -> None:
    world = delegated("n1", "n2", companies=(OURS, THEIRS))
    early, late = world.order("early"), world.order("late")
    world.now += timedelta(seconds=1)
    assert isinstance(world.issue(early), Pending)
    world.act()
    # -> the issuer is given its next CA, which people have put into the bundle before
    world.company = THEIRS
    assert isinstance(world.issue(late), Pending)
    world.act()
    waits = world.issue(late)
    assert isinstance(waits, Pending)
    assert "which agents are to trust first" in waits.message
    world.settle()
    assert world.authority == mark(THEIRS)
    assert {root for bundle in world.bundles for root in bundle} == {mark(OURS), mark(THEIRS)}
    assert world.agents == {"n1": mark(THEIRS), "n2": mark(THEIRS)}
    # -> what it has signed is given out now; what the CA before has signed, in the very same second, is asked for anew
    issued = world.issue(late)
    assert isinstance(issued, Issued)
    issued.chain[-1].verify_directly_issued_by(THEIRS.certificate)
    assert isinstance(world.issue(early), Pending)
    world.act()
    issued = world.issue(early)
    assert isinstance(issued, Issued)
    issued.chain[-1].verify_directly_issued_by(THEIRS.certificate)
    # -> and the old one goes when people take it out
    world.delegate(THEIRS)
    world.settle()
    assert world.bundles[-1] == (mark(THEIRS),)


def test_a_deaf_agent_does_not_keep_the_others_from_certificates_of_the_issuers_next_ca() -> None:
    world = delegated("n1", "n2", companies=(OURS,))
    world.deaf = {"n2"}
    world.company = THEIRS
    world.delegate(THEIRS)
    for _ in range(5):
        world.tick()
    assert world.phase == "Publishing"
    world.now += timedelta(minutes=2)
    world.tick()
    assert world.phase == "Draining"


def test_distrust_trusts_the_issuers_other_ca_alone_once_that_has_proved_itself() -> None:
    world = delegated("n1", "n2")
    world.company = THEIRS
    world.delegate(THEIRS, roll={"id": "leak", "mode": "Distrust"})
    world.settle()
    assert world.bundles == [(mark(OURS),), (mark(OURS), mark(THEIRS)), (mark(THEIRS),)]
    assert "AuthorityReplaced" in world.told()


def test_a_bundle_that_can_no_more_be_read_leaves_what_is_trusted() -> None:
    world = Delegated("n1")
    config_map = {"metadata": {"name": "cas", "namespace": NAMESPACE}, "data": {"ca.crt": OURS.pem + THEIRS.pem}}
    world.api.add(CONFIG_MAP, config_map)
    world.change(issuer={"name": "company", "caConfigMap": {"name": "cas"}})
    world.settle()
    assert world.bundles == [(mark(OURS), mark(THEIRS))]
    world.api.take(CONFIG_MAP, "cas")
    world.tick()
    world.tick()
    assert world.bundles == [(mark(OURS), mark(THEIRS))]
    assert f"there is no ConfigMap {NAMESPACE}/cas" in world.degraded["message"]
    assert world.degraded["reason"] == "AuthorityUnusable"
    world.api.add(CONFIG_MAP, config_map | {"data": {"other": ""}})
    world.tick()
    assert "has no key ca.crt" in world.degraded["message"]


def test_an_authority_whose_key_moves_to_an_issuer_stays_what_is_trusted() -> None:
    """A company that had given us its CA's key, and now has cert-manager keep it."""
    world = Delegated("n1")
    assert isinstance(OURS.key, ec.EllipticCurvePrivateKey)
    key = OURS.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    data = {"tls.crt": base64.b64encode(OURS.pem.encode()).decode(), "tls.key": base64.b64encode(key).decode()}
    world.put_secret({"data": data})
    world.change(caSecret="hauberk-imported-ca")
    world.settle()
    assert world.key
    world.delegate(caSecret="")
    world.settle()
    assert world.bundles == [(mark(OURS),)]
    assert world.key == ""


def test_settings_that_can_not_be_read_change_nothing_about_who_signs() -> None:
    world = delegated("n1", companies=(OURS, THEIRS))
    world.change(lifetimeSeconds="a day")
    for _ in range(5):
        world.tick()
    assert world.bundles == [(mark(OURS), mark(THEIRS))]
    assert world.authority == mark(OURS)


def test_the_end_of_the_issuers_ca_is_announced_in_time() -> None:
    world = delegated("n1")
    world.now += timedelta(days=25)
    world.tick()
    world.tick()
    assert world.degraded["reason"] == "AuthorityExpires"
    assert "The CA of Issuer company expires at" in world.degraded["message"]
