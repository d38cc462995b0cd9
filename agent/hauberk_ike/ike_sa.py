"""One IKE SA: its state, its two windows of one message each, and its CHILD SAs.

The endpoint finds the IKE SA that a datagram is for and hands it over; the windows know whether it is a request's or an
answer's turn; the exchanges (`hauberk_ike.exchanges`) do what messages mean. This module is what they have in common:
what is known of the IKE SA and its peer, and the ways to end (see `hauberk_ike.lifecycle`). What it does by itself
when time passes is in `hauberk_ike.timers`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from hauberk_ike import lifetime, timers
from hauberk_ike.answer_window import AnswerWindow
from hauberk_ike.child_sa import ChildSa, unlink
from hauberk_ike.collision import Asked, Doing, Race
from hauberk_ike.config import PeerConfig
from hauberk_ike.context import Context
from hauberk_ike.datagram import SocketAddress
from hauberk_ike.error_notify import error_notify
from hauberk_ike.errors import ExchangeRefused, ProtocolError, RefusalReason, UnsupportedCritical
from hauberk_ike.esp_path import EspPath
from hauberk_ike.events import (
    ChildSaDown,
    DownReason,
    IkeSaDown,
    IkeSaId,
    IkeSaInfo,
    IkeSaUp,
    PeerRefused,
    ReauthenticationNeeded,
)
from hauberk_ike.exchanges import informational
from hauberk_ike.exchanges.exchange import Exchange
from hauberk_ike.exchanges.followup_ke import Pending
from hauberk_ike.exchanges.ike_intermediate import Intermediate
from hauberk_ike.exchanges.rekey_child import RekeyChild
from hauberk_ike.exchanges.rekey_ike import RekeyIke
from hauberk_ike.keys import IkeKeys
from hauberk_ike.lifecycle import ANSWERED, TRANSITIONS, State, Step
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.path import Path, follow
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.protection import Protection
from hauberk_ike.request_window import RequestWindow
from hauberk_ike.wire.header import FLAG_RESPONSE, Header
from hauberk_ike.wire.message import KnownPayload, build_message

_INHERITED: Final = (
    "peer",
    "identity",
    "claimed_identity",
    "certificate_serial",
    "certificate_not_after",
    "certificate_root",
    "peer_hashes",
    "peer_is_hauberk",
    "peer_childless",
    "reauthenticates",
)
"""What a rekey's new IKE SA has from the old one, beside its path."""


