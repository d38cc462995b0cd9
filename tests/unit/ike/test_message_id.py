"""Message ids near the last one (RFC 7296 section 2.2): the IKE SA is rekeyed in time, or closed; none comes again.

Nobody sends thousands of millions of requests in a test: the windows are told that they have come so far.
"""

from hauberk_ike import Datagram, DownReason, IkeSaDown, IkeSaRekeyed
from hauberk_ike.exchanges.informational import Liveness
from hauberk_ike.ike_sa import IkeSa
from hauberk_ike.message_id import CLOSE_FROM, LAST_ID, PATIENCE, REKEY_FROM
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol
from hauberk_ike.wire.header import Header
from hauberk_ike.wire.payloads import Delete, Notify
from tests.unit.ike.party import ALICE, Pair, Party, agree
from tests.unit.ike.raw_peer import RawPeer


def the_ike_sa(party: Party) -> IkeSa:
    (sa,) = party.endpoint._registry.alive()  # pyright: ignore[reportPrivateUsage]
    return sa


def set_up(next_id: int) -> Pair:
    """An IKE SA in which Alice has sent so many requests."""
    pair = Pair()
    pair.set_up()
    the_ike_sa(pair.alice).requests.next_id = the_ike_sa(pair.bob).answers.expected_id = next_id
    return pair


def raw_peer(next_id: int) -> RawPeer:
    """The same with a peer that pays no regard to its ids."""
    raw = RawPeer(Pair().bob, ALICE).set_up()
    raw.message_id = the_ike_sa(raw.target).answers.expected_id = next_id
    return raw


def check(raw: RawPeer) -> tuple[list[Datagram], list[Datagram]]:
    """An empty INFORMATIONAL request of the raw peer's: what is answered, and what is asked in turn."""
    sent = raw.send(raw.seal(ExchangeType.INFORMATIONAL, [], message_id=raw.message_id))
    raw.message_id += 1
    answers = [each for each in sent if Header.parse(each.data).is_response]
    return answers, [each for each in sent if each not in answers]


def test_an_end_whose_ids_come_near_the_last_one_rekeys_the_ike_sa_and_begins_anew() -> None:
    pair = set_up(REKEY_FROM - 1)
    the_ike_sa(pair.alice).start(Liveness(), pair.now)
    pair.settle()
    assert not pair.alice.seen(IkeSaRekeyed)
    the_ike_sa(pair.alice).start(Liveness(), pair.now)
    assert Header.parse(pair.to_bob().data).message_id == REKEY_FROM  # --> INFORMATIONAL
    pair.to_alice()  # <-- INFORMATIONAL
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Ni, KEi
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, KEr
    assert pair.alice.one(IkeSaRekeyed).initiator
    pair.to_bob()  # --> INFORMATIONAL: D(IKE), in the old IKE SA
    pair.to_alice()  # <-- INFORMATIONAL
    the_ike_sa(pair.alice).start(Liveness(), pair.now)
    assert Header.parse(pair.to_bob().data).message_id == 0  # --> INFORMATIONAL, in the new one
    pair.to_alice()  # <-- INFORMATIONAL
    assert not pair.bob.seen(IkeSaDown)
    agree(pair.alice, pair.bob)


def test_if_it_does_not_its_peer_does_and_tries_it_again_when_that_comes_to_nothing() -> None:
    raw = raw_peer(REKEY_FROM)
    answers, requests = check(raw)  # --> INFORMATIONAL, <-- INFORMATIONAL
    assert (len(answers), requests) == (1, [])
    for turn in (1, 2):
        raw.message_id = the_ike_sa(raw.target).answers.expected_id = REKEY_FROM + turn * PATIENCE
        _, (request,) = check(raw)  # --> INFORMATIONAL, <-- INFORMATIONAL, <-- CREATE_CHILD_SA: SA, Ni, KEi
        header = Header.parse(request.data)
        assert header.exchange_type == ExchangeType.CREATE_CHILD_SA
        refusal = Notify(type=NotifyType.NO_PROPOSAL_CHOSEN)
        raw.send(
            raw.seal(ExchangeType.CREATE_CHILD_SA, [refusal], message_id=header.message_id, response=True)
        )  # --> CREATE_CHILD_SA: N(NO_PROPOSAL_CHOSEN)
        _, requests = check(raw)
        assert not requests


def test_where_nothing_comes_of_it_the_ike_sa_is_closed_with_ids_left() -> None:
    raw = raw_peer(CLOSE_FROM - 1)
    assert check(raw)[1] == []
    answers, (request,) = check(raw)  # --> INFORMATIONAL, <-- INFORMATIONAL, <-- INFORMATIONAL: D(IKE)
    assert len(answers) == 1
    assert raw.open(request).one(Delete).protocol == Protocol.IKE
    raw.send(raw.seal(ExchangeType.INFORMATIONAL, [], message_id=0, response=True))  # --> INFORMATIONAL
    down = raw.target.one(IkeSaDown)
    assert (down.reason, down.message) == (DownReason.DELETED, "its message ids are nearly used up")
    assert not raw.target.kernel
    assert not raw.target.leaked


def test_our_own_ids_close_it_too() -> None:
    pair = set_up(CLOSE_FROM)
    the_ike_sa(pair.alice).start(Liveness(), pair.now)
    pair.to_bob()  # --> INFORMATIONAL; Bob answers, and wants to end it as well
    bobs = pair.bob.take(pair.now)
    pair.carry(pair.alice, bobs[0])  # <-- INFORMATIONAL
    delete = pair.to_bob()  # --> INFORMATIONAL: D(IKE)
    assert Header.parse(delete.data).message_id == CLOSE_FROM + 1
    pair.settle()
    assert pair.alice.one(IkeSaDown).message == "its message ids are nearly used up"
    assert pair.bob.seen(IkeSaDown)
    assert not pair.alice.kernel
    assert not pair.bob.kernel


def test_nothing_is_sent_after_the_last_id() -> None:
    pair = set_up(LAST_ID + 1)
    the_ike_sa(pair.alice).start(Liveness(), pair.now)
    assert pair.quiet()
    down = pair.alice.one(IkeSaDown)
    assert (down.reason, down.message) == (DownReason.FAILED, "its message ids are used up")
    assert not pair.alice.kernel


def test_nothing_is_taken_after_the_last_id() -> None:
    raw = raw_peer(LAST_ID)
    last = raw.seal(ExchangeType.INFORMATIONAL, [], message_id=LAST_ID)
    answer = raw.send(last)[0]
    for message_id in (0, 1, 2, LAST_ID - 1, LAST_ID):
        assert not raw.send(raw.seal(ExchangeType.INFORMATIONAL, [], message_id=message_id))
    assert raw.send(last) == [answer]  # from memory
