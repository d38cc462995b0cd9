"""Floods: what strangers send costs no memory before a valid cookie, no key exchange, and bounded work a datagram.

Work is counted in calls of Python functions, which no other process on the machine changes.
"""

import gc
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import pytest

from hauberk_ike import EndpointSettings
from hauberk_ike.exchanges import ike_sa_init
from hauberk_ike.numbers import ExchangeType, NotifyType, PayloadType
from hauberk_ike.wire.header import FLAG_INITIATOR, HEADER, NO_SPI
from hauberk_ike.wire.message import GENERIC, build_message
from hauberk_ike.wire.payloads import Nonce, Notify
from hauberk_ike.wire.security_association import PROPOSAL, TRANSFORM
from tests.unit.ike.party import ALICE, Pair, Party, address
from tests.unit.ike.raw_peer import RawPeer

UNDER_LOAD = EndpointSettings(cookie_threshold=0)
DATAGRAMS = 1500
NOTHING = 4096
"""Bytes: the first request alone has a tenth of that, and an IKE SA two thirds."""
A_HALF_OPEN_ONE = 4096
MAX_CALLS = 6000


def flood(party: Party, datagrams: Iterator[bytes]) -> int:
    """Hands over all datagrams, each from another address; returns how many answers there were."""
    answers = 0
    endpoint = party.endpoint
    for number, data in enumerate(datagrams):
        remote = address(f"198.51.{number >> 8 & 255}.{number & 255}")
        endpoint.receive_datagram(data, local=party.address, remote=remote, now=1000.0)
        while endpoint.next_event() is not None:
            pass
        answers += len(endpoint.datagrams_to_send(1000.0))
    return answers


def grown(party: Party, make: Callable[[int], Iterator[bytes]]) -> int:
    """By how many bytes memory has grown after a flood, once bounded caches are full."""
    tracemalloc.start()
    try:
        flood(party, make(1))
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        flood(party, make(2))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


def first_requests(seed: int) -> Iterator[bytes]:
    """Good ones, each of another stranger."""
    raw = RawPeer(Pair().bob, ALICE)
    chance = random.Random(seed)
    for _ in range(DATAGRAMS):
        raw.spi, raw.nonce = chance.randbytes(8), chance.randbytes(32)
        yield raw.init_request()


def forged_cookies(seed: int) -> Iterator[bytes]:
    raw = RawPeer(Pair().bob, ALICE)
    chance = random.Random(seed)
    for _ in range(DATAGRAMS):
        raw.spi = chance.randbytes(8)
        yield raw.init_request([Notify(type=NotifyType.COOKIE, data=chance.randbytes(33)), *raw.init_payloads()])


def offers_of_all_kinds(seed: int) -> Iterator[bytes]:
    """First requests whose proposals, hashes and vendors are never the same twice."""
    chance = random.Random(seed)
    for _ in range(DATAGRAMS):
        transforms = b"".join(
            TRANSFORM.pack(3 if index < 15 else 0, TRANSFORM.size, chance.randrange(1, 14), chance.randrange(65536))
            for index in range(16)
        )
        proposal = PROPOSAL.pack(0, PROPOSAL.size + len(transforms), 1, 1, 0, 16) + transforms
        payloads = [
            (PayloadType.SA, proposal),
            (PayloadType.NOTIFY, b"\0\0\x40\x2f" + chance.randbytes(30)),
            (PayloadType.VENDOR_ID, chance.randbytes(40)),
            (PayloadType.NONCE, chance.randbytes(32)),
        ]
        yield in_the_clear(payloads, spi=chance.randbytes(8))


def strange_spis(seed: int) -> Iterator[bytes]:
    """Encrypted messages of IKE SAs that do not exist."""
    chance = random.Random(seed)
    for _ in range(DATAGRAMS):
        body = GENERIC.pack(PayloadType.ID_I, 0, 204) + chance.randbytes(200)
        yield (
            HEADER.pack(
                chance.randbytes(8), chance.randbytes(8), PayloadType.SK, 0x20, 35, FLAG_INITIATOR, 1, 28 + len(body)
            )
            + body
        )


