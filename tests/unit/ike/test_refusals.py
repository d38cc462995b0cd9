"""What is said of those who are turned away is bounded, in each period by address and in all; the rest is counted."""

from hauberk_ike import EndpointSettings, PeerRefused, RefusalsWithheld
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.header import FLAG_INITIATOR, NO_SPI
from hauberk_ike.wire.message import build_message
from hauberk_ike.wire.payloads import Notify
from tests.unit.ike.party import Pair, Party, address

GARBAGE = build_message(
    spi_i=b"stranger",
    spi_r=NO_SPI,
    exchange_type=ExchangeType.IKE_SA_INIT,
    flags=FLAG_INITIATOR,
    message_id=0,
    payloads=(Notify(type=NotifyType.INITIAL_CONTACT),),
)
"""IKE_SA_INIT without anything that it needs: below the cookie threshold it is read, and refused."""
FEW = EndpointSettings(refusals_seconds=60, refusals_per_address=3, refusals_limit=10)


def garbage(party: Party, host: str, *, now: float = 1000.0) -> int:
    """Sends it; returns how many refusals were reported so far."""
    party.endpoint.receive_datagram(GARBAGE, local=party.address, remote=address(host), now=now)
    return len(party.seen(PeerRefused))


def test_one_address_is_reported_a_few_times_and_then_counted() -> None:
    bob = Pair(settings=FEW).bob
    assert [garbage(bob, "198.51.100.1") for _ in range(6)] == [1, 2, 3, 3, 3, 3]
    assert garbage(bob, "198.51.100.2") == 4  # another one is heard all the same
    assert bob.endpoint.get_timer() == 1060
    bob.endpoint.handle_timer(1059.9)
    assert not bob.seen(RefusalsWithheld)
    bob.endpoint.handle_timer(1060)
    withheld = bob.one(RefusalsWithheld)
    assert (withheld.reasons, withheld.count, withheld.seconds) == ((("InvalidSyntax", 3),), 3, 60)
    assert bob.endpoint.get_timer() is None
    # The next period begins with the next refusal.
    assert garbage(bob, "198.51.100.1", now=1100) == 5
    bob.endpoint.handle_timer(2000)
    assert len(bob.seen(RefusalsWithheld)) == 1  # nothing was withheld in it


def test_many_addresses_are_reported_up_to_a_limit_and_remembered_no_longer() -> None:
    bob = Pair(settings=FEW).bob
    for number in range(1500):
        garbage(bob, f"198.51.{number >> 8}.{number & 255}")
    assert len(bob.seen(PeerRefused)) == 10
    refusals = bob.endpoint._context.refusals  # pyright: ignore[reportPrivateUsage]
    assert len(refusals._strangers) == 10  # pyright: ignore[reportPrivateUsage]
    # With nobody calling the timer, the next refusal finds that the period is over.
    assert garbage(bob, "198.51.100.1", now=1060) == 11
    assert bob.one(RefusalsWithheld).count == 1490


def test_a_known_peer_that_is_refused_is_reported_whatever_strangers_do() -> None:
    pair = Pair(settings=FEW)
    for number in range(1, 100):
        garbage(pair.bob, f"198.51.100.{number}")
    assert garbage(pair.bob, str(pair.alice.address.host)) == 11
    for _ in range(100):  # and not more often than others, as strangers can forge its address
        garbage(pair.bob, str(pair.alice.address.host))
    assert len(pair.bob.seen(PeerRefused)) == 13


def test_a_network_of_ipv6_is_one_address() -> None:
    bob = Pair(settings=FEW, hosts=("2001:db8::1", "2001:db8::2")).bob
    for number in range(1, 10):
        garbage(bob, f"2001:db8:1:2::{number}")
    assert len(bob.seen(PeerRefused)) == 3


def test_refusals_of_all_kinds_share_the_limit() -> None:
    pair = Pair(settings=EndpointSettings(refusals_per_address=1, half_open_seconds=5))
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    garbage(pair.bob, str(pair.alice.address.host))
    pair.alice.take(pair.now)
    pair.bob.take(pair.now)
    pair.bob.endpoint.handle_timer(1005)  # no IKE_AUTH came
    pair.bob.endpoint.handle_timer(1060)
    assert pair.bob.one(PeerRefused).reason == "InvalidSyntax"
    assert pair.bob.one(RefusalsWithheld).reasons == (("HalfOpenTimeout", 1),)
