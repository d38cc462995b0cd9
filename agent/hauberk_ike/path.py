"""Where an IKE SA's messages go, and what lies on the way (RFC 7296 section 2.23).

A path is our address and the peer's, the NATs that were found between them, and what follows from those. Where there
is a NAT (or encapsulation is wanted without one) the initiator goes over to the encapsulation port with the first
message after IKE_SA_INIT, the responder answers wherever a request came from and takes that for the peer's address when
the peer is authenticated, and ESP goes in UDP between the same two ports. Behind a NAT we keep its mapping alive. A
peer behind one may turn up with another address or port at any time, since NATs forget; that is believed of messages
only that are authentic and new, and not if we are behind a NAT ourselves, as whoever sits between could then lead us
astray.

The IKE SA that takes another's place by a rekey takes over its path, as an object.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hauberk_ike.config import Encapsulation, EndpointSettings, PeerConfig
from hauberk_ike.context import Context
from hauberk_ike.datagram import Datagram, IpAddress, SocketAddress
from hauberk_ike.encapsulation import KEEPALIVE, NON_ESP_MARKER, UdpEncapsulation
from hauberk_ike.errors import ExchangeRefused, RefusalReason, Refused
from hauberk_ike.events import IkeSaMoved
from hauberk_ike.nat import Detection
from hauberk_ike.numbers import NotifyType

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


_IPV4_UDP_BYTES: Final = 20 + 8
_IPV6_UDP_BYTES: Final = 40 + 8
_MAX_MESSAGE_BYTES: Final = 0xFFFFFFFF
"""What the header's length can say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Between where ESP goes, and how."""

    local: SocketAddress
    remote: SocketAddress
    encapsulation: UdpEncapsulation | None


