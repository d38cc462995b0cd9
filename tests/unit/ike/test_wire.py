"""Payloads and messages: what is built is parsed back, and any bytes at all are parsed or raise the one error."""

import contextlib
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hauberk_ike import TrafficSelector
from hauberk_ike.errors import MalformedMessage, ProtocolError, UnsupportedCritical
from hauberk_ike.numbers import NotifyType, PayloadType
from hauberk_ike.wire.header import HEADER, Header
from hauberk_ike.wire.message import (
    GENERIC,
    MAX_PAYLOADS,
    Contents,
    KnownPayload,
    build_message,
    build_payloads,
    parse_payloads,
)
from hauberk_ike.wire.payloads import (
    Authentication,
    CertificatePayload,
    CertificateRequest,
    Delete,
    IdInitiator,
    IdResponder,
    KeyExchangePayload,
    Nonce,
    Notify,
    UnknownPayload,
    VendorId,
)
from hauberk_ike.wire.security_association import MAX_TRANSFORMS, Proposal, SecurityAssociation, Transform
from hauberk_ike.wire.traffic_selectors import TsInitiator, TsResponder

byte = st.integers(0, 255)
word = st.integers(0, 65535)
some = st.binary(min_size=1, max_size=60)


def transforms() -> st.SearchStrategy[Transform]:
    return st.builds(Transform, type=byte, id=word, key_bits=st.none() | word)


@st.composite
def associations(draw: st.DrawFn) -> SecurityAssociation:
    first = draw(st.integers(0, 200))
    proposals = draw(
        st.lists(
            st.tuples(byte, st.binary(max_size=8), st.lists(transforms(), max_size=6).map(tuple[Transform, ...])),
            min_size=1,
            max_size=5,
        )
    )
    return SecurityAssociation(
        proposals=tuple(
            Proposal(number=first + index, protocol=protocol, spi=spi, transforms=offered)
            for index, (protocol, spi, offered) in enumerate(proposals)
        )
    )


@st.composite
def selectors(draw: st.DrawFn) -> TrafficSelector:
    family, bits = draw(st.sampled_from([(IPv4Address, 32), (IPv6Address, 128)]))
    start, end = sorted(draw(st.tuples(st.integers(0, 2**bits - 1), st.integers(0, 2**bits - 1))))
    low, high = draw(st.one_of(st.tuples(word, word).map(sorted), st.just([65535, 0])))
    return TrafficSelector(start=family(start), end=family(end), protocol=draw(byte), start_port=low, end_port=high)


selector_lists = st.lists(selectors(), min_size=1, max_size=6).map(tuple[TrafficSelector, ...])


@st.composite
def deletes(draw: st.DrawFn) -> Delete:
    size = draw(st.sampled_from([4, 8]))
    spis = draw(st.lists(st.binary(min_size=size, max_size=size), max_size=5))
    return Delete(protocol=draw(byte), spi_size=size, spis=tuple(spis))


payloads: st.SearchStrategy[KnownPayload] = st.one_of(
    associations(),
    st.builds(KeyExchangePayload, method=word, data=some),
    st.builds(IdInitiator, id_type=byte, data=some, reserved=st.binary(min_size=3, max_size=3)),
    st.builds(IdResponder, id_type=byte, data=some),
    st.builds(CertificatePayload, encoding=byte, data=some),
    st.builds(CertificateRequest, encoding=byte, authorities=st.binary(max_size=60)),
    st.builds(Authentication, method=byte, data=some),
    st.builds(Nonce, data=st.binary(min_size=16, max_size=256)),
    st.builds(Notify, type=word, data=st.binary(max_size=60), protocol=byte, spi=st.binary(max_size=8)),
    deletes(),
    st.builds(VendorId, data=st.binary(max_size=60)),
    st.builds(TsInitiator, selectors=selector_lists),
    st.builds(TsResponder, selectors=selector_lists),
)


@given(payload=payloads)
def test_every_payload_is_parsed_back_as_it_was_built(payload: KnownPayload) -> None:
    assert type(payload).parse(payload.build()) == payload


@given(chain=st.lists(payloads, max_size=8))
def test_chains_are_parsed_back_as_they_were_built(chain: list[KnownPayload]) -> None:
    first, data = build_payloads(chain)
    assert parse_payloads(first, data) == chain


@given(chain=st.lists(payloads, max_size=3), message_id=st.integers(0, 2**32 - 1), flags=byte, exchange=byte)
def test_messages_are_parsed_back_as_they_were_built(
    chain: list[KnownPayload], message_id: int, flags: int, exchange: int
) -> None:
    data = build_message(
        spi_i=b"initiatr",
        spi_r=b"respondr",
        exchange_type=exchange,
        flags=flags,
        message_id=message_id,
        payloads=chain,
    )
    header = Header.parse(data)
    assert header.build() == data[: HEADER.size]
    assert (header.spi_i, header.spi_r, header.message_id) == (b"initiatr", b"respondr", message_id)
    assert (header.exchange_type, header.flags, header.major_version) == (exchange, flags, 2)
    assert parse_payloads(header.next_payload, data, HEADER.size) == chain


