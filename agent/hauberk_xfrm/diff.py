"""What to change so that the kernel's policies are those that are wanted. Pure: the agent's reconciler calls it after a
dump, applies the actions by `Xfrm.apply`, and reports the conflicts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hauberk_xfrm.policy import Policy, Slot
from hauberk_xfrm.request import AddPolicy, DeletePolicy, UpdatePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """`desired` can't be installed: `foreign`, which is not ours, lies in its slot. Never overwritten."""

    desired: Policy
    foreign: Policy


PolicyAction = AddPolicy | UpdatePolicy | DeletePolicy | Conflict


def diff_policies(
    desired: Iterable[Policy], actual: Iterable[Policy], owns: Callable[[Policy], bool]
) -> list[PolicyAction]:
    """The actions that turn `actual` (a dump) into `desired`, in the order in which to apply them.

    Additions and updates come first, in the order of `desired`, and removals last, so that no packet meets a gap
    between the old and the new. An update replaces within the slot, at once. Only policies for which `owns` is
    true are updated or removed; where another lies in a wanted slot, the action is a Conflict, for people to see.
    Equal inputs give no actions.

    Raises ValueError if two desired policies claim one slot, since the kernel would keep just one of them.
    """
    present = {policy.slot: policy for policy in actual}
    wanted: dict[Slot, Policy] = {}
    changes: list[PolicyAction] = []
    for policy in desired:
        slot = policy.slot
        if slot in wanted:
            raise ValueError(f"two policies for one slot: {wanted[slot]}; {policy}")
        wanted[slot] = policy
        there = present.get(slot)
        if there is None:
            changes.append(AddPolicy(policy=policy))
        elif not owns(there):
            changes.append(Conflict(desired=policy, foreign=there))
        elif there != policy:
            changes.append(UpdatePolicy(policy=policy))
    changes += [DeletePolicy(slot=slot) for slot, policy in present.items() if slot not in wanted and owns(policy)]
    return changes
