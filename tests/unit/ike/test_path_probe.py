"""A request as large as a packet may be shows whether such packets arrive, and costs the IKE SA nothing if not."""

from __future__ import annotations

import pytest

from hauberk_ike import Datagram, EndpointSettings, IkeProposal, IkeSaDown, PathProbed
from hauberk_ike.numbers import PayloadType
from hauberk_ike.wire.header import Header
from tests.unit.ike.party import Pair

IPV4_UDP = 28


def probed(pair: Pair) -> list[tuple[int, bool | None]]:
    return [(event.packet_bytes, event.passes) for event in pair.alice.seen(PathProbed)]


def with_cipher(ike: str) -> Pair:
    return Pair(ike=ike, settings=EndpointSettings(ike_proposals=(IkeProposal.parse(ike),)))


def packet_bytes(datagram: Datagram) -> int:
    return IPV4_UDP + len(datagram.data)


@pytest.mark.parametrize("size", [576, 1280, 1500, 9000, 65_000])
@pytest.mark.parametrize("ike", ["aes128gcm16-prfsha256-x25519", "chacha20poly1305-prfsha512-x25519"])
def test_a_packet_of_that_size_is_sent_whole_and_its_answer_says_that_it_came(size: int, ike: str) -> None:
    pair = with_cipher(ike)
    handle = pair.set_up()
    pair.alice.endpoint.probe_path(handle, size, now=pair.now)
    sent = pair.to_bob()  # --> INFORMATIONAL: N(HAUBERK_PADDING)
    assert (packet_bytes(sent), sent.dont_fragment) == (size, True)
    answer = pair.to_alice()  # <-- INFORMATIONAL
    assert not answer.dont_fragment
    assert probed(pair) == [(size, True)]
    assert pair.quiet()


def test_a_cipher_of_blocks_comes_as_near_as_it_can() -> None:
    pair = with_cipher("aes128-sha256-prfsha256-x25519")
    handle = pair.set_up()
    pair.alice.endpoint.probe_path(handle, 1500, now=pair.now)
    assert 1500 - 16 < packet_bytes(pair.to_bob()) <= 1500


def test_what_is_lost_whole_comes_in_pieces_and_the_ike_sa_goes_on() -> None:
    pair = Pair(dpd_seconds=0)
    handle = pair.set_up()
    pair.alice.endpoint.probe_path(handle, 1500, now=pair.now)
    pair.lose(pair.alice)  # --> too large, and nobody says so
    pair.wait(1)
    pieces = pair.alice.take(pair.now)
    assert len(pieces) == 2
    assert all(packet_bytes(piece) <= 1280 and not piece.dont_fragment for piece in pieces)
    assert {Header.parse(piece.data).next_payload for piece in pieces} == {PayloadType.SKF}
    for piece in pieces:
        pair.carry(pair.bob, piece)
    pair.settle()  # <-- INFORMATIONAL
    assert probed(pair) == [(1500, False)]
    pair.alice.endpoint.probe_path(handle, 1400, now=pair.now)
    pair.settle()
    assert probed(pair)[1:] == [(1400, True)]
    assert not pair.alice.seen(IkeSaDown)


def test_a_peer_that_takes_no_fragments_is_not_probed() -> None:
    pair = Pair(bob_settings=EndpointSettings(fragment_bytes=0))
    handle = pair.set_up()
    pair.alice.endpoint.probe_path(handle, 1500, now=pair.now)
    assert probed(pair) == [(1500, None)]
    assert pair.quiet()


def test_a_size_that_holds_no_message_is_none() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.probe_path(handle, 60, now=pair.now)
    assert probed(pair) == [(60, None)]


def test_a_peer_that_is_gone_is_found_out_as_ever() -> None:
    pair = Pair(dpd_seconds=0)
    handle = pair.set_up()
    pair.alice.endpoint.probe_path(handle, 1500, now=pair.now)
    for _ in range(40):
        pair.wait(1)
        pair.alice.take(pair.now)
    assert pair.alice.one(IkeSaDown)
    assert probed(pair) == []
