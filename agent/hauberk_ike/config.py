"""What an endpoint is told: who its peers are, what may be protected, and whom to ask.

The agent builds these from the mesh's plan; nothing here is read from the network. Who we are, and how peers prove
who they are, is in `hauberk_ike.credentials`.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hauberk_ike.credentials import PeerAuthentication
from hauberk_ike.datagram import IpAddress, SocketAddress
from hauberk_ike.esp_path import EspPath
from hauberk_ike.identity import Identity
from hauberk_ike.proposals import EspProposal, IkeProposal
from hauberk_ike.selectors import TrafficSelector

MAX_LABEL_BYTES = 64
MIN_FRAGMENT_BYTES = 576
"""What every IPv4 host takes (RFC 791); IPv6 has no use for less than 1280."""
MAX_FRAGMENT_BYTES = 65535


class Mode(Enum):
    """How ESP carries packets (RFC 4303); transport by the notify of RFC 7296 section 1.3.1."""

    TUNNEL = "tunnel"
    TRANSPORT = "transport"
    IPTFS = "iptfs"
    """In pieces and together (`hauberk_ike.aggfrag`), with a peer that can; else in tunnel mode."""


class Encapsulation(Enum):
    """When ESP goes in UDP (RFC 3948)."""

    AUTO = "auto"
    """Where there is a NAT in between."""
    ALWAYS = "always"
    """Also where there is none: we say that we are behind one, as some networks pass no ESP."""
    NEVER = "never"
    """A NAT in between is an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildConfig:
    """A CHILD SA that may exist with a peer.

    `label` (UTF-8, 1 to 64 bytes) is what both ends call it. `ts_local` and `ts_remote` are at once what we propose and
    what we permit. Raises ValueError for a label that is too long or empty, or for no proposal or selector.
    """

    label: str
    mode: Mode
    esp_proposals: tuple[EspProposal, ...]
    ts_local: tuple[TrafficSelector, ...]
    ts_remote: tuple[TrafficSelector, ...]
    rekey_seconds: float = 0.0
    """How long a CHILD SA lives before it is rekeyed (see `hauberk_ike.lifetime`); 0: as long as nobody asks."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.label.encode()) <= MAX_LABEL_BYTES:
            raise ValueError(f"a child's label takes 1 to {MAX_LABEL_BYTES} bytes: {self.label!r}")
        if not self.esp_proposals:
            raise ValueError(f"child {self.label!r} has no ESP proposal")
        if not self.ts_local or not self.ts_remote:
            raise ValueError(f"child {self.label!r} has no traffic selectors")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """A peer: where it is, who it must be, and which CHILD SAs are to be had with it.

    `identity` is what it must prove, in the way that `authentication` says (None: as all peers of the endpoint do, by
    certificate). `initial_contact`: as initiator, tell the peer that we remember no SA with it (RFC 7296 section 2.4).
    With no `children` the IKE SA is set up alone, if the peer can (RFC 6023). `children_apart`: as initiator, likewise,
    and each child then has an exchange of its own, with a key exchange of its own if its proposals have one.
    `mobike`: as responder, let the peer move to other addresses if the policy permits them (RFC 4555).
    `esp_path`: as initiator, what we tell a Hauberk peer of it; where it is blocked ESP goes in UDP as with ALWAYS.
    `further_children` may be had as well, by whoever asks for one (`IkeEndpoint.create_child`): they are not set up
    with the IKE SA.
    """

    name: str
    identity: Identity
    local: SocketAddress
    remote: SocketAddress
    ike_proposals: tuple[IkeProposal, ...]
    children: tuple[ChildConfig, ...]
    authentication: PeerAuthentication | None = None
    dpd_seconds: float = 10.0
    initial_contact: bool = False
    encapsulation: Encapsulation = Encapsulation.AUTO
    mobike: bool = False
    children_apart: bool = False
    esp_path: EspPath = EspPath.UNKNOWN
    further_children: tuple[ChildConfig, ...] = ()
    rekey_seconds: float = 0.0
    """How long the IKE SA lives before it is rekeyed; 0: as long as nobody asks."""

    def __post_init__(self) -> None:
        if not self.ike_proposals:
            raise ValueError(f"peer {self.name!r} has no IKE proposal")
        labels = [child.label for child in self.permitted_children]
        if len(set(labels)) != len(labels):
            raise ValueError(f"peer {self.name!r} has two children of one label")

    @property
    def permitted_children(self) -> tuple[ChildConfig, ...]:
        """All that a CHILD SA may be for."""
        return (*self.children, *self.further_children)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """Limits and times of an endpoint. Times are in seconds.

    A request is sent `retransmit_tries` times in all, the first wait being `retransmit_seconds`, each following one
    `retransmit_base` times longer (RFC 7296 section 2.1 leaves the numbers open): by default 1 + 2 + 4 + 8 + 16 s.
    `ike_proposals` is what IKE_SA_INIT accepts of strangers; a peer's own list is enforced once it is known.
    """

    ike_proposals: tuple[IkeProposal, ...] = (
        IkeProposal.parse("aes128gcm16-aes256gcm16-prfsha256-prfsha384-prfsha512-x25519"),
    )
    retransmit_seconds: float = 1.0
    retransmit_base: float = 2.0
    retransmit_tries: int = 5
    half_open_seconds: float = 30.0
    """A responder's IKE SA that is not authenticated by then is forgotten."""
    cookie_threshold: int = 32
    """From so many half-open IKE SAs on, a COOKIE is asked for before any work (RFC 7296 section 2.6)."""
    half_open_limit: int = 1024
    """With so many, new IKE_SA_INIT requests are dropped."""
    half_open_per_address: int = 8
    """With so many from one address, it is asked for a COOKIE too, whatever the total."""
    cookie_secret_seconds: float = 60.0
    """How long a cookie secret is used; the one before it is accepted for as long again."""
    answer_memory_seconds: float = 30.0
    """How long the last answer is kept after an IKE SA's end, for retransmitted requests."""
    use_ppk: bool = False
    """As responder, agree to mix in post-quantum pre-shared keys (RFC 8784): some peer's configuration has one."""
    max_children: int = 64
    """CHILD SAs per IKE SA; NO_ADDITIONAL_SAS beyond."""
    encapsulation_port: int = 4500
    """The UDP port, here and at peers, where IKE has a marker before it because ESP comes there too (RFC 3948)."""
    encapsulation: Encapsulation = Encapsulation.AUTO
    """What a responder does before it knows the peer, and with it `PeerConfig.encapsulation`."""
    fragment_bytes: int = 1280
    """The longest IP packet that a message under an IKE SA's keys goes in, longer ones going in fragments (RFC 7383).

    Headers included, of IPv4 and IPv6 alike: 1280 bytes pass everywhere where IPv6 does. 0: no fragments either way.
    """
    keepalive_seconds: float = 20.0
    """How often a NAT before us is reminded of its mapping (RFC 3948 section 4); 0: never."""
    refusals_seconds: float = 60.0
    """For each such period PeerRefused is reported so often,"""
    refusals_per_address: int = 4
    """of one address,"""
    refusals_limit: int = 32
    """and of all strangers, and of all known peers, together; the rest is counted."""
    replaced_seconds: float = 120.0
    """How long an SA that a rekey has replaced waits for the peer's DELETE before we send one ourselves. More than a
    whole round of retransmissions, or it would cut the peer's rekey short. Also how long an IKE SA that is out of step
    with the peer's has for its replacement."""

    def __post_init__(self) -> None:
        if self.fragment_bytes and not MIN_FRAGMENT_BYTES <= self.fragment_bytes <= MAX_FRAGMENT_BYTES:
            raise ValueError(
                f"fragments are of {MIN_FRAGMENT_BYTES} to {MAX_FRAGMENT_BYTES} bytes, or 0: {self.fragment_bytes}"
            )


