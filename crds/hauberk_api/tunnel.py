"""The spec of an IPsecTunnel, as people write it and the API server has completed it with defaults.

crds/ipsectunnels.yaml is the schema; the defaults here must be the same (tests/unit/api/test_crds.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from pydantic import Field

from hauberk_api.model import Model

DEFAULT_IKE_PROPOSALS: Final = ("aes256gcm16-prfsha384-x25519-ke1_mlkem768",)
"""Hybrid, and nothing else: traffic that is recorded today stays secret when X25519 falls."""
DEFAULT_ESP_PROPOSALS: Final = ("aes128gcm16-esn", "aes256gcm16-esn")


DEFAULT_IDLE_SECONDS: Final = 600


class Topology(StrEnum):
    FULL_MESH = "FullMesh"
    HUB_AND_SPOKE = "HubAndSpoke"


class TrafficType(StrEnum):
    POD_NETWORK = "PodNetwork"
    OVERLAY = "Overlay"
    HOST = "Host"
    SUBNETS = "Subnets"


class TunnelMode(StrEnum):
    TUNNEL = "Tunnel"
    TRANSPORT = "Transport"
    IPTFS = "IPTFS"


class Interception(StrEnum):
    POLICY = "Policy"
    INTERFACE = "Interface"


class Enforcement(StrEnum):
    STRICT = "Strict"
    PERMISSIVE = "Permissive"


class Rollout(StrEnum):
    GRADUAL = "Gradual"
    IMMEDIATE = "Immediate"


class Establish(StrEnum):
    EAGER = "Eager"
    ON_DEMAND = "OnDemand"


class Encapsulation(StrEnum):
    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class OverlayProtocol(StrEnum):
    VXLAN = "VXLAN"
    GENEVE = "Geneve"


class LabelSelectorRequirement(Model):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Model):
    """Kubernetes' LabelSelector; an empty one selects everything."""

    match_labels: dict[str, str] = Field(default_factory=dict[str, str])
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class Overlay(Model):
    protocol: OverlayProtocol
    port: int


class PortRange(Model):
    first: int
    last: int


class Traffic(Model):
    """Which traffic a tunnel protects."""

    type: TrafficType = TrafficType.POD_NETWORK
    overlay: Overlay | None = None
    subnets: tuple[str, ...] = ()
    protocol: str | None = None
    ports: PortRange | None = None

    def shares(self, other: Traffic) -> bool:
        """Whether both are of one class: a packet may belong to either, and of two tunnels one must carry it.

        A narrower class is another one: an overlay's packets are not those of Host, though they pass between hosts.
        """
        if self.type is not other.type or (self.protocol and other.protocol and self.protocol != other.protocol):
            return False
        match self.type:
            case TrafficType.OVERLAY:
                return self.overlay is None or other.overlay is None or self.overlay.port == other.overlay.port
            case TrafficType.SUBNETS:
                return _overlap(self.subnets, other.subnets)
            case TrafficType.POD_NETWORK | TrafficType.HOST:
                return True


def _overlap(some: Iterable[str], others: Iterable[str]) -> bool:
    """Whether two lists of networks have an address in common. What is no network has none."""
    parsed = [list(_networks(texts)) for texts in (some, others)]
    return any(one.version == other.version and one.overlaps(other) for one in parsed[0] for other in parsed[1])


def _networks(texts: Iterable[str]) -> Iterator[IPv4Network | IPv6Network]:
    for text in texts:
        with suppress(ValueError):
            yield ip_network(text)


class Ike(Model):
    proposals: tuple[str, ...] = DEFAULT_IKE_PROPOSALS
    dpd_seconds: int = 10
    rekey_seconds: int = 14_400


class Esp(Model):
    proposals: tuple[str, ...] = DEFAULT_ESP_PROPOSALS
    rekey_seconds: int = 3_600
    rekey_bytes: int | None = None
    rekey_packets: int | None = None


class Remote(Model):
    """A gateway outside the cluster."""

    address: str
    identity: str
    subnets: tuple[str, ...]


class TunnelSpec(Model):
    """IPsecTunnel.spec."""

    node_selector: LabelSelector = LabelSelector()
    topology: Topology = Topology.FULL_MESH
    hub_selector: LabelSelector | None = None
    traffic: Traffic = Traffic()
    mode: TunnelMode = TunnelMode.TUNNEL
    interception: Interception = Interception.POLICY
    enforcement: Enforcement = Enforcement.STRICT
    rollout: Rollout = Rollout.GRADUAL
    paused: bool = False
    """Whether the plan keeps the tunnel as it is in it, whatever is changed here."""
    establish: Establish = Establish.EAGER
    idle_seconds: int = DEFAULT_IDLE_SECONDS
    encapsulation: Encapsulation = Encapsulation.AUTO
    ike: Ike = Ike()
    esp: Esp = Esp()
    remote: Remote | None = None
