"""The node's key and certificate: made once, asked for once, renewed in time, given up when of no use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_agent.identity import Identity, IdentityKeeper, IdentityStore, Wanted, request_name, unfit
from hauberk_agent.source import SigningDenied
from hauberk_api.certificate import dns_names, fingerprint
from hauberk_api.mesh import Curve
from hauberk_api.names import NodeName, NodeUid
from tests.unit.ike.authority import TODAY, Authority

UID, NAME = NodeUid("uid-1"), NodeName("n1")
LIFE = timedelta(hours=24)


def wanted(*authorities: Authority, name: str = "n1", signs: Authority | None = None) -> Wanted:
    return Wanted(
        uid=UID,
        name=NodeName(name),
        mesh="default",
        roots=tuple(a.certificate for a in authorities),
        authority=fingerprint(signs.certificate) if signs is not None else "",
    )


class FakeSigner:
    """Signs what it is asked to, unless told otherwise."""

    def __init__(self, authority: Authority, clock: Callable[[], datetime]) -> None:
        self.authority = authority
        self.clock = clock
        self.asked: list[str] = []
        self.refusals: list[Exception] = []
        self.silent = False
        """Nobody signs and nobody refuses."""
        self.life = LIFE
        self.backdated = timedelta(0)

    async def sign(self, *, name: str, request: bytes) -> bytes:
        self.asked.append(name)
        if self.silent:
            await asyncio.Event().wait()
        if self.refusals:
            raise self.refusals.pop(0)
        pkcs10 = x509.load_pem_x509_csr(request)
        assert pkcs10.is_signature_valid
        builder_key = pkcs10.public_key()
        names, now = dns_names(pkcs10.extensions), self.clock()
        certificate = certificate_for(self.authority, builder_key, names, now - self.backdated, now + self.life)
        return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_for(
    authority: Authority, public_key: object, names: Sequence[str], not_before: datetime, not_after: datetime
) -> x509.Certificate:
    """Signs somebody else's public key."""
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
        .sign(authority.key, hashes.SHA256())
    )


class Clock:
    def __init__(self) -> None:
        self.now = TODAY
        self.seconds = 0.0
        """Of the clock that nobody sets."""

    def __call__(self) -> datetime:
        return self.now


