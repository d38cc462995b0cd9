"""The plan: what every agent must know of the tunnels, in IPsecMesh.status, written by the operator alone.

It changes only when its content does: not when a node joins or a certificate renews. Which nodes take part in which
tunnel is in the IPsecNodes (hauberk_api.node).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import Field

from hauberk_api.mesh import DEFAULT_HOST_EXEMPT_PORTS, Curve, NonMembers
from hauberk_api.model import Model
from hauberk_api.tunnel import (
    DEFAULT_IDLE_SECONDS,
    Encapsulation,
    Enforcement,
    Esp,
    Establish,
    Ike,
    Interception,
    Topology,
    Traffic,
    TunnelMode,
)


class Phase(StrEnum):
    """How far a tunnel has been rolled out; each phase includes those before it. Removal goes backwards."""

    ACCEPT = "Accept"
    """Members take packets of the tunnel's traffic encrypted and in clear."""
    ESTABLISH = "Establish"
    """Pairs have SAs."""
    PROTECT = "Protect"
    """A pair that has its SAs sends by them; what can't be encrypted goes in clear. Permissive tunnels end here."""
    REQUIRE = "Require"
    """Members' packets are encrypted or dropped."""
    BLOCK = "Block"
    """Whatever else uses the pod range is dropped. Strict tunnels end here."""


_PHASES: Final = tuple(Phase)


def reached(phase: Phase, wanted: Phase) -> bool:
    """Whether a tunnel in `phase` has come as far as `wanted`."""
    return _PHASES.index(phase) >= _PHASES.index(wanted)


def next_phase(phase: Phase, target: Phase) -> Phase:
    """One step from `phase` in the direction of `target`."""
    here, there = _PHASES.index(phase), _PHASES.index(target)
    return _PHASES[here + (there > here) - (there < here)]


def final_phase(enforcement: Enforcement) -> Phase:
    """The phase that a tunnel is meant to reach."""
    return Phase.BLOCK if enforcement is Enforcement.STRICT else Phase.PROTECT


class PlannedTunnel(Model):
    """One tunnel as the agents carry it out."""

    name: str
    uid: str
    generation: int
    phase: Phase
    topology: Topology = Topology.FULL_MESH
    traffic: Traffic = Traffic()
    mode: TunnelMode = TunnelMode.TUNNEL
    interception: Interception = Interception.POLICY
    enforcement: Enforcement = Enforcement.STRICT
    establish: Establish = Establish.EAGER
    idle_seconds: int = DEFAULT_IDLE_SECONDS
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
    host_exempt_ports: tuple[int, ...] = DEFAULT_HOST_EXEMPT_PORTS
    trust_bundle: str = Field(repr=False)
    """The mesh's root certificates, PEM, one after the other."""
    authority: str = ""
    """The fingerprint of the root that signs now. An agent whose certificate is another root's asks again."""
    curve: Curve = Curve.P256
    """Of the nodes' keys."""
    tunnels: tuple[PlannedTunnel, ...] = ()
