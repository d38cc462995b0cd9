"""What to do, as a whole: who we are, who the peers are, which limits and ports.

Built from the command line's options, or from a file (`hauberk_diagnose.config_file`), and handed to the runner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from hauberk_diagnose.errors import Trouble
from hauberk_diagnose.selector import parse_selector
from hauberk_ike import (
    ChildConfig,
    Credentials,
    EndpointSettings,
    EspProposal,
    Identity,
    IkeProposal,
    IpAddress,
    Mode,
    PeerConfig,
    ProposalError,
    SocketAddress,
    TrafficSelector,
)

DEFAULT_IKE: Final = ("aes256gcm16-prfsha384-x25519", "aes128gcm16-prfsha256-x25519")
DEFAULT_ESP: Final = ("aes256gcm16-esn-noesn", "aes128gcm16-esn-noesn")
DEFAULT_LABEL: Final = "child"
ANY: Final = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A peer as the endpoint takes it, and what is open about it as responder.

    `any_address`: it may come from anywhere, and `config.remote` means nothing. `any_identity`: whoever proves an
    identity by our roots is let in, and `config.identity` means nothing.
    """

    config: PeerConfig
    any_address: bool = False
    any_identity: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that the runner needs to know."""

    credentials: Credentials
    peers: tuple[Peer, ...]
    settings: EndpointSettings
    port: int

    @property
    def local_addresses(self) -> tuple[IpAddress, ...]:
        """Where to listen, each once."""
        return tuple(dict.fromkeys(peer.config.local.host for peer in self.peers))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildWish:
    """A CHILD SA in words."""

    label: str = DEFAULT_LABEL
    mode: str = "tunnel"
    esp: Sequence[str] = DEFAULT_ESP
    ts_local: Sequence[str] = ()
    ts_remote: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerWish:
    """A peer in words; `where` names its place for error messages (`--peer-identity`, or a line of a file)."""

    name: str
    local: str
    remote: str = ANY
    identity: str = ANY
    ike: Sequence[str] = DEFAULT_IKE
    children: Sequence[ChildWish] = ()
    dpd_seconds: float = 10.0
    initial_contact: bool = False


def build_peer(wish: PeerWish, *, port: int, remote_port: int) -> Peer:
    """Raises Trouble for words that mean nothing."""
    local = _address(wish.local, "local address")
    any_address = wish.remote == ANY
    # A peer from anywhere has an address once it speaks; until then only its family is known.
    remote = _address("::" if local.version == 6 else "0.0.0.0", "") if any_address else _address(wish.remote, "remote")  # noqa: S104
    if local.version != remote.version:
        raise Trouble(f"{local} and {remote} are of different families: give two addresses of one family")
    try:
        config = PeerConfig(
            name=wish.name,
            identity=Identity.parse(wish.identity),
            local=SocketAddress(host=local, port=port),
            remote=SocketAddress(host=remote, port=remote_port),
            ike_proposals=tuple(map(IkeProposal.parse, wish.ike)),
            children=tuple(_child(child, local, None if any_address else remote) for child in wish.children),
            dpd_seconds=wish.dpd_seconds,
            initial_contact=wish.initial_contact,
        )
    except ProposalError as error:
        raise Trouble(f"proposal {error}") from None
    except ValueError as error:
        raise Trouble(str(error)) from None
    return Peer(config=config, any_address=any_address, any_identity=wish.identity == ANY)


def accepted_proposals(peers: Sequence[Peer]) -> tuple[IkeProposal, ...]:
    """What IKE_SA_INIT may take, before it is known which peer it is."""
    return tuple({str(proposal): proposal for peer in peers for proposal in peer.config.ike_proposals}.values())


def _child(wish: ChildWish, local: IpAddress, remote: IpAddress | None) -> ChildConfig:
    return ChildConfig(
        label=wish.label,
        mode=Mode(wish.mode),
        esp_proposals=tuple(map(EspProposal.parse, wish.esp)),
        ts_local=_selectors(wish.ts_local) or _host(local),
        ts_remote=_selectors(wish.ts_remote) or (_host(remote) if remote is not None else _everything(local)),
    )


def _selectors(texts: Sequence[str]) -> tuple[TrafficSelector, ...]:
    return tuple(map(parse_selector, texts))


def _host(address: IpAddress) -> tuple[TrafficSelector, ...]:
    return (TrafficSelector(start=address, end=address),)


def _everything(address: IpAddress) -> tuple[TrafficSelector, ...]:
    return (TrafficSelector.from_network(ip_network("::/0" if address.version == 6 else "0.0.0.0/0")),)


def _address(text: str, what: str) -> IpAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise Trouble(f"{text!r} is no IP address: give the {what} as an address, not as a name") from None