class Bench:
    """A keeper with its signer, store and clock."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.authority = Authority()
        self.signer = FakeSigner(self.authority, self.clock)
        self.store = IdentityStore(directory)
        self.announced: list[Identity] = []

    def keeper(self) -> IdentityKeeper:
        return IdentityKeeper(
            self.store,
            self.signer,
            on_identity=self.announced.append,
            chance=Random(1),
            wall_clock=self.clock,
            clock=lambda: self.clock.seconds,
        )

    def want_another(self, keeper: IdentityKeeper) -> int:
        """The mesh trusts one root more. Returns how often a certificate has been asked for."""
        keeper.want(wanted(self.authority, Authority("one more")))
        return len(self.signer.asked)

    async def until(self, keeper: IdentityKeeper, done: Callable[[], bool]) -> None:
        """Runs the keeper until something holds; its waits are real, and short."""
        task = asyncio.create_task(keeper.run())
        try:
            async with asyncio.timeout(10):
                while not done():  # noqa: ASYNC110 - what is waited for is the test's own
                    await asyncio.sleep(0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "state")


def test_a_new_node_asks_once_and_keeps_what_it_gets(bench: Bench, tmp_path: Path) -> None:
    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))
        # -> a restart: the same identity, nobody is asked
        again = bench.keeper()
        again.want(wanted(bench.authority))
        await bench.until(again, lambda: len(bench.announced) == 2)

    asyncio.run(story())
    first, second = bench.announced
    assert first.certificate == second.certificate
    assert first.names == ("uid-1.default.hauberk.internal", "n1")
    assert len(bench.signer.asked) == 1
    path = tmp_path / "state" / "identity.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(p.name for p in path.parent.iterdir()) == ["identity.pem"]
    assert "key" not in repr(first)


def test_a_crash_while_asking_asks_the_same_again(bench: Bench) -> None:
    key = bench.store.pending_key()
    assert request_name(UID, bench.store.pending_key()) == request_name(UID, key)

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))

    asyncio.run(story())
    assert bench.signer.asked == [request_name(UID, key)]


def test_a_denied_request_is_asked_anew_with_another_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hauberk_agent.identity._FIRST_RETRY", 0.01)
    bench.signer.refusals = [SigningDenied("NameNotAllowed")]
    problems: list[str | None] = []

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))

        def done() -> bool:
            problems.append(keeper.problem)
            return bool(bench.announced)

        await bench.until(keeper, done)
        assert keeper.problem is None

    asyncio.run(story())
    assert len(set(bench.signer.asked)) == 2
    assert "the certificate request was denied: NameNotAllowed" in problems


def test_an_outage_is_asked_again_with_the_same_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hauberk_agent.identity._FIRST_RETRY", 0.01)
    bench.signer.refusals = [OSError("no API server"), OSError("no API server")]

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))

    asyncio.run(story())
    assert len(bench.signer.asked) == 3
    assert len(set(bench.signer.asked)) == 1


def test_a_certificate_is_renewed_after_two_thirds_of_its_life(bench: Bench) -> None:
    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))
        bench.clock.now += LIFE * 0.5
        await bench.until(keeper, lambda: len(bench.announced) == 2)
        assert len(bench.signer.asked) == 1, "half of its life is too early"
        bench.clock.now += LIFE * 0.3
        await bench.until(keeper, lambda: bench.announced[-1].certificate != bench.announced[0].certificate)

    asyncio.run(story())
    assert len(bench.signer.asked) == 2
    old, new = bench.announced[0], bench.announced[-1]
    assert old.key.public_key() != new.key.public_key()


def test_pitfall_25_a_certificate_of_a_minute_is_renewed_in_its_last_third_and_once(bench: Bench) -> None:
    """The operator dates it back, for clocks that are behind: that is no part of its life."""
    bench.signer.life, bench.signer.backdated = timedelta(seconds=60), timedelta(seconds=30)

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        for asked in range(1, 6):
            before = keeper.identity
            await bench.until(keeper, lambda before=before: bool(bench.announced) and bench.announced[-1] is not before)
            assert len(bench.signer.asked) == asked
            for second in range(1, 40):
                bench.clock.now += timedelta(seconds=1)
                bench.clock.seconds += 1.0
                seen = len(bench.announced)
                await bench.until(keeper, lambda seen=seen: len(bench.announced) > seen)
                assert len(bench.signer.asked) == asked, f"renewed after {second} s of 60"
            bench.clock.now += timedelta(seconds=6)
            bench.clock.seconds += 6.0

    asyncio.run(story())


@pytest.mark.parametrize(("share", "asks"), [(0.5, False), (0.8, True)])
def test_a_certificate_that_is_close_to_its_end_is_renewed_at_start(bench: Bench, share: float, asks: bool) -> None:
    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))
        # -> the agent is down meanwhile; its clocks begin anew
        bench.clock.now += LIFE * share
        bench.clock.seconds = 0.0
        seen = len(bench.announced)
        again = bench.keeper()
        again.want(wanted(bench.authority))
        await bench.until(again, lambda: len(bench.announced) > seen + asks)
        assert bench.announced[seen].certificate == bench.announced[0].certificate, "peers take the old one meanwhile"

    asyncio.run(story())
    assert len(bench.signer.asked) == 1 + asks


def test_other_addresses_are_a_reason_to_ask_again_by_and_by(bench: Bench) -> None:
    before = replace(wanted(bench.authority), addresses=("10.250.0.1", "fd00:250::1"))
    after = replace(before, addresses=("10.250.0.9", "fd00:250::1"))

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(before)
        await bench.until(keeper, lambda: bool(bench.announced))
        # -> the same ones in another order, after a restart
        again = bench.keeper()
        again.want(replace(before, addresses=before.addresses[::-1]))
        bench.clock.now += timedelta(minutes=10)
        await bench.until(again, lambda: len(bench.announced) == 2)
        assert len(bench.signer.asked) == 1
        # -> it comes back from a reboot with another one
        again = bench.keeper()
        again.want(after)
        await bench.until(again, lambda: len(bench.announced) == 3)
        bench.clock.now += timedelta(minutes=5)
        await bench.until(again, lambda: bench.announced[-1].addresses == after.addresses)
        # -> and then it rests
        bench.clock.now += timedelta(minutes=10)
        seen = len(bench.announced)
        again.want(replace(after, roots=(*after.roots, Authority("one more").certificate)))
        await bench.until(again, lambda: len(bench.announced) > seen)

    asyncio.run(story())
    assert len(bench.signer.asked) == 2
    assert bench.announced[-1].addresses == after.addresses
    loaded = bench.store.load()
    assert loaded is not None
    assert loaded.addresses == after.addresses
    assert loaded.key.public_key() == bench.announced[-1].key.public_key()


@pytest.mark.parametrize(
    ("left", "longest"),
    [(timedelta(hours=4), 300.0), (timedelta(seconds=80), 10.0), (timedelta(seconds=5), 2.0), (timedelta(0), 300.0)],
    ids=str,
)
def test_failures_are_retried_ever_later_but_not_until_a_certificate_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, left: timedelta, longest: float
) -> None:
    async def story() -> list[float | None]:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))
        bench.clock.now += LIFE - left
        bench.signer.refusals = [SigningDenied("NodeUnknown"), OSError("no API server")] * 10
        waits: list[float | None] = []

        async def sleep(seconds: float | None) -> None:
            waits.append(seconds)
            await asyncio.sleep(0)

        monkeypatch.setattr(keeper, "_sleep", sleep)
        await bench.until(keeper, lambda: len(waits) >= 15)
        return waits[:15]

    waits = [wait for wait in asyncio.run(story()) if wait is not None]
    assert len(waits) == 15
    assert 1.0 <= waits[0] <= 2.0
    assert longest / 2 <= max(waits) <= longest


def test_a_clock_that_is_set_back_delays_no_renewal(bench: Bench) -> None:
    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))
        bench.clock.now -= timedelta(days=300)
        bench.clock.seconds += LIFE.total_seconds() * 0.5
        seen = len(bench.announced)
        await bench.until(keeper, lambda: len(bench.announced) > seen)
        assert len(bench.signer.asked) == 1
        assert keeper.problem is not None
        assert "and this node's clock is at 2025-" in keeper.problem
        assert keeper.identity is not None, "peers' clocks are right: they take it"
        bench.clock.seconds += LIFE.total_seconds() * 0.3
        await bench.until(keeper, lambda: len(bench.signer.asked) == 2)

    asyncio.run(story())


def test_a_clock_that_was_behind_already_delays_a_renewal_by_no_more_than_a_life(bench: Bench) -> None:
    """Signed by a clock that is right: by this node's it begins in ten days."""
    bench.signer.clock = lambda: bench.clock.now + timedelta(days=10)

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced) and bool(keeper.problem))
        bench.clock.seconds += LIFE.total_seconds() * 0.76
        await bench.until(keeper, lambda: len(bench.signer.asked) == 2)

    asyncio.run(story())


