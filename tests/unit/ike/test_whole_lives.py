"""Whole lives over a terrible network: whatever both ends do at once, in the end they agree.

A life is a pair with one to three CHILD SAs whose ends, for a while, create, rekey and delete them and their IKE SA at
random moments, in both roles, with and without key exchanges and additional ones. Then they are left alone until nobody
has anything left to say. From then on both must have the same IKE SA and the same CHILD SAs, each end's outbound the
other's inbound, one per direction, with the same keys; no SPI may be taken for nothing, and no timer be left.

`HAUBERK_LIVES` in the environment is how many lives `make test` runs (3000 unless it says otherwise: under a minute).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace

import pytest

from hauberk_ike import EndpointSettings, IkeProposal
from tests.unit.ike.party import Pair, Party, agree, child
from tests.unit.ike.terrible_network import TerribleNetwork

LIVES = int(os.environ.get("HAUBERK_LIVES", "3000"))
BATCHES = 30
SETTINGS = EndpointSettings(retransmit_tries=10, half_open_seconds=150, replaced_seconds=2500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a life is made of."""

    ike: str = "aes128gcm16-prfsha256-x25519"
    esp: str = "aes128gcm16-esn"
    loss: float = 0.15


KINDS = (
    Kind(),
    Kind(esp="aes128gcm16-x25519-esn"),
    Kind(loss=0.0),
    Kind(esp="aes128gcm16-x25519-ke1_ecp256-esn"),
    Kind(ike="aes128gcm16-prfsha256-x25519-ke1_ecp256"),
)


class Life:
    """One life, reproducible by its seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"life {seed}")
        kind = KINDS[seed % len(KINDS)]
        count = 1 + seed // len(KINDS) % 3
        labels = ("one", "two", "three")[:count]
        children = tuple(child(label, esp=kind.esp, local=f"10.{index}.0.0/16") for index, label in enumerate(labels))
        settings = replace(SETTINGS, ike_proposals=(IkeProposal.parse(kind.ike),))
        self.pair = Pair(children=children, settings=settings, seed=seed, ike=kind.ike, dpd_seconds=0)
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
        self.network.run(20_000)
        self.check()

    def act(self, party: Party) -> None:
        """Does something on one side."""
        infos = party.endpoint.established()
        if not infos:
            if party is self.pair.alice:
                self.pair.initiate()
            return
        info = self.random.choice(infos)
        children = info.children
        deed = self.random.randrange(10)
        if deed < 4 and children:
            party.endpoint.rekey_child(info.ike_sa, self.random.choice(children).spi_in, now=self.pair.now)
        elif deed < 7:
            party.endpoint.rekey_ike(info.ike_sa, now=self.pair.now)
        elif deed == 7:
            config = self.random.choice(info.peer.children)
            party.endpoint.create_child(info.ike_sa, config, now=self.pair.now)
        elif deed == 8 and children:
            party.endpoint.delete_child(info.ike_sa, self.random.choice(children).spi_in, now=self.pair.now)
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
