"""The plan: what every agent must know of the tunnels, in IPsecMesh.status, written by the operator alone.

It changes only when its content does: not when a node joins or a certificate renews. Which nodes take part in which
tunnel is in the IPsecNodes (hauberk_api.node).
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from hauberk_api.mesh import NonMembers
from hauberk_api.model import Model
from hauberk_api.tunnel import Encapsulation, Enforcement, Esp, Ike, Topology, TunnelMode


class Phase(StrEnum):
    """How far a tunnel's generation has been rolled out; each phase includes those before it."""

    ACCEPT = "Accept"
    ESTABLISH = "Establish"
    PROTECT = "Protect"
    REQUIRE = "Require"
    BLOCK = "Block"


class PlannedTunnel(Model):
    """One tunnel as the agents carry it out. Its traffic is the pod network."""

    name: str
    uid: str
    generation: int
    phase: Phase
    topology: Topology = Topology.FULL_MESH
    mode: TunnelMode = TunnelMode.TUNNEL
    enforcement: Enforcement = Enforcement.STRICT
    encapsulation: Encapsulation = Encapsulation.AUTO
    ike: Ike = Ike()
    esp: Esp = Esp()


class Plan(Model):
    """IPsecMesh.status.plan. The tunnels are in order of precedence: oldest first."""

    generation: int
    """Counts the plan's changes; agents report the one that they follow."""
    mesh: str = "default"
    """The middle label of the node identities."""
    pod_networks: tuple[str, ...] = ()
    """The pod range that people gave; empty: the union of the IPsecNodes' pod CIDRs."""
    non_members: NonMembers = NonMembers.ALLOW
    revoked_nodes: tuple[str, ...] = ()
    trust_bundle: str = Field(repr=False)
    """The mesh's root certificates, PEM, one after the other."""
    tunnels: tuple[PlannedTunnel, ...] = ()
