"""The target `endpoint`: a peer that knows the keys, and says what it likes, when it likes, to an endpoint of ours.

A script begins with the situation: who has said what so far. Then come deeds, of the peer, of our owner, and of time.
The peer can seal what it likes, so what is inside an encrypted message is mutated too.

What must hold, come what may: nothing is raised, no SPI leaks, timers come to an end, and when everybody has been given
up nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hauberk_ike import EndpointSettings, UnknownIkeSa
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.header import HEADER
from hauberk_ike.wire.message import GENERIC
from tests.fuzz.script import Script
from tests.unit.ike.party import ALICE, BOB, Pair, child
from tests.unit.ike.raw_peer import RawPeer

EXCHANGES: Final = tuple(ExchangeType)
MAX_DEEDS: Final = 24
_MAX_TIMERS: Final = 200
_LONG: Final = 10_000.0

_SETTINGS: Final = EndpointSettings(half_open_limit=4, half_open_per_address=3)
_UNDER_LOAD: Final = EndpointSettings(cookie_threshold=0)


class Scene:
    """An endpoint of ours (`target`), and the peer with whom it has come as far as the script begins with."""

    def __init__(self, situation: int) -> None:
        self.pair = pair = Pair(settings=_UNDER_LOAD if situation == Situation.UNDER_LOAD else _SETTINGS)
        is_responder = situation in (
            Situation.STRANGER,
            Situation.UNDER_LOAD,
            Situation.HALF_OPEN,
            Situation.ESTABLISHED_RESPONDER,
        )
        self.target = pair.bob if is_responder else pair.alice
        self.peer = (
            RawPeer(self.target, ALICE)
            if is_responder
            else RawPeer(self.target, BOB, initiator=False, host="192.0.2.2")
        )
        self.now = pair.now
        self.sent: list[bytes] = [self.peer.init_request()] if is_responder else []
        """Good messages of the peer's, to be sent again, and damaged."""
        self.keys_known = situation in Situation.WITH_KEYS
        if situation == Situation.HALF_OPEN:
            self.peer.ask_init()
        elif situation == Situation.ESTABLISHED_RESPONDER:
            self.peer.set_up()
        elif not is_responder:
            self._initiate(situation)

    def _initiate(self, situation: int) -> None:
        pair, peer = self.pair, self.peer
        pair.initiate()
        request = peer.take_init()
        if situation == Situation.INITIATING:
            self.sent.append(peer.init_answer())
            return
        peer.give_init(request)
        answer = peer.seal(ExchangeType.IKE_AUTH, peer.auth_payloads(), message_id=1, response=True)
        self.sent.append(answer)
        if situation == Situation.ESTABLISHED_INITIATOR:
            peer.send(answer)

    # Deeds

    def receive(self, data: bytes) -> None:
        """The target is handed bytes."""
        self.target.endpoint.receive_datagram(data, local=self.target.address, remote=self.peer.address, now=self.now)
        self.target.take(self.now)

    def wait(self, seconds: float) -> None:
        """Time passes, and timers fire. They come to an end."""
        end = self.now + seconds
        for _ in range(_MAX_TIMERS):
            due = self.target.endpoint.get_timer()
            if due is None or due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            self.target.endpoint.handle_timer(self.now)
            self.target.take(self.now)
        if seconds >= _LONG and not self.target.endpoint.established():
            raise AssertionError("timers that never end")
        self.now = end

    def wish(self, what: int) -> None:
        """The target's owner wants something of the newest IKE SA."""
        endpoint, established = self.target.endpoint, self.target.endpoint.established()
        if not established:
            return
        handle = established[-1].ike_sa
        children = established[-1].children
        wishes: list[Callable[[], object]] = [
            lambda: endpoint.create_child(handle, child(label="tunnel-2"), now=self.now),
            lambda: endpoint.delete(handle, now=self.now),
            lambda: endpoint.delete_child(handle, children[0].spi_in if children else 0, now=self.now),
            lambda: endpoint.forget(handle),
            lambda: endpoint.rekey_child(handle, children[0].spi_in if children else 0, now=self.now),
            lambda: endpoint.rekey_ike(handle, now=self.now),
            lambda: endpoint.reauthenticate(handle, now=self.now),
        ]
        try:
            wishes[what % len(wishes)]()
        except UnknownIkeSa:
            return
        finally:
            self.target.take(self.now)

    def end(self) -> None:
        """Everybody is given up. Raises AssertionError if anything is left."""
        self.target.drain()
        if self.target.leaked:
            self.wait(_LONG)  # what is being negotiated holds its SPI
        if self.target.leaked:
            raise AssertionError(f"SPIs leaked: {self.target.leaked}")
        for info in self.target.endpoint.established():
            self.target.endpoint.forget(info.ike_sa)
        self.wait(_LONG)
        if self.target.leaked or self.target.endpoint.get_timer() is not None:
            raise AssertionError("something is left when everybody is gone")


