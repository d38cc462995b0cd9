"""How long an SA is used before it is rekeyed, and how patiently something is asked for again.

All times are spread by chance, which is the endpoint's entropy: many SAs that were set up at once must not be rekeyed
at once, and two ends that got into each other's way must not do so again.
"""

from collections.abc import Callable
from typing import Final

MAX_ATTEMPTS: Final = 8
"""Something that is refused temporarily is asked for so many times: over two to four minutes (section 2.25)."""
LONGEST_WAIT_SECONDS: Final = 60.0


def share(entropy: Callable[[int], bytes], low: float, high: float) -> float:
    """A number between the two, evenly distributed."""
    return low + (high - low) * int.from_bytes(entropy(4)) / 0x1_0000_0000


def rekey_time(entropy: Callable[[int], bytes], *, seconds: float, initiator: bool, now: float) -> float | None:
    """When an SA that lives for `seconds` (0: for ever) is to be rekeyed.

    The end that asked for it (`initiator`) does so at 80 to 90 per cent of its life, the other one only if that has not
    happened, at 90 to 100 per cent: so both ends may have the same lifetimes, and rarely collide.
    """
    if seconds <= 0:
        return None
    return now + seconds * (share(entropy, 0.8, 0.9) if initiator else share(entropy, 0.9, 1.0))


def retry_time(entropy: Callable[[int], bytes], *, attempt: int, now: float) -> float | None:
    """When to try for the `attempt`-th time (from 2) after a TEMPORARY_FAILURE; None: that was often enough.

    Section 2.25: not at once, several times over several minutes. 1 to 2 s at first, and longer each time.
    """
    if attempt > MAX_ATTEMPTS:
        return None
    return now + min(2.0 ** (attempt - 1), LONGEST_WAIT_SECONDS) * share(entropy, 0.5, 1.0)
