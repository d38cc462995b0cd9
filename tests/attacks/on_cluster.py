"""Attacks on the API server and the operator, each a function that tries it and returns what refused it.

`n1` is the attacker's node, with its agent's token and its kubelet's certificate in wrong hands; `n2` is the victim's.
What each is about is in `table`.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from hauberk_api.certificate import CSR_USAGES
from hauberk_api.kinds import MESHES, NODES, REPORTS
from hauberk_api.names import AGENT_SERVICE_ACCOUNT, CA_SECRET, REVOKED_LABEL, SIGNER, node_identity
from tests.attacks.attack import NotRefused
from tests.attacks.cluster import ELSEWHERE, HUB_LABEL, STRANGER, AttackedCluster, report
from tests.integration.operator_bed import NAMESPACE, OURS

Json = dict[str, Any]

# Names that are another's


def another_nodes_name(ground: AttackedCluster) -> str:
    return ground.refused_request("NameNotAllowed", claims="n2")


def another_nodes_uid(ground: AttackedCluster) -> str:
    return ground.refused_request("NameNotAllowed", claims_uid=ground.uid("n2"))


def a_replayed_request(ground: AttackedCluster) -> str:
    """n2 asks and is answered; n1 sends the same bytes."""
    ground.bed.ask(name := ground.new_name(), node="n2")
    ground.bed.wait_for("n2's certificate", lambda: ground.bed.outcome(name).get("certificate"))
    return ground.refused_request("NameNotAllowed", pem=ground.overheard(name))


def an_additional_name(ground: AttackedCluster) -> str:
    return ground.refused_request("NameNotAllowed", pem=pkcs10(ground, x509.DNSName("n2")))


def an_additional_uri(ground: AttackedCluster) -> str:
    uri = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/kube-system/sa/default")
    return ground.refused_request("NameNotAllowed", pem=pkcs10(ground, uri))


def a_group_in_the_subject(ground: AttackedCluster) -> str:
    """What the API server itself would read from a client certificate."""
    masters = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters")
    return ground.refused_request("NameNotAllowed", pem=pkcs10(ground, subject=(masters,)))


# Certificates of another kind


def an_authority(ground: AttackedCluster) -> str:
    ca = x509.BasicConstraints(ca=True, path_length=None)
    return ground.refused_request("ExtensionNotAllowed", pem=pkcs10(ground, extension=ca))


def other_usages(ground: AttackedCluster) -> str:
    return ground.refused_request("UsagesNotAllowed", usages=["digital signature", "client auth", "cert sign"])


def a_weak_curve(ground: AttackedCluster) -> str:
    return ground.refused_request("KeyNotAllowed", pem=pkcs10(ground, key=ec.generate_private_key(ec.SECP224R1())))


def a_weak_rsa_key(ground: AttackedCluster) -> str:
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - the attack
    return ground.refused_request("KeyNotAllowed", pem=pkcs10(ground, key=key))


def a_key_that_the_sender_has_not(ground: AttackedCluster) -> str:
    """Somebody else's public key under n1's names: the request is not signed by that key."""
    mine, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    der = x509.load_pem_x509_csr(pkcs10(ground, key=mine)).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(der.replace(point(mine), point(other)))
    return ground.forbidden(
        "is invalid: spec.request",
        *("create", "--filename=-"),
        kubeconfig=ground.agent("n1"),
        body=signing_request(ground, pem=forged.public_bytes(serialization.Encoding.PEM)),
    )


# Senders who are no agent of that node


def a_token_of_no_pod(ground: AttackedCluster) -> str:
    return ground.refused_request("NotNodeBound", bound=False)


def the_agents_account_of_another_namespace(ground: AttackedCluster) -> str:
    """Somebody who may create pods elsewhere calls his service account as ours is called."""
    ground.bed.add_pod("impostor", node="n1", namespace=ELSEWHERE)
    try:
        return ground.refused_request("WrongServiceAccount", pod="impostor", namespace=ELSEWHERE)
    finally:
        ground.bed.remove_pod("impostor", namespace=ELSEWHERE)


def another_account_of_the_namespace(ground: AttackedCluster) -> str:
    ground.bed.add_pod("stranger", node="n1", service_account=STRANGER)
    try:
        return ground.refused_request("WrongServiceAccount", pod="stranger", service_account=STRANGER)
    finally:
        ground.bed.remove_pod("stranger")


def an_admin(ground: AttackedCluster) -> str:
    """Whoever may do anything gets no node's certificate."""
    admin = ground.bed.server.kubeconfig_for_user("admin", group="system:masters", name="an-admin")
    return ground.refused_request("WrongServiceAccount", kubeconfig=admin)


