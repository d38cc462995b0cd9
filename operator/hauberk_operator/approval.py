"""Who gets a node certificate: a chain of small pure policies over one request and what is known about its sender.

The API server stamps a request that was made with a pod-bound token with the pod and the node that the token was
bound to (spec.extra). A request is granted only if the service account, the stamps, the Node, the pod as it is now, and
every name in the request agree, and the request holds nothing else. So a stolen token gives one node's name, and a
compromised node cannot become another.

open_request() looks at the request alone. Then each policy returns None (nothing to object), a Refusal (final: the
request is denied) or Later (not known yet: ask again); judge() returns the first objection. Called by requests.py,
which gathers the Evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hauberk_api.certificate import CSR_USAGES, CURVES, node_dns_names
from hauberk_api.names import (
    AGENT_SERVICE_ACCOUNT,
    NODE_NAME_EXTRA,
    NODE_UID_EXTRA,
    POD_NAME_EXTRA,
    POD_UID_EXTRA,
    REVOKED_LABEL,
    SIGNER,
    NodeName,
    NodeUid,
)
from hauberk_operator.facts import MemberFacts, NodeFacts, PodFacts, RequestFacts

_BEGIN: Final = b"-----BEGIN"
_EXTENSION_REQUEST: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.14")
"""RFC 2985 section 5.4.2: the one attribute of a PKCS#10 request that is allowed."""


