"""Where the fuzzer begins: scripts made from messages of our own, so that it need not find out what IKEv2 is."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Final

from hauberk_diagnose.capture import read_frames
from hauberk_ike.negotiation import offer_ike
from hauberk_ike.numbers import ExchangeType, NotifyType, PayloadType, Protocol
from hauberk_ike.wire.header import FLAG_INITIATOR, FLAG_RESPONSE, HEADER, Header
from hauberk_ike.wire.message import GENERIC, KnownPayload, build_payloads
from hauberk_ike.wire.payloads import Delete, KeyExchangePayload, Nonce, Notify
from tests.fuzz.endpoint import EXCHANGES, Deed, Scene, Situation
from tests.fuzz.script import Writer
from tests.unit.ike.raw_peer import DEFAULT, RawPeer


def seeds() -> Mapping[str, list[bytes]]:
    """By target."""
    return {"capture": list(_captures()), "endpoint": list(_endpoint()), "parsers": list(_parsers())}


def mutants(data: bytes, count: int, chance: Random) -> Iterator[bytes]:
    """`count` damaged copies, whatever they do: bytes changed, cut out, doubled, put in, or taken to extremes."""
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(mutant) + 1)
            end = min(len(mutant), start + chance.choice((1, 1, 2, 4, 16)))
            match chance.randrange(5):
                case 0:
                    mutant[start:end] = chance.randbytes(end - start)
                case 1:
                    del mutant[start:end]
                case 2:
                    mutant[start:start] = mutant[start:end]
                case 3:
                    mutant[start:end] = bytes((chance.choice((0, 1, 127, 128, 255)),)) * (end - start)
                case _:
                    mutant[start:start] = chance.randbytes(chance.randint(1, 8))
        yield bytes(mutant)


_CHILDREN: Final = ExchangeType.CREATE_CHILD_SA
_RECORDED: Final = Path(__file__).parents[1] / "unit" / "diagnose" / "recorded"
_ETHERNET: Final = 1
_PCAP_START: Final = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _ETHERNET)
# A section header of unknown length, and a description of one interface.
_PCAPNG_START: Final = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) + struct.pack(
    "<IIHHII", 1, 20, _ETHERNET, 0, 65535, 20
)


def _endpoint() -> Iterator[bytes]:
    responders = (Situation.STRANGER, Situation.UNDER_LOAD, Situation.HALF_OPEN, Situation.ESTABLISHED_RESPONDER)
    for situation in range(Situation.COUNT):
        scene = Scene(situation)
        peer = scene.peer
        flags = FLAG_INITIATOR if situation in responders else 0
        for message in scene.sent:
            # As it is; once more; and after a while.
            yield Writer().number(situation).number(Deed.BYTES).text(message).done()
            again = Writer().number(situation)
            for _ in range(2):
                again.number(Deed.DAMAGED).number(0).number(0).number(0).number(0)
            yield again.done()
            yield Writer().number(situation).number(Deed.WAIT).number(200).number(Deed.BYTES).text(message).done()
            header = Header.parse(message)
            if header.exchange_type == ExchangeType.IKE_SA_INIT:
                clear = Writer().number(situation).number(Deed.CLEAR).number(0).number(header.flags).number(0)
                clear.number(int(not flags))
                _write_chain(clear, header.next_payload, message[HEADER.size :])
                yield clear.done()
        if situation in Situation.WITH_KEYS:
            for exchange, payloads in _conversation(peer):
                for response in (0, FLAG_RESPONSE):
                    for message_id in (0, 1, 2):
                        yield _sealed(situation, exchange, payloads, message_id, flags | response)
                    yield _in_fragments(situation, exchange, payloads, 1, flags | response)
        for wish in range(7):
            yield Writer().number(situation).number(Deed.WISH).number(wish).number(Deed.WAIT).number(255).done()


def _conversation(peer: RawPeer) -> Iterable[tuple[ExchangeType, list[KnownPayload]]]:
    """What a peer may come to say under encryption."""
    nonce = Nonce(data=bytes(range(32)))
    yield ExchangeType.IKE_AUTH, peer.auth_payloads()
    yield ExchangeType.IKE_AUTH, [Notify(type=NotifyType.AUTHENTICATION_FAILED)]
    yield _CHILDREN, [*peer.child_payloads(spi=0x6001), nonce]
    yield (
        _CHILDREN,
        [Notify(type=NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=bytes(4)), *peer.child_payloads(), nonce],
    )
    rekeyed = Notify(type=NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=(0x5001).to_bytes(4))
    yield _CHILDREN, [rekeyed, *peer.child_payloads(spi=0x6002), nonce]
    key_exchange = KeyExchangePayload(method=DEFAULT.key_exchange[0].transform_id, data=peer.key_pair.public)
    yield _CHILDREN, [offer_ike((DEFAULT,), b"SPI of 8"), nonce, key_exchange]
    yield ExchangeType.IKE_FOLLOWUP_KE, [key_exchange, Notify(type=NotifyType.ADDITIONAL_KEY_EXCHANGE, data=b"link")]
    yield _CHILDREN, [Notify(type=NotifyType.NO_ADDITIONAL_SAS)]
    yield _CHILDREN, [Notify(type=NotifyType.TEMPORARY_FAILURE)]
    yield ExchangeType.INFORMATIONAL, []
    yield ExchangeType.INFORMATIONAL, [Delete(protocol=Protocol.IKE, spi_size=0, spis=())]
    yield ExchangeType.INFORMATIONAL, [Delete(protocol=Protocol.ESP, spi_size=4, spis=((0x5001).to_bytes(4),))]
    yield ExchangeType.INFORMATIONAL, [Notify(type=NotifyType.INVALID_SYNTAX)]


def _sealed(situation: int, exchange: int, payloads: list[KnownPayload], message_id: int, flags: int) -> bytes:
    script = Writer().number(situation).number(Deed.SEALED_PAYLOADS)
    _write_chain(script, *build_payloads(payloads))
    return script.number(EXCHANGES.index(exchange)).number(message_id).number(flags).done()


def _in_fragments(situation: int, exchange: int, payloads: list[KnownPayload], message_id: int, flags: int) -> bytes:
    first, chain = build_payloads(payloads)
    pieces = [chain[at : at + 300] for at in range(0, len(chain), 300)]
    script = Writer().number(situation)
    for number, piece in enumerate(pieces, 1):
        script.number(Deed.FRAGMENT).number(number).number(len(pieces)).number(first if number == 1 else 0).text(piece)
        script.number(EXCHANGES.index(exchange)).number(message_id).number(flags)
    return script.done()


def _write_chain(script: Writer, first: int, chain: bytes) -> None:
    payloads: list[tuple[int, bytes]] = []
    kind, offset = first, 0
    while kind:
        following, _, length = GENERIC.unpack_from(chain, offset)
        payloads.append((kind, chain[offset + GENERIC.size : offset + length]))
        kind, offset = following, offset + length
    script.number(len(payloads))
    for kind, body in payloads:
        script.number(kind).number(0).text(body)


def _captures() -> Iterator[bytes]:
    capture, log = (_RECORDED / name for name in ("handshake.pcap", "handshake.keys"))
    data = capture.read_bytes()
    yield Writer().text(data).text(log.read_bytes()).done()
    with capture.open("rb") as file:
        frames = list(read_frames(file))
    for frame in frames:
        record = struct.pack("<IIII", 1, 2, len(frame.data), frame.wire_length) + frame.data
        for start in (_PCAP_START, struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, frame.link_type)):
            yield Writer().text(start + record).text(b"").done()
        block = struct.pack("<IIIII", 0, 0, 0, len(frame.data), frame.wire_length) + frame.data
        block += bytes(-len(block) % 4)
        length = struct.pack("<I", len(block) + 12)
        enhanced = struct.pack("<I", 6) + length + block + length
        yield Writer().text(_PCAPNG_START + enhanced).text(log.read_bytes()).done()


def _parsers() -> Iterator[bytes]:
    for situation in (Situation.STRANGER, Situation.INITIATING):
        for message in Scene(situation).sent:
            yield bytes((Header.parse(message).next_payload,)) + message[HEADER.size :]
    for situation in (Situation.HALF_OPEN, Situation.AUTHENTICATING):
        for _, payloads in _conversation(Scene(situation).peer):
            first, chain = build_payloads(payloads)
            yield bytes((first,)) + chain
    for kind in PayloadType:
        yield bytes((kind,)) + GENERIC.pack(0, 0x80, GENERIC.size)
