"""Rekeys of CHILD SAs (RFC 7296 sections 1.3.3 and 2.8), one end at a time; for both at once see test_collisions."""

from dataclasses import replace

from hauberk_ike import (
    ChildSaDown,
    ChildSaFailed,
    ChildSaUp,
    EndpointSettings,
    IkeSaDown,
    IkeSaRekeyed,
    Mode,
    ReauthenticationNeeded,
)
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol
from hauberk_ike.wire.message import KnownPayload
from hauberk_ike.wire.payloads import Delete, KeyExchangePayload, Nonce, Notify
from tests.unit.ike.party import ALICE, BOB, Pair, agree, child, turned
from tests.unit.ike.raw_peer import RawPeer

NONCE = Nonce(data=b"a nonce for a child, of 32 bytes")


def rekey(spi: int) -> Notify:
    return Notify(type=NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=spi.to_bytes(4))


def established_with_raw_bob(**pair_options: object) -> tuple[Pair, RawPeer]:
    """Alice has initiated with a Bob that the test drives by hand; her next request has message id 2."""
    pair = Pair(**pair_options)  # type: ignore[arg-type]
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init())
    raw.send(raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(), message_id=1, response=True))
    raw.message_id = 0
    return pair, raw


# As it should go


def test_a_child_is_rekeyed_and_the_old_one_deleted_by_whoever_asked() -> None:
    pair = Pair()
    handle = pair.set_up()
    old = pair.alice.one(ChildSaUp)
    pair.alice.endpoint.rekey_child(handle, old.spi_in, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, TSi, TSr
    up = pair.bob.seen(ChildSaUp)[1]
    assert (up.initiator, up.rekeyed_spi_in, up.redundant) == (False, old.spi_out, False)
    assert not pair.alice.seen(ChildSaUp)[1:], "Bob's inbound SA is there before Alice can send on it"
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, TSi, TSr
    new = pair.alice.seen(ChildSaUp)[1]
    assert (new.initiator, new.rekeyed_spi_in, new.redundant) == (True, old.spi_in, False)
    assert (new.label, new.ts_local, new.ts_remote) == (old.label, old.ts_local, old.ts_remote)
    assert new.keys_in.key != old.keys_in.key
    assert not pair.alice.seen(ChildSaDown)
    assert not pair.bob.seen(ChildSaDown)
    pair.to_bob()  # --> INFORMATIONAL: D(ESP)
    down = pair.bob.one(ChildSaDown)
    assert (down.spi_in, down.by_peer) == (old.spi_out, True)
    pair.to_alice()  # <-- INFORMATIONAL: D(ESP)
    assert (pair.alice.one(ChildSaDown).spi_in, pair.alice.one(ChildSaDown).by_peer) == (old.spi_in, False)
    assert len(pair.alice.kernel) == 1
    agree(pair.alice, pair.bob)
    assert pair.quiet()


def test_the_responder_of_the_ike_sa_may_rekey_too_and_a_rekeyed_child_again() -> None:
    pair = Pair()
    pair.set_up()
    for _ in range(3):
        (info,) = pair.bob.endpoint.established()
        pair.bob.endpoint.rekey_child(info.ike_sa, info.children[0].spi_in, now=pair.now)
        pair.to_alice()  # <-- CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, TSi, TSr
        pair.to_bob()  # --> CREATE_CHILD_SA: SA, Nr, TSi, TSr
        pair.to_alice()  # <-- INFORMATIONAL: D(ESP)
        pair.to_bob()  # --> INFORMATIONAL: D(ESP)
    assert len(pair.alice.seen(ChildSaUp)) == 4
    assert len(pair.alice.kernel) == 1
    agree(pair.alice, pair.bob)


def test_transport_mode_survives_a_rekey() -> None:
    pair = Pair(children=(child(mode=Mode.TRANSPORT),))
    handle = pair.set_up()
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.settle()
    assert [up.mode for up in pair.bob.seen(ChildSaUp)] == [Mode.TRANSPORT, Mode.TRANSPORT]
    agree(pair.alice, pair.bob)


def test_a_narrowed_child_keeps_its_selectors() -> None:
    wide = child(local="10.244.0.0/16", remote="0.0.0.0/0")
    pair = Pair(children=(wide,), bob_children=(turned(child()),))
    handle = pair.set_up()
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.settle()
    old, new = pair.alice.seen(ChildSaUp)
    assert (new.ts_local, new.ts_remote) == (old.ts_local, old.ts_remote)
    agree(pair.alice, pair.bob)


# With a key exchange


def test_perfect_forward_secrecy_comes_with_the_rekey_and_not_with_ike_auth() -> None:
    pair = Pair(children=(child(esp="aes128gcm16-x25519-esn"),))
    handle = pair.set_up()
    assert str(pair.alice.one(ChildSaUp).proposal) == "aes128gcm16-esn"
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, KEi, TSi, TSr
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, KEr, TSi, TSr
    assert str(pair.alice.seen(ChildSaUp)[1].proposal) == "aes128gcm16-x25519-esn"
    pair.settle()
    agree(pair.alice, pair.bob)


def test_a_public_value_for_another_method_than_the_responders_is_asked_for_again() -> None:
    pair = Pair(
        children=(child(esp="aes128gcm16-ecp256-x25519-esn"),),
        bob_children=(turned(child(esp="aes128gcm16-x25519-esn")),),
    )
    handle = pair.set_up()
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, KEi (ecp256), TSi, TSr
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(INVALID_KE_PAYLOAD)
    assert len(pair.bob.kernel) == 1
    pair.to_bob()  # --> CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, KEi (x25519), TSi, TSr
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, KEr, TSi, TSr
    assert str(pair.alice.seen(ChildSaUp)[1].proposal) == "aes128gcm16-x25519-esn"
    pair.settle()
    assert len(pair.alice.kernel) == 1
    agree(pair.alice, pair.bob)


# What a responder refuses


def test_pitfall_4_a_rekey_for_less_or_for_other_traffic_is_refused() -> None:
    # CVE-2023-23009: selectors that are not those of the child that is rekeyed.
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    for selectors in ({"ts_i": "10.244.1.0/25"}, {"ts_r": "10.244.2.128/25"}, {"ts_i": "10.99.0.0/16"}):
        payloads = [rekey(0x5001), NONCE, *raw.child_payloads(spi=0x5002, **selectors)]
        answer = raw.ask(ExchangeType.CREATE_CHILD_SA, payloads)
        assert answer is not None
        assert [each.type for each in answer.all(Notify)] == [NotifyType.TS_UNACCEPTABLE]
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [rekey(0x5001), NONCE, *raw.child_payloads(ts_i="10.0.0.0/8")])
    assert answer is not None
    assert answer.error() is None
    old, new = pair.bob.seen(ChildSaUp)
    assert (new.ts_local, new.ts_remote) == (old.ts_local, old.ts_remote), "wider is narrowed to the same"
    assert not pair.bob.leaked


