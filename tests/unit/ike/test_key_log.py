"""The key log: nothing unless asked for. That its lines open the messages is Wireshark's to say, in
tests/integration/test_key_log.py."""

from __future__ import annotations

from hauberk_ike import EndpointSettings, IkeProposal, IkeSaUp, key_log
from hauberk_ike.algorithms import ENCRYPTIONS, INTEGRITIES
from tests.unit.ike.party import Pair


def test_both_ends_write_the_same_line_for_an_ike_sa() -> None:
    alices: list[str] = []
    bobs: list[str] = []
    pair = Pair(alice_key_log=alices.append, bob_key_log=bobs.append)
    pair.set_up()

    up = pair.alice.one(IkeSaUp)
    assert alices == bobs
    (line,) = alices
    columns = line.split(",")
    assert columns[:2] == [up.spi_i.hex(), up.spi_r.hex()]
    assert columns[4:] == ['"AES-GCM-128 with 16 octet ICV [RFC5282]"', "", "", '"NONE [RFC4306]"']


def test_every_cipher_and_integrity_algorithm_has_a_name() -> None:
    assert set(key_log.ENCRYPTIONS) >= set(ENCRYPTIONS)
    assert set(key_log.INTEGRITIES) == {"", *INTEGRITIES}


def test_what_wireshark_has_no_name_for_is_a_comment_to_it() -> None:
    lines: list[str] = []
    ike = "chacha20poly1305-prfsha256-x25519"
    pair = Pair(ike=ike, settings=EndpointSettings(ike_proposals=(IkeProposal.parse(ike),)), alice_key_log=lines.append)
    pair.set_up()
    assert lines[0].startswith("#" + pair.alice.one(IkeSaUp).spi_i.hex())


def test_nothing_is_logged_unless_asked_for() -> None:
    lines: list[str] = []
    pair = Pair(bob_key_log=lines.append)
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT

    assert len(lines) == 1, "Bob's alone, though Alice has the keys too"
