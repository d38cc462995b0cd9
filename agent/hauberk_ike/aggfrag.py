"""AGGFRAG mode, which Linux calls IP-TFS (RFC 9347 sections 5.1 and 6.1.4): asked for by a notify, granted by another.

Theory of operation. Inner packets fill outer ones whatever their sizes: small ones go together, large ones in pieces,
so that a tunnel carries any packet over any wire. Whoever can do that asks for it with USE_AGGFRAG, and a peer that can
and wants it too says the same in its answer; without that the CHILD SA is one in tunnel mode, which every peer has.
The notify's one byte says what its sender requires of the other. If that is something we do not know or do not do, we
do not grant it; and if it comes in an answer there is nothing to fall back to, so the CHILD SA is refused.

A rekey takes over the mode of what it replaces: it is asked for again, and is never another.
"""

from dataclasses import dataclass
from typing import Final

from hauberk_ike.numbers import NotifyType
from hauberk_ike.wire.message import Contents
from hauberk_ike.wire.payloads import Notify

DONT_FRAGMENT: Final = 1
"""Required of us: no packets in pieces, as the peer does not put them together again. It is the one requirement that we
meet; the other one of the RFC, congestion control (2), is beyond the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggfrag:
    """What a peer's notify says, as far as we can do it."""

    dont_fragment: bool


def build_use_aggfrag() -> Notify:
    """We require nothing."""
    return Notify(type=NotifyType.USE_AGGFRAG, data=bytes(1))


def is_aggfrag(contents: Contents) -> bool:
    """Whether a message speaks of AGGFRAG at all."""
    return contents.notify(NotifyType.USE_AGGFRAG) is not None


def parse_use_aggfrag(contents: Contents) -> Aggfrag | None:
    """What a message's notify says; None if it has none, or one whose requirements can't be met."""
    notify = contents.notify(NotifyType.USE_AGGFRAG)
    if notify is None or len(notify.data) != 1 or notify.data[0] & ~DONT_FRAGMENT:
        return None
    return Aggfrag(dont_fragment=bool(notify.data[0]))
