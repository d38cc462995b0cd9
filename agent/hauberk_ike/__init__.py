"""IKEv2 (RFC 7296) without input or output: bytes, time and randomness come in as arguments.

The public surface; see `hauberk_ike.endpoint` for how it is driven. One rule binds its owner: **events are
drained and acted on before `datagrams_to_send` is called**, so that a responder's inbound SA is installed before its
answer lets the initiator send.
"""

from hauberk_ike.config import (
    ChildConfig,
    Encapsulation,
    EndpointSettings,
    Mode,
    PeerConfig,
    PeerPolicy,
)
from hauberk_ike.credentials import (
    CertificateProfile,
    CertifiedKey,
    Credentials,
    PeerAuthentication,
    Ppk,
    PreSharedKey,
    Trust,
)
from hauberk_ike.datagram import Datagram, IpAddress, SocketAddress, parse_host
from hauberk_ike.encapsulation import UdpEncapsulation
from hauberk_ike.endpoint import IkeEndpoint
from hauberk_ike.errors import ProposalError, RefusalReason, Refused, SpiUnavailable, UnknownIkeSa
from hauberk_ike.esp_key import EspKey
from hauberk_ike.esp_path import EspPath
from hauberk_ike.events import (
    ChildSaDown,
    ChildSaFailed,
    ChildSaInfo,
    ChildSaUp,
    DownReason,
    EspArrived,
    Event,
    IkeSaDown,
    IkeSaId,
    IkeSaInfo,
    IkeSaMoved,
    IkeSaRekeyed,
    IkeSaUp,
    PathProbed,
    PeerRefused,
    ReauthenticationNeeded,
    RefusalsWithheld,
)
from hauberk_ike.identity import Identity
from hauberk_ike.numbers import EsnId
from hauberk_ike.proposals import EspProposal, IkeProposal
from hauberk_ike.selectors import TrafficSelector

__all__ = [
    "CertificateProfile",
    "CertifiedKey",
    "ChildConfig",
    "ChildSaDown",
    "ChildSaFailed",
    "ChildSaInfo",
    "ChildSaUp",
    "Credentials",
    "Datagram",
    "DownReason",
    "Encapsulation",
    "EndpointSettings",
    "EsnId",
    "EspArrived",
    "EspKey",
    "EspPath",
    "EspProposal",
    "Event",
    "Identity",
    "IkeEndpoint",
    "IkeProposal",
    "IkeSaDown",
    "IkeSaId",
    "IkeSaInfo",
    "IkeSaMoved",
    "IkeSaRekeyed",
    "IkeSaUp",
    "IpAddress",
    "Mode",
    "PathProbed",
    "PeerAuthentication",
    "PeerConfig",
    "PeerPolicy",
    "PeerRefused",
    "Ppk",
    "PreSharedKey",
    "ProposalError",
    "ReauthenticationNeeded",
    "RefusalReason",
    "RefusalsWithheld",
    "Refused",
    "SocketAddress",
    "SpiUnavailable",
    "TrafficSelector",
    "Trust",
    "UdpEncapsulation",
    "UnknownIkeSa",
    "parse_host",
]
