"""AGGFRAG mode (RFC 9347 section 5.1): asked for, granted or declined, and kept through rekeys."""

from __future__ import annotations

import pytest

from hauberk_ike import ChildSaDown, ChildSaFailed, ChildSaUp, IkeSaId, Mode
from hauberk_ike.aggfrag import build_use_aggfrag
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol
from hauberk_ike.wire.message import KnownPayload
from hauberk_ike.wire.payloads import Delete, Nonce, Notify
from tests.unit.ike.party import ALICE, BOB, Pair, Party, agree, child, turned
from tests.unit.ike.raw_peer import RawPeer

NONCE = Nonce(data=b"a nonce for a child, of 32 bytes")
WANTED = child(mode=Mode.IPTFS)


def between(alice: Mode, bob: Mode) -> Pair:
    return Pair(children=(child(mode=alice),), bob_children=(turned(child(mode=bob)),))


def modes(party: Party) -> list[Mode]:
    return [up.mode for up in party.seen(ChildSaUp)]


def rekey_from_both_ends(pair: Pair, handle: IkeSaId) -> None:
    pair.alice.endpoint.rekey_child(handle, pair.alice.seen(ChildSaUp)[-1].spi_in, now=pair.now)
    pair.settle()
    (info,) = pair.bob.endpoint.established()
    pair.bob.endpoint.rekey_child(info.ike_sa, pair.bob.seen(ChildSaUp)[-1].spi_in, now=pair.now)
    pair.settle()


@pytest.mark.parametrize(
    ("alice", "bob", "agreed"),
    [
        (Mode.IPTFS, Mode.IPTFS, Mode.IPTFS),
        (Mode.IPTFS, Mode.TUNNEL, Mode.TUNNEL),
        (Mode.TUNNEL, Mode.IPTFS, Mode.TUNNEL),
    ],
)
def test_it_takes_two_and_a_rekey_keeps_the_mode(alice: Mode, bob: Mode, agreed: Mode) -> None:
    pair = between(alice, bob)
    handle = pair.set_up()
    assert modes(pair.alice) == modes(pair.bob) == [agreed]
    rekey_from_both_ends(pair, handle)
    assert modes(pair.alice) == modes(pair.bob) == [agreed] * 3
    assert not any(up.dont_fragment for up in (*pair.alice.seen(ChildSaUp), *pair.bob.seen(ChildSaUp)))
    agree(pair.alice, pair.bob)


def test_what_was_declined_once_is_not_taken_up_by_a_rekey() -> None:
    pair = between(Mode.IPTFS, Mode.IPTFS)
    raw = RawPeer(pair.bob, ALICE).set_up()  # --> IKE_AUTH without USE_AGGFRAG
    rekey = Notify(type=NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=(0x5001).to_bytes(4))
    asked = [rekey, build_use_aggfrag(), NONCE, *raw.child_payloads(spi=0x5002)]
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, asked)
    assert answer is not None
    assert answer.notify(NotifyType.USE_AGGFRAG) is None
    assert modes(pair.bob) == [Mode.TUNNEL, Mode.TUNNEL]


@pytest.mark.parametrize(
    ("data", "granted", "dont_fragment"),
    [
        pytest.param(b"\0", True, False, id="no requirement"),
        pytest.param(b"\1", True, True, id="whole packets only"),
        pytest.param(b"\2", False, False, id="congestion control"),
        pytest.param(b"\x80", False, False, id="unknown"),
        pytest.param(b"\3", False, False, id="one of two"),
        pytest.param(b"", False, False, id="nothing"),
        pytest.param(b"\0\0", False, False, id="more than one byte"),
    ],
)
def test_what_an_initiator_requires_is_granted_or_it_is_tunnel_mode(
    data: bytes, granted: bool, dont_fragment: bool
) -> None:
    bob = Pair(children=(WANTED,)).bob
    raw = RawPeer(bob, ALICE)
    assert raw.ask_init() is not None
    asked = [*raw.child_payloads(), Notify(type=NotifyType.USE_AGGFRAG, data=data)]
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads(child=asked))
    assert answer is not None
    said = answer.notify(NotifyType.USE_AGGFRAG)
    assert (said is not None and said.data == b"\0") is granted
    up = bob.one(ChildSaUp)
    assert (up.mode, up.dont_fragment) == (Mode.IPTFS if granted else Mode.TUNNEL, dont_fragment)


