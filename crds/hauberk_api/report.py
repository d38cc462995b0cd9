"""The status of an IPsecReport: what an agent says of itself. Written by the agent, read by the operator alone.

It holds no totals that change with every join, and at most MAX_UNWELL peers that are not well, so that neither a
growing mesh nor a dead fifth of it makes every agent write.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import Field

from hauberk_api.model import Model
from hauberk_api.plan import Phase

MAX_UNWELL: Final = 16

WITNESSES: Final = 3
"""So many of a node's peers report that a pair with it is unwell. In a mesh of that many and one more, all of them."""


class UnwellReason(StrEnum):
    """Why a wanted pair has no working SAs. Ordered from worst to mildest in WORST_FIRST."""

    AUTHENTICATION_FAILED = "AuthenticationFailed"
    NO_PROPOSAL_CHOSEN = "NoProposalChosen"
    KERNEL_REFUSED = "KernelRefused"
    UNREACHABLE = "Unreachable"
    ESTABLISHING = "Establishing"


WORST_FIRST: Final = tuple(UnwellReason)


class UnwellPeer(Model):
    node: str
    tunnel: str
    """The tunnel's name."""
    reason: UnwellReason
    message: str = ""


class KernelReport(Model):
    """What the node's kernel can do, found out by trying."""

    release: str
    esp: bool
    iptfs: bool = False
    """IP-TFS mode (RFC 9347)."""
    problems: tuple[str, ...] = ()
    """One sentence each."""


class PacketsReport(Model):
    """What fits into the narrowest of the node's tunnels, in bytes."""

    pod_mtu: int | None = Field(default=None, alias="podMTU")
    """The largest MTU of the devices that lead to the node's pods; None: not known."""
    carried: int
    """The largest packet that goes whole,"""
    narrowest: str
    """to this peer,"""
    path_mtu: int = Field(alias="pathMTU")
    """on whose path packets are so large."""


class CertificateReport(Model):
    serial: str
    not_after: str
    """RFC 3339."""
    issuer_fingerprint: str
    """SHA-256 of the issuing root's DER, hex."""


class TunnelReport(Model):
    """How far this node is with one tunnel of the plan."""

    tunnel: str
    """The tunnel's UID."""
    generation: int
    ready: bool
    """All pairs that this node wants for the tunnel have SAs and policies."""
    phase: Phase | None = None
    """The plan's phase that this node has carried out; None before the first."""
    problem: str = ""
    """Why the tunnel's traffic is not to be had on this node, in a sentence: its datapath does not suit it."""
    up: int | None = None
    """How many of the tunnel's pairs are up, where they come up on demand; up to ten minutes old. A peer that joins
    does not change it."""


class EncapsulationReason(StrEnum):
    """Why a pair's ESP travels in UDP though its tunnel leaves that to the agents."""

    NAT = "NAT"
    ESP_BLOCKED = "ESPBlocked"


class EncapsulatedPeer(Model):
    """A peer with which ESP travels in UDP."""

    node: str
    reason: EncapsulationReason


class BootGuardState(StrEnum):
    """What the host's boot guard has done at this boot."""

    ABSENT = "Absent"
    """It has not run: there is none, or the host has not been booted since."""
    EMPTY = "Empty"
    """It has run, and there was nothing to load: no Strict tunnel had come as far as Block."""
    PARTIAL = "Partial"
    """It has run, and not all that there was to load could be loaded."""
    LOADED = "Loaded"
    """All policies stood before kubelet was started."""


class BootReport(Model):
    """What protects the node's packets from its kernel's boot on, found out and not configured."""

    cached_plan: bool = False
    """A plan is on a disk that outlives the boot: the agent needs nobody to go by it."""
    guard: BootGuardState = BootGuardState.ABSENT


class DatapathKind(StrEnum):
    """How pods' packets travel between nodes."""

    ROUTED = "Routed"
    """By the host's IP stack, with routes."""
    VXLAN = "VXLAN"
    GENEVE = "Geneve"
    """By the host's IP stack into an overlay's device."""
    BYPASS = "Bypass"
    """Past the host's IP stack, where no policy sees them."""


class DatapathReport(Model):
    """What the agent has found out of the node's datapath."""

    kind: DatapathKind
    device: str = ""
    """By which it is known; none where packets are routed."""
    port: int | None = None
    """The overlay's UDP port."""


class ReportStatus(Model):
    """IPsecReport.status. metadata.name is the Node's name."""

    node_uid: str = Field(alias="nodeUID")
    agent_version: str
    plan_generation: int
    ready: bool
    """The agent follows the plan: identity, kernel, all tunnels ready."""
    reason: str
    message: str = ""
    kernel: KernelReport
    certificate: CertificateReport | None = None
    bundle: tuple[str, ...] = ()
    """SHA-256 fingerprints of the roots this agent trusts."""
    tunnels: tuple[TunnelReport, ...] = ()
    unwell: tuple[UnwellPeer, ...] = ()
    unwell_count: int = 0
    """All unwell pairs, those beyond MAX_UNWELL too."""
    encapsulated: tuple[EncapsulatedPeer, ...] = ()
    """At most MAX_UNWELL of the peers with which ESP travels in UDP and no tunnel says so, by name."""
    clear_packets: int = 0
    """Packets to and from peers of Permissive tunnels that passed in clear in about the last minute."""
    boot: BootReport | None = None
    datapath: DatapathReport | None = None
    """None: an agent of a version that didn't say."""
    packets: PacketsReport | None = None
    """None: nothing is too large for any tunnel."""
    state_left: bool = False
    """Whether XFRM states or policies of ours are in the kernel, or kept for the boot guard (uninstalling waits)."""
