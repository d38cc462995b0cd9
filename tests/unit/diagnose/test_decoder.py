"""Messages payload by payload: recorded ones, ones in fragments, ones that nobody should have sent."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_diagnose.capture import Frame, read_frames
from hauberk_diagnose.decoder import MAX_MESSAGES_IN_FRAGMENTS, Decoder
from hauberk_diagnose.frames import Datagrams, Udp
from hauberk_diagnose.key_table import KeyTable
from hauberk_diagnose.listing import list_message
from hauberk_ike import EndpointSettings
from hauberk_ike.algorithms import AES128GCM16
from hauberk_ike.numbers import ExchangeType, NotifyType, PayloadType
from hauberk_ike.payload_cipher import AeadCipher
from hauberk_ike.wire.header import HEADER, VERSION
from hauberk_ike.wire.message import GENERIC, KnownPayload, build_message, build_payloads
from hauberk_ike.wire.payloads import Delete, Nonce, Notify, VendorId
from tests.unit.diagnose.test_key_table import GCM, SPIS
from tests.unit.ike.party import Pair, address

RECORDED: Final = Path(__file__).parent / "recorded"
EVERY_TYPE: Final = sorted(set(range(33, 55)))


def recorded(*, keys: bool, name: str = "handshake") -> list[dict[str, Any]]:
    """The messages of a recorded capture."""
    lines = (RECORDED / f"{name}.keys").read_text().splitlines() if keys else []
    decoder, datagrams = Decoder(KeyTable(lines)), Datagrams()
    found: list[dict[str, Any]] = []
    with (RECORDED / f"{name}.pcap").open("rb") as file:
        for frame in read_frames(file):
            udp = datagrams.read(frame)
            assert udp is not None
            fields = decoder.read(frame, udp)
            assert fields is not None
            found.append(fields)
    return found


def frame(number: int = 1) -> Frame:
    return Frame(number=number, nanoseconds=0, link_type=1, data=b"", wire_length=0)


def udp(data: bytes, *, port: int = 500, missing: int = 0) -> Udp:
    return Udp(source=address("192.0.2.1", port), destination=address("192.0.2.2", port), data=data, missing=missing)


def decode(data: bytes, *, lines: Sequence[str] = (), port: int = 500) -> dict[str, Any]:
    fields = Decoder(KeyTable(lines)).read(frame(), udp(data, port=port))
    assert fields is not None
    return fields


def clear(*payloads: KnownPayload) -> bytes:
    return build_message(
        spi_i=SPIS[0], spi_r=SPIS[1], exchange_type=ExchangeType.INFORMATIONAL, flags=0, message_id=0, payloads=payloads
    )


def chain(first: int, body: bytes) -> bytes:
    """A message whose payloads are these bytes."""
    length = HEADER.size + len(body)
    return HEADER.pack(*SPIS, first, VERSION, ExchangeType.INFORMATIONAL, 0, 0, length) + body


def kinds(payloads: Sequence[dict[str, Any]]) -> list[str]:
    return [payload["payload"] for payload in payloads]


def test_the_recorded_handshake_in_the_clear() -> None:
    request, answer, *_ = recorded(keys=False)
    assert (request["exchange"], request["response"], request["from_initiator"]) == ("IKE_SA_INIT", False, True)
    assert kinds(request["payloads"]) == ["SA", "KE", "Nonce", "N", "N", "N", "V"]
    assert [each["proposal"] for each in request["payloads"][0]["proposals"]] == [
        "aes256gcm16-prfsha384-x25519",
        "aes128gcm16-prfsha256-x25519",
    ]
    assert request["payloads"][3]["address"] == "127.0.0.1:500", "no NAT on the way"
    assert request["payloads"][5]["hashes"] == ["SHA2_256", "SHA2_384"]
    assert request["payloads"][6]["vendor"] == "Hauberk"
    assert answer["payloads"][1]["name"] == "CURVE25519"


def test_what_is_encrypted_stays_so_without_keys() -> None:
    messages = recorded(keys=False)[2:]
    assert len(messages) == 8
    for message in messages:
        (payload,) = message["payloads"]
        assert payload["undecrypted"] == "no keys for these SPIs"
        assert "payloads" not in payload


def test_the_recorded_handshake_decrypted() -> None:
    messages = recorded(keys=True)
    inside = [message["payloads"][0]["payloads"] for message in messages[2:]]
    assert kinds(inside[0]) == ["IDi", "CERT", "CERTREQ", "IDr", "AUTH", "SA", "TSi", "TSr", "N"]
    certificate = inside[0][1]
    assert (certificate["subject"], certificate["issuer"]) == ("CN=node", "CN=mesh root")
    assert (certificate["names"], certificate["key"]) == (["left"], "EC secp256r1")
    assert inside[0][0]["identity"] == "left"
    assert inside[0][4]["algorithm"] == "ecdsa-with-sha256"
    assert inside[0][6]["selectors"] == ["127.0.0.1"]
    assert [message["exchange"] for message in messages[4:]] == ["CREATE_CHILD_SA"] * 2 + ["INFORMATIONAL"] * 4
    assert inside[4][0]["protocol"] == "ESP"
    assert inside[6][0] == {"payload": "D", "bytes": 8, "protocol": "IKE", "spis": []}
    assert inside[7] == []


def test_keys_that_change_before_ike_auth_open_what_came_before_and_after() -> None:
    messages = recorded(keys=True, name="hybrid")
    inside = [message["payloads"][0].get("payloads") for message in messages[2:]]
    assert None not in inside, "everything is decrypted"
    assert [message["exchange"] for message in messages] == [
        *["IKE_SA_INIT"] * 2, *["IKE_INTERMEDIATE"] * 2, *["IKE_AUTH"] * 2, *["CREATE_CHILD_SA"] * 2,
        *["INFORMATIONAL"] * 2, *["CREATE_CHILD_SA"] * 2, *["IKE_FOLLOWUP_KE"] * 2, *["INFORMATIONAL"] * 4,
    ]  # fmt: skip
    assert messages[0]["payloads"][0]["proposals"][0]["proposal"] == "aes256-sha256-prfsha256-modp3072-ke1_mlkem768"
    assert [(payload["name"], payload["public_bytes"]) for (payload,) in inside[:2]] == [
        ("ML_KEM_768", 1184),
        ("ML_KEM_768", 1088),
    ]
    assert [payload["algorithm"] for each in inside[2:4] for payload in each if payload["payload"] == "AUTH"] == [
        "Ed25519",
        "RSASSA-PSS with SHA2_256",
    ]
    assert inside[4][0]["notify"] == "REKEY_SA"
    assert "N" in kinds(inside[10]), "ADDITIONAL_KEY_EXCHANGE"


def test_another_ike_sas_keys_open_nothing() -> None:
    line = (RECORDED / "handshake.keys").read_text()
    sk_ei = line.split(",")[2]
    decoder, datagrams = Decoder(KeyTable([line.replace(sk_ei, "00" * 36)])), Datagrams()
    with (RECORDED / "handshake.pcap").open("rb") as file:
        frames = list(read_frames(file))
    datagram = datagrams.read(frames[2])
    assert datagram is not None
    fields = decoder.read(frames[2], datagram)
    assert fields is not None
    assert fields["payloads"][0]["undecrypted"] == "no key in the key log opens it"


def test_every_recorded_message_is_listed_for_people() -> None:
    text = "\n".join(list_message(message) for message in recorded(keys=True))
    assert "127.0.0.1:500 > 127.0.0.2:500  IKE_SA_INIT request 0, 268 bytes" in text
    assert "proposal 1 ESP aes256gcm16-esn-noesn, spi ca891cea" in text
    assert "N HAUBERK_TUNNEL, bytes 13, type 40961, label child" in text
    assert "IDi left, bytes 12, type FQDN" in text
    assert "... (420 bytes)" in text, "a certificate is not shown whole"


def fragments(payloads: Sequence[KnownPayload], *, count: int, message_id: int = 5) -> list[bytes]:
    """A message of the initiator's in fragments (RFC 7383 section 2.5), under the keys of GCM."""
    first, whole = build_payloads(payloads)
    size = -(-len(whole) // count)
    cipher = AeadCipher(AES128GCM16, bytes(20))
    sent: list[bytes] = []
    for number in range(1, count + 1):
        part = whole[(number - 1) * size : number * size]
        length = GENERIC.size + 4 + cipher.sealed_length(len(part))
        start = HEADER.pack(*SPIS, PayloadType.SKF, VERSION, ExchangeType.IKE_AUTH, 8, message_id, HEADER.size + length)
        start += GENERIC.pack(first if number == 1 else 0, 0, length) + struct.pack("!HH", number, count)
        sent.append(cipher.seal(start, part))
    return sent


MANY: Final = (VendorId(data=bytes(range(100))), Nonce(data=bytes(200)), Notify(type=NotifyType.INITIAL_CONTACT))


def test_fragments_are_put_together_in_any_order() -> None:
    decoder = Decoder(KeyTable([GCM]))
    sent = fragments(MANY, count=4)
    for number in (2, 0, 3):
        fields = decoder.read(frame(number), udp(sent[number]))
        assert fields is not None
        (payload,) = fields["payloads"]
        assert (payload["payload"], payload["fragment"], payload["of"]) == ("SKF", number + 1, 4)
        assert "payloads" not in payload
    fields = decoder.read(frame(9), udp(sent[1]))
    assert fields is not None
    (payload,) = fields["payloads"]
    assert payload["reassembled_from_frames"] == [0, 2, 3, 9]
    assert kinds(payload["payloads"]) == ["V", "Nonce", "N"]


def test_what_our_own_endpoints_send_in_fragments() -> None:
    lines: list[str] = []
    pair = Pair(settings=EndpointSettings(fragment_bytes=576), alice_key_log=lines.append)
    pair.initiate()
    sent: list[bytes] = []
    for sender, receiver in ((pair.alice, pair.bob), (pair.bob, pair.alice)) * 2:
        for datagram in sender.take(pair.now):
            sent.append(datagram.data)
            receiver.receive(datagram, pair.now)

    decoder = Decoder(KeyTable(lines))
    messages = [decoder.read(frame(number), udp(data)) for number, data in enumerate(sent)]
    last = [message["payloads"][-1] for message in messages if message is not None]
    assert {payload["payload"] for payload in last[2:]} == {"SKF"}
    whole = [payload["payloads"] for payload in last if "payloads" in payload]
    assert [kinds(payloads)[0] for payloads in whole] == ["IDi", "IDr"]
    assert decoder.counts.undecrypted == 0


def test_a_sender_that_begins_anew_with_smaller_fragments() -> None:
    decoder = Decoder(KeyTable([GCM]))
    large, small = fragments(MANY, count=2), fragments(MANY, count=3)
    for number, data in enumerate((large[0], small[0], large[1], small[1])):
        assert decoder.read(frame(number), udp(data)) is not None
    fields = decoder.read(frame(9), udp(small[2]))
    assert fields is not None
    assert kinds(fields["payloads"][0]["payloads"]) == ["V", "Nonce", "N"]


def test_memory_for_fragments_is_bounded() -> None:
    decoder = Decoder(KeyTable([GCM]))
    for message_id in range(2 * MAX_MESSAGES_IN_FRAGMENTS):
        decoder.read(frame(), udp(fragments(MANY, count=2, message_id=message_id)[0]))
    assert len(decoder._fragments) <= MAX_MESSAGES_IN_FRAGMENTS  # pyright: ignore[reportPrivateUsage]


def test_port_4500_takes_a_marker_and_counts_the_rest() -> None:
    decoder = Decoder(KeyTable())
    message = clear(Notify(type=NotifyType.COOKIE))
    assert decoder.read(frame(), udp(message, port=4500)) is None, "that would be ESP"
    assert decoder.read(frame(), udp(b"\xff", port=4500)) is None
    found = decoder.read(frame(), udp(bytes(4) + message, port=4500))
    assert found is not None
    assert found["payloads"][0]["notify"] == "COOKIE"
    assert (decoder.counts.esp, decoder.counts.keepalives, decoder.counts.messages) == (1, 1, 1)


def test_other_ports_are_looked_at_when_asked_for() -> None:
    message = clear()
    assert Decoder(KeyTable()).read(frame(), udp(message, port=15500)) is None
    decoder = Decoder(KeyTable(), ports=frozenset({15500}))
    for data in (message, bytes(4) + message):
        assert decoder.read(frame(), udp(data, port=15500)) is not None


def test_a_retransmission_is_told() -> None:
    decoder = Decoder(KeyTable())
    message = clear()
    assert "repeats_frame" not in (decoder.read(frame(1), udp(message)) or {})
    assert (decoder.read(frame(4), udp(message)) or {})["repeats_frame"] == 1


def test_a_nat_is_seen_from_its_hashes() -> None:
    hashes = [Notify(type=NotifyType.NAT_DETECTION_SOURCE_IP, data=bytes(20))]
    assert decode(clear(*hashes))["payloads"][0]["address"] == "not 192.0.2.1:500"


def test_what_is_wrong_with_a_message_is_said() -> None:
    good = clear(Nonce(data=bytes(16)))
    assert decode(b"short")["problem"] == "5 bytes, which is shorter than an IKE header"
    assert decode(good + b"more")["problem"] == "the header says 48 bytes, there are 52"
    assert "only version 2" in decode(good[:17] + b"\x10" + good[18:])["problem"]
    assert decode(chain(PayloadType.NONCE, b""))["payloads"][0]["problem"] == (
        "announced, but the message ends before it"
    )
    assert "does not fit" in decode(chain(PayloadType.NONCE, GENERIC.pack(0, 0, 99)))["payloads"][0]["problem"]
    cut = Decoder(KeyTable()).read(frame(), udp(good[:40], missing=8))
    assert cut is not None
    assert cut["problem"] == "the capture lacks the last 8 bytes"


def test_a_payload_that_is_malformed_does_not_hide_the_next() -> None:
    body = GENERIC.pack(PayloadType.DELETE, 0x80, GENERIC.size + 3) + b"abc"  # a nonce of three bytes
    delete = Delete(protocol=1).build()
    body += GENERIC.pack(PayloadType.NONE, 0, GENERIC.size + len(delete)) + delete
    nonce, following = decode(chain(PayloadType.NONCE, body))["payloads"]
    assert nonce["problem"].startswith("a nonce that is not")
    assert (nonce["hex"], nonce["critical"]) == (b"abc".hex(), True)
    assert following["payload"] == "D"


def test_unknown_numbers_are_shown_as_such() -> None:
    body = GENERIC.pack(PayloadType.NONE, 0, GENERIC.size + 2) + b"ab"
    assert decode(chain(200, body))["payloads"] == [{"payload": "200", "bytes": 6, "hex": "6162"}]
    (notify,) = decode(clear(Notify(type=50000)))["payloads"]
    assert (notify["notify"], notify["error"]) == ("50000", False)


@pytest.mark.parametrize(
    ("kind", "body", "shown"),
    [
        (35, "02000000" + b"left.example".hex(), {"type": "FQDN", "identity": "left.example"}),
        (35, "02000000" + b"a\nb".hex(), {"type": "FQDN", "problem": "the identity is not a host name"}),
        (36, "09000000" + "300d310b3009060355040613024348", {"type": "DER_ASN1_DN", "identity": "C=CH"}),
        (35, "01000000c0000201", {"type": "IPV4_ADDR", "identity": "192.0.2.1"}),
        (35, "0b000000cafe", {"type": "KEY_ID", "identity": "keyid:0xcafe"}),
        (35, "01000000c0", {"problem": "the identity is not an IPv4 address"}),
        (37, "04cafe", {"problem": "no X.509 certificate"}),
        (37, "0c" + "00" * 20 + b"http://x".hex(), {"encoding": "HASH_AND_URL_OF_X509", "url": "http://x"}),
        (39, "02000000cafe", {"method": "SHARED_KEY_MIC", "hex": "cafe"}),
        (41, "00004023" + "00000e10", {"notify": "QUICK_CRASH_DETECTION"}),
        (41, "00004013" + "00000e10", {"notify": "AUTH_LIFETIME", "value": 3600}),
        (41, "0000400d" + "c0000201", {"notify": "ADDITIONAL_IP4_ADDRESS", "address": "192.0.2.1"}),
        (41, "00000011" + "0013", {"notify": "INVALID_KE_PAYLOAD", "method": "ECP_256", "error": True}),
        (43, b"a vendor".hex(), {"text": "a vendor"}),
        (43, "882fe56d6fd20dbc2251613b2ebe5beb", {"vendor": "strongSwan"}),
        (44, "01000000" + "07110010" + "01bb01bb" + "0a000001" * 2, {"selectors": ["10.0.0.1[17/443-443]"]}),
        (44, "02000000" + "63000009" + "00000000" + "ff", {"selectors": ["(type 99) ff"]}),
        (
            47,
            "01000000" + "00010000" + "00030004" + "0a000001",
            {
                "type": "CFG_REQUEST",
                "attributes": [
                    {"attribute": "INTERNAL_IP4_ADDRESS", "value": ""},
                    {"attribute": "INTERNAL_IP4_DNS", "value": "10.0.0.1"},
                ],
            },
        ),
        (48, "01070005aa", {"code": "Request", "identifier": 7}),
    ],
)
def test_payloads_by_their_fields(kind: int, body: str, shown: dict[str, Any]) -> None:
    data = bytes.fromhex(body)
    (payload,) = decode(chain(kind, GENERIC.pack(0, 0, GENERIC.size + len(data)) + data))["payloads"]
    assert shown.items() <= payload.items()


def test_another_daemons_offer_in_strongswans_words() -> None:
    # ENCR 3DES, AES-CBC-256, AES-CTR-128; INTEG SHA1; PRF SHA1; MODP-1024, CURVE448; ADDKE1 ML-KEM-768; a private one
    transforms = [
        (1, 3, None), (1, 12, 256), (1, 13, 128), (3, 2, None), (2, 2, None), (4, 2, None), (4, 32, None),
        (6, 36, None), (2, 1024, None),
    ]  # fmt: skip
    built = b""
    for number, (kind, value, bits) in enumerate(transforms):
        attribute = struct.pack("!HH", 0x800E, bits) if bits is not None else b""
        more = 3 if number < len(transforms) - 1 else 0
        built += struct.pack("!BxHBxH", more, 8 + len(attribute), kind, value) + attribute
    proposal = struct.pack("!BxHBBBB", 0, 8 + len(built), 1, 1, 0, len(transforms)) + built
    (payload,) = decode(chain(33, GENERIC.pack(0, 0, GENERIC.size + len(proposal)) + proposal))["payloads"]
    assert payload["proposals"][0]["proposal"] == (
        "3des-aes256-aes128ctr-sha1-prfsha1-(PRF 1024)-modp1024-x448-ke1_mlkem768"
    )


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("a003020102", "a00302012a", {"problem": "no X.509 certificate"}),  # a version that none has
        ("300682046c656674", "30068f046c656674", {"subject": "CN=node", "names": "unreadable (ValueError)"}),
    ],
)
def test_a_certificate_that_is_not_well_does_not_hide_the_rest(old: str, new: str, shown: dict[str, Any]) -> None:
    certificate = recorded(keys=True)[2]["payloads"][0]["payloads"][1]["hex"]
    assert old in certificate
    der = bytes.fromhex(certificate.replace(old, new, 1))
    body = GENERIC.pack(PayloadType.NONCE, 0, GENERIC.size + 1 + len(der)) + b"\x04" + der
    body += GENERIC.pack(PayloadType.NONE, 0, GENERIC.size + 16) + bytes(16)
    payload, following = decode(chain(PayloadType.CERT, body))["payloads"]
    assert shown.items() <= payload.items()
    assert following["payload"] == "Nonce"