class Situation:
    """How far the target and its peer have come."""

    STRANGER = 0
    UNDER_LOAD = 1
    HALF_OPEN = 2
    ESTABLISHED_RESPONDER = 3
    INITIATING = 4
    AUTHENTICATING = 5
    ESTABLISHED_INITIATOR = 6
    COUNT = 7
    WITH_KEYS = frozenset({HALF_OPEN, ESTABLISHED_RESPONDER, AUTHENTICATING, ESTABLISHED_INITIATOR})


class Deed:
    """What can happen next, and how it is written: see `_do`."""

    BYTES = 0
    CLEAR = 1
    SEALED_PAYLOADS = 2
    SEALED_BYTES = 3
    DAMAGED = 4
    WAIT = 5
    WISH = 6
    FRAGMENT = 7
    COUNT = 8


def run(data: bytes) -> None:
    """The target. Raises whatever the endpoint raises, and AssertionError if it is not well in the end."""
    script = Script(data)
    scene = Scene(script.number(Situation.COUNT))
    for _ in range(MAX_DEEDS):
        if script.is_over:
            break
        _do(scene, script)
    scene.end()


def _do(scene: Scene, script: Script) -> None:
    match script.number(Deed.COUNT):
        case Deed.BYTES:
            scene.receive(script.text())
        case Deed.CLEAR:
            scene.receive(_clear(scene, script))
        case Deed.SEALED_PAYLOADS if scene.keys_known:
            first, chain = _chain(script)
            scene.receive(_sealed(scene, script, first, chain))
        case Deed.SEALED_BYTES if scene.keys_known:
            first, chain = script.number(), script.text()
            scene.receive(_sealed(scene, script, first, chain))
        case Deed.FRAGMENT if scene.keys_known:
            fragment = script.number(), script.number()
            first, chain = script.number(), script.text()
            scene.receive(_sealed(scene, script, first, chain, fragment=fragment))
        case Deed.DAMAGED if scene.sent:
            scene.receive(_damaged(scene.sent[script.number(len(scene.sent))], script))
        case Deed.WAIT:
            scene.wait(script.number() / 4)
        case Deed.WISH:
            scene.wish(script.number())
        case _:
            return


def _clear(scene: Scene, script: Script) -> bytes:
    """A message in the clear with a header that fits, and payloads of any kind with lengths that fit."""
    exchange, flags, message_id = EXCHANGES[script.number(len(EXCHANGES))], script.number(), script.number()
    with_spi = script.number(2)
    first, chain = _chain(script)
    return (
        HEADER.pack(
            scene.peer.spi_i,
            scene.peer.spi_r if with_spi else bytes(8),
            first,
            0x20,
            exchange,
            flags,
            message_id,
            HEADER.size + len(chain),
        )
        + chain
    )


def _sealed(
    scene: Scene, script: Script, first: int, chain: bytes, *, fragment: tuple[int, int] | None = None
) -> bytes:
    """What a peer with the right keys would send."""
    exchange = EXCHANGES[script.number(len(EXCHANGES))]
    return scene.peer.seal_chain(
        exchange, first, chain, message_id=script.number(), flags=script.number(), fragment=fragment
    )


def _chain(script: Script) -> tuple[int, bytes]:
    """The type of the first payload, and payloads of any kinds and contents, their lengths right."""
    payloads = [(script.number(), script.number(2) << 7, script.text()) for _ in range(script.number(12))]
    chain = b"".join(
        GENERIC.pack(following[0], flags, GENERIC.size + len(body)) + body
        for (_, flags, body), following in zip(payloads, [*payloads[1:], (0, 0, b"")], strict=False)
    )
    return (payloads[0][0] if payloads else 0), chain


def _damaged(message: bytes, script: Script) -> bytes:
    """Some bytes changed, the end cut off, the header's length put right or not."""
    damaged = bytearray(message)
    for _ in range(script.number(6)):
        damaged[(script.number() << 8 | script.number()) % len(damaged)] = script.number()
    del damaged[len(damaged) - script.number() % len(damaged) :]
    if len(damaged) >= HEADER.size and not script.number(4):
        damaged[24:28] = len(damaged).to_bytes(4)
    return bytes(damaged)
