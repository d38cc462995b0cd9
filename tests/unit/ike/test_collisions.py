"""Both ends want something at once (RFC 7296 sections 2.8.1, 2.8.2, 2.25.1 and 2.25.2), one message a line.

`next_nonces` says how each nonce begins, so that it is the test that decides who wins. Messages that cross are taken
from both ends before either is delivered.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from hauberk_ike import (
    ChildSaDown,
    ChildSaFailed,
    ChildSaUp,
    Datagram,
    IkeSaDown,
    IkeSaId,
    IkeSaRekeyed,
    IkeSaUp,
    ReauthenticationNeeded,
)
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.header import Header
from hauberk_ike.wire.payloads import Notify
from tests.unit.ike.party import ALICE, Pair, Party, agree, child, turned
from tests.unit.ike.raw_peer import RawPeer

ESP = "aes128gcm16-esn"
LOSERS = [
    pytest.param((0x00, 0xA1, 0xB0, 0xB1), "alice", id="Ni of Alice's"),
    pytest.param((0xA0, 0x00, 0xB0, 0xB1), "alice", id="Nr of Alice's"),
    pytest.param((0xA0, 0xA1, 0x00, 0xB1), "bob", id="Ni of Bob's"),
    pytest.param((0xA0, 0xA1, 0xB0, 0x00), "bob", id="Nr of Bob's"),
]
"""Which of the four nonces is the lowest, and whose new SA is therefore the redundant one."""


def take(party: Party, pair: Pair) -> Datagram:
    """The one datagram that a party sends, which is on its way now."""
    (datagram,) = party.take(pair.now)
    return datagram


def bobs(pair: Pair) -> IkeSaId:
    (info,) = pair.bob.endpoint.established()
    return info.ike_sa


def alices(pair: Pair) -> IkeSaId:
    (info,) = pair.alice.endpoint.established()
    return info.ike_sa


def one_each(pair: Pair, children: int = 1) -> None:
    """Both have the same IKE SA and the same CHILD SAs, and nothing else is going on."""
    assert pair.quiet()
    (alice,) = pair.alice.endpoint.established()
    (bob,) = pair.bob.endpoint.established()
    assert (alice.spi_i, alice.spi_r) == (bob.spi_i, bob.spi_r)
    assert len(alice.children) == len(bob.children) == len(pair.alice.kernel) == children
    agree(pair.alice, pair.bob)


# CHILD rekey and CHILD rekey


@pytest.mark.parametrize(("nonces", "loser"), LOSERS)
@pytest.mark.parametrize("answers", ["alice first", "bob first"])
def test_both_rekey_the_same_child(nonces: tuple[int, int, int, int], loser: str, answers: str) -> None:
    pair = Pair()
    handle = pair.set_up()
    old_a, old_b = pair.alice.one(ChildSaUp).spi_in, pair.bob.one(ChildSaUp).spi_in
    pair.alice.next_nonces, pair.bob.next_nonces = [nonces[0], nonces[3]], [nonces[2], nonces[1]]
    pair.alice.endpoint.rekey_child(handle, old_a, now=pair.now)
    pair.bob.endpoint.rekey_child(bobs(pair), old_b, now=pair.now)
    ask_a, ask_b = take(pair.alice, pair), take(pair.bob, pair)
    pair.bob.receive(ask_a, pair.now)  # --> CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, TSi, TSr
    pair.alice.receive(ask_b, pair.now)  # <-- CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, TSi, TSr
    for party in (pair.alice, pair.bob):
        assert [up.rekeyed_spi_in for up in party.seen(ChildSaUp)[1:]] == [old_a if party is pair.alice else old_b]
    answer_b, answer_a = take(pair.bob, pair), take(pair.alice, pair)
    deliveries = [(pair.alice, answer_b), (pair.bob, answer_a)]  # both: CREATE_CHILD_SA: SA, Nr, TSi, TSr
    for party, answer in deliveries if answers == "alice first" else reversed(deliveries):
        party.receive(answer, pair.now)
    winner = pair.bob if loser == "alice" else pair.alice
    for party in (pair.alice, pair.bob):
        asked = party.seen(ChildSaUp)[2]
        assert asked.initiator
        assert asked.redundant is (party is not winner)
    # Both: INFORMATIONAL: D(ESP), of the old one by the winner and of its redundant one by the loser.
    delete_a, delete_b = take(pair.alice, pair), take(pair.bob, pair)
    pair.bob.receive(delete_a, pair.now)
    pair.alice.receive(delete_b, pair.now)
    pair.settle()
    assert [down.by_peer for down in pair.alice.seen(ChildSaDown)].count(True) == 1
    assert {up.initiator for up in winner.kernel.values()} == {True}
    one_each(pair)


def test_a_rekey_that_the_peer_does_not_notice_is_refused_when_it_comes_and_its_own_stays() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    late = take(pair.alice, pair)  # --> CREATE_CHILD_SA: N(REKEY_SA), which is slow
    pair.bob.endpoint.rekey_child(bobs(pair), pair.bob.one(ChildSaUp).spi_in, now=pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(REKEY_SA): Alice notices
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Nr: Bob does not
    delete = take(pair.bob, pair)  # <-- INFORMATIONAL: D(ESP) of the old one
    pair.bob.receive(late, pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(TEMPORARY_FAILURE), as Bob is closing it
    pair.alice.receive(delete, pair.now)
    pair.to_bob()  # --> INFORMATIONAL: D(ESP)
    assert not pair.alice.seen(ChildSaFailed)
    pair.wait(9)
    assert pair.quiet(), "nothing is tried again"
    one_each(pair)


def test_a_rekey_that_comes_when_the_old_child_is_gone_finds_no_child_and_that_is_all() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    late = take(pair.alice, pair)  # --> CREATE_CHILD_SA: N(REKEY_SA), which is very slow
    pair.bob.endpoint.rekey_child(bobs(pair), pair.bob.one(ChildSaUp).spi_in, now=pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(REKEY_SA)
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Nr
    pair.to_alice()  # <-- INFORMATIONAL: D(ESP) of the old one, which Alice is rekeying: answered as usual
    pair.to_bob()  # --> INFORMATIONAL: D(ESP)
    pair.bob.receive(late, pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(CHILD_SA_NOT_FOUND)
    assert len(pair.alice.seen(ChildSaUp)) == 2, "no new one from scratch: Bob's rekey has made it"
    one_each(pair)


def test_a_child_that_the_peer_does_not_have_is_replaced_by_a_new_one_and_not_asked_for_again() -> None:
    pair = Pair()
    handle = pair.set_up()
    old = pair.alice.one(ChildSaUp)
    (info,) = pair.bob.endpoint.established()
    pair.bob.endpoint.delete_child(info.ike_sa, pair.bob.one(ChildSaUp).spi_in, now=pair.now)
    deletion = take(pair.bob, pair)  # <-- INFORMATIONAL: D(ESP)
    pair.alice.endpoint.rekey_child(handle, old.spi_in, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: N(REKEY_SA), of what Bob is closing
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(TEMPORARY_FAILURE)
    assert pair.quiet(), "no immediate retry"
    pair.alice.receive(deletion, pair.now)
    pair.to_bob()  # --> INFORMATIONAL: D(ESP)
    assert pair.alice.one(ChildSaDown).by_peer
    pair.wait(9)
    one_each(pair, children=0)


# CHILD rekey and CHILD delete


def test_a_child_is_deleted_that_we_are_rekeying() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.bob.endpoint.delete_child(bobs(pair), pair.bob.one(ChildSaUp).spi_in, now=pair.now)
    rekey, deletion = take(pair.alice, pair), take(pair.bob, pair)
    pair.alice.receive(deletion, pair.now)  # <-- INFORMATIONAL: D(ESP)
    pair.bob.receive(rekey, pair.now)  # --> CREATE_CHILD_SA: N(REKEY_SA)
    pair.to_bob()  # --> INFORMATIONAL: D(ESP), as usual
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(TEMPORARY_FAILURE)
    pair.settle()
    assert not pair.alice.seen(ChildSaFailed)
    one_each(pair, children=0)


def refused_for_minutes(pair: Pair) -> list[float]:
    """Alice asks for a rekey until she concludes something from Bob's refusals; when she asked."""
    handle = pair.set_up()
    pair.bob.policy.spis_left = 0  # Bob's kernel has no SPI: TEMPORARY_FAILURE
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    tries: list[float] = []
    while True:
        for datagram in pair.alice.take(pair.now):
            if Header.parse(datagram.data).exchange_type == 36:
                tries.append(pair.now)
            pair.bob.receive(datagram, pair.now)  # --> CREATE_CHILD_SA: N(REKEY_SA), or DPD
        for datagram in pair.bob.take(pair.now):
            pair.alice.receive(datagram, pair.now)  # <-- CREATE_CHILD_SA: N(TEMPORARY_FAILURE), or DPD
        if pair.alice.seen(ReauthenticationNeeded):
            return tries
        pair.wait(60)


