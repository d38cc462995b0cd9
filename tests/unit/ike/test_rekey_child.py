"""Rekeys of CHILD SAs (RFC 7296 sections 1.3.3 and 2.8), one end at a time; for both at once see test_collisions."""

from hauberk_ike import (
    ChildSaDown,
    ChildSaUp,
    Mode,
)
from hauberk_ike.numbers import NotifyType, Protocol
from hauberk_ike.wire.payloads import Nonce, Notify
from tests.unit.ike.party import Pair, agree, child, turned

NONCE = Nonce(data=b"a nonce for a child, of 32 bytes")


def rekey(spi: int) -> Notify:
    return Notify(type=NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=spi.to_bytes(4))


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
