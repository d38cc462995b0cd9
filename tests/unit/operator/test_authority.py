"""The Secret with the mesh CA through whole rolls, with replicas that die after any write, and imports good and bad."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hauberk_api.certificate import fingerprint
from hauberk_api.names import CA_SECRET, IMPORTED_CA_SECRET
from hauberk_operator.ca import BadAuthorityError, certificate_pem, create_root, key_pem
from hauberk_operator.facts import Json
from hauberk_operator.writes import NODE, SECRET
from tests.unit.operator.authority_world import MAX_TICKS, NOW, Replica, World, rolled, settled
from tests.unit.operator.builders import node_json


def test_a_roll_publishes_switches_and_drops() -> None:
    world = settled("n1", "n2")
    old = world.root
    world.change(roll={"id": "spring"})
    world.settle()
    rolled(world)
    new = world.root
    assert new != old
    a, b = fingerprint(old), fingerprint(new)
    assert world.bundles == [(a,), (a, b), (b, a), (b,)]
    assert world.told() == ["AuthorityCreated", "AuthorityPrepared", "AuthoritySwitched", "AuthorityDropped"]
    assert world.secret["metadata"]["annotations"]["hauberk.dev/handled-roll"] == "spring"


@pytest.mark.parametrize("mode", ["Overlap", "Distrust"])
def test_a_replica_that_dies_after_any_write_is_succeeded_by_one_that_ends_the_roll(mode: str) -> None:
    calm = settled("n1", "n2")
    calm.change(roll={"id": "spring", "mode": mode})
    begun = len(calm.api.writes)
    calm.settle()
    count = len(calm.api.writes) - begun
    assert count >= (6 if mode == "Overlap" else 3)
    for after in range(count):
        world = settled("n1", "n2")
        old = world.root
        world.change(roll={"id": "spring", "mode": mode})
        world.api.writes_to_live = after
        world.settle()
        assert world.deaths == 1, f"nobody died after write {after}"
        rolled(world)
        # One roll and not two: a root is trusted, and then never again.
        assert [bundle for bundle in world.bundles if fingerprint(old) not in bundle] == [(fingerprint(world.root),)]
        assert len({mark for bundle in world.bundles for mark in bundle}) == 2


def test_every_write_of_a_roll_is_followed_by_another_death() -> None:
    """Leaders that live for a single write each still end it."""
    world = settled("n1", "n2")
    world.change(roll={"id": "spring"})
    for _ in range(MAX_TICKS):
        world.api.writes_to_live = 0
        world.tick()
    world.api.writes_to_live = None
    assert world.deaths >= 5
    world.settle()
    rolled(world)
    assert len({mark for bundle in world.bundles for mark in bundle}) == 2


def test_of_two_replicas_that_think_they_lead_one_writes() -> None:
    world = settled("n1")
    world.change(roll={"id": "spring"})
    first, second = world.replica, Replica(world)

    async def race() -> None:
        # Both read the Secret before either writes it.
        await asyncio.gather(first.look(), second.look())

    asyncio.run(race())
    assert first.authority.standing == second.authority.standing
    world.settle()
    rolled(world)
    assert len({mark for bundle in world.bundles for mark in bundle}) == 2


def test_a_node_that_is_not_ready_holds_nothing_up_and_catches_up_later() -> None:
    world = settled("n1", "n2", "n3")
    world.deaf = {"n3"}
    world.api.add(NODE, node_json("n3", ready=False))
    world.change(roll={"id": "spring"})
    world.settle()
    rolled(world)
    late = world.agents["n3"]
    assert late not in world.bundles[-1], "its certificate is of the root that was dropped"
    # It comes back, reads the plan and asks again.
    world.deaf = set()
    world.settle()
    rolled(world)


def test_a_deaf_agent_on_a_ready_node_is_waited_for_as_long_as_certificates_live() -> None:
    world = settled("n1", "n2")
    world.deaf = {"n2"}
    world.change(roll={"id": "spring"}, lifetimeSeconds=3600)
    for _ in range(5):
        world.tick()
    assert world.phase == "Publishing"
    for phase in ("Draining", "Stable"):
        world.now += timedelta(seconds=3601)
        world.settle() if phase == "Stable" else world.tick()
        assert world.phase == phase
    rolled(world)


def test_a_roll_by_age_needs_nobody_to_ask() -> None:
    world = settled("n1")
    old = world.root
    world.now += timedelta(seconds=10 * 365 * 86_400) * 0.66
    world.settle()
    assert world.root == old
    world.now += timedelta(days=60)
    world.settle()
    assert world.root != old
    rolled(world)


def test_distrust_trusts_the_new_root_alone_in_one_step() -> None:
    world = settled("n1", "n2")
    old = world.root
    world.deaf = {"n2"}
    world.change(roll={"id": "leak", "mode": "Distrust"})
    world.tick()
    assert world.plan is not None
    assert world.plan["trustBundle"] == certificate_pem(world.root) != certificate_pem(old)
    assert "AuthorityReplaced" in world.told()
    world.settle()
    rolled(world)


def test_distrust_during_a_roll_takes_the_next_root_away_too() -> None:
    """Its key was in the Secret when the Secret was stolen."""
    world = settled("n1")
    world.deaf = {"n1"}
    world.change(roll={"id": "spring"})
    world.tick()
    stolen = world.secret["data"]["next.crt"]
    world.change(roll={"id": "leak", "mode": "Distrust"})
    world.tick()
    assert stolen not in world.secret["data"].values()
    assert len(world.bundles[-1]) == 1


def test_the_curve_is_that_of_the_next_root() -> None:
    world = settled("n1")
    key = world.root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    world.change(curve="P-384", roll={"id": "stronger"})
    world.settle()
    key = world.root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP384R1)
    assert world.plan is not None
    assert world.plan["curve"] == "P-384"


def test_nothing_is_signed_before_the_root_is_in_the_plan() -> None:
    world = settled("n1")
    assert world.replica.issuer() is not None
    world.change(roll={"id": "leak", "mode": "Distrust"})
    asyncio.run(world.replica.look())
    assert world.replica.issuer() is None
    world.tick()
    issuer = world.replica.issuer()
    assert issuer is not None
    assert issuer.certificate == world.root


def test_a_secret_that_is_no_ca_is_left_alone() -> None:
    world = World()
    world.put_secret({"data": {"a": "Yg=="}}, name=CA_SECRET)
    with pytest.raises(BadAuthorityError, match="hauberk-ca is not a CA that can be used"):
        world.tick()
    assert world.secret["data"] == {"a": "Yg=="}


def test_no_key_is_in_what_people_and_agents_see() -> None:
    world = settled("n1")
    world.change(roll={"id": "spring"})
    world.settle()
    others = [obj for (kind, _), obj in world.api.objects.items() if kind != SECRET.kind]
    assert "PRIVATE KEY" not in str(others)
    assert "key" not in repr(world.replica.issuer()).lower().replace("keyusage", "")


# Imports

SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@cache
def brought(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> Json:
    """A root that somebody else has made, as a Secret's data."""
    return data_of(ec.generate_private_key(curve()))


