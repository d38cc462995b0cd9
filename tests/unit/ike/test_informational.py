"""INFORMATIONAL: liveness and deletion, orderly and not, and both sides at once."""

import pytest

from hauberk_ike import ChildSaDown, ChildSaFailed, ChildSaUp, DownReason, IkeSaDown, IkeSaUp, UnknownIkeSa
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol
from hauberk_ike.wire.header import Header
from hauberk_ike.wire.payloads import Delete, Notify
from tests.unit.ike.party import ALICE, Pair, agree, child, turned
from tests.unit.ike.raw_peer import RawPeer

# Liveness


def test_a_silent_peer_is_asked_and_answers() -> None:
    pair = Pair(dpd_seconds=10)
    pair.set_up()
    pair.wait(9)
    assert pair.quiet()
    pair.wait(2)
    request = pair.alice.take(pair.now)[0]  # --> INFORMATIONAL, empty
    assert Header.parse(request.data).exchange_type == ExchangeType.INFORMATIONAL
    pair.bob.take(pair.now)  # Bob's own is lost
    pair.bob.receive(request, pair.now)
    pair.to_alice()  # <-- INFORMATIONAL, empty
    pair.bob.take(pair.now)
    heard = pair.now
    while not (again := pair.alice.take(pair.now)):
        pair.wait(60)
        pair.bob.take(pair.now)
    assert pair.now == heard + 10
    assert again[0].data != request.data


def test_a_peer_that_talks_is_not_asked() -> None:
    pair = Pair(dpd_seconds=10)
    raw = RawPeer(pair.bob, ALICE).set_up()
    for _ in range(5):
        raw.now += 9
        assert raw.ask(ExchangeType.INFORMATIONAL, []) is not None
        pair.bob.endpoint.handle_timer(raw.now)
        assert not pair.bob.take(raw.now)


def test_no_liveness_checks_if_they_are_switched_off() -> None:
    pair = Pair(dpd_seconds=0)
    pair.set_up()
    pair.wait(100_000)
    assert pair.quiet()
    assert pair.alice.endpoint.get_timer() is None


def test_a_dead_peer_ends_the_ike_sa_and_only_that() -> None:
    pair = Pair(dpd_seconds=10)
    handle = pair.set_up()
    start = pair.now
    sent: list[bytes] = []
    for _ in range(20):
        pair.wait(60)
        sent += [datagram.data for datagram in pair.alice.take(pair.now)]
        pair.bob.take(pair.now)
    down = pair.alice.one(IkeSaDown)
    assert (down.ike_sa, down.reason) == (handle, DownReason.UNREACHABLE)
    assert len(sent) == 5
    assert len(set(sent)) == 1, "retransmissions are the same bytes"
    assert not pair.alice.seen(ChildSaDown), "CHILD SAs outlive the IKE SA"
    assert len(pair.alice.kernel) == 1
    assert pair.alice.endpoint.established() == ()
    assert pair.now - start > 10 + 31
    assert pair.alice.endpoint.get_timer() is None


def test_a_dead_peer_fails_the_child_that_is_being_created_and_gives_its_spi_back() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.create_child(handle, child("more"), now=pair.now)
    pair.alice.endpoint.create_child(handle, child("and more"), now=pair.now)
    for _ in range(20):
        pair.wait(60)
        pair.alice.take(pair.now)
        pair.bob.take(pair.now)
    assert [failed.label for failed in pair.alice.seen(ChildSaFailed)] == ["more", "and more"]
    assert pair.alice.one(IkeSaDown).reason is DownReason.UNREACHABLE
    assert not pair.alice.leaked


# Deletion of an IKE SA


def test_delete_ends_the_ike_sa_and_its_children_on_both_sides() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.delete(handle, now=pair.now, reason="revoked")
    assert pair.alice.endpoint.established() == ()
    request = pair.to_bob()  # --> INFORMATIONAL: D(IKE)
    assert Header.parse(request.data).message_id == 2
    assert pair.bob.one(IkeSaDown).reason is DownReason.DELETED_BY_PEER
    assert pair.bob.one(ChildSaDown).by_peer
    assert not pair.alice.seen(IkeSaDown)
    pair.to_alice()  # <-- INFORMATIONAL
    down = pair.alice.one(IkeSaDown)
    assert (down.reason, down.message) == (DownReason.DELETED, "revoked")
    assert not pair.alice.one(ChildSaDown).by_peer
    assert pair.quiet()
    for party in (pair.alice, pair.bob):
        assert not party.kernel
        assert not party.policy.allocated


def test_delete_is_given_up_when_nobody_answers() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.delete(handle, now=pair.now)
    for _ in range(10):
        pair.wait(60)
        pair.alice.take(pair.now)
        pair.bob.take(pair.now)
    assert pair.alice.one(IkeSaDown).reason is DownReason.DELETED
    assert not pair.alice.kernel
    with pytest.raises(UnknownIkeSa):
        pair.alice.endpoint.delete(handle, now=pair.now)


