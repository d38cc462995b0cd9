"""Whole lives over a terrible network: whatever both ends do at once, in the end they agree.

A life is a pair with one to three CHILD SAs whose ends, for a while, create, rekey and delete them and their IKE SA at
random moments, in both roles, with and without key exchanges and additional ones; some reauthenticate, some have
lifetimes, and in some a node starts anew and remembers nothing. Then they are left alone. From then on both must have
the same IKE SAs and the same CHILD SAs, each end's outbound the other's inbound, one per direction, with the same keys;
no SPI may be taken for nothing, nothing be half-open, and no timer be left.

`HAUBERK_LIVES` in the environment is how many lives are run (3000 unless it says otherwise: some 40 s of CPU).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace

import pytest

from hauberk_ike import DownReason, EndpointSettings, IkeProposal, IkeSaDown, IkeSaUp
from tests.unit.ike.party import ALICE, BOB, Pair, Party, agree, child
from tests.unit.ike.terrible_network import TerribleNetwork

LIVES = int(os.environ.get("HAUBERK_LIVES", "3000"))
BATCHES = 30
SETTINGS = EndpointSettings(retransmit_tries=10, half_open_seconds=150, replaced_seconds=2500)
IMPATIENT = EndpointSettings(retransmit_tries=7, half_open_seconds=60, replaced_seconds=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a life is made of."""

    ike: str = "aes128gcm16-prfsha256-x25519"
    esp: str = "aes128gcm16-esn"
    loss: float = 0.15
    rekey_seconds: float = 0.0
    """The CHILD SAs' lifetime; the IKE SA's is three times as long."""
    reboots: bool = False
    """Nodes lose their memory, and are found out by INITIAL_CONTACT or by dead peer detection."""

    @property
    def ends_by_itself(self) -> bool:
        """Whether it comes to rest when it is left alone."""
        return not self.rekey_seconds and not self.reboots


KINDS = (
    Kind(),
    Kind(esp="aes128gcm16-x25519-esn"),
    Kind(loss=0.0),
    Kind(esp="aes128gcm16-x25519-ke1_ecp256-esn"),
    Kind(ike="aes128gcm16-prfsha256-x25519-ke1_ecp256"),
    Kind(rekey_seconds=40.0),
    Kind(reboots=True),
)


