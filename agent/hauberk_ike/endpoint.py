"""An IKEv2 endpoint (RFC 7296) behind five calls, without sockets, clock or randomness of its own.

Whoever owns the sockets (the agent's transport) gives it datagrams and the time, drains its events and acts on
them, and only then takes the datagrams to send:

    endpoint.receive_datagram(data, local=..., remote=..., now=now)   # or handle_timer(now)
    while (event := endpoint.next_event()) is not None:
        act(event)
    for datagram in endpoint.datagrams_to_send(now):
        send(datagram)
    wake_at = endpoint.get_timer()

The order is a promise to the peer: a responder's `ChildSaUp` (its inbound SA is installed) precedes the answer that
makes the initiator send.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from hauberk_ike.child_negotiation import Packet
from hauberk_ike.config import ChildConfig, Encapsulation, EndpointSettings, PeerConfig, PeerPolicy
from hauberk_ike.context import Context
from hauberk_ike.cookie import CookieJar, read_request
from hauberk_ike.credentials import Credentials
from hauberk_ike.datagram import Datagram, SocketAddress
from hauberk_ike.encapsulation import unwrap
from hauberk_ike.error_notify import error_notify
from hauberk_ike.errors import (
    ExchangeRefused,
    MalformedMessage,
    ProtocolError,
    RefusalReason,
    UnknownIkeSa,
    UnsupportedCritical,
)
from hauberk_ike.esp_path import EspPath
from hauberk_ike.events import DownReason, Event, IkeSaId, IkeSaInfo, PeerRefused
from hauberk_ike.exchanges import ike_sa_init
from hauberk_ike.exchanges.create_child_sa import CreateChildSa
from hauberk_ike.exchanges.esp_arrival import AskEspArrived
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.exchanges.ike_sa_init import IkeSaInit, InitOffer
from hauberk_ike.exchanges.informational import Liveness
from hauberk_ike.exchanges.path_probe import ProbePath
from hauberk_ike.exchanges.reauthentication import FinishReauthentication
from hauberk_ike.ike_sa import IkeSa
from hauberk_ike.lifecycle import State
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.path import Path, follow
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.registry import first_request_key
from hauberk_ike.wire.header import FLAG_RESPONSE, HEADER, NO_SPI, Header
from hauberk_ike.wire.message import Contents, build_message, parse_payloads
from hauberk_ike.wire.payloads import Notify

MAX_FIRST_REQUEST: Final = 8192
"""Bytes of IKE_SA_INIT, which is kept until its sender is authenticated. The largest public value has 1,568."""


class IkeEndpoint:
    """All IKE SAs of one node."""

    def __init__(
        self,
        *,
        credentials: Credentials | None,
        policy: PeerPolicy,
        entropy: Callable[[int], bytes],
        wall_clock: Callable[[], datetime],
        settings: EndpointSettings | None = None,
        key_log: Callable[[str], None] | None = None,
    ) -> None:
        """`entropy(n)` gives n unpredictable bytes; `wall_clock()` an aware datetime, for certificates' validity.

        `credentials` serve all peers whose configuration has none of their own; without, each peer's must have them.

        `key_log`, if given, is called with a line whenever an IKE SA has its keys (`hauberk_ike.key_log`): that gives
        them all away, to whoever can read what it writes.
        """
        self._settings = settings or EndpointSettings()
        self._acceptable = self._settings.ike_proposals
        self._context = Context(
            credentials=credentials,
            policy=policy,
            entropy=entropy,
            wall_clock=wall_clock,
            settings=self._settings,
            key_log=key_log,
        )
        self._registry = self._context.registry
        self._cookies = CookieJar(entropy, self._settings.cookie_secret_seconds)

    # The five calls

    def receive_datagram(self, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float) -> None:
        """Takes any bytes that arrived at `local` from `remote`. Raises nothing that they could cause."""
        if local.port == self._settings.encapsulation_port:
            message = unwrap(data)
            if message is None:
                return
            data = message
        try:
            header = Header.parse(data)
        except MalformedMessage:
            return
        if header.major_version != 2:
            self._answer_version(header, local=local, remote=remote)
            return
        if header.spi_i == NO_SPI:
            return
        if header.spi_r == NO_SPI and not header.is_response:
            if header.exchange_type == ExchangeType.IKE_SA_INIT and header.from_initiator and header.message_id == 0:
                self._receive_first_request(header, data, local=local, remote=remote, now=now)
            return
        sa = self._registry.by_spi(header.spi_r if header.from_initiator else header.spi_i)
        if sa is not None:
            sa.receive(header, data, local=local, remote=remote, now=now)
            self._registry.settle(sa)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """What is to be sent by now. Call it after the events were acted on."""
        outbox, self._context.outbox = self._context.outbox, []
        return outbox

    def get_timer(self) -> float | None:
        """When `handle_timer` is to be called at the latest, on the clock of `now`. None: no need."""
        due, refusals = self._registry.next_wake_up(), self._context.refusals.due
        return due if refusals is None else refusals if due is None else min(due, refusals)

    def handle_timer(self, now: float) -> None:
        """Does what is due: retransmissions, dead peer detection, timeouts. Calling it too early is harmless."""
        while (sa := self._registry.take_due(now)) is not None:
            sa.handle_timer(now)
            self._registry.settle(sa)
        self._context.refusals.handle_timer(now)

    @property
    def has_datagrams(self) -> bool:
        """Whether `datagrams_to_send` would return any."""
        return bool(self._context.outbox)

    def next_event(self) -> Event | None:
        """The oldest event that was not taken yet."""
        return self._context.events.popleft() if self._context.events else None

    # What the owner wants

    def initiate(self, peer: PeerConfig, *, now: float) -> IkeSaId:
        """Starts an IKE SA and `peer.children` with it; ends in IkeSaUp or IkeSaDown.

        Raises ValueError if we have nothing to authenticate ourselves with to this peer, or nothing to judge it by.
        """
        if None in self._context.local(peer) or self._context.remote(peer) is None:
            raise ValueError(f"nothing to authenticate with: no credentials for peer {peer.name!r}")
        sa = self._make_initiator(peer, now)
        sa.start(IkeSaInit(peer), now)
        self._registry.settle(sa)
        return sa.handle

    def create_child(self, ike_sa: IkeSaId, child: ChildConfig, *, now: float, packet: Packet | None = None) -> None:
        """Asks for one more CHILD SA, once the IKE SA is established; ends in ChildSaUp, ChildSaFailed or IkeSaDown.

        `packet`: the selectors of the packet that caused it, local and remote, so that the peer does not choose a CHILD
        SA that is not for it. Raises UnknownIkeSa, also for an IKE SA that is being deleted.
        """
        sa = self._find_open(ike_sa)
        sa.start_when_established(CreateChildSa(child, packet=packet), now)
        self._registry.settle(sa)

    def reconfigure(self, ike_sa: IkeSaId, peer: PeerConfig) -> None:
        """From now on other CHILD SAs may be had with a peer: its configuration's. Those that there are stay.

        The configuration is the same in all else; what is under way goes on with the one before. Raises UnknownIkeSa.
        """
        self._find_open(ike_sa).peer = peer

    def rekey_child(self, ike_sa: IkeSaId, spi_in: int, *, now: float) -> None:
        """Replaces the CHILD SA whose inbound SPI is `spi_in`, as its kernel states' soft limits ask for.

        ChildSaUp and ChildSaDown follow, or ChildSaFailed. Nothing happens if there is no such CHILD SA (any more), or
        it is replaced already. Raises UnknownIkeSa.
        """
        sa = self._find_open(ike_sa)
        child = sa.children.get(spi_in)
        if child is not None and child.race is None:
            sa.rekey_child(child, now)
            self._registry.settle(sa)

    def rekey_ike(self, ike_sa: IkeSaId, *, now: float) -> None:
        """Replaces the IKE SA, with its CHILD SAs; IkeSaRekeyed follows, or ReauthenticationNeeded.

        Raises UnknownIkeSa.
        """
        sa = self._find_open(ike_sa)
        if sa.state is State.ESTABLISHED and sa.race is None:
            sa.rekey(now)
            self._registry.settle(sa)

    def reauthenticate(self, ike_sa: IkeSaId, *, now: float) -> IkeSaId:
        """Sets up another IKE SA with CHILD SAs like those of `ike_sa`, and deletes that one once all of them are up.

        Returns the new one's handle: IkeSaUp follows for it with `rekeyed`, and ChildSaUp with `rekeyed_spi_in`. If one
        of the new CHILD SAs is not to be had the new IKE SA is deleted instead. Raises UnknownIkeSa.
        """
        old = self._find_open(ike_sa)
        children = {child.config.label: child.config for child in old.children.values() if child.is_current}
        peer = replace(old.peer, children=tuple(children.values()), initial_contact=False)
        sa = self._make_initiator(old.peer, now)
        sa.reauthenticates = old
        sa.requests.add_later(FinishReauthentication(frozenset(children)))
        sa.start(IkeSaInit(peer), now)
        self._registry.settle(sa)
        return sa.handle

    def follow(self, ike_sa: IkeSaId, *, remote: SocketAddress, now: float) -> None:
        """An authentic and new ESP packet of one of its CHILD SAs has come from `remote`, as the kernel says.

        That counts like a message from there (RFC 7296 section 2.23): of a peer behind a NAT that is not to move by
        MOBIKE alone, and not if we are behind one ourselves. IkeSaMoved follows where it is believed.

        Raises UnknownIkeSa.
        """
        sa = self._find_open(ike_sa)
        if sa.is_up:
            follow(sa, local=sa.path.local, remote=remote, now=now)

    def ask_esp_arrived(self, ike_sa: IkeSaId, spi_out: int, *, now: float) -> None:
        """Asks a Hauberk peer how many packets it has got on the CHILD SA that we send on with `spi_out`.

        EspArrived follows, or IkeSaDown if the peer does not answer. Raises UnknownIkeSa.
        """
        sa = self._find_open(ike_sa)
        sa.start_when_established(AskEspArrived(spi_out), now)
        self._registry.settle(sa)

    def answers(self, ike_sa: IkeSaId, *, since: float, now: float) -> bool:
        """Whether the peer has been heard on an IKE SA after `since`.

        If it has not, it is asked (RFC 7296 section 2.4); IkeSaDown follows if it does not answer. Raises UnknownIkeSa.
        """
        sa = self._find_open(ike_sa)
        if sa.last_heard > since:
            return True
        if sa.state is State.ESTABLISHED and sa.requests.due is None:
            sa.requests.add_first(sa, Liveness(), now)
            self._registry.settle(sa)
        return False

    def probe_path(self, ike_sa: IkeSaId, packet_bytes: int, *, now: float) -> None:
        """Finds out whether a packet of so many bytes comes to the peer whole: PathProbed follows, or IkeSaDown.

        Raises UnknownIkeSa.
        """
        sa = self._find_open(ike_sa)
        sa.start_when_established(ProbePath(packet_bytes), now)
        self._registry.settle(sa)

    def delete_child(self, ike_sa: IkeSaId, spi_in: int, *, now: float) -> None:
        """Deletes the CHILD SA whose inbound SPI is `spi_in`; ChildSaDown follows. Raises UnknownIkeSa.

        Nothing happens if there is no such CHILD SA (any more).
        """
        sa = self._registry.find(ike_sa)
        child = sa.children.get(spi_in)
        if child is not None and not sa.is_closing:
            sa.delete_child(child, now)
            self._registry.settle(sa)

    def delete(self, ike_sa: IkeSaId, *, now: float, reason: str = "") -> None:
        """Deletes an IKE SA and its children; IkeSaDown follows, answered or not. Raises UnknownIkeSa."""
        sa = self._registry.find(ike_sa)
        sa.close_reason = reason
        sa.close(now)
        self._registry.settle(sa)

    def forget(self, ike_sa: IkeSaId) -> None:
        """Drops an IKE SA without a word to anybody: no message, no event. Raises UnknownIkeSa."""
        sa = self._registry.find(ike_sa)
        sa.end(DownReason.DELETED, "", 0.0, silent=True)
        self._registry.settle(sa)

    def replace_credentials(self, credentials: Credentials) -> None:
        """Uses `credentials` for every authentication from now on; established IKE SAs stay."""
        self._context.use(credentials)

    def accept(self, ike_proposals: Sequence[IkeProposal]) -> None:
        """Takes these of strangers in IKE_SA_INIT from now on, instead of the settings'."""
        self._acceptable = tuple(ike_proposals)

    def established(self) -> tuple[IkeSaInfo, ...]:
        """All IKE SAs that are authenticated and not being deleted, oldest first."""
        return tuple(sa.info() for sa in self._registry.alive() if sa.state is State.ESTABLISHED and not sa.is_closing)

    def _make_initiator(self, peer: PeerConfig, now: float) -> IkeSa:
        wish = Encapsulation.ALWAYS if peer.esp_path is EspPath.BLOCKED else peer.encapsulation
        sa = IkeSa(
            self._context,
            self._registry.new_handle(),
            initiator=True,
            spi_i=self._registry.new_spi(),
            spi_r=NO_SPI,
            path=Path(self._settings, wish, local=peer.local, remote=peer.remote),
            now=now,
        )
        sa.peer = peer
        self._registry.add(sa)
        return sa

    def _find_open(self, ike_sa: IkeSaId) -> IkeSa:
        sa = self._registry.find(ike_sa)
        if sa.is_closing:
            raise UnknownIkeSa(f"IKE SA {ike_sa} is being deleted")
        return sa

    # Strangers

    def _receive_first_request(
        self, header: Header, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float
    ) -> None:
        """IKE_SA_INIT from somebody unknown: cheap checks first, then a cookie, and only then work and memory."""
        if len(data) > MAX_FIRST_REQUEST:
            return
        key = first_request_key(remote, data)
        known = self._registry.by_first_request(key)
        if known is not None:
            known.repeat_init_answer(local=local, remote=remote)
            return
        reflected = self._registry.by_spi(header.spi_i)
        if reflected is not None and reflected.initiator:
            return  # our own request coming back
        if self._registry.half_open.wants_cookie(remote) and not self._shows_cookie(
            header, data, local=local, remote=remote, now=now
        ):
            return
        try:
            contents = Contents(parse_payloads(header.next_payload, data, HEADER.size))
            offer = InitOffer(contents, self._acceptable)
            sa = self._make_half_open(header, data, contents, offer, local=local, remote=remote, now=now)
            self._registry.add_half_open(sa, key)
            self._registry.settle(sa)
        except MalformedMessage as error:
            self._refuse(remote, RefusalReason.INVALID_SYNTAX, error, now)
        except ProtocolError as error:
            # INVALID_KE_PAYLOAD is no refusal: it asks for another try.
            if isinstance(error, UnsupportedCritical):
                self._refuse(remote, RefusalReason.UNSUPPORTED_CRITICAL_PAYLOAD, error, now)
            elif isinstance(error, ExchangeRefused) and error.notify is not NotifyType.INVALID_KE_PAYLOAD:
                self._refuse(remote, RefusalReason.NO_PROPOSAL_CHOSEN, error, now)
            self._answer_first_request(header, error_notify(error), local=local, remote=remote)

    def _shows_cookie(
        self, header: Header, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float
    ) -> bool:
        """Under load: whether the request has a good cookie. If not, its sender is given one; garbage gets nothing."""
        try:
            cookie, nonce = read_request(header.next_payload, data)
        except MalformedMessage:
            return False
        if self._cookies.check(cookie, nonce=nonce, host=remote.host, spi_i=header.spi_i, now=now):
            return True
        fresh = self._cookies.bake(nonce=nonce, host=remote.host, spi_i=header.spi_i, now=now)
        self._answer_first_request(header, Notify(type=NotifyType.COOKIE, data=fresh), local=local, remote=remote)
        return False

    def _make_half_open(
        self,
        header: Header,
        data: bytes,
        contents: Contents,
        offer: InitOffer,
        *,
        local: SocketAddress,
        remote: SocketAddress,
        now: float,
    ) -> IkeSa:
        sa = IkeSa(
            self._context,
            self._registry.new_handle(),
            initiator=False,
            spi_i=header.spi_i,
            spi_r=self._registry.new_spi(),
            path=Path(self._settings, self._settings.encapsulation, local=local, remote=remote),
            now=now,
        )
        ike_sa_init.answer(sa, offer, Inbound(header, data, contents, local=local, remote=remote))
        victim = self._registry.half_open.victim()
        if victim is not None:
            self._refuse(victim.path.remote, RefusalReason.HALF_OPEN_LIMIT, "too many half-open IKE SAs", now)
            victim.end(DownReason.FAILED, "", now, silent=True)
            self._registry.settle(victim)
        return sa

    def _answer_first_request(
        self, header: Header, notify: Notify, *, local: SocketAddress, remote: SocketAddress
    ) -> None:
        """An answer without state: the responder's SPI is zero (section 2.6)."""
        answer = build_message(
            spi_i=header.spi_i,
            spi_r=NO_SPI,
            exchange_type=ExchangeType.IKE_SA_INIT,
            flags=FLAG_RESPONSE,
            message_id=0,
            payloads=(notify,),
        )
        self._context.send(answer, local=local, remote=remote)

    def _answer_version(self, header: Header, *, local: SocketAddress, remote: SocketAddress) -> None:
        """INVALID_MAJOR_VERSION to a request of a later version (section 2.5); older ones are not ours to talk to."""
        if header.major_version < 3 or header.is_response:
            return
        answer = build_message(
            spi_i=header.spi_i,
            spi_r=header.spi_r,
            exchange_type=header.exchange_type,
            flags=FLAG_RESPONSE,
            message_id=header.message_id,
            payloads=(Notify(type=NotifyType.INVALID_MAJOR_VERSION),),
        )
        self._context.send(answer, local=local, remote=remote)

    def _refuse(self, remote: SocketAddress, reason: RefusalReason, error: object, now: float) -> None:
        self._context.refusals.report(PeerRefused(remote=remote, identity=None, reason=reason, message=str(error)), now)
