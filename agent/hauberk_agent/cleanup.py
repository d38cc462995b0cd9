"""`hauberk-agent cleanup`: removes our states and policies, device and routes from this host, and nothing else.

Needs neither API server nor configuration: what is ours is known by its band of request ids and priorities.
"""

from __future__ import annotations

from dataclasses import dataclass

from hauberk_agent.ownership import owns_policy
from hauberk_agent.reconciler import PolicyKernel, our_states
from hauberk_agent.route_reconciler import RoutingKernel, reconcile_routing
from hauberk_xfrm import DeletePolicy, DeleteState, NotFound, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    states: int
    policies: int
    problems: tuple[str, ...]


def remove_everything(kernel: PolicyKernel, routing: RoutingKernel) -> Removed:
    """Routes and policies first: without states they would hold traffic back. Raises XfrmError if dumps fail."""
    problems = list(reconcile_routing(routing, None))
    policies: list[Request] = [DeletePolicy(slot=p.slot) for p in kernel.dump_policies() if owns_policy(p)]
    states: list[Request] = [
        DeleteState(destination=s.destination, spi=s.spi) for s in our_states(kernel.dump_states())
    ]
    removed: list[int] = []
    for requests in (policies, states):
        # What is gone already is as good as removed.
        errors = [error for error in kernel.apply(requests) if error is not None and not isinstance(error, NotFound)]
        problems.extend(str(error) for error in errors)
        removed.append(len(requests) - len(errors))
    return Removed(policies=removed[0], states=removed[1], problems=tuple(problems))
