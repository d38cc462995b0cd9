"""Strangers in numbers: half-open IKE SAs cost little, end by themselves, and lock nobody out."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike import EndpointSettings, IkeSaUp, PeerRefused
from hauberk_ike.cookie import CookieJar
from hauberk_ike.endpoint import MAX_FIRST_REQUEST
from hauberk_ike.numbers import NotifyType
from hauberk_ike.wire.header import HEADER, NO_SPI
from hauberk_ike.wire.payloads import VendorId
from tests.unit.ike.party import ALICE, Pair, address, agree
from tests.unit.ike.raw_peer import RawPeer


def flood(pair: Pair, count: int, *, host: str | None = None, cookies: bool = False) -> list[str]:
    """First requests from many strangers; returns what each was told."""
    told: list[str] = []
    for number in range(count):
        raw = RawPeer(
            pair.bob,
            ALICE,
            spi=b"flood" + number.to_bytes(3),
            host=host or str(IPv4Address("198.51.0.0") + number),
        )
        raw.now = pair.now
        answer = raw.ask_init()
        assert answer is not None
        cookie = answer.notify(NotifyType.COOKIE)
        if cookie is not None and cookies:
            answer = raw.ask_init([cookie, *raw.init_payloads()])
            assert answer is not None
        told.append("cookie" if answer.notify(NotifyType.COOKIE) else "keys")
    return told


def test_pitfall_12_from_a_number_of_half_open_ike_sas_on_a_cookie_is_wanted() -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=5))
    assert flood(pair, 8) == ["keys"] * 5 + ["cookie"] * 3
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT: N(COOKIE)
    pair.to_bob()  # --> IKE_SA_INIT: N(COOKIE), SA, KE, Ni
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH
    agree(pair.alice, pair.bob)


def test_pitfall_12_an_address_with_many_has_to_show_a_cookie_while_others_need_not() -> None:
    pair = Pair(settings=EndpointSettings(half_open_per_address=2))
    assert flood(pair, 4, host="198.51.100.1") == ["keys", "keys", "cookie", "cookie"]
    pair.set_up()
    agree(pair.alice, pair.bob)


def test_pitfall_12_a_known_node_is_not_locked_out_by_a_full_table() -> None:
    # strongswan#2791: an attacker at one address, who even answers cookies, fills the table.
    pair = Pair(settings=EndpointSettings(cookie_threshold=4, half_open_limit=10))
    assert set(flood(pair, 40, host="198.51.100.1", cookies=True)) == {"keys"}
    assert pair.bob.seen(PeerRefused)[0].reason == "HalfOpenLimit"
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT: N(COOKIE)
    pair.to_bob()  # --> IKE_SA_INIT: N(COOKIE), SA, KE, Ni
    pair.to_alice()  # <-- IKE_SA_INIT: SA, KE, Nr
    flood(pair, 40, host="198.51.100.1", cookies=True)  # goes on meanwhile
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH
    agree(pair.alice, pair.bob)


def test_half_open_ike_sas_end_by_themselves() -> None:
    pair = Pair(settings=EndpointSettings(half_open_seconds=30, cookie_threshold=5))
    flood(pair, 5)
    pair.wait(31)
    assert {refused.reason for refused in pair.bob.seen(PeerRefused)} == {"HalfOpenTimeout"}
    assert len(pair.bob.seen(PeerRefused)) == 5
    assert pair.bob.endpoint.get_timer() is None
    assert flood(pair, 1) == ["keys"]


def test_established_ike_sas_are_not_half_open() -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=1))
    for _ in range(5):
        pair.initiate()
        pair.to_bob()  # --> IKE_SA_INIT: no cookie wanted
        pair.to_alice()  # <-- IKE_SA_INIT
        pair.to_bob()  # --> IKE_AUTH
        pair.to_alice()  # <-- IKE_AUTH
    assert len(pair.bob.seen(IkeSaUp)) == 5


def test_a_request_of_garbage_under_load_costs_nothing_and_says_nothing() -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=0))
    raw = RawPeer(pair.bob, ALICE)
    assert raw.ask_init([]) is None  # no nonce to bind a cookie to
    assert pair.bob.endpoint.get_timer() is None


def test_cookies_of_the_current_and_the_last_secret_are_good() -> None:
    host = IPv4Address("192.0.2.1")
    counter = iter(range(256))
    jar = CookieJar(lambda n: bytes((next(counter),)) * n, 60.0)

    def bake(now: float) -> bytes:
        return jar.bake(nonce=b"n" * 32, host=host, spi_i=b"i" * 8, now=now)

    def good(cookie: bytes, now: float) -> bool:
        return jar.check(cookie, nonce=b"n" * 32, host=host, spi_i=b"i" * 8, now=now)

    cookie = bake(0)
    assert good(cookie, 59)
    assert good(cookie, 61)  # the secret has changed
    assert bake(62) != cookie
    assert good(cookie, 119)
    assert not good(cookie, 122)  # and changed again
    late = bake(122)
    assert not good(late, 122 + 1000)  # nobody came for a long time: both secrets are old
    assert not good(b"", 2000)
    assert not good(bake(2000)[:-1], 2000)


# Pitfall 12, in both families

FAMILIES = pytest.mark.parametrize(
    ("hosts", "stranger"),
    [(("192.0.2.1", "192.0.2.2"), "198.51.100.1"), (("2001:db8::1", "2001:db8::2"), "2001:db8:bad::1")],
    ids=["IPv4", "IPv6"],
)


@FAMILIES
def test_pitfall_12_many_requests_without_a_cookie_leave_nothing_behind_and_cost_nothing(
    hosts: tuple[str, str], stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*arguments: object, **options: object) -> None:
        raise AssertionError("work before a cookie")

    pair = Pair(settings=EndpointSettings(cookie_threshold=0), hosts=hosts)
    for name in ("parse_payloads", "InitOffer", "IkeSa"):
        monkeypatch.setattr(f"hauberk_ike.endpoint.{name}", work)
    registry = pair.bob.endpoint._registry  # pyright: ignore[reportPrivateUsage]
    first = address(stranger).host
    for number in range(2000):
        raw = RawPeer(pair.bob, ALICE, spi=(number + 1).to_bytes(8), host=str(first + number))
        request = raw.init_request()
        (answer,) = raw.send(request)
        assert len(answer.data) < len(request)  # nothing is amplified
    assert not pair.bob.events
    assert len(registry.half_open) == 0
    assert list(registry.alive()) == []
    assert pair.bob.endpoint.get_timer() is None


@FAMILIES
def test_pitfall_12_garbage_under_load_is_met_with_silence(hosts: tuple[str, str], stranger: str) -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=0), hosts=hosts)
    raw = RawPeer(pair.bob, ALICE, host=stranger)
    nonce = raw.init_payloads()[2]
    good = raw.init_request([nonce])
    for bad in (good[:16] + b"\x28" + good[17:-33], good[:-1], good[:30] + b"\xff\xff" + good[32:]):
        length = len(bad).to_bytes(4)
        assert raw.send(bad[:24] + length + bad[28:]) == []
    assert not pair.bob.events  # not a word in anybody's log
    assert len(raw.send(good)) == 1


@given(data=st.binary(max_size=300), first=st.sampled_from([0, 33, 40, 41, 46, 255]))
def test_pitfall_12_any_bytes_under_load_bring_a_cookie_or_nothing(data: bytes, first: int) -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=0))
    raw = RawPeer(pair.bob, ALICE)
    header = HEADER.pack(b"some SPI", NO_SPI, first, 0x20, 34, 8, 0, HEADER.size + len(data))
    assert len(raw.send(header + data)) <= 1
    assert not pair.bob.events


@FAMILIES
def test_pitfall_12_a_cookie_is_good_where_it_was_given_and_nowhere_else(hosts: tuple[str, str], stranger: str) -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=0), hosts=hosts)
    raw = RawPeer(pair.bob, ALICE, host=stranger)
    asked = raw.ask_init()
    assert asked is not None
    cookie = asked.notify(NotifyType.COOKIE)
    assert cookie is not None
    thief = RawPeer(pair.bob, ALICE, host=str(raw.address.host + 1))
    assert thief.send(raw.init_request([cookie, *raw.init_payloads()])) != []
    assert len(pair.bob.endpoint._registry.half_open) == 0  # pyright: ignore[reportPrivateUsage]
    answer = raw.ask_init([cookie, *raw.init_payloads()])
    assert answer is not None
    assert answer.notify(NotifyType.COOKIE) is None


def test_pitfall_12_so_long_a_first_request_is_not_kept() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    request = raw.init_request(raw.init_payloads())
    spare = MAX_FIRST_REQUEST - len(request) - 4
    assert raw.ask_init([*raw.init_payloads(), VendorId(data=bytes(spare + 1))]) is None
    assert raw.ask_init([*raw.init_payloads(), VendorId(data=bytes(spare))]) is not None


@FAMILIES
def test_pitfall_12_strangers_at_many_addresses_do_not_displace_a_known_node(
    hosts: tuple[str, str], stranger: str
) -> None:
    # One half-open IKE SA each, cookies answered, and the known node's the oldest of all.
    pair = Pair(settings=EndpointSettings(cookie_threshold=4, half_open_limit=10), hosts=hosts)
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    first = address(stranger).host
    for number in range(40):
        # In IPv6 from another network each.
        host = first + (number << 64 if first.version == 6 else number)
        raw = RawPeer(pair.bob, ALICE, spi=b"flood" + number.to_bytes(3), host=str(host))
        asked = raw.ask_init()
        assert asked is not None
        cookie = asked.notify(NotifyType.COOKIE)
        if cookie is not None:
            raw.ask_init([cookie, *raw.init_payloads()])
    assert pair.bob.seen(PeerRefused)[0].reason == "HalfOpenLimit"
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH
    agree(pair.alice, pair.bob)


def test_pitfall_12_an_ipv6_network_of_strangers_counts_as_one_and_a_known_node_in_it_for_itself() -> None:
    pair = Pair(settings=EndpointSettings(half_open_per_address=2), hosts=("2001:db8::1", "2001:db8::2"))
    told: list[bool] = []
    for number in range(4):
        raw = RawPeer(pair.bob, ALICE, spi=b"flood" + number.to_bytes(3), host=f"2001:db8::bad:{number}")
        answer = raw.ask_init()
        assert answer is not None
        told.append(answer.notify(NotifyType.COOKIE) is not None)
    assert told == [False, False, True, True]
    pair.set_up()  # Alice is in the same network, and no cookie is asked of her
    agree(pair.alice, pair.bob)


def test_with_none_but_known_nodes_the_one_with_the_most_gives_way() -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=99, half_open_per_address=99, half_open_limit=3))
    for number in range(4):
        RawPeer(pair.bob, ALICE, spi=b"known" + number.to_bytes(3)).ask_init()
    assert [str(each.remote.host) for each in pair.bob.seen(PeerRefused)] == ["192.0.2.1"]
    assert len(pair.bob.endpoint._registry.half_open) == 3  # pyright: ignore[reportPrivateUsage]


def test_a_node_that_becomes_known_meanwhile_is_counted_out_where_it_was_counted_in() -> None:
    pair = Pair()
    known = pair.bob.policy.peers
    pair.bob.policy.peers = {}
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT of a stranger's
    pair.bob.policy.peers = known
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    assert len(pair.bob.endpoint._registry.half_open) == 0  # pyright: ignore[reportPrivateUsage]


def test_who_holds_the_most_gives_way_and_not_who_came_first() -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=99, half_open_per_address=99, half_open_limit=4))
    hosts = ("198.51.100.1", "198.51.100.2", "198.51.100.2", "198.51.100.2", "198.51.100.3")
    for number, host in enumerate(hosts):
        RawPeer(pair.bob, ALICE, spi=b"flood" + number.to_bytes(3), host=host).ask_init()
    assert [str(each.remote.host) for each in pair.bob.seen(PeerRefused)] == ["198.51.100.2"]


def test_pitfall_12_payloads_that_overlap_bring_no_cookie() -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=0))
    raw = RawPeer(pair.bob, ALICE)
    # A payload of 3 bytes, in whose last one a nonce begins.
    body = bytes((40, 0, 0, 3)) + bytes((0, 0, 36)) + bytes(32) + bytes((0, 0, 0, 4))
    header = HEADER.pack(b"some SPI", NO_SPI, 43, 0x20, 34, 8, 0, HEADER.size + len(body))
    assert raw.send(header + body) == []