@given(st.binary(max_size=300))
def test_any_bytes_are_described(data: bytes) -> None:
    decoder = Decoder(KeyTable([GCM]))
    for one in (data, HEADER.pack(*SPIS, 33, VERSION, 34, 0, 0, 28 + len(data)) + data):
        fields = decoder.read(frame(), udp(one))
        assert fields is not None or one == b"\xff", "a NAT keepalive"
        if fields is not None:
            list_message(fields)


@given(st.sampled_from(EVERY_TYPE), st.binary(max_size=120))
def test_any_payload_is_described(kind: int, body: bytes) -> None:
    data = chain(kind, GENERIC.pack(0, 0, GENERIC.size + len(body)) + body)
    (payload,) = decode(data, lines=[GCM])["payloads"]
    list_message(decode(data))
    assert payload["payload"]


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_under_the_right_keys_are_described(plaintext: bytes, first: int) -> None:
    """A peer that has the keys may be an attacker still."""
    cipher = AeadCipher(AES128GCM16, bytes(20))
    length = GENERIC.size + cipher.sealed_length(len(plaintext))
    start = HEADER.pack(*SPIS, PayloadType.SK, VERSION, 35, 8, 1, HEADER.size + length)
    fields = decode(cipher.seal(start + GENERIC.pack(first, 0, length), plaintext), lines=[GCM])
    assert "payloads" in fields["payloads"][0]
    list_message(fields)
