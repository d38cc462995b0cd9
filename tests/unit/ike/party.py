"""Two endpoints in memory: a test hands over one message a line, and looks at what each side then believes.

`Party` is an endpoint with the glue that its owner has to be, and a policy that keeps count of SPIs. `Pair` is two of
them and a clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import cache
from ipaddress import IPv4Network, ip_address
from typing import TypeVar

from hauberk_ike import (
    ChildConfig,
    ChildSaDown,
    ChildSaUp,
    Credentials,
    Datagram,
    EndpointSettings,
    EspProposal,
    Event,
    Identity,
    IkeEndpoint,
    IkeProposal,
    IkeSaId,
    IkeSaRekeyed,
    IkeSaUp,
    IpAddress,
    Mode,
    PeerAuthentication,
    PeerConfig,
    Refused,
    SocketAddress,
    SpiUnavailable,
    TrafficSelector,
)
from hauberk_ike.encapsulation import NON_ESP_MARKER
from hauberk_ike.numbers import PayloadType
from tests.unit.ike.authority import TODAY, Authority

ALICE = "alice.default.hauberk.internal"
BOB = "bob.default.hauberk.internal"

_Event = TypeVar("_Event", bound=Event)


@cache
def mesh_authority() -> Authority:
    """The root that everybody trusts unless a test says otherwise."""
    return Authority()


@cache
def mesh_credentials(identity: str) -> Credentials:
    """A node's credentials from that root."""
    return mesh_authority().credentials(identity)


def address(host: str, port: int = 500) -> SocketAddress:
    return SocketAddress(host=ip_address(host), port=port)


def selector(network: str, **ports: int) -> TrafficSelector:
    return TrafficSelector.from_network(IPv4Network(network), **ports)


def child(
    label: str = "tunnel-1",
    *,
    local: str = "10.244.1.0/24",
    remote: str = "10.244.2.0/24",
    mode: Mode = Mode.TUNNEL,
    esp: str = "aes128gcm16-esn",
) -> ChildConfig:
    """A child as alice sees it, unless turned."""
    return ChildConfig(
        label=label,
        mode=mode,
        esp_proposals=tuple(EspProposal.parse(text) for text in esp.split(",")),
        ts_local=(selector(local),),
        ts_remote=(selector(remote),),
    )


def turned(config: ChildConfig) -> ChildConfig:
    """The same child from the other side."""
    return replace(config, ts_local=config.ts_remote, ts_remote=config.ts_local)


class Policy:
    """Admits whom it knows, and counts SPIs as a kernel would."""

    def __init__(self, first_spi: int) -> None:
        self.peers: dict[str, PeerConfig] = {}
        """By the text of their identity."""
        self.allocated: set[int] = set()
        self.authorized: list[tuple[str, SocketAddress]] = []
        self.forbidden: set[IpAddress] = set()
        """Where no peer may move to."""
        self.arrived: dict[int, int] = {}
        """By inbound SPI: the packets that a kernel would have counted."""
        self.spis_left = 1_000_000
        self._next_spi = first_spi

    def find(self, identity: Identity, remote: SocketAddress) -> PeerConfig | None:
        return self.peers.get(str(identity))

    def authorize(self, identity: Identity, remote: SocketAddress) -> PeerConfig:
        self.authorized.append((str(identity), remote))
        peer = self.peers.get(str(identity))
        if peer is None:
            raise Refused("UnknownNode", f"{identity} is no node of the mesh")
        return peer

    def permit_address(self, peer: PeerConfig, remote: SocketAddress) -> None:
        if remote.host in self.forbidden:
            raise Refused("AddressMismatch", f"{remote.host} is not for {peer.name}")

    def is_known(self, host: IpAddress) -> bool:
        return any(peer.remote.host == host for peer in self.peers.values())

    def allocate_spi(self, child: ChildConfig, peer: PeerConfig) -> int:
        if self.spis_left <= 0:
            raise SpiUnavailable("none left")
        self.spis_left -= 1
        self._next_spi += 1
        self.allocated.add(self._next_spi)
        return self._next_spi

    def release_spi(self, spi: int, peer: PeerConfig) -> None:
        self.allocated.remove(spi)

    def count_arrived(self, spi: int, peer: PeerConfig) -> int | None:
        return self.arrived.get(spi)


