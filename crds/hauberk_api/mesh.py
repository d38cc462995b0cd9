"""The spec of the IPsecMesh: mesh-wide settings that people write."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import Field

from hauberk_api.model import Model

DEFAULT_HOST_EXEMPT_PORTS: Final = (22, 2379, 2380, 6443, 10250)
"""ssh, etcd for its clients and peers, the API server, kubelet: all of them protect themselves."""


class NonMembers(StrEnum):
    """What becomes of pod traffic with known Nodes that are in no tunnel."""

    ALLOW = "Allow"
    DENY = "Deny"


class PodCIDRSource(StrEnum):
    """Who says which addresses a node's pods have."""

    AUTO = "Auto"
    """Whichever of the others is found."""
    NODE = "Node"
    """Node.spec.podCIDRs."""
    CALICO = "Calico"
    """IPAMBlocks, with their borrowed addresses."""
    CILIUM = "Cilium"
    """CiliumNodes."""


class Curve(StrEnum):
    """The curve of a new key, the authority's or a node's (RFC 5480 section 2.1.1.1)."""

    P256 = "P-256"
    P384 = "P-384"


class RollMode(StrEnum):
    """How the authority gives way to a new one."""

    OVERLAP = "Overlap"
    """Both are trusted until nothing is left that the old one has signed: no packet is lost."""
    DISTRUST = "Distrust"
    """The old one's key may be in wrong hands: it is trusted no longer, from this moment."""


class Roll(Model):
    """A request for a new authority: a new id asks once."""

    id: str = ""
    mode: RollMode = RollMode.OVERLAP


class ConfigMapKey(Model):
    """A key of a ConfigMap in the operator's namespace."""

    name: str
    key: str = "ca.crt"


class IssuerReference(Model):
    """The cert-manager issuer that signs the nodes' certificates, and the CA that it is known by."""

    name: str
    kind: str = "Issuer"
    group: str = "cert-manager.io"
    ca_bundle: str = ""
    """PEM: every CA that the issuer's certificates may lead to. Empty: in ca_config_map."""
    ca_config_map: ConfigMapKey | None = None

    def __str__(self) -> str:
        suffix = "" if self.group == "cert-manager.io" else f".{self.group}"
        return f"{self.kind}{suffix} {self.name}"


class CertificateSettings(Model):
    """The mesh's authority, and the certificates that it signs. Lives are in seconds."""

    lifetime_seconds: int = 86_400
    ca_lifetime_seconds: int = 10 * 365 * 86_400
    curve: Curve = Curve.P256
    ca_secret: str = ""
    """The Secret with the authority to use, in the operator's namespace. Empty: the operator makes its own."""
    issuer: IssuerReference | None = None
    """Who signs in the place of the mesh's own authority."""
    roll: Roll = Roll()


class MeshSpec(Model):
    """IPsecMesh.spec."""

    pod_networks: tuple[str, ...] = ()
    pod_cidr_source: PodCIDRSource = Field(default=PodCIDRSource.AUTO, alias="podCIDRSource")
    non_members: NonMembers = NonMembers.ALLOW
    revoked_nodes: tuple[str, ...] = Field(default=())
    """UIDs or names of Nodes that stay out whatever certificate they hold."""
    host_exempt_ports: tuple[int, ...] = DEFAULT_HOST_EXEMPT_PORTS
    """TCP ports that tunnels of Host traffic leave alone: what a node needs before it has an SA, or to be mended."""
    certificates: CertificateSettings = CertificateSettings()
