"""Strangers in numbers: half-open IKE SAs cost little, end by themselves, and lock nobody out."""

from ipaddress import IPv4Address

from hauberk_ike import EndpointSettings, IkeSaUp, PeerRefused
from hauberk_ike.cookie import CookieJar
from hauberk_ike.numbers import NotifyType
from tests.unit.ike.party import ALICE, Pair, agree
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
