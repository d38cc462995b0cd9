"""What in the kernel is ours: a band of request ids for states, a band of priorities for policies.

Other IPsec stacks use reqids from 1 upwards and priorities below a few hundred thousand. Ours lie where nobody else's
do, and at the weak end: in the kernel the *lower* priority number wins, so a policy that somebody made by hand or
that another stack made comes before ours.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from hauberk_xfrm import Policy, ReqId, State

REQIDS: Final = range(0x4800_0001, 0x4801_0000)
TRIAL_REQID: Final = ReqId(0x4800_0000)
"""Of states that nothing but probes goes by (hauberk_agent.esp_trial), whichever pair's they are."""
PRIORITIES: Final = range(0x4800_0000, 0x4801_0000)

_LONGEST_PREFIX: Final = 128
_RANK_WIDTH: Final = 0x100


class Rank(IntEnum):
    """Which of our policies comes first where several match a packet: the strongest first.

    What protects comes before what lets pass, and each class of traffic's exemptions before its block and nothing else
    that matters. A pod range's block is weaker than the protection of a gateway's networks, which may lie in it.
    """

    LOCAL = 0
    """Between a spoke's own pods, where a gateway's networks hold them."""
    SUBNETS = 1
    POD_NETWORK = 2
    """Exemptions too: a borrowed address is stronger than the prefix that it is from, whatever becomes of either."""
    POD_BLOCK_OF_LIFELINE = 3
    LIFELINE = 4
    OVERLAY = 5
    HOST = 6
    OVERLAY_EXEMPT = 7
    OVERLAY_BLOCK = 8
    HOST_EXEMPT = 9
    HOST_BLOCK = 10
    NODE_ADDRESS = 11
    """Exempts a node's own address within the pod range: weaker than what is to be protected with that address."""
    POD_BLOCK = 12
    SUBNETS_EXEMPT = 13
    SUBNETS_BLOCK = 14


def priority(rank: Rank, prefix_length: int) -> int:
    """A policy's priority: by its rank, and then the longer the prefix, the stronger.

    So a single address that a node borrowed from another node's block overrides that block. Families never meet.
    """
    return PRIORITIES.start + _RANK_WIDTH * rank + _LONGEST_PREFIX - prefix_length


def owns_state(state: State) -> bool:
    """Whether a state is ours to change or delete."""
    return state.reqid in REQIDS or state.reqid == TRIAL_REQID


def owns_policy(policy: Policy) -> bool:
    """Whether a policy is ours to change or delete: in our band, and tied to our states or to none."""
    return policy.priority in PRIORITIES and all(template.reqid in REQIDS for template in policy.templates)


def owns_reqid(reqid: ReqId) -> bool:
    return reqid in REQIDS