def test_both_delete_at_once() -> None:
    pair = Pair()
    handle = pair.set_up()
    (bobs,) = pair.bob.endpoint.established()
    pair.alice.endpoint.delete(handle, now=pair.now)
    pair.bob.endpoint.delete(bobs.ike_sa, now=pair.now)
    pair.settle()  # --> D(IKE) and <-- D(IKE) cross
    for party in (pair.alice, pair.bob):
        assert len(party.seen(IkeSaDown)) == 1
        assert not party.kernel
        assert not party.policy.allocated
    assert pair.quiet()


def test_deleting_twice_is_deleting_once() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.delete(handle, now=pair.now)
    pair.alice.endpoint.delete(handle, now=pair.now)
    pair.settle()
    assert len(pair.alice.seen(IkeSaDown)) == 1


def test_delete_before_the_first_answer_ends_the_attempt_at_once() -> None:
    pair = Pair()
    handle = pair.initiate()
    pair.lose(pair.alice)
    pair.alice.endpoint.delete(handle, now=pair.now)
    assert pair.alice.one(IkeSaDown).reason is DownReason.DELETED
    assert pair.quiet()
    assert pair.alice.endpoint.get_timer() is None


def test_delete_during_ike_auth_deletes_what_the_peer_has_established() -> None:
    pair = Pair()
    handle = pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.alice.endpoint.delete(handle, now=pair.now)
    pair.to_alice()  # <-- IKE_AUTH: Bob has an IKE SA and a CHILD SA now
    pair.to_bob()  # --> INFORMATIONAL: D(IKE)
    pair.to_alice()  # <-- INFORMATIONAL
    assert pair.alice.one(IkeSaDown).reason is DownReason.DELETED
    assert not pair.alice.seen(IkeSaUp)
    assert pair.bob.one(IkeSaDown).reason is DownReason.DELETED_BY_PEER
    for party in (pair.alice, pair.bob):
        assert not party.kernel
        assert not party.policy.allocated


