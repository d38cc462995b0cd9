"""MOBIKE (RFC 4555) as responder: a peer that moves takes its SAs with it, if it may and can show that it is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike import (
    ChildSaUp,
    Datagram,
    DownReason,
    Encapsulation,
    EndpointSettings,
    IkeSaDown,
    IkeSaInfo,
    IkeSaMoved,
    IkeSaUp,
    Mode,
    PeerRefused,
    SocketAddress,
    UdpEncapsulation,
)
from hauberk_ike.encapsulation import KEEPALIVE, NON_ESP_MARKER
from hauberk_ike.exchanges.mobike import MAX_ADDITIONAL_ADDRESSES
from hauberk_ike.nat import build_notifies, detection_data
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.header import NO_SPI, Header
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import Notify
from tests.unit.ike.party import ALICE, Pair, address, child
from tests.unit.ike.raw_peer import RawPeer

HOME, AWAY, FURTHER = "192.0.2.1", "198.51.100.20", "203.0.113.30"
UPDATE = Notify(type=NotifyType.UPDATE_SA_ADDRESSES)
SUPPORTED = Notify(type=NotifyType.MOBIKE_SUPPORTED)


class Mobile(RawPeer):
    """A peer on port 4500 that wanders. `address` is where it is, `nat` what Bob sees of it if there is a NAT."""

    message_id: int

    def __init__(self, pair: Pair, *, notifies: Sequence[Notify] = (SUPPORTED,), nat: str | None = None) -> None:
        super().__init__(pair.bob, ALICE)
        self.there = replace(pair.bob.address, port=4500)
        self.nat = nat
        self.asked: list[Contents] = []
        """Requests of Bob's."""
        self.move(HOME)
        right = build_notifies(self.spi, NO_SPI, local=self.address, remote=self.there)
        assert self.ask_init([*self.init_payloads(), *right]) is not None
        self.answered = self.ask(ExchangeType.IKE_AUTH, [*self.auth_payloads(), *notifies])

    def move(self, host: str, port: int = 4500) -> None:
        self.address = address(host, port)

    @property
    def seen(self) -> SocketAddress:
        return address(self.nat, 4711) if self.nat else self.address

    def send(self, data: bytes) -> list[Datagram]:
        self.target.endpoint.receive_datagram(NON_ESP_MARKER + data, local=self.there, remote=self.seen, now=self.now)
        return [replace(each, data=each.data.removeprefix(NON_ESP_MARKER)) for each in self.target.take(self.now)]

    def update(self, *more: KnownPayload) -> Contents:
        """UPDATE_SA_ADDRESSES; Bob's answer. What he asks beside that is kept."""
        request = self.seal(ExchangeType.INFORMATIONAL, [UPDATE, *more], message_id=self.message_id)
        self.message_id += 1
        sent = self.send(request)
        assert {each.remote for each in sent} == {self.seen}
        self.asked += [self.open(each) for each in sent if not Header.parse(each.data).is_response]
        (answer,) = [each for each in sent if Header.parse(each.data).is_response]
        return self.open(answer)

    def nat_detection(self) -> tuple[Notify, Notify]:
        return build_notifies(self.spi_i, self.spi_r, local=self.address, remote=self.there)

    def give(self, payloads: Sequence[KnownPayload], *, message_id: int = 0) -> list[Datagram]:
        """Answers a request of Bob's."""
        return self.send(self.seal(ExchangeType.INFORMATIONAL, payloads, message_id=message_id, response=True))


def mobile_pair(*, mobike: bool = True, **options: Any) -> Pair:
    pair = Pair(dpd_seconds=0, **options)
    pair.bob_peer = replace(pair.bob_peer, mobike=mobike)
    pair.bob.policy.peers[ALICE] = pair.bob_peer
    return pair


def there(pair: Pair) -> IkeSaInfo:
    (info,) = pair.bob.endpoint.established()
    return info


def error(contents: Contents) -> int | None:
    notify = contents.error()
    return notify.type if notify is not None else None


# Who may


def test_mobike_is_agreed_on_in_ike_auth() -> None:
    raw = Mobile(mobile_pair())
    assert raw.answered is not None
    assert raw.answered.notify(NotifyType.MOBIKE_SUPPORTED) == SUPPORTED


