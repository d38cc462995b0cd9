"""Names that operator, agent and chart must agree on: identities, signer, labels, finalizers.

The chart repeats some of them in YAML; tests/unit/api/test_names.py holds the two together.
"""

from __future__ import annotations

from typing import Final, NewType

NodeName = NewType("NodeName", str)
NodeUid = NewType("NodeUid", str)
TunnelUid = NewType("TunnelUid", str)

SIGNER: Final = "hauberk.dev/node"
"""spec.signerName of the CertificateSigningRequests that the operator signs."""

AGENT_SERVICE_ACCOUNT: Final = "hauberk-agent"
OPERATOR_SERVICE_ACCOUNT: Final = "hauberk-operator"

CA_SECRET: Final = "hauberk-ca"  # noqa: S105 - the name of a Secret, not one
IMPORTED_CA_SECRET: Final = "hauberk-imported-ca"  # noqa: S105 - the name of a Secret, not one
"""What the operator may read besides: where people put the authority that the mesh is to use."""
CERTIFICATE_REQUEST_LABEL: Final = "hauberk.dev/for"
"""On a CertificateRequest of cert-manager's: the UID of the CertificateSigningRequest that it is made for."""
REVOKED_LABEL: Final = "node-restriction.kubernetes.io/hauberk-revoked"
"""A Node with this label is out of the mesh, like one in revokedNodes. The prefix is one that no kubelet may write."""
LEASE: Final = "hauberk-operator"
FINALIZER: Final = "hauberk.dev/tunnel"
STARTUP_TAINT: Final = "startup-taint.cluster-autoscaler.kubernetes.io/hauberk"
TAINT_REMOVED: Final = "hauberk.dev/startup-taint-removed"
"""The annotation of a Node that came with the startup taint: when it was taken off."""

NODE_NAME_EXTRA: Final = "authentication.kubernetes.io/node-name"
NODE_UID_EXTRA: Final = "authentication.kubernetes.io/node-uid"
POD_NAME_EXTRA: Final = "authentication.kubernetes.io/pod-name"
POD_UID_EXTRA: Final = "authentication.kubernetes.io/pod-uid"
"""What the API server stamps into requests made with a pod-bound token (spec.extra of a CSR), since 1.32."""

STATE_DIRECTORY: Final = "/var/lib/hauberk"
STATUS_SOCKET: Final = "/run/hauberk/agent.sock"

_IDENTITY_SUFFIX: Final = "hauberk.internal"


def node_identity(uid: NodeUid, mesh: str = "default") -> str:
    """The IKE identity (ID_FQDN) of a node, which is also the first dNSName of its certificate."""
    return f"{uid}.{mesh}.{_IDENTITY_SUFFIX}"


def uid_of_identity(identity: str, mesh: str = "default") -> NodeUid | None:
    """The node UID inside an IKE identity of this mesh, or None if it is not one."""
    suffix = f".{mesh}.{_IDENTITY_SUFFIX}"
    uid = identity.removesuffix(suffix)
    return NodeUid(uid) if uid and uid != identity and "." not in uid else None
