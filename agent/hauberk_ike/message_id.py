"""Message ids, which have 32 bits and never come again under the same keys (RFC 7296 section 2.2).

Theory of operation. Each end numbers its requests from 0. When it has come near the last number it rekeys the IKE SA,
which begins anew at 0 in both directions; if it does not, its peer does. Where that comes to nothing it is tried again,
several times; and then the IKE SA is closed, with numbers left for its DELETE. So the last number is never reached by
anybody who follows the protocol, and after it nothing is sent and nothing is taken.
"""

from typing import TYPE_CHECKING, Final

from hauberk_ike.lifecycle import State

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

LAST_ID: Final = 0xFFFF_FFFF
REKEY_FROM: Final = LAST_ID + 1 - (1 << 20)
"""Here an end rekeys the IKE SA for its own ids' sake."""
PATIENCE: Final = 1 << 16
"""After so many more the other end does, and after so many each does it again."""
CLOSE_FROM: Final = LAST_ID + 1 - (1 << 10)
"""Here either end closes it."""


def count_id(sa: "IkeSa", message_id: int, *, ours: bool, now: float) -> None:
    """A request has got this id: of ours, or of the peer's. Does what is to be done about that, mostly nothing."""
    if message_id < REKEY_FROM or sa.state is not State.ESTABLISHED or sa.is_closing:
        return
    if message_id >= CLOSE_FROM:
        sa.close_reason = "its message ids are nearly used up"
        sa.close(now)
        return
    beyond = message_id - REKEY_FROM
    if beyond % PATIENCE == 0 and (ours or beyond > 0):
        sa.rekey(now)
