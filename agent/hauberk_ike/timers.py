"""What an IKE SA does by itself when time passes, and when that is.

Theory of operation. An IKE SA has one alarm, which the registry sets to the earliest of its timers; when it rings, all
that is due is done, so that ringing too early does no harm. The timers are:

- *expiry*: a half-open one is given up, a spare one ends, a replaced one is closed after all, and of an established
  responder's the first request is forgotten (`IkeSa.expires_at`);
- *retransmission* of the request on its way, and giving up when that was often enough (section 2.1);
- *liveness*: nothing was heard for too long and nothing is asked, so we ask (section 2.4);
- *keepalive* for a NAT before us (`hauberk_ike.path`);
- *closing* one that is out of step with the peer's, if nothing has taken its place by then (section 2.25);
- *renewal*, while it is established: rekeys that are due, replaced CHILD SAs that their peer has not deleted, requests
  that were refused temporarily, and key exchanges that the peer has begun and not gone on with.
"""

from typing import TYPE_CHECKING

from hauberk_ike.errors import RefusalReason
from hauberk_ike.events import DownReason, PeerRefused
from hauberk_ike.exchanges.informational import Liveness
from hauberk_ike.lifecycle import State

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


def deadline(sa: "IkeSa") -> float | None:
    """When `handle` has something to do."""
    due = sa.expires_at
    request = sa.requests.due
    if request is not None:
        due = request if due is None else min(due, request)
    elif sa.state is State.ESTABLISHED and sa.peer.dpd_seconds > 0:
        liveness = sa.last_heard + sa.peer.dpd_seconds
        due = liveness if due is None else min(due, liveness)
    keepalive = sa.path.keepalive_at
    if keepalive is not None and sa.is_up:
        due = keepalive if due is None else min(due, keepalive)
    if sa.state is not State.ESTABLISHED:
        return due
    others = [due, sa.rekey_at, sa.closes_at, sa.requests.deferred_due]
    if sa.children or sa.pending:
        others += [child.due for child in sa.children.values()]
        others += [pending.expires_at for pending in sa.pending.values()]
    return min([each for each in others if each is not None], default=None)


def handle(sa: "IkeSa", now: float) -> None:
    """Does what is due by now."""
    if sa.expires_at is not None and now >= sa.expires_at:
        _expire(sa, now)
    if sa.is_up:
        sa.path.keep_alive(sa.context, now)
    if sa.state is State.ESTABLISHED:
        _renew(sa, now)
    request = sa.requests.due
    if request is not None and now >= request:
        if not sa.requests.handle_timer(sa, now):
            _give_up(sa, now)
    elif (
        request is None
        and sa.state is State.ESTABLISHED
        and sa.peer.dpd_seconds > 0
        and now >= sa.last_heard + sa.peer.dpd_seconds
    ):
        # Before what waits for the peer's rekey of the IKE SA to be over: a peer that has died never ends that.
        sa.requests.add_first(sa, Liveness(), now)


def _renew(sa: "IkeSa", now: float) -> None:
    """Begins the rekeys that are due, and ends what has waited too long."""
    if sa.closes_at is not None and now >= sa.closes_at:
        sa.close_reason = "out of step: the peer has refused something temporarily for minutes"
        sa.close(now)
        return
    for link in [link for link, pending in sa.pending.items() if now >= pending.expires_at]:
        sa.pending.pop(link).agreed.release(sa)
    for child in [child for child in sa.children.values() if child.due is not None and now >= child.due]:
        child.due = None
        if child.is_current:
            sa.rekey_child(child, now)
        else:
            sa.delete_child(child, now)
    if sa.rekey_at is not None and now >= sa.rekey_at:
        sa.rekey(now)
    sa.requests.take_deferred(sa, now)


def _expire(sa: "IkeSa", now: float) -> None:
    sa.expires_at = None
    if sa.state is State.HALF_OPEN:
        sa.context.refusals.report(
            PeerRefused(
                remote=sa.path.remote,
                identity=None,
                reason=RefusalReason.HALF_OPEN_TIMEOUT,
                message="no IKE_AUTH came in time",
            ),
            now,
        )
        sa.end(DownReason.FAILED, "no IKE_AUTH came in time", now)
        sa.expires_at = None
    elif sa.state is State.SPARE:
        sa.end(DownReason.DELETED, "another one stays", now, silent=True)
    elif sa.state is State.REPLACED:
        sa.close(now)
    sa.init_answer = b""


def _give_up(sa: "IkeSa", now: float) -> None:
    """The request on its way was sent often enough, and nobody answers."""
    match sa.state:
        case State.ESTABLISHED:
            sa.end(DownReason.UNREACHABLE, "the peer no longer answers", now)
        case State.CLOSING | State.REPLACED | State.SPARE:
            sa.end(DownReason.DELETED, "deleted; the peer did not answer", now, unanswered=True)
        case State.AUTHENTICATING if sa.is_closing:
            sa.end(DownReason.DELETED, "deleted before it was established", now)
        case _:
            message = f"no usable answer ({sa.hint})" if sa.hint else "no answer"
            sa.end(DownReason.FAILED, message, now)