def test_a_certificate_that_is_over_when_it_comes_tells_of_the_clock(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hauberk_agent.identity._FIRST_RETRY", 0.01)
    bench.signer.clock = lambda: bench.clock.now - timedelta(days=10)

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        said = "it has expired by this node's clock, which is at 2026-06-01T12:00:00"
        await bench.until(keeper, lambda: said in (keeper.problem or ""))

    asyncio.run(story())


def test_a_new_root_alone_makes_the_agent_ask_again(bench: Bench) -> None:
    other = Authority("another root")

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))
        bench.signer.authority = other
        keeper.want(wanted(bench.authority, other))
        await bench.until(keeper, lambda: len(bench.announced) >= 2)
        assert len(bench.signer.asked) == 1, "the old root is still trusted"
        keeper.want(wanted(other))
        await bench.until(keeper, lambda: len(bench.signer.asked) == 2 and len(bench.announced) >= 3)

    asyncio.run(story())
    assert bench.announced[-1].root((other.certificate,)) is not None


def test_when_another_root_signs_the_certificate_is_exchanged_by_and_by(bench: Bench) -> None:
    other = Authority("another root")

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))
        bench.signer.authority = other
        # -> the next root is published; the old one signs still
        keeper.want(wanted(bench.authority, other, signs=bench.authority))
        await bench.until(keeper, lambda: len(bench.announced) >= 2)
        # -> the next one signs: not all agents ask at once
        keeper.want(wanted(bench.authority, other, signs=other))
        await bench.until(keeper, lambda: len(bench.announced) >= 3)
        assert len(bench.signer.asked) == 1
        bench.clock.now += timedelta(minutes=5)
        await bench.until(keeper, lambda: bench.announced[-1].root((other.certificate,)) is not None)
        # -> and once they have, they rest
        rested = len(bench.announced)
        bench.clock.now += timedelta(hours=1)
        await bench.until(keeper, lambda: len(bench.announced) > rested)

    asyncio.run(story())
    assert len(bench.signer.asked) == 2
    assert bench.announced[-1].root((other.certificate,)) is not None


