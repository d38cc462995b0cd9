"""What becomes of packets that no policy is about: XFRM_MSG_GETDEFAULT and SETDEFAULT (Linux 5.14).

It holds for the whole network namespace, whoever's packets they are. That is why no agent ever sets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import error as StructError  # noqa: N812
from typing import Self

from hauberk_xfrm.attribute import Malformed
from hauberk_xfrm.layout import USERPOLICY_DEFAULT
from hauberk_xfrm.policy import Action

_ACTIONS = {Action.BLOCK: 1, Action.ALLOW: 2}
"""XFRM_USERPOLICY_BLOCK and _ACCEPT; 0, UNSPEC, leaves a direction as it is, and is never in an answer."""
_BLOCKED = _ACTIONS[Action.BLOCK]


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultPolicy:
    """`struct xfrm_userpolicy_default`. ALLOW is what a kernel starts with."""

    inbound: Action
    forward: Action
    outbound: Action

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises Malformed."""
        try:
            values = USERPOLICY_DEFAULT.unpack_from(body)
        except StructError as error:
            raise Malformed(f"a default policy of {len(body)} bytes") from error
        inbound, forward, outbound = (Action.BLOCK if value == _BLOCKED else Action.ALLOW for value in values)
        return cls(inbound=inbound, forward=forward, outbound=outbound)

    def build(self) -> bytes:
        return USERPOLICY_DEFAULT.pack(_ACTIONS[self.inbound], _ACTIONS[self.forward], _ACTIONS[self.outbound])
