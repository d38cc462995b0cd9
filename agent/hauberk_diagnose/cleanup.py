"""`hauberk-ike cleanup`: removes what runs with `--install` have left in this network namespace's kernel.

A run removes all that it has installed, unless it is killed. What was its own is known by its request ids, and that it
lives no more by their being free to claim: what another run uses stays, and so does everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hauberk_diagnose.claims import REQIDS, Claimer
from hauberk_diagnose.installation import PRIORITY
from hauberk_ike import IpAddress
from hauberk_xfrm import Policy, Slot, Spi, StateDump


class Kernel(Protocol):
    """What is needed of hauberk_xfrm.Xfrm here."""

    def dump_states(self) -> list[StateDump]: ...
    def dump_policies(self) -> list[Policy]: ...
    def delete_state(self, *, destination: IpAddress, spi: Spi, missing_ok: bool = True) -> None: ...
    def delete_policy(self, policy: Policy | Slot, *, missing_ok: bool = True) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """`in_use`: how many request ids of runs that live were passed over."""

    states: int = 0
    policies: int = 0
    in_use: int = 0


def remove_leftovers(kernel: Kernel, claim: Claimer) -> Removed:
    """Policies first: a policy without its states would hold traffic back. Raises XfrmError and OSError."""
    found = {int(state.reqid) for state in kernel.dump_states()}
    found |= {reqid for policy in kernel.dump_policies() for reqid in _reqids(policy)}
    claimed = {reqid: claim(reqid) for reqid in sorted(found) if reqid in REQIDS}
    try:
        dead = {reqid for reqid, held in claimed.items() if held is not None}
        # Once more, as a run may have ended in between, and another one begun.
        policies = [policy for policy in kernel.dump_policies() if _reqids(policy) and _reqids(policy) <= dead]
        states = [state for state in kernel.dump_states() if state.reqid in dead]
        for policy in policies:
            kernel.delete_policy(policy)
        for state in states:
            kernel.delete_state(destination=state.destination, spi=state.spi)
    finally:
        for held in claimed.values():
            if held is not None:
                held.close()
    return Removed(states=len(states), policies=len(policies), in_use=len(claimed) - len(dead))


def _reqids(policy: Policy) -> set[int]:
    """The request ids that a policy of this command's is tied to; none for anybody else's."""
    return {int(template.reqid) for template in policy.templates} if policy.priority == PRIORITY else set()