def data_of(
    key: Any,
    *,
    ca: bool = True,
    begin: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=300),
    certified: Any = None,
    constrained: bool = False,
    usable: bool = True,
) -> Json:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Example Corp")])
    own = (certified or key).public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(own)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
    )
    if usable:
        builder = builder.add_extension(SIGNS, critical=True)
    if constrained:
        permitted = [x509.DNSName("example.com")]
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(certified or key, digest)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {"tls.crt": certificate.public_bytes(serialization.Encoding.PEM), "tls.key": pem}
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1])
def test_a_new_mesh_takes_what_people_bring(curve: type[ec.EllipticCurve]) -> None:
    world = World("n1")
    world.put_secret({"data": brought(curve)})
    world.change(caSecret=IMPORTED_CA_SECRET)
    world.settle()
    assert world.secret["data"] == brought(curve)
    assert world.degraded["reason"] == "AsWanted"
    rolled(world)


def test_a_mesh_rolls_to_what_people_bring_and_to_what_they_bring_next() -> None:
    world = settled("n1", "n2")
    for data in (brought(ec.SECP256R1), brought(ec.SECP384R1)):
        world.put_secret({"data": data})
        world.change(caSecret=IMPORTED_CA_SECRET)
        world.bundles.clear()
        world.settle()
        assert world.secret["data"] == data
        assert [len(bundle) for bundle in world.bundles[-3:]] == [2, 2, 1]
        rolled(world)