class Party:
    """An endpoint and its owner. `kernel` is the CHILD SAs that it would have installed, by inbound SPI."""

    def __init__(
        self,
        identity: str,
        host: str,
        *,
        seed: float = 1,
        generation: int = 0,
        credentials: Credentials | None = None,
        anonymous: bool = False,
        settings: EndpointSettings | None = None,
        wall_clock: Callable[[], datetime] = lambda: TODAY,
        key_log: Callable[[str], None] | None = None,
    ) -> None:
        self.identity = identity
        self.address = address(host)
        self.policy = Policy((int(self.address.host) << 16 & 0xFFFFFFFF) + 1000 * generation)
        self._chance = random.Random(f"{identity} {seed}")
        self.next_nonces: list[int] = []
        """First bytes for the next nonces (or other 32 random bytes), where a test decides which is the lowest."""
        self.endpoint = IkeEndpoint(
            credentials=None if anonymous else credentials or mesh_credentials(identity),
            policy=self.policy,
            entropy=self._entropy,
            wall_clock=wall_clock,
            settings=settings,
            key_log=key_log,
        )
        self.events: list[Event] = []
        self.kernel: dict[int, ChildSaUp] = {}
        self.carriers: dict[int, IkeSaId] = {}
        """Which IKE SA each of them belongs to now."""

    def _entropy(self, length: int) -> bytes:
        data = self._chance.randbytes(length)
        return bytes((self.next_nonces.pop(0),)) + data[1:] if length == 32 and self.next_nonces else data

    def drain(self) -> None:
        """Acts on events, as the owner must before it sends."""
        while (event := self.endpoint.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, ChildSaUp):
                assert event.spi_in in self.policy.allocated, "an SPI that the kernel did not give"
                self.kernel[event.spi_in] = event
                self.carriers[event.spi_in] = event.ike_sa
            elif isinstance(event, ChildSaDown):
                del self.kernel[event.spi_in], self.carriers[event.spi_in]
                self.policy.allocated.remove(event.spi_in)
            elif isinstance(event, IkeSaRekeyed):
                self.carriers = {
                    spi: event.new if carrier == event.old else carrier for spi, carrier in self.carriers.items()
                }

    def take(self, now: float) -> list[Datagram]:
        """What it sends now."""
        self.drain()
        return self.endpoint.datagrams_to_send(now)

    def receive(self, datagram: Datagram, now: float) -> None:
        self.endpoint.receive_datagram(datagram.data, local=datagram.remote, remote=datagram.local, now=now)
        self.drain()

    def seen(self, kind: type[_Event]) -> list[_Event]:
        """Events of a kind, so far."""
        self.drain()
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[_Event]) -> _Event:
        """The one event of a kind."""
        found = self.seen(kind)
        assert len(found) == 1, f"{self.identity} saw {found or self.events}"
        return found[0]

    @property
    def leaked(self) -> set[int]:
        """SPIs that were taken and belong to no CHILD SA."""
        return self.policy.allocated - set(self.kernel)


Tamper = Callable[[bytes], bytes]


