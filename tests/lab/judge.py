"""The verdict over a capture of what crossed between the nodes: what was ESP, and which pod packets were in clear.

Called by `python -m tests.lab capture`, by the demo and by the tests on the lab. The capture is made by
tests/lab/capture.py; frames are taken apart in tests/lab/packet.py.

A packet is *in clear* when a pod's address stands in an IP header that anyone on the wire can read, at any depth
(an overlay's inner header, the packet that an ICMP error quotes), or when one of the markers that the test traffic
carries can be read in it. Where several headers are readable the worst one decides, in the order of `Clear`. Only
traffic between a pod and something that is neither pod nor node of the cluster may be in clear.
"""

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from pathlib import Path

from tests.lab.judge_pcap import read
from tests.lab.packet import Kind, describe, dissect

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# (from, to), by node name
NodePair = tuple[str, str]

# The node of a pod address that lies in no node's prefix.
UNKNOWN_NODE = "?"
MAX_OFFENDERS = 20


class NotEncryptedError(Exception):
    """The capture does not show what was claimed of it."""


class Clear(IntEnum):
    """Whose packet is readable, in rising order of gravity."""

    NOTHING = 0  # no pod address to be seen
    POD_OUTSIDE = 1  # the other end is neither pod nor node: may be in clear
    NODE_POD = 2
    POD_TO_POD = 3