def test_a_temporary_failure_is_waited_out_and_not_for_ever() -> None:
    pair = Pair()
    tries = refused_for_minutes(pair)
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) == 8
    assert min(waits) >= 1.0
    assert 60 < sum(waits) < 240
    assert pair.alice.one(ReauthenticationNeeded).reason == "TEMPORARY_FAILURE"
    assert pair.alice.one(ChildSaFailed).rekeyed_spi_in == pair.alice.one(ChildSaUp).spi_in
    assert not pair.alice.leaked


def test_an_ike_sa_that_is_out_of_step_is_closed_but_not_before_another_one_could_take_its_place() -> None:
    pair = Pair(dpd_seconds=0)
    refused_for_minutes(pair)
    concluded = pair.now
    pair.wait(60)
    assert len(pair.alice.kernel) == 1  # it carries packets as before
    assert not pair.alice.seen(IkeSaDown)
    pair.wait(1000)
    assert pair.now == concluded + 120
    pair.to_bob()  # --> INFORMATIONAL: D(IKE)
    pair.to_alice()  # <-- INFORMATIONAL
    assert "out of step" in pair.alice.one(IkeSaDown).message
    assert pair.bob.seen(IkeSaDown)
    assert not pair.alice.kernel
    assert not pair.bob.kernel
    assert pair.quiet()


