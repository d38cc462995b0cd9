"""Every attack on the identities of the mesh is refused, and says why."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hauberk_api.certificate import build_request
from hauberk_api.names import (
    NODE_NAME_EXTRA,
    NODE_UID_EXTRA,
    POD_NAME_EXTRA,
    POD_UID_EXTRA,
    REVOKED_LABEL,
    NodeName,
    NodeUid,
    node_identity,
)
from hauberk_operator.approval import (
    Evidence,
    Grant,
    Later,
    Opened,
    Refusal,
    RefusalReason,
    judge,
    open_request,
)
from hauberk_operator.facts import MemberFacts, NodeFacts, PodFacts, RequestFacts
from tests.unit.operator.builders import KEY, NAMESPACE, member, node, pod, request

NODE = node("n1")
POD = pod("agent-n1")
MEMBER = member("n1")
RIGHT_NAMES = (x509.DNSName(node_identity(NodeUid("uid-n1"))), x509.DNSName("n1"))


def decide(
    asked: RequestFacts,
    *,
    node: NodeFacts | None = NODE,
    pod: PodFacts | None = POD,
    member: MemberFacts | None = MEMBER,
    revoked: frozenset[str] = frozenset(),
) -> Grant | Refusal | Later:
    opened = open_request(asked, namespace=NAMESPACE)
    if isinstance(opened, Refusal):
        return opened
    assert isinstance(opened, Opened)
    return judge(
        Evidence(
            request=asked,
            stamps=opened.stamps,
            pkcs10=opened.pkcs10,
            namespace=NAMESPACE,
            mesh="default",
            revoked_nodes=revoked,
            node=node,
            pod=pod,
            member=member,
        )
    )


def pkcs10(
    *,
    key: CertificateIssuerPrivateKeyTypes = KEY,
    subject: Sequence[tuple[x509.ObjectIdentifier, str]] = ((NameOID.COMMON_NAME, "n1"),),
    names: Sequence[x509.GeneralName] = RIGHT_NAMES,
    extensions: Sequence[x509.ExtensionType] = (),
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = None,
    challenge: bytes = b"",
) -> bytes:
    """A request that is right but for what a test changes."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    if challenge:
        builder = builder.add_attribute(x509.ObjectIdentifier("1.2.840.113549.1.9.7"), challenge)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def tampered(pem: bytes) -> bytes:
    """The same request with one bit of its signature turned over."""
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


