"""How much an SA carries before it is replaced: the soft limits of its outbound state.

When it has carried enough is its sender's to notice, as the receiver's state counts the same. Used by whoever installs
states: the agent, the diagnostic command.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hauberk_xfrm.state import Lifetime

MAX_PACKETS_WITHOUT_ESN: Final = 1 << 31
"""After so many an SA with 32-bit sequence numbers is replaced: half of what would end it (RFC 4303 section 3.3.3)."""

SOFT_SHARE: Final = (0.85, 0.95)
"""Between these a soft limit lies, as a share of what is wanted, each time elsewhere: both ends count alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wear:
    """What is wanted. None: no limit of its own."""

    bytes: int | None = None
    packets: int | None = None

    def lifetime(self, *, esn: bool, share: float, hard_seconds: int | None = None) -> Lifetime:
        """share: where the soft limits lie beneath what is wanted (SOFT_SHARE)."""
        packets = self.packets
        if not esn:
            packets = min(packets or MAX_PACKETS_WITHOUT_ESN, MAX_PACKETS_WITHOUT_ESN)
        return Lifetime(
            soft_bytes=None if self.bytes is None else int(self.bytes * share),
            soft_packets=None if packets is None else int(packets * share),
            hard_seconds=hard_seconds,
        )
