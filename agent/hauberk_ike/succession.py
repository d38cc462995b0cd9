"""One IKE SA in another's place: who has the CHILD SAs, and what becomes of the others (RFC 7296 sections 2.8.2, 2.18).

`exchanges.rekey_ike` makes the new IKE SA and decides when this is done.
"""

from typing import TYPE_CHECKING

from hauberk_ike.events import IkeSaRekeyed
from hauberk_ike.exchanges.mobike import ReturnRoutability
from hauberk_ike.lifecycle import State, Step

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


def hand_over(old: "IkeSa", new: "IkeSa", now: float) -> None:
    """`new` takes the place of `old`: reports IkeSaRekeyed. `old` waits for its DELETE.

    Whatever `old` was still to ask is asked by `new`; what the peer has begun and not finished in `old` lapses.
    """
    old.advance(Step.REPLACE)
    new.advance(Step.INHERIT)
    old.release_pending()
    if old.spare is not None:
        old.spare.predecessor = old.spare = None
    old.successor = new
    old.children, new.children = new.children, old.children
    old.requests.move_waiting(new.requests)
    old.is_reported, new.is_reported = False, True
    old.rekey_at = None
    old.expires_at = now + old.context.settings.replaced_seconds
    new.expires_at = None
    new.established_at = now
    new.plan_rekey(now)
    new.context.events.append(
        IkeSaRekeyed(
            old=old.handle,
            new=new.handle,
            peer=new.peer,
            initiator=new.initiator,
            proposal=str(new.proposal),
            spi_i=new.spi_i,
            spi_r=new.spi_r,
        )
    )
    if new.path.is_unproved:
        # What `old` has asked may never be answered now.
        new.start(ReturnRoutability(), now)
    new.requests.pump(new, now)
    new.context.registry.settle(new)


def keep_spare(old: "IkeSa", new: "IkeSa", now: float) -> None:
    """The peer's rekey has made `new`, but ours is under way: it is not known yet which of the two is to stay.

    If it is ours, the peer deletes `new`; if it does not, that ends by itself.
    """
    new.predecessor = old
    new.expires_at = now + new.context.settings.replaced_seconds
    old.spare = new
    new.context.registry.settle(new)


def adopt(sa: "IkeSa", now: float) -> None:
    """The peer asks something of `sa`. If that is a spare one, it is the one that stays: the peer has no other."""
    old = sa.predecessor
    if old is not None and old.state is State.ESTABLISHED and not old.is_closing:
        hand_over(old, sa, now)
        sa.context.registry.settle(old)


def discard(new: "IkeSa", now: float) -> None:
    """We have made `new`, and it is not to stay: deletes it, in itself."""
    new.close(now)
    new.context.registry.settle(new)