class Life:
    """One life, reproducible by its seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"life {seed}")
        kind = KINDS[seed % len(KINDS)]
        count = 1 + seed // len(KINDS) % 3
        labels = ("one", "two", "three")[:count]
        children = tuple(
            replace(child(label, esp=kind.esp, local=f"10.{index}.0.0/16"), rekey_seconds=kind.rekey_seconds)
            for index, label in enumerate(labels)
        )
        self.kind = kind
        self.generation = 0
        settings = SETTINGS if kind.ends_by_itself else IMPATIENT
        self.settings = replace(settings, ike_proposals=(IkeProposal.parse(kind.ike),))
        pair = self.pair = Pair(
            children=children, settings=self.settings, seed=seed, ike=kind.ike, dpd_seconds=20 if kind.reboots else 0
        )
        pair.alice_peer = replace(pair.alice_peer, rekey_seconds=3 * kind.rekey_seconds)
        pair.bob_peer = replace(pair.bob_peer, rekey_seconds=3 * kind.rekey_seconds)
        pair.alice.policy.peers[BOB], pair.bob.policy.peers[ALICE] = pair.alice_peer, pair.bob_peer
        self.network = TerribleNetwork(self.pair, seed, loss=kind.loss, delay=self.random.choice((0.05, 2.0)))

    def run(self) -> None:
        pair = self.pair
        pair.initiate()
        self.network.run(300)
        for _ in range(self.random.randrange(3, 9)):
            for party in self.random.sample((pair.alice, pair.bob), 2):
                if self.random.random() < 0.7:
                    self.act(party)
            self.network.run(self.random.choice((0.0, 0.01, 0.5, 3.0, 30.0)))
            if self.kind.reboots:
                self.sweep()
        if not self.kind.ends_by_itself:
            self.end()
        self.network.run(20_000)
        self.check()

    def reboot(self, party: Party) -> None:
        """A node starts anew, and begins at once."""
        pair = self.pair
        self.generation += 1
        host = str(party.address.host)
        new = Party(party.identity, host, seed=self.random.random(), generation=self.generation, settings=self.settings)
        new.policy.peers = party.policy.peers
        if party is pair.alice:
            pair.alice, peer = new, pair.alice_peer
        else:
            pair.bob, peer = new, pair.bob_peer
        new.endpoint.initiate(replace(peer, initial_contact=True), now=pair.now)

    def sweep(self) -> None:
        """What owners do: forget what a peer has forgotten, and give up the CHILD SAs of IKE SAs that are gone."""
        for party in (self.pair.alice, self.pair.bob):
            party.drain()
            ups = [up for up in party.seen(IkeSaUp) if up.initial_contact]
            gone = {down.ike_sa for down in party.seen(IkeSaDown) if down.reason is DownReason.UNREACHABLE}
            handles = [info.ike_sa for info in party.endpoint.established()]
            if ups and ups[-1].ike_sa in handles:
                for handle in handles[: handles.index(ups[-1].ike_sa)]:
                    party.endpoint.forget(handle)
                    gone.add(handle)
            party.drain()
            party.events.clear()
            for spi in [spi for spi, carrier in party.carriers.items() if carrier in gone]:
                del party.kernel[spi], party.carriers[spi]
                party.policy.allocated.remove(spi)

    def end(self) -> None:
        """Where lifetimes or dead peer detection go on for ever: agreement on the way, and then an end of it all."""
        pair = self.pair
        self.network.loss = 0.0
        for _ in range(40):
            self.network.run(10.0)
            self.sweep()
            outbound = {up.spi_out for up in pair.bob.kernel.values()}
            busy = pair.alice.leaked or pair.bob.leaked
            if spis(pair.alice) == spis(pair.bob) and set(pair.alice.kernel) == outbound and not busy:
                agree(pair.alice, pair.bob)
                break
        else:
            raise AssertionError("no agreement in 400 s")
        for party in (pair.alice, pair.bob):
            for info in party.endpoint.established():
                party.endpoint.delete(info.ike_sa, now=pair.now)
        self.network.run(1000.0)
        self.sweep()
        assert not pair.alice.endpoint.established()
        assert not pair.bob.endpoint.established()

    def act(self, party: Party) -> None:
        """Does something on one side."""
        infos = party.endpoint.established()
        if not infos:
            if party is self.pair.alice:
                self.pair.initiate()
            return
        info = self.random.choice(infos)
        children = info.children
        deed = self.random.randrange(11)
        if self.kind.reboots and self.random.random() < 0.15:
            self.reboot(party)
            return
        if deed < 4 and children:
            party.endpoint.rekey_child(info.ike_sa, self.random.choice(children).spi_in, now=self.pair.now)
        elif deed < 7:
            party.endpoint.rekey_ike(info.ike_sa, now=self.pair.now)
        elif deed == 7:
            config = self.random.choice(info.peer.children)
            party.endpoint.create_child(info.ike_sa, config, now=self.pair.now)
        elif deed == 8 and children:
            party.endpoint.delete_child(info.ike_sa, self.random.choice(children).spi_in, now=self.pair.now)
        elif deed == 10 and self.random.random() < 0.5:
            party.endpoint.reauthenticate(info.ike_sa, now=self.pair.now)
        elif deed == 9 and self.random.random() < 0.3:
            party.endpoint.delete(info.ike_sa, now=self.pair.now)

    def check(self) -> None:
        alice, bob = self.pair.alice, self.pair.bob
        assert spis(alice) == spis(bob)
        agree(alice, bob)
        for party in (alice, bob):
            infos = party.endpoint.established()
            assert {each.spi_in for info in infos for each in info.children} == set(party.kernel)
            assert party.endpoint.get_timer() is None, "somebody still waits for something"


def spis(party: Party) -> set[tuple[bytes, bytes]]:
    return {(info.spi_i, info.spi_r) for info in party.endpoint.established()}


@pytest.mark.parametrize("batch", range(BATCHES))
def test_whole_lives_come_to_agreement(batch: int) -> None:
    for seed in range(batch, LIVES, BATCHES):
        try:
            Life(seed).run()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
