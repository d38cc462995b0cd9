"""How often Python looks for garbage in cycles, in a program that runs for months and holds much that it keeps.

What start-up made is never looked at again, and the rest less often: a handshake makes hundreds of objects, next to
none of them in cycles, and looking for cycles among all IKE SAs was a twentieth of its cost. Called once, before the
loop runs.
"""

import gc
from typing import Final

OBJECTS_BETWEEN_LOOKS: Final = 10_000
"""Python's own number is 700."""


def collect_seldom() -> None:
    """For the rest of this process's life."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS, 10, 10)
