"""The spec of an IPsecNode: what peers believe about a node. Written by the operator alone, one per Node.

A Node in no tunnel (Windows, virtual, excluded by selectors) has one as well, with no memberships: it is *known*, so
IPsecMesh's nonMembers decides about its pods, while an unknown address in the pod range is dropped.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from hauberk_api.model import Model
from hauberk_api.plan import Phase


class Role(StrEnum):
    """A node's part in a tunnel. Two members peer unless both are spokes."""

    MEMBER = "Member"
    HUB = "Hub"
    SPOKE = "Spoke"


class Membership(Model):
    tunnel: str
    """The tunnel's UID."""
    role: Role = Role.MEMBER
    phase: Phase | None = None
    """The node's own, while it enters or leaves a running tunnel: its pairs go no further. None: the tunnel's."""


class NodeSpec(Model):
    """IPsecNode.spec. metadata.name is the Node's name."""

    node_uid: str = Field(alias="nodeUID")
    addresses: tuple[str, ...]
    """The Node's InternalIPs; the first of a family is where its peers send IKE and ESP."""
    pod_cidrs: tuple[str, ...] = Field(default=(), alias="podCIDRs")
    memberships: tuple[Membership, ...] = ()


def peers(one: Role, other: Role) -> bool:
    """Whether two members of one tunnel speak with each other."""
    return not (one is Role.SPOKE and other is Role.SPOKE)