def a_kubelet(ground: AttackedCluster) -> str:
    """The API server lets kubelets ask any signer."""
    return ground.refused_request("WrongServiceAccount", kubeconfig=ground.kubelet("n1"))


def a_pod_that_is_gone(ground: AttackedCluster) -> str:
    """The API server lets a token live on for a while after its pod."""
    ground.bed.add_pod("brief", node="n1")
    token = ground.bed.agent_token("brief")
    resume = ground.operator.pause()
    try:
        ground.bed.ask(name := ground.new_name(), node="n1", token=token)
        ground.bed.remove_pod("brief")
    finally:
        resume()
    return ground.denied(name, "PodUnknown")


def a_node_that_is_gone(ground: AttackedCluster) -> str:
    ground.bed.add_node(7)
    ground.bed.wait_for("n7", lambda: "n7" in ground.bed.members(), operator=ground.operator)
    resume = ground.operator.pause()
    try:
        ground.bed.ask(name := ground.new_name(), node="n7")
        ground.bed.remove_node(7)
    finally:
        resume()
    return ground.denied(name, "NodeUnknown")


def a_node_registered_again(ground: AttackedCluster) -> str:
    """It was thrown out by name; its kubelet comes back with another UID, and its agent asks."""
    bed = ground.bed
    bed.add_node(5)
    bed.wait_for("its membership", lambda: bed.members().get("n5", {}).get("spec", {}).get("memberships"))
    bed.change_mesh({"revokedNodes": ["n5"]})
    bed.remove_node(5)
    bed.wait_for("its IPsecNode's end", lambda: "n5" not in bed.members(), operator=ground.operator)
    again = bed.add_node(5)
    try:
        bed.wait_for("its UID in the plan", lambda: again in bed.plan()["revokedNodes"], operator=ground.operator)
        said = ground.refused_request("NodeRevoked", node="n5")
        ground.stays("n5 in no tunnel", lambda: not bed.members().get("n5", {}).get("spec", {}).get("memberships"))
        return said
    finally:
        bed.remove_node(5)
        bed.change_mesh({})
        bed.wait_for("the plan", lambda: not bed.plan().get("revokedNodes"), operator=ground.operator)


def a_revoked_node(ground: AttackedCluster) -> str:
    ground.bed.change_mesh({"revokedNodes": [ground.uid("n1")]})
    try:
        ground.bed.wait_for("the plan", lambda: ground.bed.plan().get("revokedNodes"), operator=ground.operator)
        return ground.refused_request("NodeRevoked")
    finally:
        ground.bed.change_mesh({})
        ground.bed.wait_for("the plan", lambda: not ground.bed.plan().get("revokedNodes"), operator=ground.operator)


# Around the operator


def an_approval_by_mistake(ground: AttackedCluster) -> str:
    """An administrator approves what n1 asks in n2's name: the signer looks for itself, and fails the request."""
    resume = ground.operator.pause()
    try:
        ground.bed.ask(name := ground.new_name(), node="n1", claims="n2")
        ground.bed.server.kubectl("certificate", "approve", name)
    finally:
        resume()
    return ground.denied(name, "NameNotAllowed", condition="Failed")


def an_approval_by_an_agent(ground: AttackedCluster) -> str:
    resume = ground.operator.pause()
    try:
        ground.bed.ask(name := ground.new_name(), node="n1", claims="n2")
        said = ground.forbidden("cannot update resource", "certificate", "approve", name, kubeconfig=ground.agent("n1"))
    finally:
        resume()
    ground.denied(name, "NameNotAllowed")
    return said


