"""When both ends want something of the same SA at once (RFC 7296 sections 2.8 and 2.25).

Theory of operation. Our window is of one message, so there is one thing at a time that we are *doing*: whatever our
request on its way is about. A request of the peer's that comes in the middle is answered as if we were doing nothing,
but for the pairs in `TEMPORARY`: then the answer is TEMPORARY_FAILURE, the peer waits for a while (see
`hauberk_ike.lifetime`) and asks again, and what it finds then is settled.

That leaves rekeys of one SA by both ends, which are answered as usual. The four nonces decide between the two new SAs:
the one that was made with the lowest nonce is deleted by the end that asked for it, and the old SA by the end that
asked for the other one. An end that does not notice (its own rekey was complete when the peer's request came) has
deleted the old SA or is about to: it refuses the peer's rekey with TEMPORARY_FAILURE or CHILD_SA_NOT_FOUND, and the
peer goes on with what it was given. With additional key exchanges (RFC 9370) the loser goes no further, and there is
nothing to delete.

While our own rekey is under way, the SA that it is for has a `Race`. `RekeyChild` and `RekeyIke` say what they do about
its end; whoever wins, what stays is the same at both ends.
"""

from enum import Enum
from typing import Final


class Doing(Enum):
    """What our request on its way is about."""

    NOTHING = "nothing"
    CREATING_CHILD = "creating a CHILD SA"
    REKEYING_CHILD = "rekeying a CHILD SA"
    CLOSING_CHILD = "closing a CHILD SA"
    REKEYING_IKE = "rekeying the IKE SA"
    CLOSING_IKE = "closing the IKE SA"


class Asked(Enum):
    """What the peer's CREATE_CHILD_SA request is about."""

    CREATE_CHILD = "a CHILD SA"
    REKEY_CHILD = "a rekey of a CHILD SA"
    REKEY_IKE = "a rekey of the IKE SA"


TEMPORARY: Final = frozenset(
    {
        (Doing.CREATING_CHILD, Asked.REKEY_IKE),
        (Doing.REKEYING_CHILD, Asked.REKEY_IKE),
        (Doing.CLOSING_CHILD, Asked.REKEY_IKE),
        (Doing.REKEYING_IKE, Asked.CREATE_CHILD),
        (Doing.REKEYING_IKE, Asked.REKEY_CHILD),
        (Doing.CLOSING_IKE, Asked.CREATE_CHILD),
        (Doing.CLOSING_IKE, Asked.REKEY_CHILD),
        (Doing.CLOSING_IKE, Asked.REKEY_IKE),
    }
)
"""What can't be had now (sections 2.25.1 and 2.25.2). A rekey of a CHILD SA that we are closing is refused as well."""


class Race:
    """Our rekey of an SA, and the peer's of the same if there is one: which of the two new SAs is to stay.

    `own` and `rival` are the lowest nonces of each exchange, None as long as they are not known.
    """

    __slots__ = ("own", "rival")

    def __init__(self) -> None:
        self.own: bytes | None = None
        self.rival: bytes | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it is ours that was made with the lowest nonce of the four."""
        return self.own is not None and self.rival is not None and self.own < self.rival
