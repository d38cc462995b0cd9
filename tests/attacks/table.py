"""The table of attacks: one place for the tests, for `make drill` and for docs/reference/attacks.md."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tests.attacks import on_agents as a
from tests.attacks import on_cluster as c
from tests.attacks.attack import Attack
from tests.attacks.cluster import AttackedCluster
from tests.attacks.on_agents import AttackedAgents

ON_CLUSTER: Final[tuple[Attack[AttackedCluster], ...]] = (
    Attack(
        attempt=c.another_nodes_name,
        tried="A's agent asks for a certificate in B's name",
        refused_by="`NameNotAllowed`: names are those of the node that the API server has stamped",
    ),
    Attack(
        attempt=c.another_nodes_uid,
        tried="A's agent asks for B's identity (its UID) under A's name",
        refused_by="`NameNotAllowed`",
    ),
    Attack(
        attempt=c.a_replayed_request,
        tried="A sends the very request that B has been granted",
        refused_by="`NameNotAllowed`: the stamp is the sender's",
    ),
    Attack(
        attempt=c.an_additional_name,
        tried="A CSR with B's name as one SAN more",
        refused_by="`NameNotAllowed`: the names are exactly two",
    ),
    Attack(
        attempt=c.an_additional_uri,
        tried="A CSR with a SAN of another type (a SPIFFE URI)",
        refused_by="`NameNotAllowed`",
    ),
    Attack(
        attempt=c.a_group_in_the_subject,
        tried="A CSR whose subject says `O=system:masters`, for the API server to believe",
        refused_by="`NameNotAllowed`: the subject is the node's name alone",
    ),
    Attack(
        attempt=c.an_authority,
        tried="A CSR with `CA:TRUE`",
        refused_by="`ExtensionNotAllowed`; and of a request nothing but the key is signed",
    ),
    Attack(
        attempt=c.other_usages,
        tried="A CSR for the usage `cert sign`",
        refused_by="`UsagesNotAllowed`",
    ),
    Attack(
        attempt=c.a_weak_curve,
        tried="A key on P-224",
        refused_by="`KeyNotAllowed`",
    ),
    Attack(
        attempt=c.a_weak_rsa_key,
        tried="An RSA key of 1,024 bits",
        refused_by="`KeyNotAllowed`",
    ),
    Attack(
        attempt=c.a_key_that_the_sender_has_not,
        tried="Somebody else's public key under A's names",
        refused_by="the API server, and `BadSignature` behind it: whoever asks proves that he has the key",
    ),
    Attack(
        attempt=c.a_token_of_no_pod,
        tried="A token of the agents' service account that is bound to no pod",
        refused_by="`NotNodeBound`",
    ),
    Attack(
        attempt=c.the_agents_account_of_another_namespace,
        tried="A service account `hauberk-agent` of another namespace, with the agents' role",
        refused_by="`WrongServiceAccount`",
    ),
    Attack(
        attempt=c.another_account_of_the_namespace,
        tried="Another service account of the operator's namespace, with the agents' role",
        refused_by="`WrongServiceAccount`",
    ),
    Attack(
        attempt=c.an_admin,
        tried="A cluster admin asks",
        refused_by="`WrongServiceAccount`",
    ),
    Attack(
        attempt=c.a_kubelet,
        tried="A's kubelet asks our signer",
        refused_by="`WrongServiceAccount`",
    ),
    Attack(
        attempt=c.a_pod_that_is_gone,
        tried="The token of an agent's pod that has been deleted, which the API server takes for a while",
        refused_by="`PodUnknown`: the pod is looked at again",
    ),
    Attack(
        attempt=c.a_node_that_is_gone,
        tried="An agent whose Node is deleted while it asks",
        refused_by="`NodeUnknown`: the Node is looked at again",
    ),
    Attack(
        attempt=c.a_node_registered_again,
        tried="A node that was thrown out by name registers again, with another UID, and asks",
        refused_by="`NodeRevoked`; it is in no tunnel, and its new UID is in the plan's `revokedNodes`",
    ),
    Attack(
        attempt=c.a_revoked_node,
        tried="A node in `revokedNodes` asks",
        refused_by="`NodeRevoked`",
    ),
    Attack(
        attempt=c.an_approval_by_mistake,
        tried="An administrator approves A's request for B's name",
        refused_by="`Failed` with `NameNotAllowed`: the operator judges whatever others have approved",
    ),
    Attack(
        attempt=c.an_approval_by_an_agent,
        tried="A's agent approves its own request",
        refused_by="RBAC",
    ),
    Attack(
        attempt=c.another_signer,
        tried="A's agent asks the signer of API server clients",
        refused_by="the admission policy `hauberk-requests`",
    ),
    Attack(
        attempt=c.the_authoritys_key,
        tried="A's agent reads the Secret with the authority's key",
        refused_by="RBAC",
    ),
    Attack(
        attempt=c.a_token_for_another_nodes_agent,
        tried="A's kubelet asks for a token that is bound to B's agent",
        refused_by="the admission plugin NodeRestriction",
    ),
    Attack(
        attempt=c.another_nodes_report,
        tried="A's agent writes B's IPsecReport",
        refused_by="the admission policy `hauberk-reports`",
    ),
    Attack(
        attempt=c.a_report_for_a_node_without_one,
        tried="A's agent makes an IPsecReport for a node that has none",
        refused_by="the admission policy `hauberk-reports`",
    ),
    Attack(
        attempt=c.a_report_by_a_token_of_no_pod,
        tried="A token of the agents' service account that is bound to no pod writes a report",
        refused_by="the admission policy `hauberk-reports`",
    ),
    Attack(
        attempt=c.a_report_under_another_uid,
        tried="A's agent writes B's UID into A's IPsecReport",
        refused_by="the admission policy `hauberk-reports`",
    ),
    Attack(
        attempt=c.what_peers_believe,
        tried="A's agent writes its IPsecNode",
        refused_by="RBAC: the operator alone writes what peers believe",
    ),
    Attack(
        attempt=c.the_plan,
        tried="A's agent writes a trust bundle of its own into the plan",
        refused_by="RBAC",
    ),
    Attack(
        attempt=c.another_nodes_address,
        tried="A's kubelet writes B's address into A's Node",
        refused_by="`AddressConflict`: who holds an address keeps it, and A's IPsecNode goes without",
    ),
    Attack(
        attempt=c.another_nodes_pods,
        tried="A kubelet registers a Node with B's pod CIDR",
        refused_by="`AddressConflict`",
    ),
    Attack(
        attempt=c.a_hub_by_its_own_word,
        tried="A's kubelet labels its Node as a hub",
        refused_by="the admission plugin NodeRestriction: hubs are chosen by `node-restriction.kubernetes.io/` labels",
    ),
    Attack(
        attempt=c.a_revoked_label_taken_off,
        tried="A's kubelet takes the label off that has thrown A out",
        refused_by="the admission plugin NodeRestriction",
    ),
)

ON_AGENTS: Final[tuple[Attack[AttackedAgents], ...]] = (
    Attack(
        attempt=a.another_nodes_pods_in_ike,
        tried="A claims B's pod CIDR in its traffic selectors",
        refused_by="`TS_UNACCEPTABLE`: a node's selectors are what its IPsecNode grants",
    ),
    Attack(
        attempt=a.another_nodes_pods_once_authenticated,
        tried="A claims B's pod CIDR in an exchange of its own, when its IKE SA is up (CREATE_CHILD_SA)",
        refused_by="`TS_UNACCEPTABLE`: an authenticated peer is still an attacker",
    ),
    Attack(
        attempt=a.all_pods_in_ike,
        tried="A claims everything, its own pods among it",
        refused_by="narrowed to A's own pods and addresses",
    ),
    Attack(
        attempt=a.another_nodes_identity_in_ike,
        tried="A says that it is B, with A's certificate",
        refused_by="`IdentityMismatch`",
    ),
    Attack(
        attempt=a.a_stolen_certificate_from_a_foreign_address,
        tried="B's key and certificate, stolen, from A's address",
        refused_by="`AddressMismatch`: a node speaks from its IPsecNode's addresses",
    ),
    Attack(
        attempt=a.a_deleted_nodes_certificate,
        tried="The certificate of a node that has been deleted, which is good for hours",
        refused_by="`UnknownPeer`: a certificate alone admits nobody",
    ),
    Attack(
        attempt=a.a_revoked_nodes_certificate,
        tried="A good certificate of a node in `revokedNodes` that has its IPsecNode still, or again",
        refused_by="`UnknownPeer`",
    ),
    Attack(
        attempt=a.a_foreign_authority,
        tried="A's names, signed by another authority of the same name",
        refused_by="`CertificateInvalid`",
    ),
    Attack(
        attempt=a.an_expired_certificate,
        tried="A certificate that has ended a second ago",
        refused_by="`CertificateInvalid`",
    ),
    Attack(
        attempt=a.a_node_that_signs,
        tried="A's certified key certifies another one, as an authority below the mesh's",
        refused_by="`CertificateInvalid`: nodes are no authorities",
    ),
    Attack(
        attempt=a.a_downgrade_to_what_quantum_computers_break,
        tried="A proposes keys without ML-KEM",
        refused_by="`NoProposalChosen`, where the tunnel wants hybrid keys (the default)",
    ),
)


def rows(attacks: Iterable[Attack[Any]]) -> list[str]:
    """The table for people, as in docs/reference/attacks.md."""
    head = ["| what is tried | what refuses it |", "|---|---|"]
    return [*head, *(f"| {attack.tried} | {attack.refused_by} |" for attack in attacks)]