def another_signer(ground: AttackedCluster) -> str:
    """The one that makes clients of the API server."""
    return ground.forbidden(
        "an agent asks the signer hauberk.dev/node only",
        *("create", "--filename=-"),
        kubeconfig=ground.agent("n1"),
        body=signing_request(ground, signer="kubernetes.io/kube-apiserver-client"),
    )


def the_authoritys_key(ground: AttackedCluster) -> str:
    return ground.forbidden(
        "cannot get resource", "get", "secret", CA_SECRET, f"--namespace={NAMESPACE}", kubeconfig=ground.agent("n1")
    )


def a_token_for_another_nodes_agent(ground: AttackedCluster) -> str:
    """A kubelet fetches the tokens of its own pods. n1's asks for one that is bound to n2's agent."""
    pod = ground.bed.get(f"/api/v1/namespaces/{NAMESPACE}/pods/agent-n2")["metadata"]["uid"]
    bound = ("--bound-object-kind=Pod", "--bound-object-name=agent-n2", f"--bound-object-uid={pod}")
    return ground.forbidden(
        "node requested token bound to a pod scheduled on a different node",
        *("create", "token", AGENT_SERVICE_ACCOUNT, f"--namespace={NAMESPACE}", *bound),
        kubeconfig=ground.kubelet("n1"),
    )


# What agents write


def another_nodes_report(ground: AttackedCluster) -> str:
    return ground.forbidden(
        "an agent writes the IPsecReport of its own node only",
        *("patch", REPORTS, "n2", "--subresource=status", "--type=merge", status_patch(ground, "n2")),
        kubeconfig=ground.agent("n1"),
    )


def a_report_for_a_node_without_one(ground: AttackedCluster) -> str:
    return ground.forbidden(
        "an agent writes the IPsecReport of its own node only",
        *("create", "--filename=-"),
        kubeconfig=ground.agent("n1"),
        body=report("n3"),
    )


def a_report_by_a_token_of_no_pod(ground: AttackedCluster) -> str:
    token = ground.bed.server.token(AGENT_SERVICE_ACCOUNT, namespace=NAMESPACE)
    return ground.forbidden(
        "the request must bear its pod's token",
        *("create", "--filename=-"),
        kubeconfig=ground.bed.server.kubeconfig_for_token(token, "nowhere"),
        body=report("n3"),
    )


def a_report_under_another_uid(ground: AttackedCluster) -> str:
    return ground.forbidden(
        "status.nodeUID must be the UID of the agent's own Node",
        *("patch", REPORTS, "n1", "--subresource=status", "--type=merge", status_patch(ground, "n2")),
        kubeconfig=ground.agent("n1"),
    )


def what_peers_believe(ground: AttackedCluster) -> str:
    """Its own IPsecNode, with n2's addresses."""
    patch = '--patch={"spec":{"addresses":["10.250.0.2"]}}'
    return ground.forbidden(
        "cannot patch resource", "patch", NODES, "n1", "--type=merge", patch, kubeconfig=ground.agent("n1")
    )


def the_plan(ground: AttackedCluster) -> str:
    """A trust bundle of its own, in the mesh's status."""
    mesh = ground.bed.mesh()
    mesh["status"]["plan"]["trustBundle"] = ""
    return ground.forbidden(
        "cannot update resource",
        *("replace", f"--raw={OURS}/{MESHES}/default/status", "--filename=-"),
        kubeconfig=ground.agent("n1"),
        body=mesh,
    )


# What kubelets write


def another_nodes_address(ground: AttackedCluster) -> str:
    """n1's kubelet writes n2's address into its own Node, before its own."""
    own = [{"type": "InternalIP", "address": address} for address in ("10.250.0.2", "10.250.0.1")]
    try:
        _write_addresses(ground, own)
        said = ground.conflict("n1", "10.250.0.2")
        ground.stays("n2's address is n2's", lambda: ground.member("n2")["addresses"] == ["10.250.0.2"])
        ground.stays("n1 has its own only", lambda: ground.member("n1")["addresses"] == ["10.250.0.1"], seconds=0.1)
        return said
    finally:
        _write_addresses(ground, own[1:])
        ground.bed.wait_for("peace", lambda: not _degraded(ground), operator=ground.operator)


