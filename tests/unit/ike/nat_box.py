"""A pair with address translators between: what Alice sends from inside arrives from somewhere else, and so back."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

from hauberk_ike import Datagram, Encapsulation, SocketAddress, parse_host
from tests.unit.ike.party import Pair, Party

ALICE_OUTSIDE = "198.51.100.7"
BOB_OUTSIDE = "203.0.113.9"


class NatBox:
    """Maps each socket inside to a port of its own outside, and lets in what comes to a port that is mapped."""

    def __init__(self, outside: str, *, forwards: dict[int, SocketAddress] | None = None) -> None:
        """forwards: ports that lead inside from the start, as people set them up for a server."""
        self.outside = parse_host(outside)
        self.ports: dict[int, SocketAddress] = dict(forwards or {})
        self._free = count(40001)

    def outward(self, datagram: Datagram) -> Datagram:
        """What leaves the box."""
        port = next((port for port, inside in self.ports.items() if inside == datagram.local), None)
        if port is None:
            port = next(self._free)
            self.ports[port] = datagram.local
        return replace(datagram, local=SocketAddress(host=self.outside, port=port))

    def inward(self, datagram: Datagram) -> Datagram | None:
        """What the inside gets of a datagram to the box."""
        inside = self.ports.get(datagram.remote.port)
        if datagram.remote.host != self.outside or inside is None:
            return None
        return replace(datagram, remote=inside)

    def forget(self) -> None:
        """It was restarted, or nothing was sent for too long: what comes now gets another port."""
        self.ports.clear()

    def renumber(self, outside: str) -> None:
        """Its provider gives it another address."""
        self.outside = parse_host(outside)
        self.forget()


class NatPair(Pair):
    """Alice behind a NAT, Bob behind one that forwards IKE's ports to him, or both."""

    def __init__(
        self,
        *,
        alice_nat: bool = False,
        bob_nat: bool = False,
        encapsulation: Encapsulation = Encapsulation.AUTO,
        bob_encapsulation: Encapsulation = Encapsulation.AUTO,
        bob_dpd_seconds: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        inside = self.bob.address
        self.alice_nat = NatBox(ALICE_OUTSIDE) if alice_nat else None
        self.bob_nat: NatBox | None = None
        self.alice_peer = replace(self.alice_peer, encapsulation=encapsulation)
        self.bob_peer = replace(self.bob_peer, encapsulation=bob_encapsulation)
        if bob_dpd_seconds is not None:
            self.bob_peer = replace(self.bob_peer, dpd_seconds=bob_dpd_seconds)
        if bob_nat:
            self.bob_nat = NatBox(BOB_OUTSIDE, forwards={port: replace(inside, port=port) for port in (500, 4500)})
            self.alice_peer = replace(self.alice_peer, remote=SocketAddress(host=self.bob_nat.outside, port=500))
        self.alice.policy.peers[str(self.alice_peer.identity)] = self.alice_peer
        self.bob.policy.peers[str(self.bob_peer.identity)] = self.bob_peer
        self.wire: list[Datagram] = []
        """What went over the network between the boxes."""

    def carry(self, receiver: Party, datagram: Datagram) -> None:
        before, behind = (self.alice_nat, self.bob_nat) if receiver is self.bob else (self.bob_nat, self.alice_nat)
        if before is not None:
            datagram = before.outward(datagram)
        self.wire.append(datagram)
        arrived = behind.inward(datagram) if behind is not None else datagram
        if arrived is not None and arrived.remote.host == receiver.address.host:
            receiver.receive(arrived, self.now)
