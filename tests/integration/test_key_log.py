"""Wireshark is the judge of our key log, and of what `hauberk-ike decode` reads with it: two of our endpoints talk, and
tshark decrypts and reads the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from hauberk_ike import Datagram, EndpointSettings, IkeProposal
from hauberk_ike.numbers import ExchangeType
from tests.unit.ike.party import ALICE, BOB, Pair
from tests.unit.lab.frames import UDP, capture_file, ethernet, ip, udp

# Wireshark 4.0 decrypts no ChaCha20-Poly1305 in IKEv2: its line must not keep it from reading the others.
CIPHERS: Final = (
    "aes128gcm16-prfsha256",
    "aes256gcm16-prfsha384",
    "aes128ccm16-prfsha256",
    "aes256ccm16-prfsha512",
    "aes128-sha256",
    "aes192-sha384",
    "aes256-sha512",
)


@pytest.fixture(scope="module")
def tshark() -> str:
    path = shutil.which("tshark")
    assert path is not None, "tshark is missing: apt-get install tshark"
    return path


def frame(datagram: Datagram) -> bytes:
    local, remote = datagram.local, datagram.remote
    return ethernet(ip(str(local.host), str(remote.host), UDP, udp(local.port, remote.port, datagram.data)))


def said(ike: str, lines: list[str]) -> list[Datagram]:
    """What is said in a set-up, and the keys."""
    proposal = IkeProposal.parse(f"{ike}-x25519")
    pair = Pair(ike=str(proposal), settings=EndpointSettings(ike_proposals=(proposal,)), alice_key_log=lines.append)
    pair.initiate()
    return [
        pair.to_bob(),  # --> IKE_SA_INIT
        pair.to_alice(),  # <-- IKE_SA_INIT
        pair.to_bob(),  # --> IKE_AUTH
        pair.to_alice(),  # <-- IKE_AUTH
    ]


def ask_tshark(tshark: str, directory: Path, datagrams: list[Datagram], lines: list[str], *names: str) -> list[str]:
    """The values that tshark sees in the fields of these names, a line for each message."""
    capture_file(directory / "capture.pcap", [frame(datagram) for datagram in datagrams])
    table = directory / "wireshark" / "ikev2_decryption_table"
    table.parent.mkdir(exist_ok=True)
    table.write_text("\n".join((*lines, "")))
    fields = [word for name in names for word in ("-e", name)]
    done = subprocess.run(
        [tshark, "-r", str(directory / "capture.pcap"), "-T", "fields", *fields],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "XDG_CONFIG_HOME": str(directory)},
    )
    return done.stdout.removesuffix("\n").split("\n")


def identities(tshark: str, directory: Path, datagrams: list[Datagram], lines: list[str]) -> list[str]:
    return ask_tshark(tshark, directory, datagrams, lines, "isakmp.id.data.fqdn")


def ask_ourselves(directory: Path, lines: list[str]) -> list[dict[str, Any]]:
    """What `hauberk-ike decode` says of the capture there."""
    (directory / "keys").write_text("\n".join((*lines, "")))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "hauberk-ike"), "decode", str(directory / "capture.pcap"),
         "--key-log", str(directory / "keys"), "-o", "json"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def every_payload(payloads: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for payload in payloads:
        yield payload
        yield from every_payload(payload.get("payloads", []))


@pytest.mark.parametrize("ike", CIPHERS)
def test_tshark_reads_with_our_table_and_not_without(ike: str, tshark: str, tmp_path: Path) -> None:
    lines: list[str] = []
    datagrams = said(ike, lines)
    for name, table, seen in (
        ("with", lines, ["", "", f"{ALICE},{BOB}", BOB]),
        ("without", list[str](), ["", "", "", ""]),
    ):
        directory = tmp_path / name
        directory.mkdir()
        assert identities(tshark, directory, datagrams, table) == seen


def test_a_line_that_wireshark_has_no_name_for_does_not_spoil_the_others(tshark: str, tmp_path: Path) -> None:
    lines: list[str] = []
    said("chacha20poly1305-prfsha256", lines)
    datagrams = said("aes128gcm16-prfsha256", lines)
    assert lines[0].startswith("#")
    assert identities(tshark, tmp_path, datagrams, lines)[3] == BOB


@pytest.mark.parametrize("ike", [*CIPHERS, "chacha20poly1305-prfsha256"])
def test_decode_reads_what_tshark_reads(ike: str, tshark: str, tmp_path: Path) -> None:
    lines: list[str] = []
    datagrams = said(ike, lines)
    names = ("isakmp.exchangetype", "isakmp.messageid", "isakmp.notify.msgtype")
    theirs = ask_tshark(tshark, tmp_path, datagrams, lines, *names)
    ours = ask_ourselves(tmp_path, lines)

    is_readable_to_tshark = not lines[0].startswith("#")
    for line, message in zip(theirs, ours, strict=True):
        exchange, message_id, notifies = line.split("\t")
        payloads = list(every_payload(message["payloads"]))
        assert message["exchange"] == ExchangeType(int(exchange)).name
        assert message["message_id"] == int(message_id, 16)
        if is_readable_to_tshark or not message["message_id"]:
            assert [payload["type"] for payload in payloads if payload["payload"] == "N"] == [
                int(notify) for notify in notifies.split(",") if notify
            ]
    assert [payload["payload"] for payload in every_payload(ours[2]["payloads"])] == [
        "SK", "IDi", "CERT", "CERTREQ", "IDr", "AUTH", "SA", "TSi", "TSr", "N",
    ]  # fmt: skip