def test_an_agents_own_request_is_granted_for_its_node() -> None:
    granted = decide(request())
    assert isinstance(granted, Grant)
    assert (granted.node_name, granted.node_uid) == ("n1", "uid-n1")
    assert granted.public_key == KEY.public_key()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_both_curves_of_the_profile_are_granted(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    pem = build_request(key, uid=NodeUid("uid-n1"), name=NodeName("n1"))
    assert isinstance(decide(request(pem=pem)), Grant)


def test_a_node_that_is_not_published_yet_waits() -> None:
    """It has just joined; its IPsecNode is about to be written."""
    assert isinstance(decide(request(), member=None), Later)
    assert isinstance(decide(request(), member=member("n1", node_uid="former")), Later)


FORMS: dict[str, tuple[Callable[[], RequestFacts], RefusalReason]] = {
    # who asks
    "of another signer": (lambda: request(signer="hauberk.dev/other"), RefusalReason.WRONG_SIGNER),
    "by another service account of the namespace": (
        lambda: request(username=f"system:serviceaccount:{NAMESPACE}:default"),
        RefusalReason.WRONG_SERVICE_ACCOUNT,
    ),
    "by the same service account of another namespace": (
        lambda: request(username="system:serviceaccount:evil:hauberk-agent"),
        RefusalReason.WRONG_SERVICE_ACCOUNT,
    ),
    "by a kubelet": (lambda: request(username="system:node:n1"), RefusalReason.WRONG_SERVICE_ACCOUNT),
    "by a token without a node name": (lambda: request(extra={NODE_NAME_EXTRA: []}), RefusalReason.NOT_NODE_BOUND),
    "by a token without a node UID": (lambda: request(extra={NODE_UID_EXTRA: [""]}), RefusalReason.NOT_NODE_BOUND),
    "by a token without a pod name": (lambda: request(extra={POD_NAME_EXTRA: []}), RefusalReason.NOT_NODE_BOUND),
    "by a token without a pod UID": (lambda: request(extra={POD_UID_EXTRA: []}), RefusalReason.NOT_NODE_BOUND),
    "with two node names stamped": (
        lambda: request(extra={NODE_NAME_EXTRA: ["n1", "n2"]}),
        RefusalReason.NOT_NODE_BOUND,
    ),
    # what form
    "that is no PEM": (lambda: request(pem=b"hello"), RefusalReason.MALFORMED),
    "that is empty": (lambda: request(pem=b""), RefusalReason.MALFORMED),
    "of two PEM blocks": (lambda: request(pem=pkcs10() + pkcs10()), RefusalReason.MALFORMED),
    "whose PEM holds something else": (
        lambda: request(pem=b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"),
        RefusalReason.MALFORMED,
    ),
    "for other usages": (lambda: request(usages=["client auth"]), RefusalReason.USAGES_NOT_ALLOWED),
    "for the usage of a CA": (
        lambda: request(usages=["digital signature", "client auth", "server auth", "cert sign"]),
        RefusalReason.USAGES_NOT_ALLOWED,
    ),
    # which key
    "with a weak RSA key": (
        lambda: request(pem=pkcs10(key=rsa.generate_private_key(65537, 1024))),  # noqa: S505 - the attack
        RefusalReason.KEY_NOT_ALLOWED,
    ),
    "with a strong RSA key": (
        lambda: request(pem=pkcs10(key=rsa.generate_private_key(65537, 2048))),
        RefusalReason.KEY_NOT_ALLOWED,
    ),
    "with a P-192 key": (
        lambda: request(pem=pkcs10(key=ec.generate_private_key(ec.SECP192R1()))),
        RefusalReason.KEY_NOT_ALLOWED,
    ),
    "with a P-224 key": (
        lambda: request(pem=pkcs10(key=ec.generate_private_key(ec.SECP224R1()))),
        RefusalReason.KEY_NOT_ALLOWED,
    ),
    "with a P-521 key": (
        lambda: request(pem=pkcs10(key=ec.generate_private_key(ec.SECP521R1()))),
        RefusalReason.KEY_NOT_ALLOWED,
    ),
    "with a Koblitz key": (
        lambda: request(pem=pkcs10(key=ec.generate_private_key(ec.SECP256K1()))),
        RefusalReason.KEY_NOT_ALLOWED,
    ),
    "with an Ed25519 key": (
        lambda: request(pem=pkcs10(key=ed25519.Ed25519PrivateKey.generate())),
        RefusalReason.KEY_NOT_ALLOWED,
    ),
    "with a signature that was tampered with": (
        lambda: request(pem=tampered(pkcs10())),
        RefusalReason.BAD_SIGNATURE,
    ),
    "signed with another hash": (
        lambda: request(pem=pkcs10(digest=hashes.SHA512())),
        RefusalReason.BAD_SIGNATURE,
    ),
    # which names
    "for another node's name": (
        lambda: request(pem=build_request(KEY, uid=NodeUid("uid-n2"), name=NodeName("n2"))),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "for another node's identity under its own name": (
        lambda: request(pem=build_request(KEY, uid=NodeUid("uid-n2"), name=NodeName("n1"))),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "in another mesh": (
        lambda: request(pem=build_request(KEY, uid=NodeUid("uid-n1"), name=NodeName("n1"), mesh="other")),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "with an additional DNS name": (
        lambda: request(pem=pkcs10(names=[*RIGHT_NAMES, x509.DNSName("n2")])),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "with a DNS name twice": (
        lambda: request(pem=pkcs10(names=[*RIGHT_NAMES, RIGHT_NAMES[0]])),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "with a DNS name less": (lambda: request(pem=pkcs10(names=RIGHT_NAMES[:1])), RefusalReason.NAME_NOT_ALLOWED),
    "with a wildcard": (
        lambda: request(pem=pkcs10(names=[x509.DNSName("*.default.hauberk.internal"), x509.DNSName("n1")])),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "with an e-mail address": (
        lambda: request(pem=pkcs10(names=[*RIGHT_NAMES, x509.RFC822Name("a@example.com")])),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "with an IP address in place of a name": (
        lambda: request(pem=pkcs10(names=[RIGHT_NAMES[0], x509.UniformResourceIdentifier("spiffe://cluster/n1")])),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "with another common name": (
        lambda: request(pem=pkcs10(subject=[(NameOID.COMMON_NAME, "n2")])),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "with an organization": (
        lambda: request(
            pem=pkcs10(subject=[(NameOID.COMMON_NAME, "n1"), (NameOID.ORGANIZATION_NAME, "system:masters")])
        ),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "with two common names": (
        lambda: request(pem=pkcs10(subject=[(NameOID.COMMON_NAME, "n1"), (NameOID.COMMON_NAME, "n2")])),
        RefusalReason.NAME_NOT_ALLOWED,
    ),
    "with no subject": (lambda: request(pem=pkcs10(subject=())), RefusalReason.NAME_NOT_ALLOWED),
    # what else
    "to be a CA": (
        lambda: request(pem=pkcs10(extensions=[x509.BasicConstraints(ca=True, path_length=None)])),
        RefusalReason.EXTENSION_NOT_ALLOWED,
    ),
    "to be no CA, in so many words": (
        lambda: request(pem=pkcs10(extensions=[x509.BasicConstraints(ca=False, path_length=None)])),
        RefusalReason.EXTENSION_NOT_ALLOWED,
    ),
    "for a key usage of its own": (
        lambda: request(pem=pkcs10(extensions=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])])),
        RefusalReason.EXTENSION_NOT_ALLOWED,
    ),
    "with a challenge password": (
        lambda: request(pem=pkcs10(challenge=b"secret")),
        RefusalReason.EXTENSION_NOT_ALLOWED,
    ),
    "without alternative names": (lambda: request(pem=pkcs10(names=())), RefusalReason.EXTENSION_NOT_ALLOWED),
}


@pytest.mark.parametrize("case", FORMS)
def test_refused_is_a_request(case: str) -> None:
    build, reason = FORMS[case]
    refusal = decide(build())
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason
    assert refusal.message.endswith(".")


CLUSTERS: dict[str, tuple[dict[str, Any], RefusalReason]] = {
    "whose Node is gone": ({"node": None}, RefusalReason.NODE_UNKNOWN),
    "whose Node was registered again": ({"node": node("n1", uid="another")}, RefusalReason.NODE_UNKNOWN),
    "whose node is revoked": ({"revoked": frozenset({"uid-n1"})}, RefusalReason.NODE_REVOKED),
    "whose node is revoked by name": ({"revoked": frozenset({"n1"})}, RefusalReason.NODE_REVOKED),
    "whose node is labelled": ({"node": replace(NODE, labels={REVOKED_LABEL: ""})}, RefusalReason.NODE_REVOKED),
    "whose pod is gone": ({"pod": None}, RefusalReason.POD_UNKNOWN),
    "whose pod was replaced by one of the same name": ({"pod": replace(POD, uid="x")}, RefusalReason.POD_UNKNOWN),
    "whose pod has ended": ({"pod": replace(POD, ended=True)}, RefusalReason.POD_UNKNOWN),
    "whose pod is on another node": ({"pod": replace(POD, node_name="n2")}, RefusalReason.POD_UNKNOWN),
    "whose pod is not scheduled": ({"pod": replace(POD, node_name="")}, RefusalReason.POD_UNKNOWN),
    "whose pod runs as somebody else": (
        {"pod": replace(POD, service_account="default")},
        RefusalReason.POD_UNKNOWN,
    ),
}


@pytest.mark.parametrize("case", CLUSTERS)
def test_refused_is_an_agent(case: str) -> None:
    evidence, reason = CLUSTERS[case]
    refusal = decide(request(), **evidence)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason


def test_a_refusal_is_stronger_than_waiting() -> None:
    assert isinstance(decide(request(), member=None, pod=None), Refusal)


def test_people_find_every_reason_of_a_refusal() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "reference" / "conditions.md"
    section = page.read_text().partition("## On certificate requests")[2]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [reason.value for reason in RefusalReason]
