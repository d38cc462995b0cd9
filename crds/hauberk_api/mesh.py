"""The spec of the IPsecMesh: mesh-wide settings that people write."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from hauberk_api.model import Model


class NonMembers(StrEnum):
    """What becomes of pod traffic with known Nodes that are in no tunnel."""

    ALLOW = "Allow"
    DENY = "Deny"


class CertificateSettings(Model):
    """Lives of what the mesh CA signs, in seconds."""

    lifetime_seconds: int = 86_400
    ca_lifetime_seconds: int = 10 * 365 * 86_400


class MeshSpec(Model):
    """IPsecMesh.spec."""

    pod_networks: tuple[str, ...] = ()
    non_members: NonMembers = NonMembers.ALLOW
    revoked_nodes: tuple[str, ...] = Field(default=())
    """Node UIDs that stay out whatever certificate they hold."""
    certificates: CertificateSettings = CertificateSettings()