_CLEAR_NAMES = {
    Clear.NOTHING: "marker",
    Clear.POD_OUTSIDE: "pod to outside",
    Clear.NODE_POD: "node and pod",
    Clear.POD_TO_POD: "pod to pod",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the judge knows of the cluster.

    `pod_networks` are the ranges that pods' addresses come from; `pod_cidrs` are each node's own, by its name,
    and count as pod networks too. `node_addresses` are by node name. `markers` are bytes that only the test
    traffic contains.
    """

    pod_networks: tuple[Network, ...]
    node_addresses: Mapping[str, tuple[Address, ...]]
    pod_cidrs: Mapping[str, tuple[Network, ...]]
    markers: tuple[bytes, ...] = ()


@dataclass(slots=True)
class ClearCounts:
    """Packets in clear. A packet counts once in the first three by its addresses, and in `marker` by its contents.

    `forbidden` counts each packet once that must not be in clear, by the one or the other.
    """

    pod_to_pod: int = 0
    node_pod: int = 0
    pod_outside: int = 0
    marker: int = 0
    forbidden: int = 0


@dataclass(slots=True)
class PairSeen:
    """When packets of one directed pair of nodes were seen, in seconds since the epoch, and how many."""

    first: float
    last: float
    packets: int = 1

    def see(self, time: float) -> None:
        self.first, self.last, self.packets = min(self.first, time), max(self.last, time), self.packets + 1


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What a capture shows.

    `esp_pairs`: ESP (also in UDP) by the nodes of its outer addresses. `last_clear`: pod packets in clear, but for
    those to outside, by the nodes of their ends. `dropped`: packets that the capture missed; `truncated`: frames
    that it holds only the beginning of. With either of these the capture proves nothing, and `ok` is False.
    """

    packets: int = 0
    bytes: int = 0
    by_kind: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    clear: ClearCounts = field(default_factory=ClearCounts)
    offenders: list[str] = field(default_factory=list[str])
    esp_pairs: dict[NodePair, PairSeen] = field(default_factory=dict[NodePair, PairSeen])
    last_clear: dict[NodePair, PairSeen] = field(default_factory=dict[NodePair, PairSeen])
    dropped: int = 0
    truncated: int = 0

    @property
    def esp(self) -> int:
        """Packets of ESP, plain and in UDP."""
        return self.by_kind[Kind.ESP] + self.by_kind[Kind.ESP_IN_UDP]

    def faults(self, *, packets: int = 1, esp_between: Iterable[str] = ()) -> list[str]:
        """Why this capture does not show that pod traffic is encrypted, one sentence each; empty if it does.

        `packets`: how many the capture must have at least, as an empty one shows nothing. `esp_between`: names of
        nodes, of which every directed pair must have been seen to speak ESP.
        """
        nodes = list(esp_between)
        missing = [f"{a}>{b}" for a in nodes for b in nodes if a != b and (a, b) not in self.esp_pairs]
        checks = (
            (self.packets < packets, f"{self.packets} packets captured, {packets} needed"),
            (self.dropped > 0, f"the capture missed {self.dropped} packets"),
            (self.truncated > 0, f"the capture holds {self.truncated} frames only in part"),
            (self.clear.pod_to_pod > 0, f"{self.clear.pod_to_pod} packets from pod to pod in clear"),
            (self.clear.node_pod > 0, f"{self.clear.node_pod} packets between node and pod in clear"),
            (self.clear.marker > 0, f"{self.clear.marker} packets show a marker in clear"),
            (bool(missing), f"no ESP seen between {', '.join(missing)}"),
        )
        return [fault for wrong, fault in checks if wrong]

    @property
    def ok(self) -> bool:
        """Whether the capture is complete, not empty, and shows nothing in clear that must not be."""
        return not self.faults()

    def require(self, *, packets: int = 1, esp_between: Iterable[str] = ()) -> None:
        """Raise NotEncryptedError with everything that is wrong (see `faults`) and the table."""
        if faults := self.faults(packets=packets, esp_between=esp_between):
            raise NotEncryptedError(f"{'; '.join(faults)}\n{self.table()}")

    def to_json(self) -> str:
        """The verdict as one JSON object; pairs are written "from>to"."""
        return json.dumps(
            {
                "ok": self.ok,
                "packets": self.packets,
                "bytes": self.bytes,
                "dropped": self.dropped,
                "truncated": self.truncated,
                "by_kind": {kind.value: count for kind, count in self.by_kind.items()},
                "clear": {
                    "pod_to_pod": self.clear.pod_to_pod,
                    "node_pod": self.clear.node_pod,
                    "pod_outside": self.clear.pod_outside,
                    "marker": self.clear.marker,
                    "forbidden": self.clear.forbidden,
                },
                "esp_pairs": dict(_pairs_as_json(self.esp_pairs)),
                "last_clear": dict(_pairs_as_json(self.last_clear)),
                "offenders": self.offenders,
            },
            indent=2,
        )

    def table(self) -> str:
        """The verdict for people, some ten lines and a line for each offender."""
        kinds, clear = self.by_kind, self.clear
        lines = [
            f"{self.packets} packets, {self.bytes} bytes; missed by the capture: {self.dropped}",
            "",
            f"  {'ESP':<22}{kinds[Kind.ESP]:>9}     in clear",
            f"  {'ESP in UDP':<22}{kinds[Kind.ESP_IN_UDP]:>9}       {'pod to pod':<20}{clear.pod_to_pod:>9}",
            f"  {'IKE':<22}{kinds[Kind.IKE]:>9}       {'node to or from pod':<20}{clear.node_pod:>9}",
            f"  {'other':<22}{kinds[Kind.OTHER]:>9}       {'marker':<20}{clear.marker:>9}",
            f"  {'':<22}{'':>9}       {'pod to outside':<20}{clear.pod_outside:>9}  (allowed)",
        ]
        pairs = sorted({*self.esp_pairs, *self.last_clear})
        if pairs:
            lines += ["", f"  {'from > to':<22}{'ESP':>9}{'in clear':>12}   last in clear"]
        for pair in pairs:
            esp, seen = self.esp_pairs.get(pair), self.last_clear.get(pair)
            lines.append(
                f"  {' > '.join(pair):<22}{esp.packets if esp else 0:>9}{seen.packets if seen else 0:>12}"
                f"   {_clock(seen.last) if seen else '-'}"
            )
        if self.offenders:
            lines += ["", f"  in clear, the first {len(self.offenders)}:", *(f"    {line}" for line in self.offenders)]
        return "\n".join([*lines, "", f"verdict: {'; '.join(self.faults()) or 'nothing in clear that must not be'}"])


def _pairs_as_json(pairs: dict[NodePair, PairSeen]) -> Iterator[tuple[str, dict[str, float]]]:
    for pair, seen in sorted(pairs.items()):
        yield ">".join(pair), {"first": seen.first, "last": seen.last, "packets": seen.packets}


def _clock(time: float) -> str:
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%H:%M:%S.%f")


def _see(pairs: dict[NodePair, PairSeen], pair: NodePair, time: float) -> None:
    if pair in pairs:
        pairs[pair].see(time)
    else:
        pairs[pair] = PairSeen(time, time)


class _Ends(dict[tuple[bytes, bytes], tuple[Clear, NodePair]]):
    """What the two addresses of an IP header mean on this ground; worked out once for each pair of addresses."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self._nodes = {address: name for name, all_of_it in ground.node_addresses.items() for address in all_of_it}
        self._cidrs = [(cidr, name) for name, cidrs in ground.pod_cidrs.items() for cidr in cidrs]
        self._pod_networks = ground.pod_networks

    def __missing__(self, ends: tuple[bytes, bytes]) -> tuple[Clear, NodePair]:
        (source_pod, source), (destination_pod, destination) = (self._end(ip_address(end)) for end in ends)
        if source_pod and destination_pod:
            clear = Clear.POD_TO_POD
        elif not source_pod and not destination_pod:
            clear = Clear.NOTHING
        else:
            clear = Clear.NODE_POD if (destination if source_pod else source) else Clear.POD_OUTSIDE
        self[ends] = verdict = clear, (source or "", destination or "")
        return verdict

    def _end(self, address: Address) -> tuple[bool, str | None]:
        """(whether it is a pod's, the node that it is of or on; None for outside)"""
        if node := self._nodes.get(address):
            return False, node
        for cidr, name in self._cidrs:
            if address in cidr:
                return True, name
        if any(address in network for network in self._pod_networks):
            return True, UNKNOWN_NODE
        # A link-local address is some neighbour's on this wire: taken for a node's, which is the stricter way.
        return False, UNKNOWN_NODE if address.is_link_local else None


def judge(
    pcap: Path, ground: Ground, *, since: float | None = None, until: float | None = None, dropped: int = 0
) -> Verdict:
    """Judge the frames captured from `since` to `until` (seconds since the epoch, both included; None: no limit).

    `dropped` is what the capture reports to have missed. Raises CaptureFileError, OSError.
    """
    verdict, meaning = Verdict(dropped=dropped), _Ends(ground)
    by_kind, clear, markers = verdict.by_kind, verdict.clear, ground.markers
    for time, frame, wire_bytes in read(pcap):
        if (since is not None and time < since) or (until is not None and time > until):
            continue
        verdict.packets += 1
        verdict.bytes += wire_bytes
        if wire_bytes > len(frame):
            verdict.truncated += 1
        found = dissect(frame)
        by_kind[found.kind] += 1
        worst, pair = Clear.NOTHING, ("", "")
        for ends in found.ends:
            reading = meaning[ends]
            if reading[0] > worst:
                worst, pair = reading
        if found.kind is Kind.ESP or found.kind is Kind.ESP_IN_UDP:
            outer = meaning[found.ends[0]][1]
            if outer[0] and outer[1]:
                _see(verdict.esp_pairs, outer, time)
        marked = any(marker in frame for marker in markers)
        if worst is Clear.NOTHING and not marked:
            continue
        clear.marker += marked
        if worst is Clear.POD_TO_POD:
            clear.pod_to_pod += 1
        elif worst is Clear.NODE_POD:
            clear.node_pod += 1
        elif worst is Clear.POD_OUTSIDE:
            clear.pod_outside += 1
        if worst >= Clear.NODE_POD:
            _see(verdict.last_clear, pair, time)
        elif not marked:
            continue
        clear.forbidden += 1
        if len(verdict.offenders) < MAX_OFFENDERS:
            what = _CLEAR_NAMES[worst] + (", marker" if marked and worst else "")
            verdict.offenders.append(f"{_clock(time)} {what}: {describe(frame)}")
    return verdict
