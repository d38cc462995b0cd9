"""In which second an outbound state is written to have been created, so that the kernel uses the last one of them.

Of the states that a policy could take, the kernel takes the one created in the latest second of the wall clock, and of
those of one second either: the newer one is first in its hash chain until the table grows, which turns chains round
(xfrm_state_look_at and xfrm_hash_transfer in net/xfrm/xfrm_state.c). Clocks are set back, and states follow each other
within a second. Used by whoever installs states: the agent, the diagnostic command.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hauberk_xfrm.address import ReqId


class Succession:
    """By request id. A state's hard lifetime counts from the second given: it is never before the clock's."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since the epoch."""
        self._clock = clock
        self._last: dict[ReqId, int] = {}

    def next(self, reqid: ReqId) -> int:
        """The second for another state: the clock's, or the one after the last state's if that is later."""
        self._last[reqid] = max(int(self._clock()), self._last.get(reqid, 0) + 1)
        return self._last[reqid]

    def take_over(self, reqid: ReqId, created_at: int) -> None:
        """There is a state already that was created in that second."""
        self._last[reqid] = max(created_at, self._last.get(reqid, 0))

    def forget(self, reqid: ReqId) -> None:
        """There is no state of it any more."""
        self._last.pop(reqid, None)
