"""Reauthentication before the break: a new IKE SA with the same CHILD SAs, and then the old one goes."""

from hauberk_ike import (
    ChildSaDown,
    ChildSaFailed,
    ChildSaUp,
    DownReason,
    IkeSaDown,
    IkeSaUp,
)
from tests.unit.ike.party import Pair, agree, child, turned


def test_a_new_ike_sa_takes_over_once_all_its_children_are_up() -> None:
    pair = Pair(children=(child("one"), child("two", local="10.7.0.0/16")))
    old = pair.set_up()
    pair.settle()
    before = {up.label: up.spi_in for up in pair.alice.seen(ChildSaUp)}
    new = pair.alice.endpoint.reauthenticate(old, now=pair.now)
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH, with "one"
    pair.to_alice()  # <-- IKE_AUTH
    up = pair.alice.seen(IkeSaUp)[1]
    assert (up.ike_sa, up.rekeyed, up.initial_contact) == (new, old, False)
    assert not pair.alice.seen(IkeSaDown)
    pair.to_bob()  # --> CREATE_CHILD_SA, for "two"
    pair.to_alice()  # <-- CREATE_CHILD_SA
    assert {up.label: up.rekeyed_spi_in for up in pair.alice.seen(ChildSaUp)[2:]} == before
    pair.to_bob()  # --> INFORMATIONAL: D(IKE), in the old one
    pair.to_alice()  # <-- INFORMATIONAL
    down = pair.alice.one(IkeSaDown)
    assert (down.ike_sa, down.reason, down.message) == (old, DownReason.DELETED, "reauthenticated")
    assert {each.spi_in for each in pair.alice.seen(ChildSaDown)} == set(before.values())
    assert [info.ike_sa for info in pair.alice.endpoint.established()] == [new]
    agree(pair.alice, pair.bob)
    assert pair.quiet()


def test_the_responder_may_do_it_too() -> None:
    pair = Pair()
    pair.set_up()
    (info,) = pair.bob.endpoint.established()
    new = pair.bob.endpoint.reauthenticate(info.ike_sa, now=pair.now)
    pair.settle()
    assert [each.ike_sa for each in pair.bob.endpoint.established()] == [new]
    assert len(pair.alice.endpoint.established()) == 1
    agree(pair.alice, pair.bob)


def test_if_a_child_is_not_to_be_had_the_old_ike_sa_stays() -> None:
    pair = Pair(children=(child("one"), child("two", local="10.7.0.0/16")))
    old = pair.set_up()
    pair.settle()
    pair.bob.policy.peers[pair.alice.identity] = type(pair.bob_peer)(
        name="alice",
        identity=pair.bob_peer.identity,
        local=pair.bob_peer.local,
        remote=pair.bob_peer.remote,
        ike_proposals=pair.bob_peer.ike_proposals,
        children=(turned(child("one")),),
    )
    new = pair.alice.endpoint.reauthenticate(old, now=pair.now)
    pair.settle()
    assert pair.alice.one(ChildSaFailed).label == "two"
    assert pair.alice.one(IkeSaDown).ike_sa == new
    assert [info.ike_sa for info in pair.alice.endpoint.established()] == [old]
    assert len(pair.alice.kernel) == 2
    agree(pair.alice, pair.bob)


def test_if_the_peer_does_not_answer_the_old_ike_sa_stays() -> None:
    pair = Pair(dpd_seconds=0)
    old = pair.set_up()
    new = pair.alice.endpoint.reauthenticate(old, now=pair.now)
    while not pair.alice.seen(IkeSaDown):
        pair.alice.take(pair.now)
        pair.wait(60)
    assert pair.alice.one(IkeSaDown).ike_sa == new
    assert [info.ike_sa for info in pair.alice.endpoint.established()] == [old]
    assert not pair.alice.leaked


def test_a_rekey_in_the_middle_changes_nothing() -> None:
    pair = Pair()
    old = pair.set_up()
    new = pair.alice.endpoint.reauthenticate(old, now=pair.now)
    pair.alice.take(pair.now)
    (info,) = pair.bob.endpoint.established()
    pair.bob.endpoint.rekey_ike(info.ike_sa, now=pair.now)
    pair.settle()  # the old one has another handle now
    pair.wait(1)  # --> IKE_SA_INIT, again
    pair.settle()
    assert [each.ike_sa for each in pair.alice.endpoint.established()] == [new]
    assert len(pair.bob.endpoint.established()) == 1
    agree(pair.alice, pair.bob)
