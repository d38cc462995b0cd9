"""Any bytes into an endpoint: nothing is raised, nothing is believed, and those who are well stay well."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk_ike import EndpointSettings, IkeSaUp
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.header import FLAG_INITIATOR, FLAG_RESPONSE, HEADER, NO_SPI
from hauberk_ike.wire.message import GENERIC, KnownPayload
from hauberk_ike.wire.payloads import Notify, VendorId
from tests.unit.ike.party import ALICE, BOB, Pair, Party, address
from tests.unit.ike.raw_peer import RawPeer

byte = st.integers(0, 255)


def deliver(party: Party, data: bytes) -> None:
    party.endpoint.receive_datagram(data, local=party.address, remote=address("192.0.2.1"), now=1000.0)
    party.take(1000.0)


@given(data=st.binary(max_size=400))
def test_pitfall_1_random_bytes_do_nothing(data: bytes) -> None:
    pair = Pair()
    deliver(pair.bob, data)
    assert not pair.bob.seen(IkeSaUp)


@given(
    exchange=st.sampled_from([34, 35, 36, 37, 43]),
    flags=st.sampled_from([0, 8, 32, 40, 255]),
    first=byte,
    body=st.binary(max_size=200),
    message_id=st.sampled_from([0, 1, 2**32 - 1]),
    spi_r=st.sampled_from([NO_SPI, b"anything"]),
)
def test_pitfall_1_random_bodies_under_a_good_header_do_nothing(
    exchange: int, flags: int, first: int, body: bytes, message_id: int, spi_r: bytes
) -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=0 if len(body) % 2 else 5))
    header = HEADER.pack(b"some SPI", spi_r, first, 0x20, exchange, flags, message_id, HEADER.size + len(body))
    deliver(pair.bob, header + body)
    assert not pair.bob.seen(IkeSaUp)


@given(data=st.data())
@settings(max_examples=150)
def test_pitfall_1_damaged_first_messages_do_no_harm(data: st.DataObject) -> None:
    pair = Pair()
    handle = pair.initiate()
    damage = damaging(data)
    (request,) = pair.alice.take(pair.now)
    deliver(pair.bob, damage(request.data))
    pair.bob.receive(request, pair.now)
    answer = pair.bob.take(pair.now)[-1]
    pair.alice.endpoint.receive_datagram(
        damage(answer.data), local=pair.alice.address, remote=pair.bob.address, now=pair.now
    )
    pair.alice.take(pair.now)
    assert not pair.alice.seen(IkeSaUp)
    if not pair.alice.events:
        pair.alice.endpoint.forget(handle)
    assert not pair.alice.leaked


def damaging(data: st.DataObject) -> Callable[[bytes], bytes]:
    """Some bytes changed, some cut off, and the header's length put right."""

    def damage(original: bytes) -> bytes:
        damaged = bytearray(original)
        for _ in range(data.draw(st.integers(1, 5))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(byte)
        cut = data.draw(st.integers(0, 8))
        damaged = damaged[: len(damaged) - cut]
        if len(damaged) >= HEADER.size:
            damaged[24:28] = len(damaged).to_bytes(4)
        return bytes(damaged)

    return damage


chains = st.one_of(
    st.binary(max_size=120),
    st.lists(st.tuples(byte, byte, st.binary(max_size=30)), max_size=5).map(
        lambda items: b"".join(
            GENERIC.pack(following, flags, GENERIC.size + len(body)) + body for following, flags, body in items
        )
    ),
)


@given(
    state=st.sampled_from(["half-open", "established"]),
    exchange=st.sampled_from([35, 36, 37]),
    first=st.one_of(st.integers(33, 48), byte),
    chain=chains,
)
@settings(max_examples=250)
def test_pitfall_4_an_authenticated_peer_may_say_anything(state: str, exchange: int, first: int, chain: bytes) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    if state == "established":
        raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads())
    raw.send(raw.seal_chain(exchange, first, chain, message_id=raw.message_id, flags=FLAG_INITIATOR))
    assert not pair.bob.leaked
    pair.bob.endpoint.handle_timer(pair.now + 1000)
    pair.bob.drain()


@given(first=st.one_of(st.integers(33, 48), byte), chain=chains)
@settings(max_examples=150)
def test_pitfall_8_a_responder_may_answer_anything_to_ike_auth(first: int, chain: bytes) -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init())
    raw.send(raw.seal_chain(35, first, chain, message_id=1, flags=FLAG_RESPONSE))
    assert not pair.alice.seen(IkeSaUp)
    assert not pair.alice.leaked


@given(data=st.data())
@settings(max_examples=120)
def test_payloads_in_any_order_and_number_do_no_harm(data: st.DataObject) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    good = raw.auth_payloads()
    pool: list[KnownPayload] = [*good, *raw.init_payloads(), Notify(type=7), VendorId(data=b"")]
    chosen = data.draw(st.lists(st.sampled_from(pool), max_size=12))
    raw.ask(ExchangeType.IKE_AUTH, chosen)
    assert not pair.bob.leaked


def test_the_pair_is_still_well_afterwards() -> None:
    pair = Pair()
    pair.set_up()
    for junk in (b"", b"\0" * 28, b"\xff" * 1500, bytes(range(256)) * 10):
        deliver(pair.bob, junk)
    pair.wait(11)
    pair.settle()
    assert len(pair.bob.endpoint.established()) == 1
