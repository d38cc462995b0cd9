"""Setting up over a seeded network that loses, doubles, delays and reorders. For whole lives see test_whole_lives."""

import random
from dataclasses import replace

import pytest

from hauberk_ike import ChildSaUp, EndpointSettings, IkeProposal, IkeSaDown, IkeSaUp
from tests.unit.ike.party import ALICE, Pair, Party, agree, child
from tests.unit.ike.terrible_network import TerribleNetwork

CHILDREN = (child("one"), child("two", local="10.7.0.0/16"), child("three", esp="aes256gcm16"))
SETTINGS = EndpointSettings(retransmit_tries=9, half_open_seconds=120)


def established(party: Party) -> set[tuple[bytes, bytes]]:
    return {(info.spi_i, info.spi_r) for info in party.endpoint.established()}


@pytest.mark.parametrize("seed", range(60))
def test_a_set_up_with_several_children_comes_to_agreement(seed: int) -> None:
    settings = replace(SETTINGS, cookie_threshold=0) if seed % 3 == 0 else SETTINGS
    ike = "aes128gcm16-prfsha256-x25519"
    if seed % 4 == 0:
        ike = "aes128gcm16-prfsha256-ecp256-x25519"
        settings = replace(settings, ike_proposals=(IkeProposal.parse("aes128gcm16-prfsha256-x25519"),))
    pair = Pair(children=CHILDREN, settings=settings, seed=seed, ike=ike, dpd_seconds=0)
    network = TerribleNetwork(pair, seed)
    pair.initiate()
    network.run(3000)
    assert [up.label for up in pair.alice.seen(ChildSaUp)] == ["one", "two", "three"], pair.alice.events
    assert established(pair.alice) == established(pair.bob)
    agree(pair.alice, pair.bob)
    assert pair.alice.endpoint.get_timer() is None
    assert pair.bob.endpoint.get_timer() is None


@pytest.mark.parametrize("seed", range(60))
def test_lives_of_random_deeds_on_both_sides_come_to_agreement(seed: int) -> None:
    pair = Pair(children=CHILDREN, settings=SETTINGS, seed=seed, dpd_seconds=15)
    network = TerribleNetwork(pair, seed, loss=0.15)
    choice = random.Random(1000 + seed)
    for _ in range(8):
        for party, peer in ((pair.alice, pair.alice_peer), (pair.bob, pair.bob_peer)):
            infos = party.endpoint.established()
            deed = choice.randrange(5)
            if deed == 0 or not infos:
                party.endpoint.initiate(peer, now=pair.now)
            elif deed == 1:
                party.endpoint.create_child(choice.choice(infos).ike_sa, choice.choice(peer.children), now=pair.now)
            elif deed == 2 and infos[0].children:
                party.endpoint.delete_child(infos[0].ike_sa, choice.choice(infos[0].children).spi_in, now=pair.now)
            elif deed == 3 and len(infos) > 1:
                party.endpoint.delete(choice.choice(infos).ike_sa, now=pair.now)
        network.run(choice.random() * 20)
    network.run(2000)
    assert established(pair.alice) == established(pair.bob)
    agree(pair.alice, pair.bob)
    every_attempt_ended(pair.alice)
    every_attempt_ended(pair.bob)


def every_attempt_ended(party: Party) -> None:
    """Each IKE SA that was reported up is established or was reported down, once."""
    up = [event.ike_sa for event in party.seen(IkeSaUp)]
    down = [event.ike_sa for event in party.seen(IkeSaDown)]
    alive = {info.ike_sa for info in party.endpoint.established()}
    assert len(set(up)) == len(up)
    assert len(set(down)) == len(down)
    assert {handle for handle in up if handle not in down} == alive


def test_a_peer_that_starts_anew_is_found_out_and_replaced() -> None:
    pair = Pair(dpd_seconds=10, initial_contact=True)
    pair.set_up()
    lost = pair.alice
    pair.alice = Party(ALICE, "192.0.2.1", seed=99)
    pair.alice.policy.peers = lost.policy.peers
    pair.initiate()
    pair.settle()
    newest = pair.bob.seen(IkeSaUp)[-1]
    assert newest.initial_contact
    assert len(pair.bob.endpoint.established()) == 2
    # What to do about the older one is its owner's decision; here it forgets it, as nobody is left to be told.
    (old,) = [info.ike_sa for info in pair.bob.endpoint.established() if info.ike_sa != newest.ike_sa]
    pair.bob.endpoint.forget(old)
    assert established(pair.alice) == established(pair.bob)
