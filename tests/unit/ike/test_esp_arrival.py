"""Whether ESP arrives, asked of the peer by IKE."""

import pytest

from hauberk_ike import ChildSaUp, EspArrived, IkeSaDown, UnknownIkeSa
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol
from hauberk_ike.wire.payloads import Notify
from tests.unit.ike.party import ALICE, BOB, Pair
from tests.unit.ike.raw_peer import RawPeer


def question(spi: bytes, *, data: bytes = b"", protocol: int = Protocol.ESP) -> Notify:
    return Notify(type=NotifyType.HAUBERK_ESP_ARRIVED, protocol=protocol, spi=spi, data=data)


def test_a_peer_tells_how_many_packets_it_has_got() -> None:
    pair = Pair()
    handle = pair.set_up()
    spi_out = pair.alice.one(ChildSaUp).spi_out
    pair.bob.policy.arrived[spi_out] = 70_000_000_000
    pair.alice.endpoint.ask_esp_arrived(handle, spi_out, now=pair.now)
    pair.to_bob()  # --> INFORMATIONAL: N(HAUBERK_ESP_ARRIVED), our outbound SPI
    pair.to_alice()  # <-- INFORMATIONAL: the same, and a number
    told = pair.alice.one(EspArrived)
    assert (told.ike_sa, told.spi_out, told.packets) == (handle, spi_out, 70_000_000_000)
    assert pair.quiet()


def test_the_other_end_may_ask_as_well() -> None:
    pair = Pair()
    pair.set_up()
    up = pair.bob.one(ChildSaUp)
    pair.alice.policy.arrived[up.spi_out] = 3
    pair.bob.endpoint.ask_esp_arrived(up.ike_sa, up.spi_out, now=pair.now)
    pair.settle()
    assert pair.bob.one(EspArrived).packets == 3


def test_a_peer_that_cannot_tell_says_nothing() -> None:
    pair = Pair()
    handle = pair.set_up()
    spi_out = pair.alice.one(ChildSaUp).spi_out
    pair.alice.endpoint.ask_esp_arrived(handle, spi_out, now=pair.now)
    pair.settle()
    assert pair.alice.one(EspArrived).packets is None


def test_a_question_about_a_child_that_is_gone_is_not_sent() -> None:
    pair = Pair()
    handle = pair.set_up()
    up = pair.alice.one(ChildSaUp)
    pair.alice.endpoint.delete_child(handle, up.spi_in, now=pair.now)
    pair.settle()
    pair.alice.endpoint.ask_esp_arrived(handle, up.spi_out, now=pair.now)
    assert pair.quiet()
    assert pair.alice.one(EspArrived).packets is None


def test_a_peer_of_another_make_is_not_asked() -> None:
    pair = Pair()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    handle = pair.initiate()
    asked = raw.take_init()
    raw.give_init(asked, [each for each in raw.init_payloads() if each.TYPE != 43])  # no Vendor ID
    answers = raw.send(raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(), message_id=1, response=True))
    assert not answers
    pair.alice.endpoint.ask_esp_arrived(handle, 0x5001, now=raw.now)
    assert not pair.alice.take(raw.now)
    assert pair.alice.one(EspArrived).packets is None


def test_a_peer_that_is_dead_gives_no_answer_but_its_end() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.ask_esp_arrived(handle, pair.alice.one(ChildSaUp).spi_out, now=pair.now)
    for _ in range(10):
        pair.wait(60)
        pair.alice.take(pair.now)
        pair.bob.take(pair.now)
    pair.alice.one(IkeSaDown)
    assert not pair.alice.seen(EspArrived)
    with pytest.raises(UnknownIkeSa):
        pair.alice.endpoint.ask_esp_arrived(handle, 1, now=pair.now)


def test_nobody_is_told_of_anybody_elses_sa() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    own = pair.bob.one(ChildSaUp).spi_in
    pair.bob.policy.arrived = {own: 1, 0x7777: 2}
    answer = raw.ask(ExchangeType.INFORMATIONAL, [question(own.to_bytes(4))])
    assert answer is not None
    assert answer.one(Notify).data == (1).to_bytes(8)
    answer = raw.ask(ExchangeType.INFORMATIONAL, [question((0x7777).to_bytes(4))])
    assert answer is not None
    assert answer.all(Notify) == ()


@pytest.mark.parametrize(
    "notify",
    [
        question(b"\1\2\3"),
        question(b"\1\2\3\4\5"),
        question(b"\1\2\3\4", protocol=Protocol.AH),
        question(b"\1\2\3\4", data=bytes(8)),
    ],
)
def test_a_question_without_sense_is_a_breach_of_the_protocol(notify: Notify) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    answer = raw.ask(ExchangeType.INFORMATIONAL, [notify])
    assert answer is not None
    assert answer.one(Notify).type == NotifyType.INVALID_SYNTAX


@pytest.mark.parametrize("data", [b"", bytes(7), bytes(9)])
def test_an_answer_that_is_no_number_is_a_breach_of_the_protocol(data: bytes) -> None:
    pair = Pair()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    handle = pair.initiate()
    raw.give_init(raw.take_init())
    raw.send(raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(), message_id=1, response=True))
    spi_out = pair.alice.one(ChildSaUp).spi_out
    pair.alice.endpoint.ask_esp_arrived(handle, spi_out, now=raw.now)
    (request,) = pair.alice.take(raw.now)
    assert raw.open(request).one(Notify).spi == spi_out.to_bytes(4)
    raw.send(
        raw.seal(
            ExchangeType.INFORMATIONAL,
            [question(spi_out.to_bytes(4), data=data)],
            message_id=2,
            response=True,
        )
    )
    assert pair.alice.one(IkeSaDown).message
    assert not pair.alice.seen(EspArrived)
