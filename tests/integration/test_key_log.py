"""Wireshark is the judge of our key log: with it, tshark decrypts what two of our endpoints say."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from hauberk_ike import Datagram, EndpointSettings, IkeProposal
from tests.unit.ike.party import ALICE, BOB, Pair
from tests.unit.lab.frames import UDP, capture_file, ethernet, ip, udp

# Wireshark 4.0 decrypts no ChaCha20-Poly1305 in IKEv2: its line must not keep it from reading the others.
CIPHERS: Final = (
    "aes128gcm16-prfsha256",
    "aes256gcm16-prfsha384",
    "aes128ccm16-prfsha256",
    "aes256ccm16-prfsha512",
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


def identities(tshark: str, directory: Path, datagrams: list[Datagram], lines: list[str]) -> list[str]:
    """The identities that tshark sees."""
    capture_file(directory / "capture.pcap", [frame(datagram) for datagram in datagrams])
    table = directory / "wireshark" / "ikev2_decryption_table"
    table.parent.mkdir()
    table.write_text("\n".join((*lines, "")))
    done = subprocess.run(
        [tshark, "-r", str(directory / "capture.pcap"), "-T", "fields", "-e", "isakmp.id.data.fqdn"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "XDG_CONFIG_HOME": str(directory)},
    )
    return done.stdout.split("\n")


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
        assert identities(tshark, directory, datagrams, table)[:4] == seen


def test_a_line_that_wireshark_has_no_name_for_does_not_spoil_the_others(tshark: str, tmp_path: Path) -> None:
    lines: list[str] = []
    said("chacha20poly1305-prfsha256", lines)
    datagrams = said("aes128gcm16-prfsha256", lines)
    assert lines[0].startswith("#")
    assert identities(tshark, tmp_path, datagrams, lines)[3] == BOB