def test_an_ike_sa_that_is_out_of_step_and_was_replaced_in_time_goes_with_its_replacement() -> None:
    pair = Pair(dpd_seconds=0)
    refused_for_minutes(pair)
    pair.bob.policy.spis_left = 10
    new = pair.alice.endpoint.reauthenticate(pair.alice.one(IkeSaUp).ike_sa, now=pair.now)
    pair.settle()
    assert pair.alice.one(IkeSaDown).message == "reauthenticated"
    pair.wait(1000)
    assert [info.ike_sa for info in pair.alice.endpoint.established()] == [new]
    one_each(pair)


def test_a_rekey_of_the_ike_sa_that_is_refused_for_minutes_closes_it_too() -> None:
    pair = Pair(dpd_seconds=0)
    raw = RawPeer(pair.bob, ALICE).set_up()
    pair.bob.endpoint.rekey_ike(pair.bob.one(IkeSaUp).ike_sa, now=pair.now)
    failure = Notify(type=NotifyType.TEMPORARY_FAILURE)
    asked: list[int] = []
    for _ in range(20):
        for request in pair.bob.take(pair.now):
            header = Header.parse(request.data)
            asked.append(header.exchange_type)  # <-- CREATE_CHILD_SA: SA, Ni, KEi, and in the end D(IKE)
            answer = [failure] if header.exchange_type == ExchangeType.CREATE_CHILD_SA else []
            raw.now = pair.now
            raw.send(raw.seal(header.exchange_type, answer, message_id=header.message_id, response=True))
        pair.wait(200)
    assert asked == [ExchangeType.CREATE_CHILD_SA] * 8 + [ExchangeType.INFORMATIONAL]
    assert pair.bob.one(ReauthenticationNeeded).reason == "TEMPORARY_FAILURE"
    assert "out of step" in pair.bob.one(IkeSaDown).message


