"""Makes the kernel's policies those wanted, and sweeps away states of ours that nobody accounts for.

A full dump, a pure diff, the difference applied: at start, on each change, and every so often, so that missed events
and hands from outside are mended. What is not ours is neither changed nor removed; where it lies in a slot of ours,
that is a problem for the report.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hauberk_agent.ownership import owns_policy, owns_state
from hauberk_xfrm import (
    AddPolicy,
    Conflict,
    DeletePolicy,
    Policy,
    Request,
    Slot,
    StateDump,
    UpdatePolicy,
    XfrmError,
    diff_policies,
)

_log = logging.getLogger("hauberk.reconciler")


class PolicyKernel(Protocol):
    """What is needed of hauberk_xfrm.Xfrm here."""

    def dump_policies(self) -> list[Policy]: ...
    def dump_states(self) -> list[StateDump]: ...
    def apply(self, requests: Sequence[Request]) -> list[XfrmError | None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`present` counts our policies in the kernel after the fact; `problems` are sentences."""

    added: int = 0
    updated: int = 0
    deleted: int = 0
    present: int = 0
    problems: tuple[str, ...] = ()

    @property
    def changed(self) -> int:
        return self.added + self.updated + self.deleted


def reconcile_policies(kernel: PolicyKernel, desired: Sequence[Policy]) -> Outcome:
    """Raises XfrmError if the kernel can't be asked; what it refuses is in the outcome."""
    actual = kernel.dump_policies()
    actions = diff_policies(desired, actual, owns_policy)
    problems = [
        f"{action.desired} can't be installed: a policy that is not Hauberk's lies there ({action.foreign})"
        for action in actions
        if isinstance(action, Conflict)
    ]
    requests = [action for action in actions if not isinstance(action, Conflict)]
    done = {AddPolicy: 0, UpdatePolicy: 0, DeletePolicy: 0}
    for request, error in zip(requests, kernel.apply(requests), strict=True):
        if error is None:
            done[type(request)] += 1
        else:
            problems.append(str(error))
    if done[DeletePolicy]:
        _forget_routes(kernel, desired, {action.desired.slot for action in actions if isinstance(action, Conflict)})
    before = sum(1 for policy in actual if owns_policy(policy))
    outcome = Outcome(
        added=done[AddPolicy],
        updated=done[UpdatePolicy],
        deleted=done[DeletePolicy],
        present=before + done[AddPolicy] - done[DeletePolicy],
        problems=tuple(problems),
    )
    if outcome.changed:
        _log.info("policies: %d added, %d changed, %d removed", outcome.added, outcome.updated, outcome.deleted)
    for problem in problems:
        _log.warning("%s", problem)
    return outcome


def _forget_routes(kernel: PolicyKernel, desired: Sequence[Policy], foreign: Collection[Slot]) -> None:
    """Writes a policy of each family once more, after others have been deleted.

    What had found no policy, or an exemption, goes on by its cached route, whatever policy is the next to match: of
    connected sockets and of overlays' devices. The kernel makes such routes obsolete where a policy is inserted
    (xfrm_policy_insert in net/xfrm/xfrm_policy.c), and not where one is deleted.
    """
    ours = {policy.selector.source.version: policy for policy in desired if policy.slot not in foreign}
    for error in kernel.apply([UpdatePolicy(policy=policy) for policy in ours.values()]):
        if error is not None:
            _log.warning("%s", error)


def our_states(states: Iterable[StateDump]) -> list[StateDump]:
    """Of a dump, the states of ours, larval ones too."""
    return [state for state in states if owns_state(state)]