def test_delete_waits_for_the_child_that_is_being_created() -> None:
    pair = Pair(bob_children=(turned(child()), turned(child("more"))))
    handle = pair.set_up()
    pair.alice.endpoint.create_child(handle, child("more"), now=pair.now)
    pair.alice.endpoint.delete(handle, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA
    pair.to_alice()  # <-- CREATE_CHILD_SA
    pair.to_bob()  # --> INFORMATIONAL: D(IKE)
    pair.to_alice()  # <-- INFORMATIONAL
    for party in (pair.alice, pair.bob):
        assert len(party.seen(IkeSaDown)) == 1
        assert not party.kernel
        assert not party.policy.allocated


def test_forget_says_nothing_to_anybody() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.create_child(handle, child("more"), now=pair.now)
    pair.alice.take(pair.now)
    before = len(pair.alice.events)
    pair.alice.endpoint.forget(handle)
    assert pair.quiet()
    assert len(pair.alice.events) == before
    assert not pair.alice.leaked, "the SPI of the unfinished child is given back"
    assert pair.alice.endpoint.established() == ()
    assert pair.alice.endpoint.get_timer() is None


# Deletion of a CHILD SA


def test_a_child_is_deleted_and_the_ike_sa_stays() -> None:
    pair = Pair(children=(child(), child("two")))
    handle = pair.set_up()
    pair.settle()
    first = pair.alice.seen(ChildSaUp)[0]
    pair.alice.endpoint.delete_child(handle, first.spi_in, now=pair.now)
    pair.to_bob()  # --> INFORMATIONAL: D(ESP, our inbound SPI)
    assert pair.bob.one(ChildSaDown).spi_out == first.spi_in
    assert not pair.alice.seen(ChildSaDown)
    pair.to_alice()  # <-- INFORMATIONAL: D(ESP, the peer's inbound SPI)
    assert pair.alice.one(ChildSaDown).spi_in == first.spi_in
    assert len(pair.alice.kernel) == 1
    agree(pair.alice, pair.bob)


def test_both_delete_the_same_child_at_once() -> None:
    pair = Pair()
    handle = pair.set_up()
    (bobs,) = pair.bob.endpoint.established()
    pair.alice.endpoint.delete_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.bob.endpoint.delete_child(bobs.ike_sa, pair.bob.one(ChildSaUp).spi_in, now=pair.now)
    pair.settle()  # the requests cross
    for party in (pair.alice, pair.bob):
        assert party.one(ChildSaDown)
        assert not party.policy.allocated
        assert len(party.endpoint.established()) == 1


def test_a_child_that_is_deleted_before_its_answer_has_arrived_does_not_live() -> None:
    pair = Pair(bob_children=(turned(child()), turned(child("more"))))
    handle = pair.set_up()
    pair.alice.endpoint.create_child(handle, child("more"), now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Ni, TSi, TSr
    pair.lose(pair.bob)  # the answer is lost
    (bobs,) = pair.bob.endpoint.established()
    pair.bob.endpoint.delete_child(bobs.ike_sa, pair.bob.seen(ChildSaUp)[1].spi_in, now=pair.now)
    pair.to_alice()  # <-- INFORMATIONAL: D(ESP) of a child that Alice does not have yet
    pair.to_bob()  # --> INFORMATIONAL
    pair.wait(1)
    pair.to_bob()  # --> CREATE_CHILD_SA, again
    pair.to_alice()  # <-- CREATE_CHILD_SA, from memory
    assert pair.alice.one(ChildSaDown).by_peer
    assert len(pair.alice.kernel) == 1
    agree(pair.alice, pair.bob)


def test_a_delete_for_a_child_that_does_not_exist_is_answered_and_changes_nothing() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    answer = raw.ask(ExchangeType.INFORMATIONAL, [Delete(protocol=Protocol.ESP, spi_size=4, spis=(b"none", b"here"))])
    assert answer is not None
    assert answer.payloads == ()
    answer = raw.ask(ExchangeType.INFORMATIONAL, [Delete(protocol=Protocol.AH, spi_size=4, spis=(bytes(4),))])
    assert answer is not None
    assert not pair.bob.seen(ChildSaDown)
    (info,) = pair.bob.endpoint.established()
    pair.bob.endpoint.delete_child(info.ike_sa, 12345, now=pair.now)
    assert not pair.bob.take(pair.now)


def test_a_delete_names_several_children_and_only_those_of_its_own_ike_sa() -> None:
    pair = Pair(children=(child(), child("two"), child("three")))
    handle = pair.set_up()
    pair.settle()
    other = Pair(children=(child(),))
    other.set_up()
    raw = RawPeer(pair.bob, ALICE, spi=b"2nd peer").set_up()
    spis = tuple(up.spi_in.to_bytes(4) for up in pair.alice.seen(ChildSaUp))
    raw.ask(ExchangeType.INFORMATIONAL, [Delete(protocol=Protocol.ESP, spi_size=4, spis=spis)])
    assert not pair.bob.seen(ChildSaDown), "another IKE SA's children"
    for up in pair.alice.seen(ChildSaUp):
        pair.alice.endpoint.delete_child(handle, up.spi_in, now=pair.now)
    pair.settle()
    assert len(pair.bob.seen(ChildSaDown)) == 3


def test_a_delete_with_spis_of_another_length_is_invalid_syntax() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    answer = raw.ask(ExchangeType.INFORMATIONAL, [Delete(protocol=Protocol.ESP, spi_size=8, spis=(bytes(8),))])
    assert answer is not None
    assert answer.notify(NotifyType.INVALID_SYNTAX)
    assert pair.bob.one(IkeSaDown).reason is DownReason.FAILED


@pytest.mark.parametrize("notify", [NotifyType.AUTHENTICATION_FAILED, NotifyType.INVALID_SYNTAX])
def test_a_peer_that_rejects_us_ends_the_ike_sa(notify: NotifyType) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    answer = raw.ask(ExchangeType.INFORMATIONAL, [Notify(type=notify)])
    assert answer is not None
    assert answer.payloads == ()
    assert notify.name in pair.bob.one(IkeSaDown).message
    assert not pair.bob.kernel


def test_notifies_that_mean_nothing_to_us_are_answered() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    for notify in (Notify(type=16400), Notify(type=9999, data=b"?"), Notify(type=NotifyType.INVALID_SPI)):
        answer = raw.ask(ExchangeType.INFORMATIONAL, [notify])
        assert answer is not None
        assert answer.payloads == ()
    assert len(pair.bob.endpoint.established()) == 1


# Make before break


def test_several_ike_sas_with_one_peer_live_side_by_side() -> None:
    pair = Pair()
    first = pair.set_up()
    pair.alice.events.clear()
    second = pair.set_up()
    assert {info.ike_sa for info in pair.alice.endpoint.established()} == {first, second}
    assert len(pair.alice.kernel) == 2
    pair.alice.endpoint.delete(first, now=pair.now)
    pair.settle()
    assert [info.ike_sa for info in pair.alice.endpoint.established()] == [second]
    assert len(pair.bob.endpoint.established()) == 1
    agree(pair.alice, pair.bob)


def test_both_initiate_at_once_and_both_ike_sas_are_reported() -> None:
    pair = Pair()
    pair.initiate()
    pair.bob.endpoint.initiate(pair.bob_peer, now=pair.now)
    pair.settle()
    for party in (pair.alice, pair.bob):
        assert sorted(up.initiator for up in party.seen(IkeSaUp)) == [False, True]
        assert len(party.kernel) == 2
    agree(pair.alice, pair.bob)
