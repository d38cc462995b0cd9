"""What an endpoint reports. Events are drained with `IkeEndpoint.next_event()` and acted on by its owner."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NewType

from hauberk_ike.config import Mode, PeerConfig
from hauberk_ike.datagram import IpAddress, SocketAddress
from hauberk_ike.encapsulation import UdpEncapsulation
from hauberk_ike.esp_key import EspKey
from hauberk_ike.esp_path import EspPath
from hauberk_ike.proposals import EspProposal
from hauberk_ike.selectors import TrafficSelector

IkeSaId = NewType("IkeSaId", int)
"""A local handle of an IKE SA; never reused by the endpoint that gave it."""


class DownReason(Enum):
    """Why an IKE SA ended."""

    DELETED_BY_PEER = "deleted by peer"
    DELETED = "deleted"
    UNREACHABLE = "unreachable"
    """An established IKE SA's peer no longer answers; its CHILD SAs are not reported down."""
    FAILED = "failed"
    """It was never established, or the peer broke the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaUp:
    """Both ends are authenticated. `nat_local`: a NAT is before us; `nat_remote`: before the peer.

    `identity` is the peer's, as text; its certificate's serial number and end are None if it used a pre-shared key.
    """

    ike_sa: IkeSaId
    peer: PeerConfig
    identity: str
    initiator: bool
    initial_contact: bool
    proposal: str
    certificate_serial: int | None
    certificate_not_after: datetime | None
    spi_i: bytes
    spi_r: bytes
    certificate_root: str | None = None
    """The root that the peer's certificate leads to: SHA-256 of its DER form, in hexadecimal."""
    nat_local: bool = False
    nat_remote: bool = False
    ppk: bool = False
    """Whether a post-quantum pre-shared key is in the keys (RFC 8784)."""
    esp_path: EspPath = EspPath.UNKNOWN
    """What the initiator told us of it."""
    rekeyed: IkeSaId | None = None
    """The IKE SA that this one is to replace by reauthentication, which ends once all CHILD SAs are up here. (A rekey
    has IkeSaRekeyed instead.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaUp:
    """A CHILD SA is agreed on: install `spi_in` with `keys_in`, `spi_out` with `keys_out`.

    Between `local` and `remote`, which are the IKE SA's hosts now and not always those of `peer`; with `encapsulation`
    in UDP.
    """

    ike_sa: IkeSaId
    peer: PeerConfig
    label: str
    spi_in: int
    spi_out: int
    keys_in: EspKey
    keys_out: EspKey
    proposal: EspProposal
    mode: Mode
    ts_local: tuple[TrafficSelector, ...]
    ts_remote: tuple[TrafficSelector, ...]
    initiator: bool
    """Whether we asked for this CHILD SA."""
    local: IpAddress
    remote: IpAddress
    encapsulation: UdpEncapsulation | None
    dont_fragment: bool = False
    """In the mode IPTFS: the peer takes whole packets only."""
    rekeyed_spi_in: int | None = None
    """Our inbound SPI of the CHILD SA that this one is to replace, which goes with a ChildSaDown of its own."""
    redundant: bool = False
    """Both ends have rekeyed the same CHILD SA, and another one stays: take packets from this one as long as it is
    there, but send none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaDown:
    """A CHILD SA was deleted, by either side."""

    ike_sa: IkeSaId
    label: str
    spi_in: int
    spi_out: int
    by_peer: bool
    unanswered: bool = False
    """The peer was told and did not answer: it may still send on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaFailed:
    """A CHILD SA that we asked for was not to be had; the IKE SA stays. `reason`: the notify's name or our word.

    `rekeyed_spi_in`: it was to replace this one, which stays as well.
    """

    ike_sa: IkeSaId
    label: str
    reason: str
    rekeyed_spi_in: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EspArrived:
    """What `IkeEndpoint.ask_esp_arrived` has found out: how many packets the peer has got on the SA that we send on.

    None: the peer cannot tell, or the CHILD SA is gone.
    """

    ike_sa: IkeSaId
    peer: PeerConfig
    spi_out: int
    packets: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathProbed:
    """What `IkeEndpoint.probe_path` has found out: whether a packet of so many bytes has come to the peer whole.

    None: this peer can't be probed. False may also be an accident: packets get lost.
    """

    ike_sa: IkeSaId
    peer: PeerConfig
    packet_bytes: int
    passes: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaMoved:
    """An IKE SA's addresses or ports are others now: so are those of the states of all its CHILD SAs."""

    ike_sa: IkeSaId
    peer: PeerConfig
    local: SocketAddress
    remote: SocketAddress
    encapsulation: UdpEncapsulation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaDown:
    """An IKE SA (or our attempt at one) ended, and its handle with it."""

    ike_sa: IkeSaId
    peer: PeerConfig
    reason: DownReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaRekeyed:
    """An IKE SA has taken another's place, with all its CHILD SAs; the old handle has ended, without IkeSaDown.

    `initiator`: whether we are the new IKE SA's initiator, which is whoever asked for the rekey.
    """

    old: IkeSaId
    new: IkeSaId
    peer: PeerConfig
    initiator: bool
    proposal: str
    spi_i: bytes
    spi_r: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReauthenticationNeeded:
    """The peer rekeys nothing (any more) of this IKE SA: `IkeEndpoint.reauthenticate` replaces it as a whole.

    `reason` is the name of its notify: NO_ADDITIONAL_SAS, or TEMPORARY_FAILURE for minutes. In that case the IKE SA is
    out of step with the peer's, and is closed if nothing has taken its place within `EndpointSettings.replaced_seconds`
    (RFC 7296 section 2.25).
    """

    ike_sa: IkeSaId
    peer: PeerConfig
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRefused:
    """As responder we turned somebody away. `identity` is None as long as none was claimed; it may be unproved."""

    remote: SocketAddress
    identity: str | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalsWithheld:
    """PeerRefused was not reported every time, within the last so many seconds (`hauberk_ike.refusals`).

    `reasons`: how often it was not, by its reason, the most frequent first.
    """

    reasons: tuple[tuple[str, int], ...]
    seconds: float

    @property
    def count(self) -> int:
        return sum(times for _, times in self.reasons)

    @property
    def summary(self) -> str:
        """The reasons, for a line of a log."""
        return ", ".join(f"{times} {reason}" for reason, times in self.reasons)


Event = (
    IkeSaUp
    | IkeSaMoved
    | IkeSaRekeyed
    | ReauthenticationNeeded
    | ChildSaUp
    | ChildSaDown
    | ChildSaFailed
    | EspArrived
    | PathProbed
    | IkeSaDown
    | PeerRefused
    | RefusalsWithheld
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaInfo:
    """A CHILD SA as `status` shows it."""

    label: str
    spi_in: int
    spi_out: int
    mode: Mode
    proposal: EspProposal
    ts_local: tuple[TrafficSelector, ...]
    ts_remote: tuple[TrafficSelector, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSaInfo:
    """An established IKE SA as `status` shows it. `established_at` is on the caller's clock (`now`)."""

    ike_sa: IkeSaId
    peer: PeerConfig
    identity: str
    initiator: bool
    local: SocketAddress
    remote: SocketAddress
    nat_local: bool
    nat_remote: bool
    additional_addresses: tuple[IpAddress, ...]
    """Where else the peer says that it can be reached (RFC 4555 section 3.6)."""
    proposal: str
    certificate_serial: int | None
    certificate_not_after: datetime | None
    spi_i: bytes
    spi_r: bytes
    established_at: float
    children: tuple[ChildSaInfo, ...]