def test_a_wait_for_a_certificate_ends_when_something_else_is_wanted(bench: Bench) -> None:
    """The operator is down. The plan's roots may change all the same."""

    async def story() -> None:
        keeper = bench.keeper()
        bench.signer.silent = True
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.signer.asked) and bench.want_another(keeper) >= 2)

    asyncio.run(story())
    assert len(bench.signer.asked) >= 2


def test_nothing_is_asked_for_a_mesh_that_is_no_more(bench: Bench) -> None:
    """An uninstallation removes mesh and requests: a request made after that would stay for ever."""

    async def story() -> None:
        keeper = bench.keeper()
        bench.signer.refusals = [OSError("the request is gone")] * 9
        keeper.want(wanted(bench.authority))
        running = asyncio.create_task(keeper.run())
        async with asyncio.timeout(10):
            while not bench.signer.asked:  # noqa: ASYNC110 - what is waited for is the test's own
                await asyncio.sleep(0)
        keeper.want(None)
        await asyncio.sleep(2.5)  # longer than a first attempt that failed waits for the next
        assert not running.done()
        assert len(bench.signer.asked) == 1
        assert keeper.problem is None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())


def test_a_node_that_registers_anew_asks_for_its_new_identity(bench: Bench) -> None:
    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))
        keeper.want(replace(wanted(bench.authority), uid=NodeUid("uid-9")))
        await bench.until(keeper, lambda: bench.announced[-1].names[0].startswith("uid-9"))

    asyncio.run(story())
    assert len(bench.signer.asked) == 2


def test_a_new_key_is_on_the_meshs_curve(bench: Bench) -> None:
    key = bench.store.pending_key()
    assert bench.store.pending_key(Curve.P256).public_key() == key.public_key()
    stronger = bench.store.pending_key(Curve.P384)
    assert stronger.curve.name == "secp384r1"
    assert bench.store.pending_key(Curve.P384).public_key() == stronger.public_key()

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(replace(wanted(bench.authority), curve=Curve.P384))
        await bench.until(keeper, lambda: bool(bench.announced))

    asyncio.run(story())
    assert bench.announced[0].key.curve.name == "secp384r1"


def test_a_certificate_from_a_stranger_is_of_no_use(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hauberk_agent.identity._FIRST_RETRY", 0.01)

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(Authority("the mesh's root")))
        await bench.until(keeper, lambda: len(bench.signer.asked) >= 2)
        assert keeper.problem is not None
        assert keeper.identity is None

    asyncio.run(story())
    assert bench.announced == []


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_damaged_file_is_replaced(bench: Bench, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "identity.pem").write_bytes(damage)

    async def story() -> None:
        keeper = bench.keeper()
        keeper.want(wanted(bench.authority))
        await bench.until(keeper, lambda: bool(bench.announced))

    asyncio.run(story())
    assert bench.store.load() is not None


def test_what_makes_a_certificate_unfit() -> None:
    authority, other = Authority(), Authority("another")
    key, certificate = authority.issue("uid-1.default.hauberk.internal", "n1")
    identity = Identity(key=key, chain=(certificate,))
    assert unfit(identity, wanted(authority), now=TODAY) is None
    assert unfit(identity, wanted(authority, name="n2"), now=TODAY) == "it names another node"
    assert unfit(identity, wanted(authority), now=TODAY + timedelta(days=2)) == "it has expired"
    assert unfit(identity, wanted(other), now=TODAY) == "its root is not in the trust bundle"