def another_nodes_pods(ground: AttackedCluster) -> str:
    """A kubelet may give its Node pod CIDRs when it registers: n8's takes n2's, and all pods' besides."""
    bed = ground.bed
    node: Json = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n8", "labels": {"kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"]},
    }
    try:
        bed.server.kubectl("create", "--filename=-", stdin=json.dumps(node), kubeconfig=ground.kubelet("n8"))
        said = ground.conflict("n8", "10.244.2.0/24")
        ground.stays("n2's pods are n2's", lambda: "10.244.2.0/24" in ground.member("n2")["podCIDRs"])
        ground.stays("n8 has none", lambda: not bed.members().get("n8", {}).get("spec", {}).get("podCIDRs"))
        return said
    finally:
        bed.server.kubectl("delete", "node", "n8", "--ignore-not-found")
        bed.wait_for("n8's end", lambda: "n8" not in bed.members(), operator=ground.operator)


def a_hub_by_its_own_word(ground: AttackedCluster) -> str:
    said = ground.forbidden(
        "is not allowed to modify labels",
        *("label", "node", "n1", f"{HUB_LABEL}=true"),
        kubeconfig=ground.kubelet("n1"),
    )
    if any(membership["role"] == "Hub" for membership in ground.member("n1")["memberships"]):
        raise NotRefused("n1 is a hub")
    return said


def a_revoked_label_taken_off(ground: AttackedCluster) -> str:
    bed = ground.bed
    bed.server.kubectl("label", "node", "n1", f"{REVOKED_LABEL}=")
    try:
        bed.wait_for("its end", lambda: not ground.member("n1").get("memberships"), operator=ground.operator)
        said = ground.forbidden(
            "is not allowed to modify labels",
            *("label", "node", "n1", f"{REVOKED_LABEL}-"),
            kubeconfig=ground.kubelet("n1"),
        )
        ground.stays("n1 in no tunnel", lambda: not ground.member("n1").get("memberships"))
        return said
    finally:
        bed.server.kubectl("label", "node", "n1", f"{REVOKED_LABEL}-")
        bed.wait_for("its membership", lambda: ground.member("n1").get("memberships"), operator=ground.operator)


def pkcs10(
    ground: AttackedCluster,
    *more: x509.GeneralName,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    subject: tuple[x509.NameAttribute[str], ...] = (),
    extension: x509.ExtensionType | None = None,
) -> bytes:
    """A request of n1's for its own names, and for what else is given."""
    own = [x509.DNSName(name) for name in (node_identity(ground.uid("n1")), "n1")]
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "n1"), *subject]))
        .add_extension(x509.SubjectAlternativeName([*own, *more]), critical=False)
    )
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key, as it stands in a request."""
    form = serialization.PublicFormat.UncompressedPoint
    return key.public_key().public_bytes(serialization.Encoding.X962, form)


def signing_request(ground: AttackedCluster, *, signer: str = SIGNER, pem: bytes = b"") -> Json:
    """A CertificateSigningRequest for n1, good but for what is given."""
    request = base64.b64encode(pem or pkcs10(ground)).decode()
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": ground.new_name()},
        "spec": {"signerName": signer, "usages": list(CSR_USAGES), "request": request},
    }


def status_patch(ground: AttackedCluster, node: str) -> str:
    """kubectl's option for a report's status that says that it is a node's."""
    status: Json = {
        "nodeUID": ground.uid(node), "agentVersion": "0.1.0", "planGeneration": 1, "ready": True,
        "reason": "AsWanted", "kernel": {"release": "7.3.0", "esp": True},
    }  # fmt: skip
    return f"--patch={json.dumps({'status': status})}"


def _write_addresses(ground: AttackedCluster, addresses: list[dict[str, str]]) -> None:
    """As n1's kubelet."""
    node = ground.bed.get("/api/v1/nodes/n1")
    node["status"]["addresses"] = addresses
    ground.bed.server.kubectl(
        "replace",
        "--raw=/api/v1/nodes/n1/status",
        "--filename=-",
        stdin=json.dumps(node),
        kubeconfig=ground.kubelet("n1"),
    )


def _degraded(ground: AttackedCluster) -> bool:
    conditions: list[Json] = ground.bed.mesh()["status"]["conditions"]
    return any(c["type"] == "Degraded" and c["status"] == "True" for c in conditions)