def test_mobike_is_not_offered_to_whom_it_is_not_permitted_and_then_moves_nobody() -> None:
    pair = mobile_pair(mobike=False)
    raw = Mobile(pair)
    assert raw.answered is not None
    assert raw.answered.notify(NotifyType.MOBIKE_SUPPORTED) is None
    raw.move(AWAY)
    assert raw.update(Notify(type=NotifyType.COOKIE2, data=bytes(16))).payloads == ()
    assert there(pair).remote == address(HOME, 4500)
    assert not pair.bob.seen(IkeSaMoved)


def test_mobike_is_not_said_to_a_peer_that_did_not() -> None:
    pair = mobile_pair()
    raw = Mobile(pair, notifies=())
    assert raw.answered is not None
    assert raw.answered.notify(NotifyType.MOBIKE_SUPPORTED) is None
    raw.move(AWAY)
    raw.update()
    assert not pair.bob.seen(IkeSaMoved)


# Moving


def test_a_peer_moves_and_esp_follows_when_it_has_shown_that_it_is_there() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move(AWAY)
    answer = raw.update()  # --> N(UPDATE_SA_ADDRESSES) from the new address <-- empty, to there
    assert answer.payloads == ()
    assert there(pair).remote == raw.address
    assert not pair.bob.seen(IkeSaMoved)
    (asked,) = raw.asked  # <-- N(COOKIE2), to there
    cookie = asked.notify(NotifyType.COOKIE2)
    assert cookie is not None
    assert len(cookie.data) == 16
    raw.give([cookie])  # --> N(COOKIE2)
    moved = pair.bob.one(IkeSaMoved)
    assert (moved.local, moved.remote, moved.encapsulation) == (raw.there, raw.address, None)


def test_a_child_of_the_meantime_stays_where_the_peer_was_proved_to_be() -> None:
    pair = mobile_pair(children=(child(), child("second", local="10.7.0.0/16")))
    raw = Mobile(pair)
    raw.move(AWAY)
    raw.update()  # --> N(UPDATE_SA_ADDRESSES) <-- N(COOKIE2), not answered
    nonce = raw.init_payloads()[2]
    raw.ask(ExchangeType.CREATE_CHILD_SA, [nonce, *raw.child_payloads(spi=0x5002, ts_i="10.7.0.0/16")])
    assert {str(up.remote) for up in pair.bob.seen(ChildSaUp)} == {HOME}
    cookie = raw.asked[0].notify(NotifyType.COOKIE2)
    assert cookie is not None
    raw.give([cookie])
    assert pair.bob.one(IkeSaMoved).remote == raw.address  # of both children


def test_a_peer_that_brings_back_another_cookie_is_dismissed() -> None:
    for wrong in ([], [Notify(type=NotifyType.COOKIE2, data=bytes(16))]):
        pair = mobile_pair()
        raw = Mobile(pair)
        raw.move(AWAY)
        raw.update()  # --> N(UPDATE_SA_ADDRESSES) <-- N(COOKIE2)
        raw.give(wrong)
        assert not pair.bob.seen(IkeSaMoved)
        assert pair.bob.one(IkeSaDown).reason is DownReason.FAILED


def test_a_peer_that_does_not_receive_where_it_says_is_unreachable_and_esp_never_goes_there() -> None:
    pair = mobile_pair(settings=EndpointSettings(retransmit_tries=3))
    raw = Mobile(pair)
    raw.move(AWAY)
    raw.update()  # --> N(UPDATE_SA_ADDRESSES) <-- N(COOKIE2), never answered
    for _ in range(3):
        pair.wait(60)
        assert {each.remote.host for each in pair.bob.take(pair.now)} <= {raw.address.host}
    assert pair.bob.one(IkeSaDown).reason is DownReason.UNREACHABLE
    assert not pair.bob.seen(IkeSaMoved)


def test_a_peer_that_moves_on_before_it_has_shown_anything() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move(AWAY)
    raw.update()  # <-- N(COOKIE2)
    raw.move(FURTHER)
    raw.update()  # --> N(UPDATE_SA_ADDRESSES): the second question waits for its turn
    first = raw.asked[0].notify(NotifyType.COOKIE2)
    assert first is not None
    assert len(raw.asked) == 1
    (second,) = raw.give([first])  # --> the answer, from elsewhere: it proves nothing of the new place
    assert not pair.bob.seen(IkeSaMoved)
    cookie = raw.open(second).notify(NotifyType.COOKIE2)
    assert cookie is not None
    assert cookie.data != first.data
    raw.give([cookie], message_id=1)
    assert pair.bob.one(IkeSaMoved).remote == raw.address