def garbage(seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(DATAGRAMS):
        body = chance.randbytes(chance.randrange(300))
        yield (
            HEADER.pack(
                chance.randbytes(8), NO_SPI, chance.randrange(33, 54), 0x20, 34, FLAG_INITIATOR, 0, 28 + len(body)
            )
            + body
        )


def in_the_clear(payloads: Sequence[tuple[int, bytes]], *, spi: bytes = b"a flood!") -> bytes:
    chain = b"".join(
        GENERIC.pack(following, 0, GENERIC.size + len(body)) + body
        for (_, body), (following, _) in zip(payloads, [*payloads[1:], (0, b"")], strict=True)
    )
    first = payloads[0][0]
    return HEADER.pack(spi, NO_SPI, first, 0x20, 34, FLAG_INITIATOR, 0, HEADER.size + len(chain)) + chain


@pytest.mark.parametrize("kind", [first_requests, forged_cookies, offers_of_all_kinds, strange_spis, garbage])
def test_a_flood_under_load_takes_no_memory_and_no_key_exchange(
    kind: Callable[[int], Iterator[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchanged(*_: object) -> None:
        raise AssertionError("a key exchange for a stranger without a cookie")

    pair = Pair(settings=UNDER_LOAD)
    monkeypatch.setattr(ike_sa_init, "respond", exchanged)
    assert grown(pair.bob, kind) < NOTHING
    assert pair.bob.endpoint.get_timer() is None


def test_without_load_half_open_ike_sas_are_as_many_as_may_be_and_no_more() -> None:
    settings = EndpointSettings(cookie_threshold=10_000, half_open_per_address=10_000, half_open_limit=50)
    pair = Pair(settings=settings)
    assert grown(pair.bob, first_requests) < 50 * A_HALF_OPEN_ONE


def longest_datagrams() -> dict[str, bytes]:
    """Of 65,507 bytes or nearly, each made to be as much work as possible."""
    transforms = b"".join(TRANSFORM.pack(3 if n < 254 else 0, TRANSFORM.size, 1, n) for n in range(255))
    attributes = b"\x80\x0e\x00\x80" * 15_000
    many_attributes = TRANSFORM.pack(0, TRANSFORM.size + len(attributes), 1, 20) + attributes
    proposals = b"".join(PROPOSAL.pack(2 if n < 64 else 0, PROPOSAL.size, n, 1, 0, 0) for n in range(1, 65))
    nonce = (PayloadType.NONCE, bytes(32))
    return {
        "payloads": in_the_clear([(PayloadType.NOTIFY, b"\0\0\x40\x04")] * 8000),
        "transforms": in_the_clear(
            [(PayloadType.SA, PROPOSAL.pack(0, PROPOSAL.size + len(transforms), 1, 1, 0, 255) + transforms), nonce]
        ),
        "attributes": in_the_clear(
            [
                (PayloadType.SA, PROPOSAL.pack(0, PROPOSAL.size + len(many_attributes), 1, 1, 0, 1) + many_attributes),
                nonce,
            ]
        ),
        "proposals": in_the_clear([(PayloadType.SA, proposals), nonce]),
        "SPIs to delete": in_the_clear([(PayloadType.DELETE, b"\x03\x04\x04\x00" + bytes(4096)), nonce]),
        "traffic selectors": in_the_clear([(PayloadType.TS_I, b"\xff\0\0\0" + b"\x07\0\0\x10" * 4000), nonce]),
        "certificates": in_the_clear([(PayloadType.CERT, b"\x04" + bytes(1000))] * 60 + [nonce]),
        "one payload": in_the_clear([(PayloadType.VENDOR_ID, bytes(65_000)), nonce]),
        "hashes": in_the_clear([(PayloadType.NOTIFY, b"\0\0\x40\x2f" + bytes(60_000)), nonce]),
        "nothing but a nonce": build_message(
            spi_i=b"a flood!",
            spi_r=NO_SPI,
            exchange_type=ExchangeType.IKE_SA_INIT,
            flags=FLAG_INITIATOR,
            message_id=0,
            payloads=(Nonce(data=bytes(32)),),
        ),
    }


@pytest.mark.parametrize("name", longest_datagrams())
def test_no_datagram_is_more_than_bounded_work(name: str) -> None:
    for settings in (UNDER_LOAD, None):
        pair = Pair(settings=settings)
        calls = 0

        def count(frame: FrameType, event: str, argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        data = longest_datagrams()[name]
        sys.setprofile(count)
        try:
            flood(pair.bob, iter((data,)))
        finally:
            sys.setprofile(None)
        assert calls < MAX_CALLS, f"{calls} calls for {len(data)} bytes of {name}"
