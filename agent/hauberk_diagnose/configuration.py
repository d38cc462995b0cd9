"""What to do, as a whole: who we are, who the peers are, which limits and ports.

Made of what people asked for (`hauberk_diagnose.wish`), files read and words understood, and handed to the runner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from hauberk_diagnose.credentials import read_credentials, read_secret
from hauberk_diagnose.errors import Trouble
from hauberk_diagnose.selector import parse_selector
from hauberk_diagnose.wish import ANY, ChildWish, PeerWish, RunWish
from hauberk_ike import (
    CertificateProfile,
    ChildConfig,
    Credentials,
    Encapsulation,
    EndpointSettings,
    EspProposal,
    Identity,
    IkeProposal,
    IpAddress,
    Mode,
    PeerAuthentication,
    PeerConfig,
    Ppk,
    ProposalError,
    SocketAddress,
    TrafficSelector,
)
from hauberk_xfrm.wear import Wear

_PROFILES: Final = {"rfc4945": CertificateProfile.RFC4945, "mesh": CertificateProfile.MESH}


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
    """All that the runner needs to know. `credentials` is None if every peer has a pre-shared key."""

    credentials: Credentials | None
    peers: tuple[Peer, ...]
    settings: EndpointSettings
    port: int
    wear: Mapping[tuple[str, str], Wear]
    """How much CHILD SAs may carry, by the names of peer and child, where that is limited."""

    @property
    def local_addresses(self) -> tuple[IpAddress, ...]:
        """Where to listen, each once."""
        return tuple(dict.fromkeys(peer.config.local.host for peer in self.peers))

    @property
    def encapsulates(self) -> bool:
        """Whether ESP may go in UDP, with any peer."""
        return any(peer.config.encapsulation is not Encapsulation.NEVER for peer in self.peers)


def build_configuration(wish: RunWish, directory: Path) -> Configuration:
    """Paths are relative to `directory`. Raises Trouble for words that mean nothing and files that can't be read."""
    if not wish.peers:
        raise Trouble("there is no peer: name one at least")
    if len({peer.name for peer in wish.peers}) < len(wish.peers):
        raise Trouble("two peers have one name: give each its own")
    identity = _identity(wish.identity)
    peers = tuple(_peer(peer, wish, identity, directory) for peer in wish.peers)
    try:
        settings = EndpointSettings(
            ike_proposals=_accepted_proposals(peers),
            retransmit_tries=wish.retransmit_tries,
            retransmit_seconds=wish.retransmit_seconds,
            keepalive_seconds=wish.keepalive_seconds,
            fragment_bytes=wish.fragment_size,
            cookie_threshold=wish.cookie_threshold,
            encapsulation_port=wish.nat_port,
            encapsulation=_common_encapsulation(peers),
            use_ppk=any(peer.ppk_file is not None for peer in wish.peers),
        )
    except ValueError as error:
        raise Trouble(str(error)) from None
    return Configuration(
        credentials=_credentials(wish, identity, directory),
        peers=peers,
        settings=settings,
        port=wish.port,
        wear={
            (peer.name, child.label): _wear(child)
            for peer in wish.peers
            for child in peer.children
            if child.rekey_bytes is not None or child.rekey_packets is not None
        },
    )


def _credentials(wish: RunWish, identity: Identity, directory: Path) -> Credentials | None:
    files = {"certificate": wish.certificate, "key": wish.key, "ca": wish.ca}
    missing = [name for name, path in files.items() if path is None]
    by_certificate = [peer.name for peer in wish.peers if peer.psk_file is None]
    if not by_certificate and len(missing) == len(files):
        return None
    if wish.certificate is None or wish.key is None or wish.ca is None:
        raise Trouble(f"{' and '.join(missing)} missing: give certificate, key and ca, or a psk-file for every peer")
    return read_credentials(
        identity,
        certificate=directory / wish.certificate,
        key=directory / wish.key,
        authorities=directory / wish.ca,
        profile=_PROFILES[wish.profile],
        ml_dsa=wish.ml_dsa,
    )