def test_a_peer_that_comes_back_need_not_show_anything() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move(AWAY)
    raw.update()
    raw.move(HOME)
    raw.update()
    assert there(pair).remote == raw.address
    assert not pair.bob.seen(IkeSaMoved)
    cookie = raw.asked[0].notify(NotifyType.COOKIE2)
    assert cookie is not None
    assert raw.give([cookie]) == []
    assert not pair.bob.seen(IkeSaMoved)


def test_a_peer_that_comes_back_before_it_was_asked_is_not_asked() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    pair.bob.endpoint.delete_child(there(pair).ike_sa, pair.bob.one(ChildSaUp).spi_in, now=pair.now)
    assert len(pair.bob.take(pair.now)) == 1  # <-- DELETE: the window is full
    raw.move(AWAY)
    raw.update()
    raw.move(HOME)
    raw.update()
    assert raw.give([]) == []  # --> the answer to the DELETE


def test_another_port_of_the_same_host_is_followed_at_once() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move(HOME, 4600)
    raw.update()
    assert pair.bob.one(IkeSaMoved).remote == address(HOME, 4600)
    assert raw.asked == []


def test_a_request_from_elsewhere_without_the_notify_is_a_path_being_tried() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move(AWAY)
    raw.ask(ExchangeType.INFORMATIONAL, [])  # section 3.10
    assert there(pair).remote == address(HOME, 4500)
    assert not pair.bob.seen(IkeSaMoved)


def test_a_retransmitted_update_is_answered_and_moves_nothing() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move(AWAY)
    request = raw.seal(ExchangeType.INFORMATIONAL, [UPDATE], message_id=raw.message_id)
    assert len(raw.send(request)) == 2
    raw.move(FURTHER)
    (answer,) = raw.send(request)  # --> the same bytes, from yet elsewhere
    assert answer.remote == raw.address
    assert there(pair).remote == address(AWAY, 4500)


def test_between_families() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.there = address("2001:db8::2", 4500)
    raw.move("2001:db8::1")
    raw.update()
    cookie = raw.asked[0].notify(NotifyType.COOKIE2)
    assert cookie is not None
    raw.give([cookie])
    moved = pair.bob.one(IkeSaMoved)
    assert (moved.local, moved.remote) == (raw.there, raw.address)


# Not moving


def test_a_place_that_the_policy_forbids_is_unacceptable() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move(AWAY)
    pair.bob.policy.forbidden.add(raw.address.host)
    cookie = Notify(type=NotifyType.COOKIE2, data=b"eight by")
    answer = raw.update(cookie)
    assert error(answer) == NotifyType.UNACCEPTABLE_ADDRESSES
    assert answer.notify(NotifyType.COOKIE2) == cookie
    assert there(pair).remote == address(HOME, 4500)
    assert pair.bob.one(PeerRefused).reason == "AddressMismatch"


def test_transport_mode_stays_where_it_is() -> None:
    pair = mobile_pair(children=(child(mode=Mode.TRANSPORT),))
    raw = Mobile(pair, notifies=(SUPPORTED, Notify(type=NotifyType.USE_TRANSPORT_MODE)))
    assert pair.bob.one(ChildSaUp).mode is Mode.TRANSPORT
    raw.move(AWAY)
    assert error(raw.update()) == NotifyType.UNACCEPTABLE_ADDRESSES
    assert not pair.bob.seen(IkeSaMoved)


def test_a_cookie_is_brought_back_as_it_is() -> None:
    raw = Mobile(mobile_pair())
    for length in (8, 64):
        cookie = Notify(type=NotifyType.COOKIE2, data=bytes(range(length)))
        answer = raw.ask(ExchangeType.INFORMATIONAL, [cookie])
        assert answer is not None
        assert answer.payloads == (cookie,)


@pytest.mark.parametrize("length", [0, 7, 65, 1000])
def test_pitfall_3_a_cookie_of_another_length_is_not_brought_back(length: int) -> None:
    raw = Mobile(mobile_pair())
    answer = raw.ask(ExchangeType.INFORMATIONAL, [Notify(type=NotifyType.COOKIE2, data=bytes(length))])
    assert answer is not None
    assert [type(each) for each in answer.payloads] == [Notify]
    assert error(answer) == NotifyType.INVALID_SYNTAX