@pytest.mark.parametrize(
    "kind",
    [
        SecurityAssociation,
        KeyExchangePayload,
        IdInitiator,
        CertificatePayload,
        CertificateRequest,
        Authentication,
        Nonce,
        Notify,
        Delete,
        VendorId,
        TsInitiator,
    ],
)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_payload_or_raise_the_one_error(kind: type[KnownPayload], data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        kind.parse(data)


@given(first=byte, data=st.binary(max_size=300))
@example(first=33, data=b"\x00\x00\x00\x04")
@example(first=PayloadType.DELETE, data=b"\x00\x00\x00\x08\x01\x00\xff\xff")
def test_pitfall_1_any_bytes_are_a_chain_or_raise_the_one_error(first: int, data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        parse_payloads(first, data)


@given(chain=st.lists(payloads, min_size=1, max_size=5), data=st.data())
def test_pitfall_1_damaged_chains_are_parsed_or_raise_the_one_error(
    chain: list[KnownPayload], data: st.DataObject
) -> None:
    first, good = build_payloads(chain)
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(byte)
    cut = data.draw(st.integers(0, len(damaged)))
    for candidate in (bytes(damaged), bytes(damaged[:cut]), good[:cut]):
        with contextlib.suppress(ProtocolError):
            parse_payloads(first, candidate)


def test_pitfall_1_the_number_of_payloads_is_capped() -> None:
    vendor = VendorId(data=b"")
    first, data = build_payloads([vendor] * MAX_PAYLOADS)
    assert len(parse_payloads(first, data)) == MAX_PAYLOADS
    first, data = build_payloads([vendor] * (MAX_PAYLOADS + 1))
    with pytest.raises(MalformedMessage, match="more than"):
        parse_payloads(first, data)


def test_pitfall_1_the_number_of_transforms_is_capped_over_all_proposals() -> None:
    def offer(count: int) -> bytes:
        each = tuple(Transform(type=1, id=20, key_bits=128) for _ in range(count))
        return SecurityAssociation(
            proposals=tuple(Proposal(number=n, protocol=1, spi=b"", transforms=each) for n in (1, 2))
        ).build()

    assert len(SecurityAssociation.parse(offer(MAX_TRANSFORMS // 2)).proposals) == 2
    with pytest.raises(MalformedMessage, match="too many"):
        SecurityAssociation.parse(offer(MAX_TRANSFORMS // 2 + 1))


def unknown(kind: int, *, critical: bool, following: int = 0) -> bytes:
    return GENERIC.pack(following, 0x80 if critical else 0, GENERIC.size + 3) + b"abc"


def test_unknown_payloads_are_passed_over_unless_they_are_critical() -> None:
    nonce = Nonce(data=bytes(16))
    first, rest = build_payloads([nonce])
    assert parse_payloads(200, unknown(200, critical=False, following=first) + rest) == [
        UnknownPayload(payload_type=200, data=b"abc"),
        nonce,
    ]
    with pytest.raises(UnsupportedCritical) as caught:
        parse_payloads(200, unknown(200, critical=True, following=first) + rest)
    assert caught.value.payload_type == 200


def test_the_critical_bit_of_rfc_7296s_own_payloads_is_ignored() -> None:
    for kind in (PayloadType.CP, PayloadType.EAP):
        assert parse_payloads(kind, unknown(kind, critical=True)) == [UnknownPayload(payload_type=kind, data=b"abc")]
    _, vendor = build_payloads([VendorId(data=b"abc")])
    assert parse_payloads(PayloadType.VENDOR_ID, vendor[:1] + b"\x80" + vendor[2:]) == [VendorId(data=b"abc")]


def test_an_encrypted_payload_inside_a_chain_is_nothing_that_we_know() -> None:
    with pytest.raises(UnsupportedCritical):
        parse_payloads(PayloadType.SK, unknown(PayloadType.SK, critical=True))


def test_a_header_says_how_long_the_datagram_is() -> None:
    data = build_message(spi_i=bytes(8), spi_r=bytes(8), exchange_type=34, flags=8, message_id=0, payloads=())
    assert Header.parse(data).length == len(data)
    for wrong in (data[:-1], data + b"\0", data[:27], b""):
        with pytest.raises(MalformedMessage):
            Header.parse(wrong)


def test_pitfall_7_unknown_numbers_are_values() -> None:
    offered = SecurityAssociation(
        proposals=(Proposal(number=1, protocol=250, spi=b"", transforms=(Transform(type=99, id=60000),)),)
    )
    notify = Notify(type=65000, data=b"x")
    first, data = build_payloads([offered, notify])
    contents = Contents(parse_payloads(first, data))
    assert contents.one(SecurityAssociation) == offered
    assert contents.notify(65000) == notify
    assert contents.error() is None


def test_contents_tell_one_from_none_and_several() -> None:
    contents = Contents(
        [Nonce(data=bytes(16)), Notify(type=NotifyType.TS_UNACCEPTABLE), Notify(type=NotifyType.COOKIE)]
    )
    assert contents.one(Nonce).data == bytes(16)
    assert contents.maybe(Delete) is None
    error = contents.error()
    assert error is not None
    assert error.type == NotifyType.TS_UNACCEPTABLE
    with pytest.raises(MalformedMessage):
        contents.one(Delete)
    with pytest.raises(MalformedMessage):
        contents.maybe(Notify)


def test_transform_attributes_that_we_do_not_know_make_the_transform_unfit() -> None:
    short = bytes.fromhex("800e0080")  # key length 128
    assert Transform.parse(1, 20, short) == Transform(type=1, id=20, key_bits=128)
    assert Transform.parse(1, 20, short + bytes.fromhex("80120001")).unsupported
    assert Transform.parse(1, 20, short + short).unsupported
    assert Transform.parse(1, 20, bytes.fromhex("001200020000")).unsupported  # long form
    with pytest.raises(MalformedMessage):
        Transform.parse(1, 20, bytes.fromhex("0012000500"))