def test_a_rekey_for_another_mode_is_refused() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    transport = Notify(type=NotifyType.USE_TRANSPORT_MODE)
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [rekey(0x5001), NONCE, *raw.child_payloads(spi=0x5002), transport])
    assert answer is not None
    assert [each.type for each in answer.all(Notify)] == [NotifyType.NO_PROPOSAL_CHOSEN]
    assert len(pair.bob.kernel) == 1


def test_a_rekey_of_a_child_that_does_not_exist_is_refused_by_name() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [rekey(0x5999), NONCE, *raw.child_payloads(spi=0x5002)])
    assert answer is not None
    (notify,) = answer.all(Notify)
    assert (notify.type, notify.protocol, notify.spi) == (
        NotifyType.CHILD_SA_NOT_FOUND,
        Protocol.ESP,
        (0x5999).to_bytes(4),
    )
    assert len(pair.bob.kernel) == 1


def test_a_child_that_was_rekeyed_is_not_rekeyed_again() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    for spi, refused in ((0x5002, []), (0x5003, [NotifyType.TEMPORARY_FAILURE])):
        answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [rekey(0x5001), NONCE, *raw.child_payloads(spi=spi)])
        assert answer is not None
        assert [each.type for each in answer.all(Notify)] == refused
    assert len(pair.bob.kernel) == 2


