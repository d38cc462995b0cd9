"""What the mesh wants of this node, as one immutable snapshot.

Sources (hauberk_agent.source) make snapshots; the roster, the policies and the sessions are computed from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hauberk_api.names import NodeName
from hauberk_api.node import NodeSpec
from hauberk_api.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The plan and all known nodes. `plan` is None as long as the operator has made none."""

    own_name: NodeName
    plan: Plan | None
    nodes: Mapping[NodeName, NodeSpec] = field(default_factory=dict[NodeName, NodeSpec])

    @property
    def own(self) -> NodeSpec | None:
        """What the mesh knows of this node, or None if nothing yet."""
        return self.nodes.get(self.own_name)