def _p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


UNUSABLE: dict[str, tuple[Callable[[], Json], str]] = {
    "no CA": (lambda: data_of(_p256(), ca=False), "is not a CA's"),
    "expired": (lambda: data_of(_p256(), end=NOW - timedelta(hours=1)), "the certificate ended at 2026-04-30T23"),
    "not begun": (lambda: data_of(_p256(), begin=NOW + timedelta(hours=1)), "the certificate begins at 2026-05-01T01"),
    "RSA": (lambda: data_of(rsa.generate_private_key(65537, 2048)), "not an elliptic curve key"),
    "Ed25519": (lambda: data_of(ed25519.Ed25519PrivateKey.generate()), "not an elliptic curve key"),
    "P-521": (lambda: data_of(ec.generate_private_key(ec.SECP521R1())), "is on secp521r1, and not on P-256 or P-384"),
    "another key": (lambda: data_of(_p256(), certified=_p256()), "the key is not the certificate's"),
    "names": (lambda: data_of(_p256(), constrained=True), "what it signs does not verify"),
    "no key usage": (lambda: data_of(_p256(), usable=False), "what it signs does not verify"),
    "no PEM": (lambda: {"tls.crt": "AAAA", "tls.key": "AAAA"}, "not readable PEM"),
    "no key": (lambda: {"tls.crt": brought()["tls.crt"]}, r"does not have tls\.crt and tls\.key"),
}


@pytest.mark.parametrize(("make", "sentence"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_imported_is_said_and_changes_nothing(make: Callable[[], Json], sentence: str) -> None:
    world = settled("n1")
    before = world.secret["data"]
    world.put_secret({"data": make()})
    world.change(caSecret=IMPORTED_CA_SECRET)
    world.settle()
    assert world.degraded["reason"] == "AuthorityUnusable"
    assert re.search(sentence, world.degraded["message"])
    assert "PRIVATE KEY" not in world.degraded["message"]
    assert world.secret["data"] == before
    rolled(world)
    # It is mended, and rolled to.
    world.put_secret({"data": brought()})
    world.settle()
    assert world.secret["data"] == brought()
    assert world.degraded["reason"] == "AsWanted"


def test_a_new_mesh_waits_for_what_people_bring() -> None:
    world = World("n1")
    world.change(caSecret=IMPORTED_CA_SECRET)
    world.tick()
    assert (SECRET.kind, CA_SECRET) not in world.api.objects
    assert world.phase == "Missing"
    assert "there is none" in world.degraded["message"]
    world.put_secret({"data": brought()})
    world.settle()
    rolled(world)


def test_a_secret_that_may_not_be_read_is_said() -> None:
    world = settled("n1")

    world.api.forbidden = "other"
    world.change(caSecret="other")
    world.settle()
    assert "may not be read: secrets other is forbidden" in world.degraded["message"]


def test_an_imported_root_that_nears_its_end_is_said_and_then_signs_no_more() -> None:
    world = World("n1")
    world.put_secret({"data": brought()})
    world.change(caSecret=IMPORTED_CA_SECRET)
    world.settle()
    world.now += timedelta(days=250)
    world.settle()
    assert world.degraded["reason"] == "AuthorityExpires"
    world.now += timedelta(days=100)
    world.settle()
    assert world.replica.issuer() is None
    # -> its successor: nothing of the old root is worth anything, so there is no overlap
    fresh = data_of(_p256(), begin=world.now, end=world.now + timedelta(days=300))
    world.put_secret({"data": fresh})
    world.settle()
    assert world.secret["data"] == fresh
    rolled(world)


def test_a_root_made_here_is_stored_as_it_was_made() -> None:
    root = create_root(mesh="default", lifetime_seconds=3600, now=NOW)
    world = World()
    files = {"tls.crt": certificate_pem(root.certificate), "tls.key": key_pem(root)}
    world.put_secret({"data": {n: base64.b64encode(t.encode()).decode() for n, t in files.items()}}, name=CA_SECRET)
    world.settle()
    assert world.root == root.certificate, "a Secret without our annotations is taken over"