class IkeSa:
    """An IKE SA from its first message to its last. `spi_i` and `spi_r` are the header's, whoever we are."""

    __slots__ = (
        "answers",
        "certificate_not_after",
        "certificate_root",
        "certificate_serial",
        "children",
        "claimed_identity",
        "close_reason",
        "closes_at",
        "context",
        "deleted_early",
        "deleting",
        "established_at",
        "expires_at",
        "full_transcript",
        "handle",
        "has_ppk",
        "hint",
        "identity",
        "init_answer",
        "init_key",
        "init_request",
        "initiator",
        "int_auth",
        "intermediate",
        "is_counted",
        "is_reported",
        "keys",
        "last_heard",
        "nonce_i",
        "nonce_r",
        "path",
        "peer",
        "peer_authorities",
        "peer_childless",
        "peer_hashes",
        "peer_is_hauberk",
        "pending",
        "predecessor",
        "proposal",
        "protection",
        "race",
        "reauthenticates",
        "rekey_at",
        "requests",
        "scheduled_at",
        "spare",
        "spi_i",
        "spi_r",
        "state",
        "successor",
        "told_esp_path",
        "use_ppk",
    )

    keys: IkeKeys
    protection: Protection
    proposal: IkeProposal
    peer: PeerConfig

    def __init__(
        self,
        context: Context,
        handle: IkeSaId,
        *,
        initiator: bool,
        spi_i: bytes,
        spi_r: bytes,
        path: Path,
        now: float,
    ) -> None:
        self.context = context
        self.handle = handle
        self.initiator = initiator
        self.state = State.INITIATING if initiator else State.HALF_OPEN
        self.spi_i = spi_i
        self.spi_r = spi_r
        self.path = path
        self.nonce_i = b""
        self.nonce_r = b""
        self.init_request = b""
        self.init_answer = b""
        self.int_auth = b""
        """What IKE_INTERMEDIATE exchanges add to what AUTH covers (RFC 9242 section 3.3.2)."""
        self.intermediate: Intermediate | None = None
        """The additional key exchanges before IKE_AUTH, if there are any."""
        self.full_transcript = False
        """Whether AUTH covers both IKE_SA_INIT messages (draft-ietf-ipsecme-ikev2-downgrade-prevention)."""
        self.init_key: bytes | None = None
        """Under what the endpoint remembers a responder's first request."""
        self.is_counted = False
        """Whether it is among the endpoint's half-open ones."""
        self.use_ppk = False
        """Whether both ends said USE_PPK (RFC 8784)."""
        self.has_ppk = False
        """Whether a PPK is in the keys."""
        self.peer_authorities = b""
        """Which authorities a responder asked for, run together."""
        self.peer_hashes: frozenset[int] = frozenset()
        self.peer_is_hauberk = False
        self.peer_childless = False
        self.identity: str | None = None
        """The peer's, once it is proved."""
        self.claimed_identity: str | None = None
        self.certificate_serial: int | None = None
        self.certificate_root: str | None = None
        self.certificate_not_after: datetime | None = None
        self.children: dict[int, ChildSa] = {}
        """By inbound SPI."""
        self.deleting: set[int] = set()
        """Inbound SPIs of children that a DELETE of ours is on its way for."""
        self.deleted_early: set[int] | None = None
        """While we ask for a child: SPIs of the peer's that it deleted before its answer has reached us."""
        self.told_esp_path = EspPath.UNKNOWN
        """As responder: what the peer told of it."""
        self.close_reason = ""
        self.closes_at: float | None = None
        """When it is closed, as it is out of step with the peer's."""
        self.hint = ""
        """What an unauthenticated error said, for the message if nothing better comes."""
        self.established_at = now
        self.last_heard = now
        self.expires_at = None if initiator else now + context.settings.half_open_seconds
        """When a half-open one is given up, an established one's first request forgotten, a dead one's last answer."""
        self.scheduled_at: float | None = None
        """The earliest wake-up that the endpoint has on its list."""
        self.pending: dict[bytes, Pending] = {}
        """As responder: what waits for an additional key exchange of the peer's, by its link."""
        self.rekey_at: float | None = None
        self.race: Race | None = None
        """While we are rekeying it."""
        self.spare: IkeSa | None = None
        """While we are rekeying it: the new IKE SA that the peer's rekey of the same has made."""
        self.predecessor: IkeSa | None = None
        """A spare one's."""
        self.successor: IkeSa | None = None
        """A replaced one's."""
        self.reauthenticates: IkeSa | None = None
        """The one that it was initiated to replace."""
        self.requests = RequestWindow()
        self.answers = AnswerWindow(expected_id=0 if initiator else 1)
        self.is_reported = initiator
        """Whether its owner knows of it, and is to hear of its end."""

    # What the endpoint calls

    @property
    def our_spi(self) -> bytes:
        """The SPI by which messages for us are known."""
        return self.spi_i if self.initiator else self.spi_r

    def start(self, exchange: Exchange, now: float) -> None:
        """Does `exchange` as soon as the window is free."""
        self.requests.add(self, exchange, now)

    def start_when_established(self, exchange: Exchange, now: float) -> None:
        """The same, but not before the peer is authenticated."""
        if self.state is State.ESTABLISHED:
            self.start(exchange, now)
        else:
            self.requests.add_later(exchange)

    def receive(self, header: Header, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float) -> None:
        """A message whose SPI is ours; everything else about it may be wrong."""
        if header.from_initiator == self.initiator:
            return  # our own message coming back, or a flag that lies
        other = header.spi_r if self.initiator else header.spi_i
        if other != (self.spi_r if self.initiator else self.spi_i) and self.state is not State.INITIATING:
            return
        if not header.is_response:
            self.answers.receive(self, header, data, local=local, remote=remote, now=now)
        elif self.state is State.INITIATING:
            self.requests.receive_init_answer(self, header, data, local=local, remote=remote, now=now)
        else:
            self.requests.receive_answer(self, header, data, local=local, remote=remote, now=now)

    def repeat_init_answer(self, *, local: SocketAddress, remote: SocketAddress) -> None:
        """The peer has sent its IKE_SA_INIT request again."""
        if self.state is State.HALF_OPEN:
            self.send(self.init_answer, local=local, remote=remote)

    def deadline(self) -> float | None:
        """When `handle_timer` has something to do."""
        return timers.deadline(self)

    def handle_timer(self, now: float) -> None:
        """Does what is due by now."""
        timers.handle(self, now)

    def info(self) -> IkeSaInfo:
        """As `status` shows it."""
        return IkeSaInfo(
            ike_sa=self.handle,
            peer=self.peer,
            identity=self.identity or "",
            initiator=self.initiator,
            local=self.path.local,
            remote=self.path.remote,
            nat_local=self.path.nat_local,
            nat_remote=self.path.nat_remote,
            additional_addresses=self.path.additional,
            proposal=str(self.proposal),
            certificate_serial=self.certificate_serial,
            certificate_not_after=self.certificate_not_after,
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            established_at=self.established_at,
            children=tuple(child.info() for child in self.children.values()),
        )

    # What exchanges call

    def advance(self, step: Step) -> None:
        """Takes a step of the lifecycle's table; one that is not in it is a fault of ours and raises KeyError."""
        self.state = TRANSITIONS[self.state][step]

    def established(self, *, initial_contact: bool, now: float) -> None:
        """The peer is authenticated: reports IkeSaUp."""
        self.advance(Step.AUTHENTICATED)
        self.path.start_keepalives(self.context, now)
        self.established_at = self.last_heard = now
        self.is_reported = True
        # Until then the endpoint knows copies of the first request, which may still be on their way.
        self.expires_at = None if self.initiator else now + self.context.settings.answer_memory_seconds
        self.context.events.append(
            IkeSaUp(
                ike_sa=self.handle,
                peer=self.peer,
                identity=self.identity or "",
                initiator=self.initiator,
                initial_contact=initial_contact,
                proposal=self.proposal.text,
                certificate_serial=self.certificate_serial,
                certificate_not_after=self.certificate_not_after,
                certificate_root=self.certificate_root,
                spi_i=self.spi_i,
                spi_r=self.spi_r,
                nat_local=self.path.nat_local,
                nat_remote=self.path.nat_remote,
                rekeyed=self.reauthenticates.heir.handle if self.reauthenticates is not None else None,
                ppk=self.has_ppk,
                esp_path=self.told_esp_path,
            )
        )
        self.plan_rekey(now)
        self.requests.authenticated()

    def hears(self, exchange_type: int) -> bool:
        """Whether requests of an exchange are answered now; others are met with silence."""
        if exchange_type == ExchangeType.IKE_INTERMEDIATE and (
            self.intermediate is None or not self.intermediate.methods
        ):
            return False
        return exchange_type in ANSWERED[self.state]

    @property
    def doing(self) -> Doing:
        """What our request on its way is about, or rather what becomes of the IKE SA."""
        if self.state is not State.ESTABLISHED or self.is_closing:
            return Doing.CLOSING_IKE
        current = self.requests.current
        return current.doing if current is not None else Doing.NOTHING

    @property
    def is_being_rekeyed(self) -> bool:
        """Whether the peer is in the middle of rekeying it, with additional key exchanges."""
        return bool(self.pending) and any(pending.agreed.asked is Asked.REKEY_IKE for pending in self.pending.values())

    def rekey(self, now: float) -> None:
        """Asks for another IKE SA in this one's place."""
        self.rekey_at = None
        self.start(RekeyIke(), now)

    def rekey_child(self, child: ChildSa, now: float) -> None:
        """Asks for another CHILD SA in this one's place."""
        self.start(RekeyChild(child), now)

    def delete_child(self, child: ChildSa, now: float) -> None:
        """Asks the peer to delete a CHILD SA of ours."""
        if not child.is_closing:
            child.is_closing = True
            child.due = None
            self.start(informational.DeleteChildSa(child.spi_in), now)

    def child_by_spi_out(self, spi_out: int) -> ChildSa | None:
        """By the peer's inbound SPI."""
        return next((child for child in self.children.values() if child.spi_out == spi_out), None)

    def need_reauthentication(self, reason: str) -> None:
        """The peer does not let us rekey."""
        self.context.events.append(ReauthenticationNeeded(ike_sa=self.handle, peer=self.peer, reason=reason))

    def conclude_out_of_step(self, reason: str, now: float) -> None:
        """The peer has refused something temporarily for minutes: the IKE SA is to be closed (section 2.25).

        Its owner is told first, and has some time to set up another one in its place, so that no packet is lost.
        """
        if self.closes_at is None:
            self.closes_at = now + self.context.settings.replaced_seconds
            self.need_reauthentication(reason)

    def reauthenticated_spi(self, label: str) -> int | None:
        """With an IKE SA that is to replace another: the inbound SPI of the CHILD SA there that has this label."""
        if self.reauthenticates is None:
            return None
        old = self.reauthenticates.heir.children.values()
        return next((child.spi_in for child in old if child.config.label == label and child.is_current), None)

    def drop_pending(self, asked: Asked, replaces: ChildSa | None = None) -> None:
        """Nothing is to come of a rekey that the peer has begun."""
        for link, pending in tuple(self.pending.items()):
            if pending.agreed.asked is asked and pending.agreed.replaces is replaces:
                del self.pending[link]
                pending.agreed.release(self)

    def plan_rekey(self, now: float) -> None:
        """It is new: its life begins."""
        self.rekey_at = lifetime.rekey_time(
            self.context.entropy, seconds=self.peer.rekey_seconds, initiator=self.initiator, now=now
        )

    def release_pending(self) -> None:
        """Nothing is to come of anything that waits for an additional key exchange."""
        for pending in self.pending.values():
            pending.agreed.release(self)
        self.pending.clear()

    def remove_child(self, spi_in: int, *, by_peer: bool, now: float, unanswered: bool = False) -> None:
        """Reports a CHILD SA down, if it is still there."""
        child = self.children.pop(spi_in, None)
        if child is not None:
            unlink(self, child, now)
            self.context.events.append(
                ChildSaDown(
                    ike_sa=self.handle,
                    label=child.config.label,
                    spi_in=child.spi_in,
                    spi_out=child.spi_out,
                    by_peer=by_peer,
                    unanswered=unanswered,
                )
            )

    def close(self, now: float) -> None:
        """Ends the IKE SA in good order: DELETE once the window is free. Reports when it is answered, or given up."""
        if self.is_closing:
            return
        if self.state is State.INITIATING:
            self.end(DownReason.DELETED, "deleted before it was established", now)
        elif self.state not in (State.HALF_OPEN, State.REJECTING, State.DEAD):
            # An IKE_AUTH on its way may still establish the IKE SA at the peer: its answer decides what is to delete.
            self.requests.drop_waiting(self, "the IKE SA is being deleted")
            self.release_pending()
            spare, self.spare = self.spare, None
            if spare is not None:
                spare.predecessor = None
                spare.close(now)
                self.context.registry.settle(spare)
            if self.state is not State.AUTHENTICATING:
                self.advance(Step.CLOSE)
            self.expires_at = None
            self.start(informational.DeleteIkeSa(), now)

    @property
    def is_up(self) -> bool:
        """Whether the peer is authenticated, and its requests are answered."""
        return self.state is State.ESTABLISHED or self.state is State.CLOSING or self.state is State.REPLACED

    @property
    def is_closing(self) -> bool:
        """Whether its end was asked for, though it may not be sent yet."""
        return self.state is State.CLOSING or self.requests.waiting(informational.DeleteIkeSa)

    def reject(self, error: ProtocolError, now: float) -> None:
        """The peer broke the protocol, or is not who it should be: reports that, tells it, and listens no more."""
        self.advance(Step.REJECT)
        self.requests.drop(self, str(error))
        self._report_down(DownReason.FAILED, str(error), now, by_peer=False)
        self.start(informational.RejectIkeSa(error_notify(error)), now)

    def end(
        self,
        reason: DownReason,
        message: str,
        now: float,
        *,
        by_peer: bool = False,
        silent: bool = False,
        unanswered: bool = False,
    ) -> None:
        """It is over. The last answer is kept for a while, for a peer that has not received it.

        unanswered: the peer was told so, and nobody knows whether it has heard.
        """
        if self.state is State.DEAD:
            return
        self.advance(Step.END)
        self.requests.drop(self, "" if silent else message)
        if not silent:
            self._report_down(reason, message, now, by_peer=by_peer, unanswered=unanswered)
        self.children.clear()
        self.release_pending()
        spare, self.spare = self.spare, None
        if spare is not None:
            spare.end(reason, message, now, silent=True)
            self.context.registry.settle(spare)
        if self.predecessor is not None:
            self.predecessor.spare = None
            self.predecessor = None
        self.reauthenticates = None
        lingers = bool(self.answers.has_memory or (self.init_answer and not self.initiator)) and not silent
        self.expires_at = now + self.context.settings.answer_memory_seconds if lingers else None

    @property
    def heir(self) -> "IkeSa":
        """The one that has the CHILD SAs, after any number of rekeys."""
        sa = self
        while sa.successor is not None:
            sa = sa.successor
        return sa

    def make_successor(
        self, proposal: IkeProposal, keys: IkeKeys, *, initiator: bool, spi_i: bytes, spi_r: bytes, now: float
    ) -> "IkeSa":
        """A spare IKE SA with the same peer. Its message ids begin at 0, in both directions (RFC 7296 section 2.18)."""
        context = self.context
        new = IkeSa(
            context,
            context.registry.new_handle(),
            initiator=initiator,
            spi_i=spi_i,
            spi_r=spi_r,
            path=self.path,
            now=now,
        )
        for name in _INHERITED:
            setattr(new, name, getattr(self, name))
        new.state = State.SPARE
        new.answers = AnswerWindow(expected_id=0)
        new.is_reported = False
        new.use_keys(proposal, keys)
        context.registry.add(new)
        return new

    def use_keys(self, proposal: IkeProposal, keys: IkeKeys) -> None:
        """Protects messages by these keys from now on."""
        self.proposal = proposal
        self.keys = keys
        self.protection = Protection(proposal, keys, initiator=self.initiator, entropy=self.context.entropy)
        self.context.log_keys(proposal, keys, spi_i=self.spi_i, spi_r=self.spi_r)

    def give_init_answer(
        self, payloads: Sequence[KnownPayload], *, local: SocketAddress, remote: SocketAddress
    ) -> None:
        """The responder's IKE_SA_INIT answer, kept for AUTH and for repetition."""
        self.init_answer = build_message(
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            exchange_type=ExchangeType.IKE_SA_INIT,
            flags=FLAG_RESPONSE,
            message_id=0,
            payloads=payloads,
        )
        self.send(self.init_answer, local=local, remote=remote)

    def heard(self, local: SocketAddress, remote: SocketAddress, now: float) -> None:
        """An authentic and new message has come."""
        self.last_heard = now
        if remote != self.path.remote and self.is_up:
            follow(self, local=local, remote=remote, now=now)

    def answered(self, broken: ProtocolError | None, remote: SocketAddress, now: float) -> None:
        """The peer's request is answered; `broken` is why it was the last one, if it was (sections 2.21.2, 2.21.3)."""
        if broken is not None:
            if self.state is State.HALF_OPEN:
                self.refuse(remote, broken, now)
                self.end(DownReason.FAILED, str(broken), now)
            else:
                self.end(DownReason.FAILED, f"the peer sent nonsense: {broken}", now)
        elif self.state is State.DEAD:
            # Ended while answering, by a DELETE: from now on this answer is what is remembered.
            self.expires_at = now + self.context.settings.answer_memory_seconds
        self.requests.pump(self, now)

    def send(
        self,
        data: bytes,
        *,
        local: SocketAddress | None = None,
        remote: SocketAddress | None = None,
        dont_fragment: bool = False,
    ) -> None:
        """Sends a message, on the IKE SA's addresses or on those that a request came with."""
        self.context.send(
            data, local=local or self.path.local, remote=remote or self.path.remote, dont_fragment=dont_fragment
        )

    def refuse(self, remote: SocketAddress, error: ProtocolError, now: float) -> None:
        """Reports that a peer, or a child that it asked for, was refused."""
        if isinstance(error, ExchangeRefused):
            reason = error.reason
        elif isinstance(error, UnsupportedCritical):
            reason = RefusalReason.UNSUPPORTED_CRITICAL_PAYLOAD
        else:
            reason = RefusalReason.INVALID_SYNTAX
        identity = self.identity or self.claimed_identity
        self.context.refusals.report(
            PeerRefused(remote=remote, identity=identity, reason=reason, message=str(error)), now
        )

    def _report_down(
        self, reason: DownReason, message: str, now: float, *, by_peer: bool, unanswered: bool = False
    ) -> None:
        """IkeSaDown, once, and before it the children's ends: but for UNREACHABLE, whose children live on."""
        if not self.is_reported:
            return
        self.is_reported = False
        if reason is not DownReason.UNREACHABLE:
            for spi_in in tuple(self.children):
                self.remove_child(spi_in, by_peer=by_peer, now=now, unanswered=unanswered)
        self.context.events.append(IkeSaDown(ike_sa=self.handle, peer=self.peer, reason=reason, message=message))
