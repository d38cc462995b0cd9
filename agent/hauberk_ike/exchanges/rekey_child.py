"""CREATE_CHILD_SA for the rekey of a CHILD SA, as initiator (RFC 7296 sections 1.3.3, 2.8 and 2.25.1).

    CREATE_CHILD_SA   N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr   -->
                                                             <--   SA, Nr, [KEr,] TSi, TSr
    INFORMATIONAL     D(ESP) of the old one                  -->
                                                             <--   D(ESP)

With the answer the new CHILD SA is there at both ends, and the old one goes. If the peer was at it as well and ours has
lost (see `hauberk_ike.collision`), ours is the one that goes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hauberk_ike.child_negotiation import ChildRequest
from hauberk_ike.child_sa import AgreedChild, ChildSa
from hauberk_ike.collision import Asked, Doing, Race
from hauberk_ike.exchanges.create_child_sa import CreateChildSa
from hauberk_ike.key_agreement import Secrets
from hauberk_ike.numbers import NotifyType, Protocol
from hauberk_ike.wire.message import KnownPayload
from hauberk_ike.wire.payloads import Notify

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class RekeyChild(CreateChildSa):
    """One rekey of `old`. If that is gone, replaced or being deleted when its turn comes, nothing is to be done."""

    __slots__ = ("_old",)

    doing = Doing.REKEYING_CHILD

    def __init__(self, old: ChildSa, *, attempt: int = 1) -> None:
        super().__init__(old.config, attempt=attempt)
        self._old = old
        self._ask(ChildRequest(old.config, replaces=old, keyed=True))

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """N(REKEY_SA) with our inbound SPI, and what any new CHILD SA takes."""
        old = self._old
        if not self._is_wanted(sa):
            self._end(sa)
            return None
        old.race = Race()
        old.due = None
        payloads = super().build(sa, now)
        if payloads is None:
            return None
        return [
            Notify(type=NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=old.spi_in.to_bytes(4)),
            *payloads,
        ]

    def goes_on(self, sa: "IkeSa") -> bool:
        race = self._old.race
        return super().goes_on(sa) and race is not None and not race.is_lost

    def refused(self, sa: "IkeSa", error: Notify, now: float) -> None:
        """What has been replaced or deleted meanwhile needs no rekey: the peer's refusal is as it should be."""
        if not self._is_wanted(sa):
            self._end(sa)
        elif error.type == NotifyType.CHILD_SA_NOT_FOUND:
            # Section 2.25: the peer does not have it, so we have it for nothing, and a new one takes its place. It is
            # told, in case it has it after all: the answer that makes it may be on its way for the second time.
            self._end(sa)
            sa.delete_child(self._old, now)
            sa.start(CreateChildSa(self._old.config), now)
        else:
            super().refused(sa, error, now)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """The old CHILD SA stays as it is; if it is there, and is not replaced by another, that is a failure."""
        super().abandon(sa, reason if self._is_wanted(sa) else "")
        self._end(sa)

    def _is_wanted(self, sa: "IkeSa") -> bool:
        old = self._old
        return sa.children.get(old.spi_in) is old and old.is_current and not old.is_closing

    def _end(self, sa: "IkeSa") -> None:
        self._release(sa)
        self._old.race = None

    def _nonces_known(self, secrets: Secrets) -> None:
        if self._old.race is not None:
            self._old.race.own = secrets.lowest_nonce

    def _install(self, sa: "IkeSa", agreed: AgreedChild, secrets: Secrets, now: float) -> ChildSa:
        old = self._old
        race, old.race = old.race, None
        lost = race is not None and race.is_lost
        rivals = old.successors
        child = agreed.install(sa, secrets, now, redundant=lost)
        if lost:
            sa.delete_child(child, now)
            return child
        for rival in rivals:
            # The peer made it, and will delete it.
            rival.is_redundant = True
            rival.set_due(sa, now)
        sa.drop_pending(Asked.REKEY_CHILD, old)
        if sa.children.get(old.spi_in) is old:
            sa.delete_child(old, now)
        return child

    def _try_again(self, sa: "IkeSa", due: float) -> None:
        self._old.race = None
        sa.requests.add_at(RekeyChild(self._old, attempt=self._attempt + 1), due)
