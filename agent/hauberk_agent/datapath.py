"""How this node's pods' packets travel, found out from its network devices, and which tunnels that suits. Pure.

=========  =========================================================================================================
Routed     by the host's IP stack, with routes to the other nodes
VXLAN,     by the host's IP stack into an overlay's device, which sends UDP to a port
Geneve
Bypass     past the host's IP stack (a BPF program hands packets on), where no policy sees them: netkit devices show
           it, or that packets leave in clear (hauberk_agent.bypass_watch)
=========  =========================================================================================================

Policies that see no packets protect nothing, however well the SAs are: a tunnel that the datapath does not suit is
never ready, and says why. It blocks nothing where the devices say so before anything was sent.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Final

from hauberk_agent.roster import Roster
from hauberk_api.plan import Phase, PlannedTunnel, reached
from hauberk_api.report import DatapathKind, DatapathReport
from hauberk_api.tunnel import OverlayProtocol, TrafficType
from hauberk_xfrm import NetworkDevice

_OVERLAYS: Final = {"vxlan": DatapathKind.VXLAN, "geneve": DatapathKind.GENEVE}
_PROTOCOLS: Final = {OverlayProtocol.VXLAN: "vxlan", OverlayProtocol.GENEVE: "geneve"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Datapath:
    """`overlays` are all overlay devices; a node may have several, one for each family for example."""

    overlays: tuple[NetworkDevice, ...] = ()
    bypass: NetworkDevice | None = None
    """A device that shows that packets pass the IP stack by."""
    leak: str | None = None
    """The device by which pods' packets were seen to leave in clear."""

    def misfit(self, tunnel: PlannedTunnel) -> str:
        """Why a tunnel's traffic is not to be had here, as a sentence; empty if it is."""
        match tunnel.traffic.type:
            case TrafficType.OVERLAY if tunnel.traffic.overlay is not None:
                wanted = tunnel.traffic.overlay
                kind = _PROTOCOLS[wanted.protocol]
                if any(device.kind == kind and device.port == wanted.port for device in self.overlays):
                    return ""
                there = ", ".join(_named(device) for device in self.overlays) or "none"
                return f"there is no {wanted.protocol.value} device on port {wanted.port}; overlay devices: {there}"
            case TrafficType.POD_NETWORK:
                if self.bypass is not None:
                    return f"pods' packets pass the host's IP stack by ({_named(self.bypass)})"
                if self.leak is not None:
                    return f"pods' packets leave {self.leak} in clear, past the host's IP stack and all policies"
                return ""
            case _:
                return ""

    def report(self) -> DatapathReport:
        """For people: the first device of each sort."""
        if self.bypass is not None:
            return DatapathReport(kind=DatapathKind.BYPASS, device=self.bypass.name)
        if self.leak is not None:
            return DatapathReport(kind=DatapathKind.BYPASS, device=self.leak)
        if self.overlays:
            first = self.overlays[0]
            return DatapathReport(kind=_OVERLAYS[first.kind], device=first.name, port=first.port)
        return DatapathReport(kind=DatapathKind.ROUTED)


def misfits(datapath: Datapath, roster: Roster) -> dict[str, str]:
    """By UID of each of a node's tunnels that does not suit it: why."""
    return {tunnel.uid: why for tunnel in roster.tunnels if (why := datapath.misfit(tunnel))}


def without_blocks(roster: Roster, misfit: Container[str]) -> Roster:
    """The roster of which policies are made: tunnels that don't suit the node block nothing here."""
    return replace(
        roster,
        tunnels=tuple(
            tunnel.model_copy(update={"phase": Phase.REQUIRE})
            if tunnel.uid in misfit and reached(tunnel.phase, Phase.BLOCK)
            else tunnel
            for tunnel in roster.tunnels
        ),
    )


def find_datapath(devices: Iterable[NetworkDevice]) -> Datapath:
    """What the devices of the host's network namespace say."""
    every = tuple(devices)
    return Datapath(
        overlays=tuple(device for device in every if device.kind in _OVERLAYS),
        bypass=next((device for device in every if device.kind == "netkit"), None),
    )


def _named(device: NetworkDevice) -> str:
    return f"{device.name}, {device.kind}" + (f" port {device.port}" if device.port is not None else "")