def _peer(wish: PeerWish, run: RunWish, identity: Identity, directory: Path) -> Peer:
    local = _address(wish.local, "local address")
    any_address = wish.remote == ANY
    # A peer from anywhere has an address once it speaks; until then only its family is known.
    nowhere = "::" if local.version == 6 else "0.0.0.0"  # noqa: S104 - nothing is bound to it
    remote = _address(nowhere if any_address else wish.remote, "remote address")
    if local.version != remote.version:
        raise Trouble(f"{local} and {remote} are of different families: give two addresses of one family")
    authentication = None
    if wish.psk_file is not None:
        authentication = PeerAuthentication.by_secret(read_secret(directory / wish.psk_file), local_identity=identity)
    ppk = _ppk(wish, directory)
    if ppk is not None:
        authentication = replace(authentication or PeerAuthentication(), ppk=ppk)
    try:
        config = PeerConfig(
            name=wish.name,
            identity=_identity(wish.identity),
            local=SocketAddress(host=local, port=run.port),
            remote=SocketAddress(host=remote, port=run.remote_port or run.port),
            ike_proposals=tuple(map(IkeProposal.parse, wish.ike)),
            children=tuple(_child(child, local, None if any_address else remote) for child in wish.children),
            authentication=authentication,
            dpd_seconds=wish.dpd_seconds,
            initial_contact=wish.initial_contact,
            encapsulation=Encapsulation(wish.encapsulation),
            mobike=wish.mobike,
            children_apart=wish.children_apart,
            rekey_seconds=wish.rekey_seconds,
        )
    except ProposalError as error:
        raise Trouble(f"proposal {error}") from None
    except ValueError as error:
        raise Trouble(str(error)) from None
    return Peer(config=config, any_address=any_address, any_identity=wish.identity == ANY)


def _ppk(wish: PeerWish, directory: Path) -> Ppk | None:
    if wish.ppk_file is None and wish.ppk_id is None:
        return None
    if wish.ppk_file is None or wish.ppk_id is None:
        raise Trouble("a post-quantum pre-shared key needs both: ppk-file with the secret, ppk-id with its name")
    try:
        return Ppk(
            identity=wish.ppk_id.encode(),
            secret=read_secret(directory / wish.ppk_file),
            required=not wish.ppk_optional,
        )
    except ValueError as error:
        raise Trouble(f"{directory / wish.ppk_file}: {error}") from None


def _accepted_proposals(peers: Sequence[Peer]) -> tuple[IkeProposal, ...]:
    """What IKE_SA_INIT may take, before it is known which peer it is."""
    return tuple({str(proposal): proposal for peer in peers for proposal in peer.config.ike_proposals}.values())


def _common_encapsulation(peers: Sequence[Peer]) -> Encapsulation:
    """What IKE_SA_INIT says of NATs, before it is known which peer it is: auto, unless all peers want the same."""
    wishes = {peer.config.encapsulation for peer in peers}
    return wishes.pop() if len(wishes) == 1 else Encapsulation.AUTO


def _child(wish: ChildWish, local: IpAddress, remote: IpAddress | None) -> ChildConfig:
    return ChildConfig(
        label=wish.label,
        mode=Mode(wish.mode),
        esp_proposals=tuple(map(EspProposal.parse, wish.esp)),
        ts_local=_selectors(wish.ts_local) or _host(local),
        ts_remote=_selectors(wish.ts_remote) or (_host(remote) if remote is not None else _everything(local)),
        rekey_seconds=wish.rekey_seconds,
    )


def _wear(wish: ChildWish) -> Wear:
    for name, value in (("rekey-bytes", wish.rekey_bytes), ("rekey-packets", wish.rekey_packets)):
        if value is not None and not 0 < value < 1 << 63:
            raise Trouble(f"{name}: {value} is no number of what an SA may carry: 1 or more")
    return Wear(bytes=wish.rekey_bytes, packets=wish.rekey_packets)


def _selectors(texts: Sequence[str]) -> tuple[TrafficSelector, ...]:
    return tuple(map(parse_selector, texts))


def _host(address: IpAddress) -> tuple[TrafficSelector, ...]:
    return (TrafficSelector(start=address, end=address),)


def _everything(address: IpAddress) -> tuple[TrafficSelector, ...]:
    return (TrafficSelector.from_network(ip_network("::/0" if address.version == 6 else "0.0.0.0/0")),)


def _identity(text: str) -> Identity:
    try:
        return Identity.parse(text)
    except ValueError as error:
        raise Trouble(f"identity {text!r}: {error}") from None


def _address(text: str, what: str) -> IpAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise Trouble(f"{text!r} is no IP address: give the {what} as an address, not as a name") from None
