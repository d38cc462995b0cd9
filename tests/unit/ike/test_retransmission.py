"""Messages that are lost, doubled, late or replayed (RFC 7296 sections 2.1 to 2.3)."""

from itertools import pairwise

import pytest

from hauberk_ike import DownReason, EndpointSettings, IkeSaDown, IkeSaUp, PeerRefused
from hauberk_ike.numbers import ExchangeType, Protocol
from hauberk_ike.wire.payloads import Delete
from tests.unit.ike.party import ALICE, Pair, agree
from tests.unit.ike.raw_peer import RawPeer


def test_a_request_is_sent_again_byte_for_byte_at_growing_intervals_and_given_up() -> None:
    pair = Pair(settings=EndpointSettings(retransmit_seconds=1, retransmit_base=2, retransmit_tries=5))
    handle = pair.initiate()
    sent = [(pair.now, pair.alice.take(pair.now)[0].data)]
    while not pair.alice.seen(IkeSaDown):
        pair.wait(16)
        sent += [(pair.now, datagram.data) for datagram in pair.alice.take(pair.now)]
    assert [later - earlier for (earlier, _), (later, _) in pairwise(sent)] == [1, 2, 4, 8]
    assert len({data for _, data in sent}) == 1
    down = pair.alice.one(IkeSaDown)
    assert (down.ike_sa, down.reason, down.message) == (handle, DownReason.FAILED, "no answer")
    assert pair.now == sent[-1][0] + 16
    assert pair.alice.endpoint.get_timer() is None


def test_pitfall_16_a_repeated_request_is_answered_from_memory_byte_for_byte() -> None:
    pair = Pair()
    pair.initiate()
    for _ in range(2):  # IKE_SA_INIT, then IKE_AUTH
        (request,) = pair.alice.take(pair.now)
        pair.bob.receive(request, pair.now)
        answers = pair.bob.take(pair.now)
        events = len(pair.bob.events)
        for _ in range(3):
            pair.bob.receive(request, pair.now)
            answers += pair.bob.take(pair.now)
        assert len(answers) == 4
        assert len({answer.data for answer in answers}) == 1
        assert len(pair.bob.events) == events
        pair.alice.receive(answers[0], pair.now)
        for answer in answers[1:]:
            pair.alice.receive(answer, pair.now)  # more of the same change nothing
    assert pair.alice.one(IkeSaUp)
    agree(pair.alice, pair.bob)


def test_pitfall_16_another_request_under_the_same_message_id_gets_nothing() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    assert raw.ask(ExchangeType.INFORMATIONAL, []) is not None
    raw.message_id -= 1
    assert raw.ask(ExchangeType.INFORMATIONAL, [Delete(protocol=Protocol.IKE)]) is None
    assert len(pair.bob.endpoint.established()) == 1


@pytest.mark.parametrize("ahead", [1, 2, 1000, -2])
def test_pitfall_16_message_ids_outside_the_window_get_nothing(ahead: int) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    for _ in range(3):
        raw.ask(ExchangeType.INFORMATIONAL, [])
    raw.message_id += ahead
    assert raw.ask(ExchangeType.INFORMATIONAL, [Delete(protocol=Protocol.IKE)]) is None
    raw.message_id -= ahead
    assert raw.ask(ExchangeType.INFORMATIONAL, []) is not None


def test_pitfall_16_an_answer_nobody_asked_for_gets_nothing() -> None:
    pair = Pair()
    pair.set_up()
    (bobs,) = pair.bob.endpoint.established()
    pair.bob.endpoint.delete(bobs.ike_sa, now=pair.now)
    (request,) = pair.bob.take(pair.now)
    answer = bytearray(request.data)
    answer[19] |= 0x20
    pair.alice.endpoint.receive_datagram(bytes(answer), local=pair.alice.address, remote=pair.bob.address, now=pair.now)
    assert pair.quiet()
    assert len(pair.alice.endpoint.established()) == 1


def test_pitfall_14_a_wrong_initiator_flag_gets_nothing() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    wrong = raw.seal(ExchangeType.INFORMATIONAL, [], message_id=raw.message_id, initiator_flag=False)
    assert raw.send(wrong) == []
    assert raw.ask(ExchangeType.INFORMATIONAL, []) is not None


def test_pitfall_14_our_own_requests_coming_back_get_nothing() -> None:
    pair = Pair()
    pair.set_up()
    pair.wait(11)
    for party in (pair.alice, pair.bob):
        (request,) = party.take(pair.now)
        party.receive(request, pair.now)
        for flag in (0x08, 0x20, 0x28):
            changed = bytearray(request.data)
            changed[19] ^= flag
            party.endpoint.receive_datagram(bytes(changed), local=request.local, remote=request.remote, now=pair.now)
        assert not party.take(pair.now)
        assert len(party.endpoint.established()) == 1


def test_a_message_that_fails_its_integrity_check_changes_nothing() -> None:
    pair = Pair()
    pair.set_up()
    pair.wait(11)
    (request,) = pair.alice.take(pair.now)
    pair.bob.take(pair.now)
    for index in range(len(request.data)):
        damaged = bytearray(request.data)
        damaged[index] ^= 0x01
        pair.bob.endpoint.receive_datagram(bytes(damaged), local=request.remote, remote=request.local, now=pair.now)
        assert not [each for each in pair.bob.take(pair.now) if each.data[16] == 46]
    pair.bob.receive(request, pair.now)
    pair.to_alice()  # the real one is still answered
    assert len(pair.alice.endpoint.established()) == len(pair.bob.endpoint.established()) == 1


def test_a_late_copy_of_the_first_request_makes_no_second_ike_sa() -> None:
    pair = Pair()
    pair.initiate()
    first = pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH
    pair.bob.receive(first, pair.now)  # --> IKE_SA_INIT, once more
    assert pair.quiet()
    pair.settle()
    assert not pair.bob.seen(PeerRefused)


def test_the_answer_to_a_delete_is_repeated_after_the_ike_sa_is_gone_and_then_forgotten() -> None:
    pair = Pair(settings=EndpointSettings(answer_memory_seconds=30))
    handle = pair.set_up()
    pair.alice.endpoint.delete(handle, now=pair.now)
    request = pair.to_bob()  # --> INFORMATIONAL: D(IKE)
    first = pair.lose(pair.bob)  # the answer is lost
    pair.wait(1)
    assert pair.to_bob().data == request.data  # --> INFORMATIONAL: D(IKE), again
    assert pair.to_alice().data == first.data  # <-- INFORMATIONAL
    assert pair.alice.one(IkeSaDown).reason is DownReason.DELETED
    pair.wait(60)
    pair.bob.receive(request, pair.now)
    assert pair.quiet()
    assert pair.bob.endpoint.get_timer() is None


def test_an_ike_sa_id_is_never_used_again() -> None:
    pair = Pair()
    seen: list[int] = []
    for _ in range(3):
        handle = pair.initiate()
        seen.append(handle)
        pair.alice.endpoint.forget(handle)
        pair.alice.take(pair.now)
    assert len(set(seen)) == 3
