"""One node has found out whether ESP passes without UDP, and tells the other as it sets up an IKE SA."""

from dataclasses import replace

import pytest

from hauberk_ike import ChildSaUp, Encapsulation, EspPath, IkeSaUp, Mode
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.payloads import Notify
from tests.unit.ike.party import ALICE, Pair, child, turned
from tests.unit.ike.raw_peer import RawPeer


def told(path: EspPath) -> Pair:
    """A pair that is up; alice has told bob of the path."""
    pair = Pair()
    pair.alice_peer = replace(pair.alice_peer, esp_path=path)
    pair.initiate()
    pair.settle()
    return pair


def test_a_blocked_path_has_both_ends_encapsulate() -> None:
    pair = told(EspPath.BLOCKED)
    assert pair.bob.one(IkeSaUp).esp_path is EspPath.BLOCKED
    for party in (pair.alice, pair.bob):
        assert party.one(ChildSaUp).encapsulation is not None


@pytest.mark.parametrize("path", [EspPath.UNKNOWN, EspPath.PASSES])
def test_any_other_path_has_nobody_encapsulate(path: EspPath) -> None:
    pair = told(path)
    assert pair.bob.one(IkeSaUp).esp_path is path
    assert pair.alice.one(IkeSaUp).esp_path is EspPath.UNKNOWN, "that is the initiator's to tell"
    for party in (pair.alice, pair.bob):
        assert party.one(ChildSaUp).encapsulation is None


def test_a_peer_of_another_make_is_told_nothing_and_encapsulates_all_the_same() -> None:
    pair = Pair()
    raw = RawPeer(pair.alice, "bob.default.hauberk.internal", initiator=False, host="192.0.2.2")
    peer = replace(pair.alice_peer, esp_path=EspPath.BLOCKED, encapsulation=Encapsulation.AUTO)
    pair.alice.endpoint.initiate(peer, now=pair.now)
    asked = raw.take_init()
    detection = [
        Notify(type=kind, data=bytes(20))
        for kind in (NotifyType.NAT_DETECTION_SOURCE_IP, NotifyType.NAT_DETECTION_DESTINATION_IP)
    ]
    (request,) = raw.send(raw.init_answer([*(p for p in raw.init_payloads() if p.TYPE != 43), *detection]))
    raw._agree(raw.peer_init, asked)  # pyright: ignore[reportPrivateUsage]
    assert request.remote.port == 4500
    inside = raw.open(replace(request, data=request.data[4:]))
    assert inside.notify(NotifyType.HAUBERK_ESP_PATH) is None


def test_a_word_without_meaning_is_a_breach_of_the_protocol() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    answer = raw.ask(
        ExchangeType.IKE_AUTH, [*raw.auth_payloads(), Notify(type=NotifyType.HAUBERK_ESP_PATH, data=b"\2")]
    )
    assert answer is not None
    assert answer.one(Notify).type == NotifyType.INVALID_SYNTAX
    assert not pair.bob.seen(IkeSaUp)


def test_a_further_child_is_not_set_up_with_the_ike_sa_and_may_be_had_by_either_end() -> None:
    trial = child("trial", local="192.0.2.1/32", remote="192.0.2.2/32", mode=Mode.TUNNEL)
    pair = Pair()
    pair.alice_peer = replace(pair.alice_peer, further_children=(trial,))
    pair.bob.policy.peers[ALICE] = replace(pair.bob_peer, further_children=(turned(trial),))
    handle = pair.initiate()
    pair.settle()
    assert [up.label for up in pair.alice.seen(ChildSaUp)] == ["tunnel-1"]
    pair.alice.endpoint.create_child(handle, trial, now=pair.now)
    pair.settle()
    bobs = pair.bob.seen(ChildSaUp)[0].ike_sa
    pair.bob.endpoint.create_child(bobs, turned(trial), now=pair.now)
    pair.settle()
    assert [up.label for up in pair.bob.seen(ChildSaUp)] == ["tunnel-1", "trial", "trial"]


def test_a_further_child_has_a_label_of_its_own() -> None:
    pair = Pair()
    with pytest.raises(ValueError, match="two children of one label"):
        replace(pair.alice_peer, further_children=pair.alice_peer.children)