def test_pitfall_6_a_bad_public_value_takes_no_spi() -> None:
    pair = Pair(children=(child(esp="aes128gcm16-ecp256-esn"),))
    raw = RawPeer(pair.bob, ALICE).set_up()
    spis = pair.bob.policy.spis_left
    key = KeyExchangePayload(method=19, data=bytes(64))
    esp = raw.child_payloads(spi=0x5002, esp="aes128gcm16-ecp256-esn")
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [rekey(0x5001), NONCE, *esp, key])
    assert answer is not None
    assert answer.notify(NotifyType.INVALID_SYNTAX)
    assert pair.bob.policy.spis_left == spis
    assert not pair.bob.policy.allocated


# What an initiator is refused


def answer_rekey(pair: Pair, raw: RawPeer, payloads: list[KnownPayload]) -> None:
    """Alice asks for a rekey, and gets these payloads."""
    (info,) = pair.alice.endpoint.established()
    pair.alice.endpoint.rekey_child(info.ike_sa, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.alice.take(pair.now)
    raw.send(raw.seal(ExchangeType.CREATE_CHILD_SA, payloads, message_id=2, response=True))


def test_no_additional_sas_asks_for_reauthentication_and_the_child_stays() -> None:
    pair, raw = established_with_raw_bob()
    answer_rekey(pair, raw, [Notify(type=NotifyType.NO_ADDITIONAL_SAS)])
    assert pair.alice.one(ReauthenticationNeeded).reason == "NO_ADDITIONAL_SAS"
    assert pair.alice.one(ChildSaFailed).rekeyed_spi_in == pair.alice.one(ChildSaUp).spi_in
    assert len(pair.alice.kernel) == 1
    assert not pair.alice.leaked


def test_an_answer_that_narrows_what_is_rekeyed_is_not_taken_and_deleted() -> None:
    pair, raw = established_with_raw_bob()
    (info,) = pair.alice.endpoint.established()
    pair.alice.endpoint.rekey_child(info.ike_sa, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.alice.take(pair.now)
    payloads = [NONCE, *raw.child_payloads(spi=0x5002, ts_i="10.244.1.0/25")]
    (deletion,) = raw.send(raw.seal(ExchangeType.CREATE_CHILD_SA, payloads, message_id=2, response=True))
    assert raw.open(deletion).one(Delete).protocol == Protocol.ESP
    assert "narrows" in pair.alice.one(ChildSaFailed).reason
    assert len(pair.alice.kernel) == 1
    assert not pair.alice.leaked


def test_child_sa_not_found_makes_a_new_child_once() -> None:
    pair, raw = established_with_raw_bob()
    old = pair.alice.one(ChildSaUp)
    answer_rekey(pair, raw, [Notify(type=NotifyType.CHILD_SA_NOT_FOUND, protocol=Protocol.ESP, spi=bytes(4))])
    (create,) = raw.send(raw.seal(ExchangeType.INFORMATIONAL, [], message_id=3, response=True))  # to the D(ESP)
    assert raw.open(create).notify(NotifyType.REKEY_SA) is None
    assert pair.alice.one(ChildSaDown).spi_in == old.spi_in
    refusal = Notify(type=NotifyType.CHILD_SA_NOT_FOUND, protocol=Protocol.ESP, spi=bytes(4))
    assert raw.send(raw.seal(ExchangeType.CREATE_CHILD_SA, [refusal], message_id=4, response=True)) == []
    assert pair.alice.one(ChildSaFailed)
    assert not pair.alice.policy.allocated


def test_invalid_ke_payload_is_not_followed_in_circles() -> None:
    esp = "aes128gcm16-x25519-ecp256-esn"
    pair, raw = established_with_raw_bob(children=(child(esp=esp),))
    answer_rekey(pair, raw, [Notify(type=NotifyType.INVALID_KE_PAYLOAD, data=(19).to_bytes(2))])
    raw.send(
        raw.seal(
            ExchangeType.CREATE_CHILD_SA,
            [Notify(type=NotifyType.INVALID_KE_PAYLOAD, data=(31).to_bytes(2))],
            message_id=3,
            response=True,
        )
    )
    assert pair.alice.one(ChildSaFailed).reason == "INVALID_KE_PAYLOAD"
    assert not pair.alice.leaked
    assert len(pair.alice.kernel) == 1


# Additional key exchanges (RFC 9370 section 2.2.4)

HYBRID = "aes128gcm16-x25519-ke1_mlkem768-ke2_ecp256-esn"


def test_additional_key_exchanges_come_before_the_new_child() -> None:
    pair = Pair(children=(child(esp=HYBRID),))
    handle = pair.set_up()
    pair.alice.endpoint.rekey_child(handle, pair.alice.one(ChildSaUp).spi_in, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, KEi(0), TSi, TSr
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, KEr(0), TSi, TSr, N(ADDITIONAL_KEY_EXCHANGE)
    pair.to_bob()  # --> IKE_FOLLOWUP_KE: KEi(1), N(ADDITIONAL_KEY_EXCHANGE)
    pair.to_alice()  # <-- IKE_FOLLOWUP_KE: KEr(1), N(ADDITIONAL_KEY_EXCHANGE)
    assert len(pair.bob.seen(ChildSaUp)) == 1
    pair.to_bob()  # --> IKE_FOLLOWUP_KE: KEi(2), N(ADDITIONAL_KEY_EXCHANGE)
    assert str(pair.bob.seen(ChildSaUp)[1].proposal) == HYBRID
    pair.to_alice()  # <-- IKE_FOLLOWUP_KE: KEr(2)
    pair.settle()
    assert len(pair.alice.kernel) == 1
    agree(pair.alice, pair.bob)


def test_pitfall_15_a_step_out_of_turn_finds_no_state_and_what_waits_is_bounded_and_forgotten() -> None:
    pair = Pair(children=(child(esp=HYBRID),), settings=EndpointSettings(half_open_seconds=30), dpd_seconds=0)
    raw = RawPeer(pair.bob, ALICE).set_up()
    links: list[Notify] = []
    for spi in range(0x5002, 0x5012):
        key = KeyExchangePayload(method=31, data=raw.key_pair.public)
        answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [NONCE, *raw.child_payloads(spi=spi, esp=HYBRID), key])
        assert answer is not None
        link = answer.notify(NotifyType.ADDITIONAL_KEY_EXCHANGE)
        assert link is not None
        links.append(link)
    assert len(pair.bob.leaked) == 4, "held for what may still come"
    for wrong in ([], [Notify(type=NotifyType.ADDITIONAL_KEY_EXCHANGE, data=b"a guess!")], [links[0]]):
        answer = raw.ask(ExchangeType.IKE_FOLLOWUP_KE, wrong)
        assert answer is not None
        assert [each.type for each in answer.all(Notify)] == [NotifyType.STATE_NOT_FOUND]
    assert len(pair.bob.endpoint.established()) == 1
    pair.wait(31)
    assert not pair.bob.leaked
    answer = raw.ask(ExchangeType.IKE_FOLLOWUP_KE, [links[-1]])
    assert answer is not None
    assert answer.notify(NotifyType.STATE_NOT_FOUND)


# In time


def test_children_and_ike_sas_are_rekeyed_in_time_by_whoever_began_and_by_the_other_end_if_that_fails() -> None:
    config = replace(child(), rekey_seconds=100)
    pair = Pair(children=(config,), dpd_seconds=0)
    pair.alice_peer = replace(pair.alice_peer, rekey_seconds=250)
    pair.bob.policy.peers[ALICE] = replace(pair.bob_peer, rekey_seconds=250)
    pair.set_up()
    start = pair.now
    while pair.now < start + 1000:
        pair.wait(1000)
        pair.settle()
    ups = pair.alice.seen(ChildSaUp)
    assert 10 < len(ups) <= 14
    assert all(up.initiator for up in ups)
    assert 4 <= len(pair.alice.seen(IkeSaRekeyed)) <= 5
    assert not pair.alice.seen(IkeSaDown)
    assert len(pair.alice.kernel) == 1
    agree(pair.alice, pair.bob)
