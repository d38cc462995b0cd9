"""What in the kernel is ours: a band of request ids for states, a band of priorities for policies.

Other IPsec stacks use reqids from 1 upwards and priorities below a few hundred thousand. Ours lie where nobody else's
do, and at the weak end: in the kernel the *lower* priority number wins, so a policy that somebody made by hand or
that another stack made comes before ours.
"""

from __future__ import annotations

from typing import Final

from hauberk_xfrm import Policy, ReqId, State

REQIDS: Final = range(0x4800_0001, 0x4801_0000)
TRIAL_REQID: Final = ReqId(0x4800_0000)
"""Of states that nothing but probes goes by (hauberk_agent.esp_trial), whichever pair's they are."""
PRIORITIES: Final = range(0x4800_0000, 0x4801_0000)

_LONGEST_PREFIX: Final = 128
_HOST_OFFSET: Final = 0x100
_BLOCK_OFFSET: Final = 0x200


def protect_priority(prefix_length: int) -> int:
    """The priority of a protect or exempt policy: the longer the prefix, the stronger.

    So a single address that a node borrowed from another node's block overrides that block. Families never meet.
    """
    return PRIORITIES.start + _LONGEST_PREFIX - prefix_length


def host_priority(prefix_length: int) -> int:
    """The priority of an exemption of a node's own address: weaker than what is to be protected with that address."""
    return PRIORITIES.start + _HOST_OFFSET + _LONGEST_PREFIX - prefix_length


def block_priority(prefix_length: int) -> int:
    """The priority of a block policy: weaker than every protect and exempt policy, whatever its prefix."""
    return PRIORITIES.start + _BLOCK_OFFSET + _LONGEST_PREFIX - prefix_length


def owns_state(state: State) -> bool:
    """Whether a state is ours to change or delete."""
    return state.reqid in REQIDS or state.reqid == TRIAL_REQID


def owns_policy(policy: Policy) -> bool:
    """Whether a policy is ours to change or delete: in our band, and tied to our states or to none."""
    return policy.priority in PRIORITIES and all(template.reqid in REQIDS for template in policy.templates)


def owns_reqid(reqid: ReqId) -> bool:
    return reqid in REQIDS
