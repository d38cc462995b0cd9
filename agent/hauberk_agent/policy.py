"""The security policies that a roster asks for.

Pure; the reconciler makes the kernel's database equal to them. Each class of traffic has its own, in a module of its
own: `pod_policies`, `overlay_policies`, `host_policies` and `subnet_policies`, each with a table. Which comes first
where several match a packet is in `hauberk_agent.ownership.Rank`.

A tunnel's phase says which of its policies stand (hauberk_api.plan.Phase): IN and FWD protect from Accept on, their
templates optional until Require; OUT protect in Protect for the CHILD SAs that can be sent by, from Require on for all;
block in Block. A Permissive tunnel never gets beyond Protect.

A pair with a node that enters or leaves has a phase of its own (hauberk_agent.roster).

With `interception: Interface` the policies are those of a device's interface id (hauberk_agent.interception), and what
is to be blocked on its way out is blocked by routes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from hauberk_agent.client_ports import DEFAULT_FIRST_CLIENT_PORT
from hauberk_agent.host_policies import host_policies
from hauberk_agent.overlay_policies import overlay_policies
from hauberk_agent.pod_policies import pod_policies
from hauberk_agent.policy_terms import Terms
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Roster
from hauberk_agent.subnet_policies import subnet_policies
from hauberk_xfrm import Policy, ReqId, Slot


def desired_policies(
    roster: Roster,
    reqid_of: Callable[[ChildKey], ReqId],
    *,
    sendable: Collection[ChildKey] = (),
    first_client_port: int = DEFAULT_FIRST_CLIENT_PORT,
) -> tuple[Policy, ...]:
    """All policies that this node should have. A node in no tunnel gets none.

    sendable: the CHILD SAs that both ends hold; in Protect packets for any other still go in clear. first_client_port:
    where the range of ports begins that this node's kernel gives to clients.
    Where two want one slot the stronger has it: a block over a single node's prefix is the same slot as that node's
    exemption or protection. Of two that are as strong it is the first.
    """
    terms = Terms(reqid_of=reqid_of, sendable=sendable, first_client_port=first_client_port)
    slots: dict[Slot, Policy] = {}
    for policies in (pod_policies, overlay_policies, host_policies, subnet_policies):
        for policy in policies(roster, terms):
            slot = policy.slot
            if slot not in slots or policy.priority < slots[slot].priority:
                slots[slot] = policy
    return tuple(slots.values())