# NATs


def test_moving_behind_a_nat_turns_encapsulation_on_and_moving_out_turns_it_off() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move("10.0.0.7")
    raw.nat = AWAY
    answer = raw.update(*raw.nat_detection())  # --> N(UPDATE_SA_ADDRESSES), N(NAT_DETECTION_*)
    destination = answer.notify(NotifyType.NAT_DETECTION_DESTINATION_IP)
    assert destination is not None  # <-- N(NAT_DETECTION_*): the peer sees what Bob saw
    assert destination.data == detection_data(raw.spi_i, raw.spi_r, address(AWAY, 4711))
    cookie = raw.asked[0].notify(NotifyType.COOKIE2)
    assert cookie is not None
    raw.give([cookie])
    moved = pair.bob.one(IkeSaMoved)
    assert moved.encapsulation == UdpEncapsulation(local_port=4500, remote_port=4711)
    raw.nat = None
    raw.move(AWAY)
    raw.update(*raw.nat_detection())
    assert pair.bob.seen(IkeSaMoved)[-1].encapsulation is None
    assert not there(pair).nat_remote


def test_an_update_that_says_nothing_of_nats_leaves_encapsulation_as_it_is() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move("10.0.0.7")
    raw.nat = HOME
    raw.update(*raw.nat_detection())
    raw.nat, raw.address = None, address(HOME, 4712)
    raw.update()
    assert pair.bob.seen(IkeSaMoved)[-1].encapsulation == UdpEncapsulation(local_port=4500, remote_port=4712)


def test_a_mapping_that_changes_is_found_by_the_peer_and_not_followed_without_its_word() -> None:
    # Section 3.8: the rule of RFC 7296 section 2.23 does not hold for MOBIKE peers.
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move("10.0.0.7")
    raw.nat = HOME
    raw.update(*raw.nat_detection())
    assert pair.bob.one(IkeSaMoved).remote == address(HOME, 4711)
    raw.nat, raw.address = None, address(HOME, 4712)  # the mapping is another now
    raw.ask(ExchangeType.INFORMATIONAL, [])
    assert there(pair).remote == address(HOME, 4711)
    answer = raw.ask(ExchangeType.INFORMATIONAL, list(raw.nat_detection()))
    assert answer is not None
    assert {each.type for each in answer.all(Notify)} == {
        NotifyType.NAT_DETECTION_SOURCE_IP,
        NotifyType.NAT_DETECTION_DESTINATION_IP,
    }
    assert there(pair).remote == address(HOME, 4711)


def test_behind_a_nat_of_our_own_keepalives_go_to_where_the_peer_is() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move(AWAY)
    elsewhere = build_notifies(raw.spi_i, raw.spi_r, local=raw.address, remote=address("203.0.113.1", 4500))
    raw.update(*elsewhere)  # --> addressed to somebody who is not Bob
    cookie = raw.asked[0].notify(NotifyType.COOKIE2)
    assert cookie is not None
    raw.give([cookie])
    assert there(pair).nat_local
    pair.wait(20)
    (keepalive,) = pair.bob.take(pair.now)
    assert (keepalive.data, keepalive.remote) == (KEEPALIVE, raw.address)


def no_nats(source: SocketAddress, destination: SocketAddress) -> Notify:
    data = source.host.packed + destination.host.packed + source.port.to_bytes(2) + destination.port.to_bytes(2)
    return Notify(type=NotifyType.NO_NATS_ALLOWED, data=data)


@pytest.mark.parametrize("host", [AWAY, "2001:db8::1"])
def test_a_peer_that_wants_no_nat_moves_where_there_is_none(host: str) -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.move(host)
    raw.there = address("192.0.2.2" if raw.address.host.version == 4 else "2001:db8::2", 4500)
    assert error(raw.update(no_nats(raw.address, raw.there))) is None
    assert there(pair).remote == raw.address


