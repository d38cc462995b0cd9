"""Which nodes take part in a tunnel, and as what. Pure; called by compile.

A LabelSelector means what it means elsewhere in Kubernetes (apimachinery, metav1.LabelSelector): all of its terms must
hold, and an empty one selects everything. Only Linux nodes can be members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hauberk_api.node import Role
from hauberk_api.tunnel import LabelSelector, LabelSelectorRequirement, Topology, TunnelSpec
from hauberk_operator.facts import NodeFacts


def select_members(spec: TunnelSpec, nodes: Iterable[NodeFacts]) -> dict[str, Role]:
    """The members of a tunnel by node name. Hubs are those members that hubSelector matches."""
    members: dict[str, Role] = {}
    for node in nodes:
        if not node.linux or not matches(spec.node_selector, node.labels):
            continue
        members[node.name] = _role(spec, node)
    return members


def _role(spec: TunnelSpec, node: NodeFacts) -> Role:
    if spec.topology is Topology.FULL_MESH:
        return Role.MEMBER
    hub = spec.hub_selector is not None and matches(spec.hub_selector, node.labels)
    return Role.HUB if hub else Role.SPOKE


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a selector. An operator that is not known matches nothing."""
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions
    )


def _holds(requirement: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False
