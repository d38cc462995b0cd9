"""Fragments (RFC 7383): how a message is cut and sealed, what may be dropped unopened, and what is put together."""

import os
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk_ike.errors import IntegrityFailed, MalformedMessage, ProtocolError
from hauberk_ike.keys import expand_ike_keys
from hauberk_ike.numbers import ExchangeType, PayloadType
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.protection import FRAGMENT, MAX_FRAGMENTS, Fragment, Protection, fragment_position, intermediate_octets
from hauberk_ike.reassembly import MAX_BYTES, Reassembled, Reassembly
from hauberk_ike.wire.header import HEADER, Header
from hauberk_ike.wire.message import GENERIC, build_payloads
from hauberk_ike.wire.payloads import CertificatePayload, Nonce

GCM = IkeProposal.parse("aes128gcm16-prfsha256-x25519")
CBC = IkeProposal.parse("aes256-sha512-x25519")
BOTH = pytest.mark.parametrize("proposal", [GCM, CBC], ids=str)

LONG = (Nonce(data=bytes(range(32))), CertificatePayload.x509(bytes(range(256)) * 12))
LONGS_FIRST, LONGS_CHAIN = build_payloads(LONG)


def pair_of(proposal: IkeProposal = GCM) -> tuple[Protection, Protection]:
    """Initiator and responder."""
    keys = expand_ike_keys(proposal, skeyseed=b"any", seed=b"thing")
    return (
        Protection(proposal, keys, initiator=True, entropy=os.urandom),
        Protection(proposal, keys, initiator=False, entropy=os.urandom),
    )


def fragments_of(
    sender: Protection, mtu: int, *, message_id: int = 1, payloads: tuple[Nonce | CertificatePayload, ...] = LONG
) -> list[bytes]:
    return sender.seal_fragments(
        spi_i=b"initiatr",
        spi_r=b"respondr",
        exchange_type=ExchangeType.IKE_AUTH,
        flags=8,
        message_id=message_id,
        payloads=payloads,
        mtu=mtu,
    )


def receive(reassembly: Reassembly, receiver: Protection, data: bytes) -> Reassembled | None:
    return reassembly.receive(receiver, Header.parse(data), data)


def changed(data: bytes, index: int, value: int) -> bytes:
    return data[:index] + bytes((value,)) + data[index + 1 :]


# Cutting


@BOTH
@pytest.mark.parametrize("mtu", [576 - 28, 1280 - 48, 1500 - 28])
def test_no_fragment_is_longer_than_the_mtu_and_none_could_be_spared(proposal: IkeProposal, mtu: int) -> None:
    sender, receiver = pair_of(proposal)
    fragments = fragments_of(sender, mtu)
    assert all(len(each) <= mtu for each in fragments)
    block = 16 if proposal.integrity else 1
    assert all(len(each) > mtu - block for each in fragments[:-1])
    opened = [receiver.open_fragment(Header.parse(each), each) for each in fragments]
    assert b"".join(each.piece for each in opened) == LONGS_CHAIN
    assert [each.number for each in opened] == list(range(1, len(fragments) + 1))
    assert {each.total for each in opened} == {len(fragments)}


@BOTH
def test_the_layout_is_rfc_7383s(proposal: IkeProposal) -> None:
    sender, _ = pair_of(proposal)
    fragments = fragments_of(sender, 1000)
    for number, data in enumerate(fragments, 1):
        header = Header.parse(data)
        assert (header.next_payload, header.exchange_type, header.message_id) == (
            PayloadType.SKF,
            ExchangeType.IKE_AUTH,
            1,
        )
        first, flags, length = GENERIC.unpack_from(data, HEADER.size)
        # The first fragment names the first payload, the others name none.
        assert (first, flags) == (PayloadType.NONCE if number == 1 else PayloadType.NONE, 0)
        assert length == len(data) - HEADER.size
        assert FRAGMENT.unpack_from(data, 32) == (number, len(fragments))