# IKE rekey and IKE rekey


@pytest.mark.parametrize(("nonces", "loser"), LOSERS)
@pytest.mark.parametrize("answers", ["alice first", "bob first"])
def test_both_rekey_the_ike_sa(nonces: tuple[int, int, int, int], loser: str, answers: str) -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.next_nonces, pair.bob.next_nonces = [nonces[0]], [nonces[2]]
    pair.alice.endpoint.rekey_ike(handle, now=pair.now)
    pair.bob.endpoint.rekey_ike(bobs(pair), now=pair.now)
    ask_a, ask_b = take(pair.alice, pair), take(pair.bob, pair)
    pair.alice.next_nonces, pair.bob.next_nonces = [nonces[3]], [nonces[1]]
    pair.bob.receive(ask_a, pair.now)  # --> CREATE_CHILD_SA: SA, Ni, KEi
    pair.alice.receive(ask_b, pair.now)  # <-- CREATE_CHILD_SA: SA, Ni, KEi
    for party in (pair.alice, pair.bob):
        assert not party.seen(IkeSaRekeyed), "it is not known yet which one the children are to have"
    answer_b, answer_a = take(pair.bob, pair), take(pair.alice, pair)
    deliveries = [(pair.alice, answer_b), (pair.bob, answer_a)]  # both: CREATE_CHILD_SA: SA, Nr, KEr
    for party, answer in deliveries if answers == "alice first" else reversed(deliveries):
        party.receive(answer, pair.now)
    for party, name in ((pair.alice, "alice"), (pair.bob, "bob")):
        assert party.one(IkeSaRekeyed).initiator is (name != loser)
    # Both: INFORMATIONAL: D(IKE), in the old one by the winner and in its redundant one by the loser.
    delete_a, delete_b = take(pair.alice, pair), take(pair.bob, pair)
    pair.bob.receive(delete_a, pair.now)
    pair.alice.receive(delete_b, pair.now)
    pair.settle()
    for party in (pair.alice, pair.bob):
        assert not party.seen(IkeSaDown)
        assert not party.seen(ChildSaDown)
    one_each(pair)