class PeerPolicy(Protocol):
    """What the endpoint asks its owner while it answers a peer. Called synchronously, so it must be quick."""

    def find(self, identity: Identity, remote: SocketAddress) -> PeerConfig | None:
        """As responder: the peer that somebody claims to be, to learn how it would have to prove that.

        Nothing is proved yet: this has no effects, and for somebody unknown or unwanted it is None. He is refused after
        the same work, and with the same words, as somebody whose proof is wrong.
        """
        ...

    def authorize(self, identity: Identity, remote: SocketAddress) -> PeerConfig:
        """As responder: who `identity` is, now that it is proved. Raises Refused."""
        ...

    def permit_address(self, peer: PeerConfig, remote: SocketAddress) -> None:
        """Whether an authenticated peer may go on from `remote`, another host than before. Raises Refused."""
        ...

    def is_known(self, host: IpAddress) -> bool:
        """Whether a peer is expected at `host`. Under a flood such go before strangers; it lets nobody in."""
        ...

    def allocate_spi(self, child: ChildConfig, peer: PeerConfig) -> int:
        """A fresh SPI of the kernel's for our inbound SA, 256 or more (XFRM_MSG_ALLOCSPI). Raises SpiUnavailable."""
        ...

    def release_spi(self, spi: int, peer: PeerConfig) -> None:
        """The negotiation that `spi` was allocated for has failed: no ChildSaUp will name it."""
        ...

    def count_arrived(self, spi: int, peer: PeerConfig) -> int | None:
        """How many packets have come in on our inbound SA with `spi`, which is the peer's. None: it is not known."""
        ...