@BOTH
def test_a_message_that_fits_is_sealed_whole(proposal: IkeProposal) -> None:
    sender, receiver = pair_of(proposal)
    (whole,) = fragments_of(sender, 65535)
    assert Header.parse(whole).next_payload == PayloadType.SK
    assert receiver.open(Header.parse(whole), whole) == (LONGS_FIRST, LONGS_CHAIN)
    (whole,) = fragments_of(sender, len(whole))
    two = fragments_of(sender, len(whole) - 1)
    assert [Header.parse(each).next_payload for each in two] == [PayloadType.SKF] * 2


@BOTH
@pytest.mark.parametrize("mtu", [0, 36, 60, 70])
def test_an_mtu_that_leaves_no_room_is_a_mistake_of_ours(proposal: IkeProposal, mtu: int) -> None:
    sender, _ = pair_of(proposal)
    with pytest.raises(ValueError, match="too few"):
        fragments_of(sender, mtu)


def test_more_fragments_than_a_receiver_would_take_are_not_made() -> None:
    sender, _ = pair_of()
    start = HEADER.size + GENERIC.size + FRAGMENT.size + 8 + 1 + 16
    assert len(fragments_of(sender, start + -(-len(LONGS_CHAIN) // MAX_FRAGMENTS))) <= MAX_FRAGMENTS
    with pytest.raises(ValueError, match="too few"):
        fragments_of(sender, start + len(LONGS_CHAIN) // MAX_FRAGMENTS - 1)


# Opening


@BOTH
@given(index=st.integers(0, 10_000), change=st.integers(1, 255), which=st.integers(0, 2))
def test_every_changed_byte_of_a_fragment_is_found(proposal: IkeProposal, index: int, change: int, which: int) -> None:
    sender, receiver = pair_of(proposal)
    data = fragments_of(sender, 1400)[which]
    index %= len(data)
    damaged = changed(data, index, data[index] ^ change)
    with pytest.raises(ProtocolError):
        receiver.open_fragment(Header.parse(damaged), damaged)


@BOTH
@pytest.mark.parametrize("index", [33, 35], ids=["number", "total"])
def test_number_and_total_are_authenticated(proposal: IkeProposal, index: int) -> None:
    sender, receiver = pair_of(proposal)
    data = fragments_of(sender, 1400)[1]
    damaged = changed(data, index, 3 if index == 33 else 9)
    with pytest.raises(IntegrityFailed):
        receiver.open_fragment(Header.parse(damaged), damaged)


def test_a_fragment_is_no_whole_message_and_a_whole_message_no_fragment() -> None:
    sender, receiver = pair_of()
    fragment = fragments_of(sender, 1400)[0]
    with pytest.raises(MalformedMessage, match="not an encrypted message"):
        receiver.open(Header.parse(fragment), fragment)
    (whole,) = fragments_of(sender, 65535)
    with pytest.raises(MalformedMessage, match="not a fragment"):
        receiver.open_fragment(Header.parse(whole), whole)


@pytest.mark.parametrize(
    ("number", "total"),
    [(0, 1), (1, 0), (0, 0), (3, 2), (1, MAX_FRAGMENTS + 1), (MAX_FRAGMENTS + 1, MAX_FRAGMENTS + 1), (1, 0xFFFF)],
)
def test_pitfall_1_numbers_and_totals_out_of_range_are_dropped_unopened(number: int, total: int) -> None:
    data = fragments_of(pair_of()[0], 1400)[0]
    damaged = data[:32] + FRAGMENT.pack(number, total) + data[36:]
    with pytest.raises(MalformedMessage, match="out of range"):
        fragment_position(Header.parse(damaged), damaged)


def test_only_the_first_fragment_names_a_payload() -> None:
    second = fragments_of(pair_of()[0], 1400)[1]
    damaged = changed(second, HEADER.size, PayloadType.NONCE)
    with pytest.raises(MalformedMessage, match="names a payload"):
        fragment_position(Header.parse(damaged), damaged)


@BOTH
@pytest.mark.parametrize("size", [28, 32, 35, 36, 44, 60])
def test_fragments_that_are_too_short_do_not_open(proposal: IkeProposal, size: int) -> None:
    _, receiver = pair_of(proposal)
    data = HEADER.pack(bytes(8), bytes(8), PayloadType.SKF, 0x20, 35, 8, 1, size)
    data = (data + GENERIC.pack(0, 0, size - HEADER.size) + FRAGMENT.pack(1, 2) + bytes(size))[:size]
    with pytest.raises(MalformedMessage):
        receiver.open_fragment(Header.parse(data), data)


# Putting together


@BOTH
@given(order=st.randoms(use_true_random=False), mtu=st.integers(200, 1500))
@settings(deadline=None, max_examples=30)
def test_fragments_come_in_any_order_and_more_than_once(proposal: IkeProposal, order: Random, mtu: int) -> None:
    sender, receiver = pair_of(proposal)
    fragments = fragments_of(sender, mtu)
    arriving = fragments[:-1] * 2
    order.shuffle(arriving)
    reassembly = Reassembly()
    assert all(receive(reassembly, receiver, each) is None for each in arriving)
    whole = receive(reassembly, receiver, fragments[-1])
    assert whole is not None
    assert (whole.first, whole.chain) == (LONGS_FIRST, LONGS_CHAIN)


def test_one_that_is_missing_is_missed() -> None:
    sender, receiver = pair_of()
    reassembly = Reassembly()
    first, _, third = fragments_of(sender, 1400)
    assert receive(reassembly, receiver, first) is None
    assert receive(reassembly, receiver, third) is None
    assert receive(reassembly, receiver, first) is None


def test_a_forged_fragment_displaces_nothing() -> None:
    sender, receiver = pair_of()
    reassembly = Reassembly()
    first, second, third = fragments_of(sender, 1400)
    receive(reassembly, receiver, first)  # --> SKF 1 of 3
    for forged in (
        changed(second, 60, second[60] ^ 1),  # --> SKF 2 of 3, with another content
        changed(second, 35, 9),  # --> SKF 2 of 9
        changed(second, 23, 2),  # --> SKF 2 of 3 of another message
    ):
        with pytest.raises(IntegrityFailed):
            receive(reassembly, receiver, forged)
    receive(reassembly, receiver, second)  # --> SKF 2 of 3
    assert receive(reassembly, receiver, third) is not None  # --> SKF 3 of 3


def test_what_is_here_already_is_dropped_unopened() -> None:
    # RFC 7383 section 2.6: a copy costs nothing, even a forged one.
    sender, receiver = pair_of()
    reassembly = Reassembly()
    first, *_ = fragments_of(sender, 1400)
    receive(reassembly, receiver, first)
    assert receive(reassembly, receiver, changed(first, 60, first[60] ^ 1)) is None


def test_a_larger_total_begins_anew_and_a_smaller_one_is_dropped() -> None:
    # RFC 7383 section 2.5.1: a sender may try again with smaller fragments, and so with more of them.
    sender, receiver = pair_of()
    reassembly = Reassembly()
    large, small = fragments_of(sender, 1400), fragments_of(sender, 800)
    assert len(large) < len(small)
    receive(reassembly, receiver, large[0])  # --> SKF 1 of 3
    receive(reassembly, receiver, large[1])  # --> SKF 2 of 3
    receive(reassembly, receiver, small[0])  # --> SKF 1 of 5
    assert receive(reassembly, receiver, large[2]) is None  # --> SKF 3 of 3, late
    whole = None
    for each in small[1:]:
        assert whole is None
        whole = receive(reassembly, receiver, each)  # --> SKF 2 to 5 of 5
    assert whole is not None
    assert whole.chain == LONGS_CHAIN


def test_pitfall_1_one_message_is_collected_at_a_time() -> None:
    sender, receiver = pair_of()
    reassembly = Reassembly()
    earlier, later = fragments_of(sender, 1400), fragments_of(sender, 1400, message_id=2)
    receive(reassembly, receiver, earlier[0])  # --> SKF 1 of 3 of message 1
    receive(reassembly, receiver, later[0])  # --> SKF 1 of 3 of message 2
    receive(reassembly, receiver, earlier[1])  # --> SKF 2 of 3 of message 1: begins anew
    assert receive(reassembly, receiver, earlier[2]) is None
    assert receive(reassembly, receiver, earlier[0]) is not None


def test_pitfall_1_the_bytes_of_a_message_are_bounded() -> None:
    sender, receiver = pair_of()
    reassembly = Reassembly()
    fits = (CertificatePayload.x509(bytes(MAX_BYTES - GENERIC.size - 1)),)
    too_long = (CertificatePayload.x509(bytes(MAX_BYTES - GENERIC.size)),)
    whole = None
    for each in fragments_of(sender, 1400, payloads=fits):
        whole = receive(reassembly, receiver, each)
    assert whole is not None
    assert len(whole.chain) == MAX_BYTES
    *all_but_the_last, last = fragments_of(sender, 1400, payloads=too_long)
    for each in all_but_the_last:
        assert receive(reassembly, receiver, each) is None
    with pytest.raises(MalformedMessage, match="more than"):
        receive(reassembly, receiver, last)
    # Nothing of it is kept.
    assert receive(reassembly, receiver, last) is None


def test_what_was_cleared_is_forgotten() -> None:
    sender, receiver = pair_of()
    reassembly = Reassembly()
    first, second, third = fragments_of(sender, 1400)
    receive(reassembly, receiver, first)
    reassembly.clear()
    receive(reassembly, receiver, second)
    assert receive(reassembly, receiver, third) is None


@given(data=st.binary(max_size=200), start=st.booleans())
def test_any_bytes_are_dropped(data: bytes, start: bool) -> None:
    _, receiver = pair_of()
    if start:
        data = GENERIC.pack(0, 0, len(data) + 8) + FRAGMENT.pack(1, 2) + data
    message = HEADER.pack(bytes(8), bytes(8), PayloadType.SKF, 0x20, 35, 8, 1, HEADER.size + len(data)) + data
    with pytest.raises(ProtocolError):
        receive(Reassembly(), receiver, message)


# IKE_INTERMEDIATE


@BOTH
def test_what_auth_covers_of_an_encrypted_message_is_the_same_whole_or_in_fragments(proposal: IkeProposal) -> None:
    # RFC 9242 section 3.3.2: as if the payloads were in the Encrypted payload in clear, with neither IV nor tag.
    sender, receiver = pair_of(proposal)
    expected = (
        HEADER.pack(b"initiatr", b"respondr", PayloadType.SK, 0x20, 35, 8, 1, 32 + len(LONGS_CHAIN))
        + GENERIC.pack(PayloadType.NONCE, 0, 4 + len(LONGS_CHAIN))
        + LONGS_CHAIN
    )
    (whole,) = fragments_of(sender, 65535)
    assert intermediate_octets(whole, LONGS_FIRST, LONGS_CHAIN) == expected
    reassembly = Reassembly()
    together = None
    for each in fragments_of(sender, 1000):
        together = receive(reassembly, receiver, each)
    assert together is not None
    assert intermediate_octets(together.headers, together.first, together.chain) == expected


def test_a_fragment_is_a_tuple_of_what_it_says() -> None:
    sender, receiver = pair_of()
    first, *_ = fragments_of(sender, 1400)
    number, total, payload, piece = receiver.open_fragment(Header.parse(first), first)
    assert Fragment(1, 3, PayloadType.NONCE, LONGS_CHAIN[: len(piece)]) == (number, total, payload, piece)
