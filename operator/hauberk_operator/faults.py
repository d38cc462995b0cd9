"""Fault points: where a test has the operator die, or stand still, just before or after one of its writes.

    HAUBERK_FAULT="kill before PUT secrets/hauberk-ca"
    HAUBERK_FAULT="stop after PATCH ipsecmeshes/default/status"

The first write that fits is the point; nothing happens where the variable is not set. SIGKILL leaves the process no
chance to tidy up, which is what such a test is about. Called by kube.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Final, Self

VARIABLE: Final = "HAUBERK_FAULT"

_SIGNALS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_MOMENTS: Final = ("before", "after")


@dataclass(slots=True)
class FaultPoint:
    """One fault, which happens once."""

    signal_number: signal.Signals
    moment: str
    method: str
    path: str
    """What the write's path ends with."""
    passed: bool = False

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for no text. Raises ValueError, which says what is wrong with it."""
        if not text:
            return None
        words = text.split()
        if len(words) != 4 or words[0] not in _SIGNALS or words[1] not in _MOMENTS:
            raise ValueError(f'{VARIABLE}={text!r} is none: "kill|stop before|after METHOD PATH"')
        return cls(_SIGNALS[words[0]], words[1], words[2], words[3])

    def reach(self, moment: str, method: str, path: str) -> None:
        """Called before and after each request."""
        if not self.passed and (moment, method) == (self.moment, self.method) and path.endswith(self.path):
            self.passed = True
            os.kill(os.getpid(), self.signal_number)