def test_it_is_not_combined_with_transport_mode() -> None:
    bob = Pair(children=(WANTED,)).bob
    raw = RawPeer(bob, ALICE)
    assert raw.ask_init() is not None
    asked = [*raw.child_payloads(), build_use_aggfrag(), Notify(type=NotifyType.USE_TRANSPORT_MODE)]
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads(child=asked))
    assert answer is not None
    assert answer.notify(NotifyType.USE_AGGFRAG) is answer.notify(NotifyType.USE_TRANSPORT_MODE) is None
    assert bob.one(ChildSaUp).mode is Mode.TUNNEL


def answered_by_hand(mode: Mode, *more: KnownPayload) -> tuple[Pair, RawPeer, bytes]:
    """Alice has asked a Bob who answers by hand; what she says then, if anything."""
    pair = Pair(children=(child(mode=mode),))
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    request = raw.give_init(raw.take_init())
    assert (request.notify(NotifyType.USE_AGGFRAG) is not None) is (mode is Mode.IPTFS)
    answer = raw.auth_payloads(child=[*raw.child_payloads(), *more])
    said = raw.send(raw.seal(ExchangeType.IKE_AUTH, answer, message_id=1, response=True))
    return pair, raw, said[0].data if said else b""


@pytest.mark.parametrize("dont_fragment", [False, True])
def test_a_responder_may_require_whole_packets(dont_fragment: bool) -> None:
    granted = Notify(type=NotifyType.USE_AGGFRAG, data=bytes((dont_fragment,)))
    pair, _, said = answered_by_hand(Mode.IPTFS, granted)
    up = pair.alice.one(ChildSaUp)
    assert (up.mode, up.dont_fragment, said) == (Mode.IPTFS, dont_fragment, b"")


@pytest.mark.parametrize(
    ("mode", "data"),
    [
        pytest.param(Mode.IPTFS, b"\2", id="congestion control"),
        pytest.param(Mode.IPTFS, b"\x40", id="unknown"),
        pytest.param(Mode.IPTFS, b"", id="nothing"),
        pytest.param(Mode.TUNNEL, b"\0", id="not asked for"),
    ],
)
def test_an_answer_that_cannot_be_met_costs_the_child(mode: Mode, data: bytes) -> None:
    pair, _, _ = answered_by_hand(mode, Notify(type=NotifyType.USE_AGGFRAG, data=data))
    assert "AGGFRAG" in pair.alice.one(ChildSaFailed).reason
    assert not pair.alice.seen(ChildSaUp)
    assert not pair.alice.leaked


def test_a_rekey_without_the_notify_is_refused_whoever_asks() -> None:
    bob = Pair(children=(WANTED,)).bob
    raw = RawPeer(bob, ALICE)
    raw.set_up(child=[*raw.child_payloads(), build_use_aggfrag()])
    rekey = Notify(type=NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=(0x5001).to_bytes(4))
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [rekey, NONCE, *raw.child_payloads(spi=0x5002)])
    assert answer is not None
    error = answer.error()
    assert error is not None
    assert error.type == NotifyType.NO_PROPOSAL_CHOSEN
    assert modes(bob) == [Mode.IPTFS]
    # The other way round: Alice rekeys, and the answer grants less.
    pair, raw, _ = answered_by_hand(Mode.IPTFS, build_use_aggfrag())
    (info,) = pair.alice.endpoint.established()
    pair.alice.endpoint.rekey_child(info.ike_sa, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    (request,) = pair.alice.take(pair.now)
    assert raw.open(request).notify(NotifyType.USE_AGGFRAG) is not None
    answered = [NONCE, *raw.child_payloads(spi=0x5002)]
    (deleted,) = raw.send(raw.seal(ExchangeType.CREATE_CHILD_SA, answered, message_id=2, response=True))
    assert "another mode" in pair.alice.one(ChildSaFailed).reason
    assert raw.open(deleted).one(Delete).protocol == Protocol.ESP
    assert not pair.alice.seen(ChildSaDown), "the old one stays"
