"""What CNI plugins write down about pods' addresses, as the operator sees it: Calico's blocks, Cilium's nodes.

Parsed like facts.py's objects. A block changes with every pod; its facts do so only when an address is borrowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, cast

from hauberk_operator.facts import Facts, Json, Loan, identity_of
from hauberk_operator.writes import Resource

CALICO_BLOCK: Final = Resource(group="crd.projectcalico.org", version="v1", plural="ipamblocks", kind="IPAMBlock")
CILIUM_NODE: Final = Resource(group="cilium.io", version="v2", plural="ciliumnodes", kind="CiliumNode")

_HOST: Final = "host:"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFacts(Facts):
    """A Calico IPAMBlock."""

    cidr: str
    node: str
    """Whose pods have their addresses from it; empty when it is no node's."""
    loans: tuple[Loan, ...]

    @classmethod
    def parse(cls, obj: Json) -> Self:
        spec = _spec(obj)
        affinity: str = spec.get("affinity") or ""
        node = affinity.removeprefix(_HOST) if affinity.startswith(_HOST) else ""
        deleted = bool(spec.get("deleted"))
        cidr: str = spec.get("cidr", "")
        return cls(
            **identity_of(obj),
            cidr=cidr,
            node="" if deleted else node,
            loans=() if deleted else tuple(_loans(cidr, node, spec)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CiliumFacts(Facts):
    """A CiliumNode, which has its Node's name."""

    pod_cidrs: tuple[str, ...]

    @classmethod
    def parse(cls, obj: Json) -> Self:
        ipam = cast("Json", _spec(obj).get("ipam") or {})
        # Of the mode multi-pool, where a node has prefixes of several pools.
        pools = cast("Sequence[Json]", cast("Json", ipam.get("pools") or {}).get("allocated") or ())
        cidrs = list(cast("Sequence[str]", ipam.get("podCIDRs") or ()))
        for pool in pools:
            cidrs += cast("Sequence[str]", pool.get("cidrs") or ())
        return cls(**identity_of(obj), pod_cidrs=tuple(dict.fromkeys(cidrs)))


def _spec(obj: Json) -> Json:
    return cast("Json", obj.get("spec") or {})


def _loans(cidr: str, lender: str, spec: Mapping[str, Any]) -> list[Loan]:
    """Allocated addresses by the node that the allocation's attributes name, those of the block's own node left out."""
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError:
        return []
    attributes = cast("Sequence[Json]", spec.get("attributes") or ())
    loans: list[Loan] = []
    for ordinal, index in enumerate(cast("Sequence[int | None]", spec.get("allocations") or ())):
        if index is None or not 0 <= index < len(attributes) or ordinal >= network.num_addresses:
            continue
        node = cast("Mapping[str, str]", attributes[index].get("secondary") or {}).get("node", "")
        if node and node != lender:
            address = f"{network[ordinal]}/{network.max_prefixlen}"
            loans.append(Loan(node=node, address=address, lender=lender))
    return loans