def test_a_peer_that_wants_no_nat_is_told_of_one_and_not_moved() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.nat = AWAY
    cookie = Notify(type=NotifyType.COOKIE2, data=bytes(16))
    answer = raw.update(no_nats(raw.address, raw.there), cookie, *additional("203.0.113.9"))
    assert error(answer) == NotifyType.UNEXPECTED_NAT_DETECTED
    assert answer.notify(NotifyType.COOKIE2) == cookie
    assert there(pair).remote == address(HOME, 4500)
    assert there(pair).additional_addresses == ()


def test_a_peer_that_wants_no_nat_is_told_of_one_in_ike_auth() -> None:
    pair = mobile_pair()
    wrong = no_nats(address("10.0.0.7", 4500), address("192.0.2.2", 4500))
    raw = Mobile(pair, notifies=(SUPPORTED, wrong))
    assert raw.answered is not None
    assert error(raw.answered) == NotifyType.UNEXPECTED_NAT_DETECTED
    assert not pair.bob.seen(IkeSaUp)
    assert pair.bob.one(PeerRefused).reason == "NatDetected"


def test_where_no_encapsulation_is_wanted_a_place_behind_a_nat_is_unacceptable() -> None:
    pair = mobile_pair()
    pair.bob.policy.peers[ALICE] = replace(pair.bob_peer, encapsulation=Encapsulation.NEVER)
    raw = Mobile(pair)
    raw.nat = AWAY
    assert error(raw.update(*raw.nat_detection())) == NotifyType.UNACCEPTABLE_ADDRESSES
    assert there(pair).remote == address(HOME, 4500)
    assert not there(pair).nat_remote


# Further addresses


def additional(*hosts: str) -> list[Notify]:
    kinds = {4: NotifyType.ADDITIONAL_IP4_ADDRESS, 6: NotifyType.ADDITIONAL_IP6_ADDRESS}
    found = [address(host).host for host in hosts]
    return [Notify(type=kinds[host.version], data=host.packed) for host in found]


def test_further_addresses_are_remembered_replaced_and_forgotten() -> None:
    pair = mobile_pair()
    raw = Mobile(pair, notifies=(SUPPORTED, *additional("198.51.100.1", "2001:db8::9")))
    assert list(map(str, there(pair).additional_addresses)) == ["198.51.100.1", "2001:db8::9"]
    raw.ask(ExchangeType.INFORMATIONAL, [])
    assert len(there(pair).additional_addresses) == 2
    raw.ask(ExchangeType.INFORMATIONAL, additional("198.51.100.2"))
    assert list(map(str, there(pair).additional_addresses)) == ["198.51.100.2"]
    raw.ask(ExchangeType.INFORMATIONAL, [Notify(type=NotifyType.NO_ADDITIONAL_ADDRESSES)])
    assert there(pair).additional_addresses == ()


def test_pitfall_1_so_many_further_addresses_are_remembered_and_no_more() -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    raw.ask(ExchangeType.INFORMATIONAL, additional(*(f"198.51.100.{n}" for n in range(1, 41))))
    assert len(there(pair).additional_addresses) == MAX_ADDITIONAL_ADDRESSES


def test_an_address_of_the_wrong_length_is_none() -> None:
    for kind, length in ((NotifyType.ADDITIONAL_IP4_ADDRESS, 16), (NotifyType.ADDITIONAL_IP6_ADDRESS, 4)):
        raw = Mobile(mobile_pair())
        answer = raw.ask(ExchangeType.INFORMATIONAL, [Notify(type=kind, data=bytes(length))])
        assert answer is not None
        assert error(answer) == NotifyType.INVALID_SYNTAX


# Anything at all

NOTIFIES = st.builds(Notify, type=st.integers(16396, 16402) | st.integers(16388, 16389), data=st.binary(max_size=80))


@given(asked=st.lists(st.lists(NOTIFIES, max_size=6), max_size=4), hosts=st.lists(st.sampled_from((HOME, AWAY))))
def test_any_notifies_from_an_authenticated_peer_raise_nothing(asked: list[list[Notify]], hosts: list[str]) -> None:
    pair = mobile_pair()
    raw = Mobile(pair)
    for payloads, host in zip(asked, [*hosts, *(HOME for _ in asked)], strict=False):
        raw.move(host)
        raw.send(raw.seal(ExchangeType.INFORMATIONAL, payloads, message_id=raw.message_id))
        raw.message_id += 1
    assert all(str(moved.remote.host) == HOME for moved in pair.bob.seen(IkeSaMoved))