class Pair:
    """Alice and Bob, who know each other. `now` is their clock.

    `alice_authentication` is what Alice's configuration says of Bob. If they are anonymous, they have no credentials
    but those.
    """

    def __init__(
        self,
        *,
        children: tuple[ChildConfig, ...] | None = None,
        bob_children: tuple[ChildConfig, ...] | None = None,
        ike: str = "aes128gcm16-prfsha256-x25519",
        bob_ike: str | None = None,
        alice_credentials: Credentials | None = None,
        bob_credentials: Credentials | None = None,
        settings: EndpointSettings | None = None,
        bob_settings: EndpointSettings | None = None,
        wall_clock: Callable[[], datetime] = lambda: TODAY,
        seed: float = 1,
        alice_authentication: PeerAuthentication | None = None,
        bob_authentication: PeerAuthentication | None = None,
        anonymous: bool = False,
        initial_contact: bool = False,
        dpd_seconds: float = 10.0,
        hosts: tuple[str, str] = ("192.0.2.1", "192.0.2.2"),
        alice_key_log: Callable[[str], None] | None = None,
        bob_key_log: Callable[[str], None] | None = None,
    ) -> None:
        self.now = 1000.0
        self.alice = Party(
            ALICE,
            hosts[0],
            credentials=alice_credentials,
            anonymous=anonymous,
            settings=settings,
            wall_clock=wall_clock,
            seed=seed,
            key_log=alice_key_log,
        )
        self.bob = Party(
            BOB,
            hosts[1],
            credentials=bob_credentials,
            anonymous=anonymous,
            settings=bob_settings or settings,
            wall_clock=wall_clock,
            seed=seed,
            key_log=bob_key_log,
        )
        children = (child(),) if children is None else children
        self.alice_peer = PeerConfig(
            name="bob",
            identity=Identity.fqdn(BOB),
            local=self.alice.address,
            remote=self.bob.address,
            ike_proposals=tuple(IkeProposal.parse(text) for text in ike.split(",")),
            children=children,
            authentication=alice_authentication,
            initial_contact=initial_contact,
            dpd_seconds=dpd_seconds,
        )
        self.bob_peer = PeerConfig(
            name="alice",
            identity=Identity.fqdn(ALICE),
            local=self.bob.address,
            remote=self.alice.address,
            ike_proposals=tuple(IkeProposal.parse(text) for text in (bob_ike or ike).split(",")),
            children=tuple(map(turned, children)) if bob_children is None else bob_children,
            authentication=bob_authentication,
            dpd_seconds=dpd_seconds,
        )
        self.alice.policy.peers[BOB] = self.alice_peer
        self.bob.policy.peers[ALICE] = self.bob_peer

    def initiate(self) -> IkeSaId:
        """Alice starts."""
        return self.alice.endpoint.initiate(self.alice_peer, now=self.now)

    def to_bob(self, tamper: Tamper = lambda data: data) -> Datagram:
        """Hands Bob the one message that Alice sends; returns it, or its first fragment."""
        return self._hand_over(self.alice, self.bob, tamper)

    def to_alice(self, tamper: Tamper = lambda data: data) -> Datagram:
        """Hands Alice the one message that Bob sends; returns it, or its first fragment."""
        return self._hand_over(self.bob, self.alice, tamper)

    def _hand_over(self, sender: Party, receiver: Party, tamper: Tamper) -> Datagram:
        message = self._take_one(sender)
        for each in message:
            self.carry(receiver, replace(each, data=tamper(each.data)))
        return message[0]

    def _take_one(self, sender: Party) -> list[Datagram]:
        """The one message that `sender` sends, which may be in fragments (RFC 7383)."""
        datagrams = sender.take(self.now)
        messages = [each.data.removeprefix(NON_ESP_MARKER) for each in datagrams]
        kinds = {(each[16:17], each[18:24]) for each in messages}  # next payload; exchange, flags and message id
        in_fragments = len(kinds) == 1 and messages[0][16:17] == bytes((PayloadType.SKF,))
        assert len(datagrams) == 1 or in_fragments, (
            f"{sender.identity} sends {len(datagrams)} datagrams; events: {sender.events}"
        )
        return datagrams

    def carry(self, receiver: Party, datagram: Datagram) -> None:
        """The network between the two."""
        receiver.receive(datagram, self.now)

    def lose(self, sender: Party) -> Datagram:
        """Takes the one message that `sender` sends, and loses it."""
        return self._take_one(sender)[0]

    def wait(self, seconds: float) -> None:
        """Time passes; timers fire when they are due."""
        end = self.now + seconds
        while True:
            timers = [party.endpoint.get_timer() for party in (self.alice, self.bob)]
            due = min((timer for timer in timers if timer is not None), default=None)
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            for party in (self.alice, self.bob):
                party.endpoint.handle_timer(self.now)
                party.drain()
            if any(party.endpoint.has_datagrams for party in (self.alice, self.bob)):
                return
        self.now = end

    def set_up(self) -> IkeSaId:
        """An IKE SA with its first CHILD SA."""
        handle = self.initiate()
        self.to_bob()  # --> IKE_SA_INIT: SA, KE, Ni
        self.to_alice()  # <-- IKE_SA_INIT: SA, KE, Nr
        self.to_bob()  # --> IKE_AUTH: IDi, CERT, AUTH, SA, TSi, TSr
        self.to_alice()  # <-- IKE_AUTH: IDr, CERT, AUTH, SA, TSi, TSr
        assert self.alice.one(IkeSaUp).ike_sa == handle
        return handle

    def quiet(self) -> bool:
        """Whether neither has anything to send."""
        return not self.alice.take(self.now) and not self.bob.take(self.now)

    def settle(self, *, messages: int = 100) -> None:
        """Delivers everything until both are silent."""
        for _ in range(messages):
            sent = [(self.bob, each) for each in self.alice.take(self.now)]
            sent += [(self.alice, each) for each in self.bob.take(self.now)]
            if not sent:
                return
            for receiver, datagram in sent:
                self.carry(receiver, datagram)
        raise AssertionError(f"still talking after {messages} messages")


def agree(alice: Party, bob: Party) -> None:
    """Asserts that both have the same CHILD SAs, each one's outbound being the other's inbound, with the same keys."""
    assert {(up.spi_in, up.spi_out) for up in alice.kernel.values()} == {
        (up.spi_out, up.spi_in) for up in bob.kernel.values()
    }
    for up in alice.kernel.values():
        other = bob.kernel[up.spi_out]
        assert (up.keys_in, up.keys_out) == (other.keys_out, other.keys_in)
        assert (up.ts_local, up.ts_remote) == (other.ts_remote, other.ts_local)
        assert (up.label, up.mode, str(up.proposal)) == (other.label, other.mode, str(other.proposal))
    assert not alice.leaked
    assert not bob.leaked