class Path:
    """Mutable; made with its IKE SA, when nothing is known yet but the addresses."""

    __slots__ = (
        "_packet_bytes",
        "_port",
        "_proved",
        "_wish",
        "additional",
        "fragments",
        "keepalive_at",
        "local",
        "mobike",
        "nat_local",
        "nat_remote",
        "remote",
    )

    def __init__(
        self, settings: EndpointSettings, wish: Encapsulation, *, local: SocketAddress, remote: SocketAddress
    ) -> None:
        self._port = settings.encapsulation_port
        self._packet_bytes = settings.fragment_bytes
        self._wish = wish
        self.local = local
        self.remote = remote
        self.nat_local = False
        """A NAT is before us,"""
        self.nat_remote = False
        """and before the peer."""
        self.fragments = False
        """Whether both ends take messages in fragments (RFC 7383)."""
        self.mobike = False
        """Whether the peer may move by UPDATE_SA_ADDRESSES (RFC 4555), and by that alone."""
        self.additional: tuple[IpAddress, ...] = ()
        """Where else the peer says that it can be reached."""
        self._proved: Ends | None = None
        """While the peer has not shown that it is where it says: between where ESP goes on."""
        self.keepalive_at: float | None = None
        """When the NAT before us is to be reminded of its mapping."""

    @property
    def is_forced(self) -> bool:
        """Whether we pretend to be behind a NAT, so that the peer encapsulates."""
        return self._wish is Encapsulation.ALWAYS

    @property
    def encapsulation(self) -> UdpEncapsulation | None:
        """How ESP is to go. None: without UDP, which is also what remains for a peer that stays on port 500."""
        if self.local.port != self._port or not (self.nat_local or self.nat_remote or self.is_forced):
            return None
        return UdpEncapsulation(local_port=self.local.port, remote_port=self.remote.port)

    def message_bytes(self, local: SocketAddress, remote: SocketAddress, packet_bytes: int | None = None) -> int:
        """How long a message from `local` to `remote` may be for one datagram, or for a packet of so many bytes."""
        if not self.fragments and packet_bytes is None:
            return _MAX_MESSAGE_BYTES
        headers = _IPV4_UDP_BYTES if remote.host.version == 4 else _IPV6_UDP_BYTES
        marker = len(NON_ESP_MARKER) if local.port == self._port else 0
        return (self._packet_bytes if packet_bytes is None else packet_bytes) - headers - marker

    @property
    def ends(self) -> "Ends":
        """Between where ESP goes."""
        return self._proved or self._current()

    @property
    def is_unproved(self) -> bool:
        """Whether IKE has followed the peer to where ESP has not."""
        return self._proved is not None

    def update(self, found: Detection, *, local: SocketAddress, remote: SocketAddress) -> None:
        """The peer has moved (RFC 4555 section 3.5). A host of its own that is new is not proved; where ESP goes is.

        Raises ExchangeRefused, with nothing changed, for a NAT that is not wanted.
        """
        if found.nat_local or found.nat_remote:
            self._check_wish(NotifyType.UNACCEPTABLE_ADDRESSES)
        before = self.ends
        self.local, self.remote = local, remote
        if found.supported:
            self.learn(found)
        self._proved = before if before.remote.host != remote.host else None

    def prove(self) -> None:
        """The peer receives where it says."""
        self._proved = None

    def _current(self) -> "Ends":
        return Ends(local=self.local, remote=self.remote, encapsulation=self.encapsulation)

    def learn(self, found: Detection) -> None:
        """By the notifies of the peer's IKE_SA_INIT message."""
        self.nat_local, self.nat_remote = found.nat_local, found.nat_remote

    def check_initiator(self, found: Detection) -> None:
        """Raises ExchangeRefused if what was found is not what is wanted, or the peer is not able to do that.

        As nothing is authenticated yet, somebody between may have made it seem so: that ends our attempt only if no
        better answer comes.
        """
        if found.nat_local or found.nat_remote:
            self._check_wish()
        if self.is_forced and not found.supported:
            raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the peer knows no UDP encapsulation")

    def learn_initiator(self, found: Detection) -> None:
        """Goes over to the encapsulation port, if that is needed: with IKE_AUTH, or whatever comes next."""
        self.learn(found)
        if (self.nat_local or self.nat_remote or self.is_forced) and self.local.port != self._port:
            self.local = SocketAddress(host=self.local.host, port=self._port)
            self.remote = SocketAddress(host=self.remote.host, port=self._port)

    def settle_responder(self, peer: PeerConfig, *, local: SocketAddress, remote: SocketAddress) -> None:
        """Takes the addresses of the IKE_AUTH request by which `peer` was authenticated.

        Raises ExchangeRefused if what lies between us is not what is wanted of this peer.
        """
        self.local, self.remote = local, remote
        if peer.encapsulation is not Encapsulation.AUTO:
            self._wish = peer.encapsulation
        if self.nat_local or self.nat_remote:
            self._check_wish()
        if peer.encapsulation is Encapsulation.ALWAYS and self.encapsulation is None:
            raise ExchangeRefused(
                NotifyType.AUTHENTICATION_FAILED,
                f"UDP encapsulation is wanted of this peer, which speaks on port {local.port} and not {self._port}",
                reason=RefusalReason.NOT_ENCAPSULATED,
            )

    def _check_wish(self, notify: NotifyType = NotifyType.AUTHENTICATION_FAILED) -> None:
        """Where a NAT was found. Raises ExchangeRefused, by which the peer is told `notify`."""
        if self._wish is Encapsulation.NEVER:
            raise ExchangeRefused(
                notify,
                "there is a NAT in between, and UDP encapsulation is not wanted",
                reason=RefusalReason.NAT_DETECTED,
            )

    def follows(self, *, local: SocketAddress, remote: SocketAddress) -> bool:
        """Whether a peer from which an authentic and new message came like this is to be followed there."""
        return (
            self.nat_remote
            and not self.nat_local
            and not self.mobike  # RFC 4555 section 3.8
            and local.host == self.local.host
            and remote != self.remote
        )

    def start_keepalives(self, context: Context, now: float) -> None:
        """To be called whenever the IKE SA is established, or its path another."""
        seconds = context.settings.keepalive_seconds
        needed = self.nat_local and self.local.port == self._port and seconds > 0
        self.keepalive_at = now + seconds if needed else None

    def keep_alive(self, context: Context, now: float) -> None:
        """Reminds the NAT before us (RFC 3948 section 4), if it is time.

        Whether ESP has just done that only the kernel knows, and one byte more does no harm.
        """
        if self.keepalive_at is not None and now >= self.keepalive_at:
            context.outbox.append(Datagram(data=KEEPALIVE, local=self.local, remote=self.remote))
            self.start_keepalives(context, now)


def follow(sa: "IkeSa", *, local: SocketAddress, remote: SocketAddress, now: float) -> None:
    """An authentic and new message has come from elsewhere: that is where its sender lives, if a NAT is before it."""
    if sa.path.follows(local=local, remote=remote):
        try:
            if remote.host != sa.path.remote.host:
                sa.context.policy.permit_address(sa.peer, remote)
        except Refused:
            return
        sa.path.local, sa.path.remote = local, remote
        sa.path.start_keepalives(sa.context, now)
        report_move(sa)


def report_move(sa: "IkeSa") -> None:
    """ESP is to go between other ends from now on."""
    sa = sa.heir
    ends = sa.path.ends
    sa.context.events.append(
        IkeSaMoved(
            ike_sa=sa.handle,
            peer=sa.peer,
            local=ends.local,
            remote=ends.remote,
            encapsulation=ends.encapsulation,
        )
    )
