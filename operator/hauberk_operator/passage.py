"""Nodes that enter or leave a running tunnel, as their labels or its selectors change: one step at a time. Pure.

A tunnel as a whole goes through its phases (rollout.py). A single node has a phase of its own while it is on its way,
in its membership, and a pair is in the lowest phase of the tunnel and its two ends. What a pair was before it entered,
and will be after it has left, is traffic in clear that must not be interrupted:

=======  ==========================  ================================================================================
way      steps                       why the next one may follow
=======  ==========================  ================================================================================
in       Protect, the tunnel's own   both ends take either; SAs are up, and both ends send by them
out      Protect, Establish, none    both ends take either; then nobody sends by the SAs any more
=======  ==========================  ================================================================================

The node's own agent reports a step once it has stood for some seconds and all pairs are as it says: by then its peers
have seen it as well, and no peer reports a thing. Who has nothing to lose goes at once: a Node that has just
registered (its pods' packets were never in clear), one that is not Ready, and all of them where non-members are denied
or the tunnel's rollout is Immediate. Steps are known of the pod network by policies only: elsewhere all go at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hauberk_api.mesh import NonMembers
from hauberk_api.node import Role
from hauberk_api.plan import Phase, PlannedTunnel, reached
from hauberk_api.report import ReportStatus
from hauberk_api.tunnel import Interception, Rollout, TrafficType
from hauberk_operator.facts import MemberFacts, NodeFacts, ReportFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Passages:
    """The steps of all nodes in one tunnel of the plan in force."""

    tunnel: PlannedTunnel
    rollout: Rollout
    non_members: NonMembers
    nodes: Mapping[str, NodeFacts]
    """Those that may be in a tunnel."""
    members: Mapping[str, MemberFacts]
    reports: Mapping[str, ReportFacts]

    def pass_on(
        self, wanted: Mapping[str, Role], present: Mapping[str, Role], lags: Mapping[str, Phase]
    ) -> tuple[dict[str, Role], dict[str, Phase]]:
        """Who is in the tunnel now, and the phases of those that are on their way.

        wanted are those selected, present who is in it, lags the phases of those among them that are on their way.
        """
        roles = dict(wanted)
        on_their_way: dict[str, Phase] = {}
        for name in wanted:
            if (name not in present or name in lags) and self._lags_in(name, lags.get(name), name in present):
                on_their_way[name] = Phase.PROTECT
        for name in present.keys() - wanted.keys():
            phase = self._out(name, lags.get(name))
            if phase is not None:
                roles[name], on_their_way[name] = present[name], phase
        return roles, on_their_way

    def _lags_in(self, name: str, phase: Phase | None, present: bool) -> bool:
        """Whether a selected node is on its way still."""
        if self._is_free or not reached(self.tunnel.phase, Phase.REQUIRE):
            return False
        if present:
            return phase is not Phase.PROTECT or not self._has_done(name, Phase.PROTECT)
        node, member = self.nodes[name], self.members.get(name)
        known = member is not None and member.spec is not None and member.spec.node_uid == node.uid
        return known and not node.startup_taint and node.ready

    def _out(self, name: str, phase: Phase | None) -> Phase | None:
        """The phase of a node that is selected no longer; None: it is out."""
        node = self.nodes.get(name)
        if node is None or not node.ready or self._is_free or not reached(self.tunnel.phase, Phase.PROTECT):
            return None
        if phase is None and reached(self.tunnel.phase, Phase.REQUIRE):
            return Phase.PROTECT
        if phase is Phase.PROTECT and not self._stands(name, Phase.PROTECT):
            return Phase.PROTECT
        if phase is Phase.ESTABLISH and self._stands(name, Phase.ESTABLISH):
            return None
        return Phase.ESTABLISH

    @property
    def _is_free(self) -> bool:
        """Whether nobody's packets were, or will be, in clear for want of a tunnel."""
        return (
            self.rollout is Rollout.IMMEDIATE
            or self.non_members is NonMembers.DENY
            or self.tunnel.traffic.type is not TrafficType.POD_NETWORK
            or self.tunnel.interception is not Interception.POLICY
        )

    def _stands(self, name: str, phase: Phase) -> bool:
        """Whether a node's agent reports a phase of the tunnel."""
        status = self._report(name)
        return status is not None and any(
            line.tunnel == self.tunnel.uid and line.phase is phase for line in status.tunnels
        )

    def _has_done(self, name: str, phase: Phase) -> bool:
        """Whether it does, and all its pairs with Ready nodes are up."""
        status = self._report(name)
        if status is None or not self._stands(name, phase):
            return False
        if any(line.ready for line in status.tunnels if line.tunnel == self.tunnel.uid):
            return True
        named = [peer.node for peer in status.unwell if peer.tunnel == self.tunnel.name]
        all_named = named and status.unwell_count == len(status.unwell)
        return bool(all_named) and not any(self._is_ready(peer) for peer in named)

    def _is_ready(self, name: str) -> bool:
        node = self.nodes.get(name)
        return node is not None and node.ready

    def _report(self, name: str) -> ReportStatus | None:
        facts, node = self.reports.get(name), self.nodes.get(name)
        status = facts.status if facts is not None else None
        return status if status is not None and node is not None and status.node_uid == node.uid else None
