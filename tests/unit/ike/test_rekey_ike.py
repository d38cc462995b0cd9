"""Rekeys of IKE SAs (RFC 7296 sections 1.3.2 and 2.18), one end at a time; for both at once see test_collisions."""

import pytest

from hauberk_ike import (
    ChildSaDown,
    ChildSaUp,
    IkeSaDown,
    IkeSaRekeyed,
    IkeSaUp,
    UnknownIkeSa,
)
from tests.unit.ike.party import Pair, agree, child, turned


def test_an_ike_sa_is_rekeyed_its_children_move_and_the_old_one_is_deleted_by_whoever_asked() -> None:
    pair = Pair()
    handle = pair.set_up()
    old = pair.alice.one(IkeSaUp)
    pair.alice.endpoint.rekey_ike(handle, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Ni, KEi
    bobs = pair.bob.one(IkeSaRekeyed)
    assert (bobs.old, bobs.initiator) == (pair.bob.one(IkeSaUp).ike_sa, False)
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, KEr
    alices = pair.alice.one(IkeSaRekeyed)
    assert (alices.old, alices.initiator) == (handle, True)
    assert (alices.spi_i, alices.spi_r) == (bobs.spi_i, bobs.spi_r)
    assert (alices.spi_i, alices.spi_r) != (old.spi_i, old.spi_r)
    assert alices.proposal == old.proposal
    pair.to_bob()  # --> INFORMATIONAL: D(IKE), in the old IKE SA
    pair.to_alice()  # <-- INFORMATIONAL
    for party, event in ((pair.alice, alices), (pair.bob, bobs)):
        (info,) = party.endpoint.established()
        assert (info.ike_sa, info.initiator) == (event.new, event.initiator)
        assert [each.spi_in for each in info.children] == [party.one(ChildSaUp).spi_in]
        assert not party.seen(ChildSaDown)
        assert not party.seen(IkeSaDown)
        with pytest.raises(UnknownIkeSa):
            party.endpoint.delete(event.old, now=pair.now)
    agree(pair.alice, pair.bob)
    assert pair.quiet()


def test_the_responder_may_rekey_too_and_again_and_the_new_one_works() -> None:
    pair = Pair(bob_children=(turned(child()), turned(child("more"))))
    pair.set_up()
    for _ in range(2):
        (info,) = pair.bob.endpoint.established()
        pair.bob.endpoint.rekey_ike(info.ike_sa, now=pair.now)
        pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Ni, KEi
        pair.to_bob()  # --> CREATE_CHILD_SA: SA, Nr, KEr
        pair.to_alice()  # <-- INFORMATIONAL: D(IKE)
        pair.to_bob()  # --> INFORMATIONAL
    (info,) = pair.alice.endpoint.established()
    assert not info.initiator
    pair.alice.endpoint.create_child(info.ike_sa, child("more"), now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Ni, TSi, TSr, with message id 0
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, TSi, TSr
    pair.alice.endpoint.rekey_child(info.ike_sa, pair.alice.seen(ChildSaUp)[0].spi_in, now=pair.now)
    pair.settle()
    assert len(pair.alice.kernel) == 2
    agree(pair.alice, pair.bob)