def test_an_ike_rekey_that_the_peer_does_not_notice_is_forgotten_with_the_delete() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.rekey_ike(handle, now=pair.now)
    late = take(pair.alice, pair)  # --> CREATE_CHILD_SA: SA, Ni, KEi, which is slow
    pair.bob.endpoint.rekey_ike(bobs(pair), now=pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Ni, KEi
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Nr, KEr: Bob's is complete
    assert pair.bob.one(IkeSaRekeyed).initiator
    pair.to_alice()  # <-- INFORMATIONAL: D(IKE), in the old one
    assert not pair.alice.one(IkeSaRekeyed).initiator
    pair.to_bob()  # --> INFORMATIONAL
    pair.bob.receive(late, pair.now)  # met with silence: that IKE SA is no more
    one_each(pair)


def test_an_ike_rekey_that_comes_when_the_peer_s_is_complete_is_refused_and_the_peer_s_stays() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.rekey_ike(handle, now=pair.now)
    late = take(pair.alice, pair)  # --> CREATE_CHILD_SA: SA, Ni, KEi, which is slow
    pair.bob.endpoint.rekey_ike(bobs(pair), now=pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Ni, KEi
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Nr, KEr
    deletion = take(pair.bob, pair)  # <-- INFORMATIONAL: D(IKE), in the old one
    pair.bob.receive(late, pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(TEMPORARY_FAILURE)
    assert not pair.alice.one(IkeSaRekeyed).initiator
    pair.alice.receive(deletion, pair.now)
    pair.to_bob()  # --> INFORMATIONAL
    one_each(pair)


def test_the_peer_uses_its_new_ike_sa_before_we_know_that_it_stays() -> None:
    pair = Pair(bob_children=(turned(child()), turned(child("more"))), children=(child(), child("more")))
    handle = pair.set_up()
    pair.settle()
    pair.alice.endpoint.rekey_ike(handle, now=pair.now)
    pair.lose(pair.alice)  # --> CREATE_CHILD_SA: SA, Ni, KEi is lost
    pair.bob.endpoint.rekey_ike(bobs(pair), now=pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Ni, KEi
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Nr, KEr
    pair.lose(pair.bob)  # <-- INFORMATIONAL: D(IKE) in the old one is lost
    pair.bob.endpoint.rekey_child(bobs(pair), pair.bob.seen(ChildSaUp)[0].spi_in, now=pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(REKEY_SA), in the new one
    assert not pair.alice.one(IkeSaRekeyed).initiator
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Nr
    pair.to_alice()  # <-- INFORMATIONAL: D(ESP)
    pair.to_bob()  # --> INFORMATIONAL: D(ESP)
    pair.wait(1)  # both: again what was lost
    pair.settle()
    one_each(pair, children=2)


# IKE rekey, and something else


def test_a_child_is_created_while_the_peer_rekeys_the_ike_sa() -> None:
    pair = Pair(children=(child(), child("more")))
    handle = pair.set_up()
    pair.settle()
    pair.alice.endpoint.create_child(handle, child("more"), now=pair.now)
    pair.bob.endpoint.rekey_ike(bobs(pair), now=pair.now)
    create, rekey = take(pair.alice, pair), take(pair.bob, pair)
    pair.bob.receive(create, pair.now)  # --> CREATE_CHILD_SA: SA, Ni, TSi, TSr
    assert len(pair.bob.kernel) == 2
    pair.alice.receive(rekey, pair.now)  # <-- CREATE_CHILD_SA: SA, Ni, KEi
    refusals = take(pair.bob, pair), take(pair.alice, pair)
    pair.alice.receive(refusals[0], pair.now)  # <-- CREATE_CHILD_SA: N(TEMPORARY_FAILURE)
    pair.bob.receive(refusals[1], pair.now)  # --> CREATE_CHILD_SA: N(TEMPORARY_FAILURE)
    assert pair.quiet()
    for _ in range(4):
        pair.wait(3)  # both try again, at times of their own
        pair.settle()
    assert not pair.alice.seen(ChildSaFailed)
    assert pair.alice.one(IkeSaRekeyed)
    one_each(pair, children=3)


def test_a_child_is_rekeyed_while_the_peer_rekeys_the_ike_sa() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.bob.endpoint.rekey_ike(bobs(pair), now=pair.now)
    pair.settle()  # the requests cross: TEMPORARY_FAILURE for both
    assert len(pair.alice.seen(ChildSaUp)) == 1
    assert not pair.alice.seen(IkeSaRekeyed)
    for _ in range(4):
        pair.wait(3)
        pair.settle()
    assert len(pair.alice.seen(ChildSaUp)) == 2
    assert pair.bob.one(IkeSaRekeyed)
    one_each(pair)


def test_a_child_is_deleted_while_the_peer_rekeys_the_ike_sa() -> None:
    pair = Pair(children=(child(), child("more")))
    handle = pair.set_up()
    pair.settle()
    pair.alice.endpoint.delete_child(handle, pair.alice.seen(ChildSaUp)[0].spi_in, now=pair.now)
    pair.bob.endpoint.rekey_ike(bobs(pair), now=pair.now)
    deletion, rekey = take(pair.alice, pair), take(pair.bob, pair)
    pair.bob.receive(deletion, pair.now)  # --> INFORMATIONAL: D(ESP)
    pair.alice.receive(rekey, pair.now)  # <-- CREATE_CHILD_SA: SA, Ni, KEi
    pair.to_alice()  # <-- INFORMATIONAL: D(ESP), as usual
    pair.to_bob()  # --> CREATE_CHILD_SA: N(TEMPORARY_FAILURE)
    for _ in range(3):
        pair.wait(3)
        pair.settle()
    assert pair.alice.one(IkeSaRekeyed)
    one_each(pair)


@pytest.mark.parametrize("what", ["the IKE SA", "a CHILD SA"])
def test_the_ike_sa_is_deleted_while_the_peer_rekeys(what: str) -> None:
    pair = Pair()
    handle = pair.set_up()
    if what == "a CHILD SA":
        pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    else:
        pair.alice.endpoint.rekey_ike(handle, now=pair.now)
    pair.bob.endpoint.delete(bobs(pair), now=pair.now)
    rekey, deletion = take(pair.alice, pair), take(pair.bob, pair)
    pair.bob.receive(rekey, pair.now)  # --> CREATE_CHILD_SA
    pair.alice.receive(deletion, pair.now)  # <-- INFORMATIONAL: D(IKE): Alice forgets her own
    refusal = take(pair.bob, pair)  # <-- CREATE_CHILD_SA: N(TEMPORARY_FAILURE)
    pair.to_bob()  # --> INFORMATIONAL
    pair.alice.receive(refusal, pair.now)
    for party in (pair.alice, pair.bob):
        assert party.one(IkeSaDown)
        assert party.one(ChildSaDown)
        assert not party.policy.allocated
        assert party.endpoint.established() == ()
    assert pair.quiet()


def test_deleting_an_ike_sa_that_we_are_rekeying_deletes_the_new_one_too() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.rekey_ike(handle, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Ni, KEi: the children are the new one's now, there
    pair.alice.endpoint.delete(handle, now=pair.now)
    pair.settle()  # <-- CREATE_CHILD_SA, then D(IKE) in both
    for party in (pair.alice, pair.bob):
        assert party.one(IkeSaDown)
        assert party.one(ChildSaDown)
        assert not party.policy.allocated
    pair.wait(200)
    assert pair.quiet()


# Lost and repeated answers in the middle


def test_a_lost_answer_of_a_rekey_is_repeated_and_makes_no_second_child() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: N(REKEY_SA)
    lost = pair.lose(pair.bob)
    pair.wait(1)
    pair.to_bob()  # --> CREATE_CHILD_SA, again
    assert pair.to_alice().data == lost.data  # <-- CREATE_CHILD_SA, from memory
    pair.settle()
    assert len(pair.bob.seen(ChildSaUp)) == 2
    one_each(pair)


def test_a_child_whose_answer_is_lost_is_not_rekeyed_before_the_other_end_knows_it() -> None:
    pair = Pair(children=(child(), child("more")))
    handle = pair.set_up()
    pair.settle()
    pair.alice.endpoint.create_child(handle, child("more"), now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Ni, TSi, TSr
    pair.lose(pair.bob)  # the answer is lost
    pair.bob.endpoint.rekey_child(bobs(pair), pair.bob.seen(ChildSaUp)[-1].spi_in, now=pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(REKEY_SA), of what Alice is still asking for
    pair.to_bob()  # --> CREATE_CHILD_SA: N(TEMPORARY_FAILURE)
    for _ in range(3):
        pair.wait(3)
        pair.settle()
    assert len(pair.alice.seen(ChildSaUp)) == 4
    last = pair.bob.seen(ChildSaUp)[-1]
    assert last.rekeyed_spi_in == pair.bob.seen(ChildSaUp)[-2].spi_in, "rekeyed in the end, and not made anew"
    one_each(pair, children=3)


# What comes of it


def test_pitfall_17_every_inbound_spi_is_one_that_the_kernel_gave_and_none_is_used_twice() -> None:
    pair = Pair(children=(child(), child("more")))
    pair.set_up()
    pair.settle()
    for _ in range(5):
        for party in (pair.alice, pair.bob):
            (info,) = party.endpoint.established()
            for each in info.children:
                party.endpoint.rekey_child(info.ike_sa, each.spi_in, now=pair.now)
        pair.settle()  # both ends rekey the same ones
        pair.wait(9)
        pair.settle()
    for party in (pair.alice, pair.bob):
        used = [up.spi_in for up in party.seen(ChildSaUp)]
        assert len(used) == len(set(used)) > 10
        assert set(party.kernel) == party.policy.allocated
    one_each(pair, children=2)