class RefusalReason(StrEnum):
    """Reasons of the Denied condition."""

    WRONG_SIGNER = "WrongSigner"
    WRONG_SERVICE_ACCOUNT = "WrongServiceAccount"
    NOT_NODE_BOUND = "NotNodeBound"
    MALFORMED = "Malformed"
    BAD_SIGNATURE = "BadSignature"
    KEY_NOT_ALLOWED = "KeyNotAllowed"
    USAGES_NOT_ALLOWED = "UsagesNotAllowed"
    EXTENSION_NOT_ALLOWED = "ExtensionNotAllowed"
    NAME_NOT_ALLOWED = "NameNotAllowed"
    NODE_UNKNOWN = "NodeUnknown"
    NODE_REVOKED = "NodeRevoked"
    POD_UNKNOWN = "PodUnknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    reason: RefusalReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Not decided: something is not known yet."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """The pod and node that the sender's token was bound to."""

    node_name: NodeName
    node_uid: NodeUid
    pod_name: str
    pod_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A request of the right form from the right service account: what it claims."""

    stamps: Stamps
    pkcs10: x509.CertificateSigningRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A request that may be signed: for whom, and the key. Nothing else of the request is used."""

    node_name: NodeName
    node_uid: NodeUid
    public_key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a decision rests on. node and pod are as read afresh, None when there is none."""

    request: RequestFacts
    stamps: Stamps
    pkcs10: x509.CertificateSigningRequest
    namespace: str
    """Where the agents run."""
    mesh: str
    revoked_nodes: frozenset[str]
    node: NodeFacts | None
    pod: PodFacts | None
    member: MemberFacts | None


Objection = Refusal | Later | None
Policy = Callable[[Evidence], Objection]


def open_request(request: RequestFacts, *, namespace: str) -> Opened | Refusal:
    """What a request claims, once signer, sender, stamps and form are right. Comes before any look at the cluster."""
    if request.signer != SIGNER:
        return Refusal(reason=RefusalReason.WRONG_SIGNER, message=f"Only requests for {SIGNER} are signed here.")
    agent = agent_username(namespace)
    if request.username != agent:
        return Refusal(
            reason=RefusalReason.WRONG_SERVICE_ACCOUNT, message=f"{request.username} asked; only {agent} may."
        )
    stamps = _read_stamps(request)
    if isinstance(stamps, Refusal):
        return stamps
    if request.request.count(_BEGIN) != 1:
        return Refusal(reason=RefusalReason.MALFORMED, message="spec.request is not exactly one PEM block.")
    try:
        pkcs10 = x509.load_pem_x509_csr(request.request)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return Refusal(reason=RefusalReason.MALFORMED, message="spec.request is not a PKCS#10 certificate request.")
    return Opened(stamps=stamps, pkcs10=pkcs10)


def _read_stamps(request: RequestFacts) -> Stamps | Refusal:
    found: list[str] = []
    for key in (NODE_NAME_EXTRA, NODE_UID_EXTRA, POD_NAME_EXTRA, POD_UID_EXTRA):
        values = request.extra.get(key, ())
        if len(values) != 1 or not values[0]:
            return Refusal(
                reason=RefusalReason.NOT_NODE_BOUND,
                message=f"The request was not made with a token bound to a pod on a node: {key} has {len(values)} "
                "values instead of one.",
            )
        found.append(values[0])
    node_name, node_uid, pod_name, pod_uid = found
    return Stamps(node_name=NodeName(node_name), node_uid=NodeUid(node_uid), pod_name=pod_name, pod_uid=pod_uid)


def usages_are_the_profile(evidence: Evidence) -> Objection:
    if sorted(evidence.request.usages) == sorted(CSR_USAGES):
        return None
    return Refusal(
        reason=RefusalReason.USAGES_NOT_ALLOWED,
        message=f"spec.usages is {_list(evidence.request.usages)}; it must be {_list(CSR_USAGES)}.",
    )


def key_is_allowed(evidence: Evidence) -> Objection:
    refusal = Refusal(reason=RefusalReason.KEY_NOT_ALLOWED, message="The key is not an EC key on P-256 or P-384.")
    try:
        key = evidence.pkcs10.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return refusal
    return None if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVES) else refusal


def sender_has_the_key(evidence: Evidence) -> Objection:
    """Proof of possession: the request is signed with its own key, with SHA-256 or SHA-384."""
    refusal = Refusal(
        reason=RefusalReason.BAD_SIGNATURE,
        message="The request is not signed with its own key by ECDSA with SHA-256 or SHA-384.",
    )
    try:
        digest = evidence.pkcs10.signature_hash_algorithm
        valid = evidence.pkcs10.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        return refusal
    return None if valid and isinstance(digest, hashes.SHA256 | hashes.SHA384) else refusal


def names_are_the_nodes(evidence: Evidence) -> Objection:
    """The subject is the node's name alone; the alternative names are exactly the profile's two."""
    stamps = evidence.stamps
    subject = [(attribute.oid, attribute.value) for attribute in evidence.pkcs10.subject]
    if subject != [(NameOID.COMMON_NAME, stamps.node_name[:64])]:
        return Refusal(
            reason=RefusalReason.NAME_NOT_ALLOWED,
            message=f"The subject must be CN={stamps.node_name[:64]} and nothing else.",
        )
    expected = sorted(node_dns_names(stamps.node_uid, stamps.node_name, evidence.mesh))
    try:
        names = list(evidence.pkcs10.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        names = []
    dns_names = sorted(name.value for name in names if isinstance(name, x509.DNSName))
    if len(names) == len(dns_names) and dns_names == expected:
        return None
    return Refusal(
        reason=RefusalReason.NAME_NOT_ALLOWED,
        message=f"The subjectAltName must hold the DNS names {_list(expected)} and nothing else.",
    )


def nothing_else_is_asked(evidence: Evidence) -> Objection:
    """No extension but subjectAltName (CA:TRUE, key usages...), no attribute but the one that carries it."""
    try:
        extensions = [extension.oid for extension in evidence.pkcs10.extensions]
        attributes = [attribute.oid for attribute in evidence.pkcs10.attributes]
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return Refusal(reason=RefusalReason.MALFORMED, message="The request's extensions cannot be read.")
    if extensions == [x509.SubjectAlternativeName.oid] and attributes == [_EXTENSION_REQUEST]:
        return None
    return Refusal(
        reason=RefusalReason.EXTENSION_NOT_ALLOWED,
        message="The request must ask for subjectAltName and for no other extension or attribute.",
    )


def node_is_not_revoked(evidence: Evidence) -> Objection:
    """Neither by UID nor by name, which holds for a Node that registers again, nor by its label."""
    stamps, node = evidence.stamps, evidence.node
    if not evidence.revoked_nodes.isdisjoint((stamps.node_uid, stamps.node_name)):
        why = "is in the mesh's revokedNodes"
    elif node is not None and node.revoked_by(()):
        why = f"has the label {REVOKED_LABEL}"
    else:
        return None
    return Refusal(reason=RefusalReason.NODE_REVOKED, message=f"Node {stamps.node_name} ({stamps.node_uid}) {why}.")


def node_exists(evidence: Evidence) -> Objection:
    node = evidence.node
    if node is not None and (node.name, node.uid) == (evidence.stamps.node_name, evidence.stamps.node_uid):
        return None
    return Refusal(
        reason=RefusalReason.NODE_UNKNOWN,
        message=f"There is no Node {evidence.stamps.node_name} with UID {evidence.stamps.node_uid}.",
    )


def pod_runs_there(evidence: Evidence) -> Objection:
    """The pod of the token is there now, is an agent, and runs on the stamped node."""
    stamps, pod = evidence.stamps, evidence.pod
    where = f"Pod {evidence.namespace}/{stamps.pod_name} with UID {stamps.pod_uid}"
    if pod is None or (pod.name, pod.uid) != (stamps.pod_name, stamps.pod_uid) or pod.ended:
        return Refusal(reason=RefusalReason.POD_UNKNOWN, message=f"{where} does not run.")
    if pod.node_name != stamps.node_name:
        return Refusal(
            reason=RefusalReason.POD_UNKNOWN, message=f"{where} runs on {pod.node_name}, not on {stamps.node_name}."
        )
    if pod.service_account != AGENT_SERVICE_ACCOUNT:
        return Refusal(reason=RefusalReason.POD_UNKNOWN, message=f"{where} runs as {pod.service_account or 'nobody'}.")
    return None


def node_is_published(evidence: Evidence) -> Objection:
    """Its IPsecNode is there: until then no peer would take the certificate."""
    member = evidence.member
    if member is not None and member.spec is not None and member.spec.node_uid == evidence.stamps.node_uid:
        return None
    return Later(message=f"IPsecNode {evidence.stamps.node_name} is not written yet")


POLICIES: Final[tuple[Policy, ...]] = (
    usages_are_the_profile,
    key_is_allowed,
    sender_has_the_key,
    nothing_else_is_asked,
    names_are_the_nodes,
    node_is_not_revoked,
    node_exists,
    pod_runs_there,
    node_is_published,
)


def judge(evidence: Evidence, policies: Sequence[Policy] = POLICIES) -> Grant | Refusal | Later:
    """The first objection of any policy, else a grant."""
    for policy in policies:
        objection = policy(evidence)
        if objection is not None:
            return objection
    key = evidence.pkcs10.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return Refusal(reason=RefusalReason.KEY_NOT_ALLOWED, message="The key is not an EC key.")
    return Grant(node_name=evidence.stamps.node_name, node_uid=evidence.stamps.node_uid, public_key=key)


def agent_username(namespace: str) -> str:
    """How the API server names the agents' service account."""
    return f"system:serviceaccount:{namespace}:{AGENT_SERVICE_ACCOUNT}"


def _list(values: Sequence[str]) -> str:
    return ", ".join(values) or "empty"
