"""The life of an IKE SA, as one table.

Theory of operation. An initiator sends IKE_SA_INIT (INITIATING); what comes back is not authenticated, so errors
are hints and the attempt goes on until its retransmissions are used up. With keys agreed it sends IKE_INTERMEDIATE as
often as there are additional key exchanges, and then IKE_AUTH (AUTHENTICATING), and verifies the responder before
anything else happens. A responder makes its IKE SA when it answers IKE_SA_INIT (HALF_OPEN), and will hear those two
only. Both are then ESTABLISHED.

A rekey makes a new IKE SA out of one that is ESTABLISHED: it is SPARE until it inherits that one's CHILD SAs, which
makes it ESTABLISHED itself and the old one REPLACED. A SPARE one that loses a collision of two rekeys is deleted; a
REPLACED one waits for its DELETE, and refuses everything else.

An end has three ways. CLOSE: we send a DELETE and wait for its answer, as long as retransmissions last (CLOSING); the
peer's requests are still answered. REJECT: the peer's proof was wrong, or it broke the protocol; we say so in an
INFORMATIONAL request (REJECTING) and listen to nothing else. END: it is over at once (DEAD); for a while the last
answer is still repeated to a peer that has not received it, and then nothing is left.

A request whose exchange is not listed for a state is met with silence and changes nothing.
"""

from enum import Enum
from typing import Final

from hauberk_ike.numbers import ExchangeType


class State(Enum):
    """See the module's theory of operation."""

    INITIATING = "initiating"
    AUTHENTICATING = "authenticating"
    HALF_OPEN = "half-open"
    ESTABLISHED = "established"
    SPARE = "spare"
    REPLACED = "replaced"
    CLOSING = "closing"
    REJECTING = "rejecting"
    DEAD = "dead"


class Step(Enum):
    """What moves an IKE SA from one state to another."""

    KEYS_AGREED = "keys agreed"
    AUTHENTICATED = "authenticated"
    INHERIT = "inherit"
    REPLACE = "replace"
    CLOSE = "close"
    REJECT = "reject"
    END = "end"


TRANSITIONS: Final[dict[State, dict[Step, State]]] = {
    State.INITIATING: {Step.KEYS_AGREED: State.AUTHENTICATING, Step.END: State.DEAD},
    State.AUTHENTICATING: {
        Step.AUTHENTICATED: State.ESTABLISHED,
        Step.CLOSE: State.CLOSING,
        Step.REJECT: State.REJECTING,
        Step.END: State.DEAD,
    },
    State.HALF_OPEN: {Step.AUTHENTICATED: State.ESTABLISHED, Step.END: State.DEAD},
    State.ESTABLISHED: {
        Step.REPLACE: State.REPLACED,
        Step.CLOSE: State.CLOSING,
        Step.REJECT: State.REJECTING,
        Step.END: State.DEAD,
    },
    State.SPARE: {
        Step.INHERIT: State.ESTABLISHED,
        Step.CLOSE: State.CLOSING,
        Step.REJECT: State.REJECTING,
        Step.END: State.DEAD,
    },
    State.REPLACED: {Step.CLOSE: State.CLOSING, Step.REJECT: State.REJECTING, Step.END: State.DEAD},
    State.CLOSING: {Step.REJECT: State.REJECTING, Step.END: State.DEAD},
    State.REJECTING: {Step.END: State.DEAD},
    State.DEAD: {},
}

_SECURED: Final = frozenset({ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL, ExchangeType.IKE_FOLLOWUP_KE})
"""What presupposes that the peer is authenticated."""

ANSWERED: Final[dict[State, frozenset[int]]] = {
    State.INITIATING: frozenset(),
    State.AUTHENTICATING: frozenset(),
    State.HALF_OPEN: frozenset({ExchangeType.IKE_INTERMEDIATE, ExchangeType.IKE_AUTH}),
    State.ESTABLISHED: _SECURED,
    State.SPARE: _SECURED,
    State.REPLACED: _SECURED,
    State.CLOSING: _SECURED,
    State.REJECTING: frozenset(),
    State.DEAD: frozenset(),
}
"""Which requests are answered in which state."""
