"""The command line: help, wrong usage, and sentences that say what to do."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from hauberk_diagnose.cli import main

RECORDED = Path(__file__).parent / "recorded"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


ENDS = ("--local", "127.0.0.1", "--remote", "127.0.0.2", "--identity", "left", "--peer-identity", "right")
FILES = ("--certificate", "/nowhere/left.pem", "--key", "/nowhere/left.key", "--ca", "/nowhere/ca.pem")


@pytest.mark.parametrize(
    "words", [("--help",), ("initiate", "--help"), ("respond", "--help"), ("decode", "--help"), ("cleanup", "--help")]
)
def test_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "hauberk-ike" in out


def test_help_has_examples_exit_codes_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--help")
    assert "hauberk-ike initiate --local 10.0.0.1" in out
    assert "exit codes: 0" in out
    _, out, _ = run(capsys, "initiate", "--help")
    assert "delete-child [LABEL|SPI]" in out


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("initiate",),
        ("respond", "--local", "127.0.0.1"),
        ("initiate", *ENDS, *FILES, "--port", "0"),
        ("initiate", *ENDS, *FILES, "--for", "soon"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "usage: hauberk-ike" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "/nowhere/left.key: No such file or directory; name a file that can be read"),
        (("--ike", "aes128gcm16-prfsha256-modp1024"), "'modp1024' is not supported here"),
        (("--esp", "nonsense"), "'nonsense' is not supported here"),
        (("--local", "left.example"), "'left.example' is no IP address: give the local address as an address"),
        (("--remote", "2001:db8::1"), "127.0.0.1 and 2001:db8::1 are of different families"),
        (("--ts-local", "10.0.0.1/8"), "'10.0.0.1/8' is no traffic selector"),
        (("--fragment-size", "100"), "fragments are of 576 to 65535 bytes, or 0"),
        (("--label", "x" * 65), "a child's label takes 1 to 64 bytes"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "initiate", *ENDS, *FILES, *words)
    assert (code, out) == (1, "")
    assert err.startswith("hauberk-ike: ")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--rekey-packets", "0", "--install"), "rekey-packets: 0 is no number of what an SA may carry"),
        (("--rekey-bytes", "1000000"), "the kernel counts bytes and packets: give --install"),
    ],
)
def test_limits_of_what_is_carried_are_the_kernels(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    secret.chmod(0o600)
    code, _, err = run(capsys, "initiate", *ENDS, "--psk-file", str(secret), *words)
    assert code == 1
    assert sentence in err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("identity: [", "no YAML: "),
        ("nothing", "the whole: "),
        ("identity: left\npeers: []", "there is no peer: name one at least"),
        ("identity: left\npeers: [{local: 127.0.0.1, colour: red}]", "peers.0.colour: unexpected keyword argument"),
        ("identity: left\npeers: [{local: 127.0.0.1, children: [{mode: beet}]}]", "peers.0.children.0.mode: input"),
        ("identity: left\npeers: [{local: 127.0.0.1}]", "certificate and key and ca missing: give certificate"),
        ("identity: ''\npeers: [{local: 127.0.0.1}]", "identity ''"),
        ("identity: left\npeers: [{local: 127.0.0.1}, {local: 127.0.0.1}]", "two peers have one name"),
        ("identity: left\npeers: [{local: 127.0.0.1, psk-file: secret}]", "secret: no pre-shared key: 8 bytes"),
        ("identity: left\npeers: [{local: 127.0.0.1, psk-file: nothing}]", "nothing: No such file"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(
    text: str, problem: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("short")
    file = tmp_path / "run.yaml"
    file.write_text(text)
    code, _, err = run(capsys, "respond", "--config", str(file))
    assert code == 1
    assert problem in err
    assert err.count("\n") == 1


def test_a_file_takes_no_options_beside_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "initiate", "--config", str(tmp_path), "--local", "127.0.0.1", "--childless")
    assert code == 2
    assert "--config says all of that: leave out --local, --childless" in err


def test_a_post_quantum_secret_has_a_name_and_a_length(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    secret = tmp_path / "ppk"
    secret.write_text("too short for it")
    code, _, err = run(capsys, "initiate", *ENDS, *FILES, "--ppk-file", str(secret))
    assert code == 1
    assert "ppk-id with its name" in err
    code, _, err = run(capsys, "initiate", *ENDS, *FILES, "--ppk-file", str(secret), "--ppk-id", "both")
    assert code == 1
    assert f"{secret}: a PPK takes 32 bytes at the very least" in err


def test_certificates_or_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "initiate", *ENDS, "--key", "/nowhere")
    assert code == 1
    assert "certificate and ca missing: give certificate, key and ca, or a psk-file" in err


def test_decode_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    capture, keys = RECORDED / "handshake.pcap", RECORDED / "handshake.keys"
    code, out, err = run(capsys, "decode", str(capture), "--key-log", str(keys), "-o", "json")
    assert code == 0
    assert [json.loads(line)["frame"] for line in out.splitlines()] == list(range(1, 11))
    assert err == "hauberk-ike: 10 IKE messages in 10 frames\n"


def test_decode_for_people_reads_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = (RECORDED / "handshake.pcap").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code, out, err = run(capsys, "decode", "-")
    assert code == 0
    assert "IKE_SA_INIT request 0" in out
    assert "8 not decrypted (a key log would open them: --key-log)" in err


def test_decode_goes_as_far_as_it_can(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pcap"
    damaged.write_bytes((RECORDED / "handshake.pcap").read_bytes()[:-10])
    code, out, err = run(capsys, "decode", str(damaged), "-o", "json")
    assert code == 1
    assert len(out.splitlines()) == 9
    assert "cut off in the middle of a frame" in err


def test_decode_of_something_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"no capture at all")
    assert run(capsys, "decode", str(other)) == (1, "", f"hauberk-ike: {other}: neither pcap nor pcapng\n")
    code, _, err = run(capsys, "decode", str(tmp_path / "missing"))
    assert code == 1
    assert err.endswith("name a capture that can be read\n")
