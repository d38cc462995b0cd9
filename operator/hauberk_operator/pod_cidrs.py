"""Which addresses each node's pods have, and who says so. Pure; called by reconcile before the mesh is compiled.

Kubernetes gives each Node its podCIDRs, and many CNI plugins use them. Calico's IPAM gives nodes blocks of its own, and
single addresses out of each other's when it runs short; Cilium's writes prefixes into its CiliumNodes. `Auto` finds out
who does: whoever has written down addresses for a Node of the cluster, else the Nodes themselves.

What can't be told is not guessed: while the source can't be read, or Auto finds two, everybody keeps the prefixes that
they have, and the mesh's condition PodCIDRsKnown says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from hauberk_api.conditions import Reason
from hauberk_api.mesh import PodCIDRSource
from hauberk_operator.cni_facts import CALICO_BLOCK, CILIUM_NODE, BlockFacts, CiliumFacts
from hauberk_operator.facts import ANYBODY, Loan, MemberFacts, NodeFacts
from hauberk_operator.span import parse_span

KNOWN_REASONS: Final = frozenset({Reason.FROM_NODE, Reason.FROM_CALICO, Reason.FROM_CILIUM})
"""Of PodCIDRsKnown being true."""

OBJECTS: Final[Mapping[PodCIDRSource, str]] = {
    PodCIDRSource.CALICO: f"{CALICO_BLOCK.plural}.{CALICO_BLOCK.group}",
    PodCIDRSource.CILIUM: f"{CILIUM_NODE.plural}.{CILIUM_NODE.group}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CniState:
    """What has been read of the CNI plugins' objects."""

    blocks: Mapping[str, BlockFacts] = field(default_factory=dict[str, BlockFacts])
    cilium_nodes: Mapping[str, CiliumFacts] = field(default_factory=dict[str, CiliumFacts])
    served: frozenset[PodCIDRSource] = frozenset()
    """Whose kinds the API server has."""
    unreadable: Mapping[PodCIDRSource, str] = field(default_factory=dict[PodCIDRSource, str])
    """Of those served, which can't be read, and why."""

    def with_state(self, source: PodCIDRSource, *, served: bool, problem: str) -> CniState:
        """The same, with what has been found out about one kind."""
        unreadable = {other: why for other, why in self.unreadable.items() if other is not source}
        return replace(
            self,
            served=self.served | {source} if served else self.served - {source},
            unreadable=unreadable | ({source: problem} if problem else {}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCIDRs:
    """The finding. source is None as long as none can be told."""

    source: PodCIDRSource | None
    reason: Reason
    message: str
    of: Mapping[str, tuple[str, ...]] | None = None
    """By node name; None: what the Nodes say themselves."""
    loans: Mapping[str, tuple[Loan, ...]] = field(default_factory=dict[str, tuple[Loan, ...]])
    """By the borrower's name."""

    def tell(self, nodes: Iterable[NodeFacts]) -> list[NodeFacts]:
        """The Nodes with the prefixes of their pods."""
        if self.of is None:
            return list(nodes)
        return [
            replace(node, pod_cidrs=self.of.get(node.name, ()), loans=self.loans.get(node.name, ())) for node in nodes
        ]


def find_pod_cidrs(
    wanted: PodCIDRSource,
    used: PodCIDRSource | None,
    *,
    nodes: Mapping[str, NodeFacts],
    members: Mapping[str, MemberFacts],
    cni: CniState,
) -> PodCIDRs:
    """What each node's pods have. used is the source in force, members what is published now."""
    if wanted is PodCIDRSource.AUTO:
        if cni.unreadable:
            source = min(cni.unreadable)
            return _kept(nodes, members, Reason.SOURCE_UNREADABLE, _unreadable(source, cni, "set podCIDRSource"))
        found = _writers(nodes, cni)
        if len(found) > 1 and used not in found:
            names = " and ".join(OBJECTS[source] for source in found)
            message = f"{names} both have addresses of this cluster's nodes: set podCIDRSource to the one in use."
            return _kept(nodes, members, Reason.SOURCES_DISAGREE, message)
        if len(found) > 1:
            others = ", ".join(OBJECTS[source] for source in found if source is not used)
            told = _told(used or found[0], nodes, cni)
            message = f"{told.message} But {others} have addresses of this cluster's nodes too: set podCIDRSource."
            return replace(told, reason=Reason.SOURCES_DISAGREE, message=message)
        return _told(found[0] if found else PodCIDRSource.NODE, nodes, cni)
    if wanted in cni.unreadable:
        return _kept(nodes, members, Reason.SOURCE_UNREADABLE, _unreadable(wanted, cni, "name another source"))
    if wanted is not PodCIDRSource.NODE and wanted not in cni.served:
        message = f"podCIDRSource is {wanted}, and the API server has no {OBJECTS[wanted]}."
        return _kept(nodes, members, Reason.SOURCE_MISSING, message)
    return _told(wanted, nodes, cni)


def _writers(nodes: Mapping[str, NodeFacts], cni: CniState) -> list[PodCIDRSource]:
    """Whose objects have addresses for a Node that there is."""
    found: list[PodCIDRSource] = []
    if any(block.node in nodes for block in cni.blocks.values()):
        found.append(PodCIDRSource.CALICO)
    if any(one.pod_cidrs and name in nodes for name, one in cni.cilium_nodes.items()):
        found.append(PodCIDRSource.CILIUM)
    return found


def _told(source: PodCIDRSource, nodes: Mapping[str, NodeFacts], cni: CniState) -> PodCIDRs:
    if source is PodCIDRSource.CALICO:
        blocks: dict[str, list[str]] = {}
        loans: dict[str, list[Loan]] = {}
        for block in cni.blocks.values():
            if block.node in nodes:
                blocks.setdefault(block.node, []).append(block.cidr)
            for loan in block.loans:
                if loan.node in nodes:
                    loans.setdefault(loan.node, []).append(loan)
        return PodCIDRs(
            source=source,
            reason=Reason.FROM_CALICO,
            message="Calico's blocks say which addresses a node's pods have.",
            of={name: tuple(sorted(cidrs, key=_place)) for name, cidrs in blocks.items()},
            loans={name: tuple(sorted(lent, key=lambda loan: _place(loan.address))) for name, lent in loans.items()},
        )
    if source is PodCIDRSource.CILIUM:
        return PodCIDRs(
            source=source,
            reason=Reason.FROM_CILIUM,
            message="The CiliumNodes say which addresses a node's pods have.",
            of={name: one.pod_cidrs for name, one in cni.cilium_nodes.items() if name in nodes},
        )
    return PodCIDRs(
        source=PodCIDRSource.NODE,
        reason=Reason.FROM_NODE,
        message="The Nodes' podCIDRs say which addresses a node's pods have.",
    )


def _kept(nodes: Mapping[str, NodeFacts], members: Mapping[str, MemberFacts], reason: Reason, message: str) -> PodCIDRs:
    """What is published now. Single addresses may be borrowed ones."""
    of: dict[str, tuple[str, ...]] = {}
    loans: dict[str, tuple[Loan, ...]] = {}
    for name, node in nodes.items():
        member = members.get(name)
        if member is None or member.spec is None or member.spec.node_uid != node.uid:
            continue
        single = {cidr for cidr in member.spec.pod_cidrs if _is_single(cidr)}
        of[name] = tuple(cidr for cidr in member.spec.pod_cidrs if cidr not in single)
        loans[name] = tuple(
            Loan(node=name, address=cidr, lender=ANYBODY) for cidr in member.spec.pod_cidrs if cidr in single
        )
    message = f"{message} Until then every node keeps the prefixes that it has."
    return PodCIDRs(source=None, reason=reason, message=message, of=of, loans=loans)


def _unreadable(source: PodCIDRSource, cni: CniState, advice: str) -> str:
    return f"{OBJECTS[source]} can't be read: {cni.unreadable[source]}. Let the operator read them, or {advice}."


def _place(cidr: str) -> tuple[int, int, str]:
    span = parse_span(cidr)
    return (span.version, span.first, cidr) if span is not None else (9, 0, cidr)


def _is_single(cidr: str) -> bool:
    span = parse_span(cidr)
    return span is not None and span.first == span.last
