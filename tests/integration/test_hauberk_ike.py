"""Two `hauberk-ike` processes that meet over loopback addresses, and what a script reads from them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.unit.ike.authority import Authority

PROGRAM: Final = Path(sys.executable).parent / "hauberk-ike"
PATIENCE_SECONDS: Final = 20.0
LEFT, RIGHT = "127.0.0.1", "127.0.0.2"
PORT: Final = 15500
PORTS: Final = ("--port", str(PORT), "--nat-port", str(PORT + 1))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, and left and right as .pem and .key."""
    directory = tmp_path_factory.mktemp("pki")
    authority, now = Authority(), datetime.now(UTC)
    (directory / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    for name in ("left", "right"):
        key, leaf = authority.issue(name, not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=1))
        (directory / f"{name}.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (directory / f"{name}.key").write_bytes(pem)
    return directory


class Process:
    """A run with JSON lines, commands on its standard input, and a limit to its life."""

    started: ClassVar[list[Process]] = []

    def __init__(self, *arguments: str) -> None:
        self.started.append(self)
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [str(PROGRAM), *arguments, "-o", "json", "--for", "60"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def command(self, line: str) -> dict[str, Any]:
        """Its answer."""
        self.send(line)
        return self.wait_for("answer", command=line)

    def wait_for(self, member: str, **members: Any) -> dict[str, Any]:
        """The next line that has `member`, and `members` as they are given."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            text = self._process.stdout.readline()
            assert text, f"it ended: {self._process.stderr.read() if self._process.stderr else ''}"
            line: dict[str, Any] = json.loads(text)
            self.lines.append(line)
            if member in line and members.items() <= line.items():
                return line
        raise AssertionError(f"no {members} in time: {self.lines}")

    def end(self, number: int | None = None) -> int:
        """Waits for its end, after a signal if one is given, and returns its exit code."""
        if number is not None:
            self._process.send_signal(number)
        try:
            output, _ = self._process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        self.lines += [json.loads(text) for text in output.splitlines()]
        return self._process.returncode

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == name]


@pytest.fixture(autouse=True)
def _ends_everything() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction] - pytest uses it
    yield
    while Process.started:
        Process.started.pop().kill()


def credentials(pki: Path, name: str) -> list[str]:
    return [
        "--identity", name, "--certificate", str(pki / f"{name}.pem"), "--key", str(pki / f"{name}.key"),
        "--ca", str(pki / "ca.pem"), *PORTS,
    ]  # fmt: skip


def initiate(pki: Path, *arguments: str) -> Process:
    return Process(
        "initiate", "--local", LEFT, "--remote", RIGHT, "--peer-identity", "right", *credentials(pki, "left"),
        *arguments,
    )  # fmt: skip


@pytest.fixture
def responder(pki: Path) -> Process:
    process = Process("respond", "--local", RIGHT, *credentials(pki, "right"))
    assert process.command("status")["ike_sas"] == []
    return process


def test_a_child_comes_and_goes_by_commands(pki: Path, responder: Process) -> None:
    left = initiate(pki, "--esp", "aes128gcm16")

    assert left.wait_for("answer")["ok"]
    (sa,) = left.command("status")["ike_sas"]
    (child,) = sa["children"]
    up = responder.wait_for("event", event="ChildSaUp")
    assert (child["spi_in"], child["spi_out"]) == (up["spi_out"], up["spi_in"])
    assert up["ts_remote"] == [LEFT]

    assert left.command("create-child child")["ok"]
    assert left.command("delete-child")["ok"]
    assert responder.wait_for("event", event="ChildSaDown")["by_peer"]
    assert not left.command("delete-child nonsense")["ok"]

    assert left.command("delete")["ok"]
    assert left.end() == 3, "a command has failed"
    assert responder.wait_for("event", event="IkeSaDown")["reason"] == "deleted by peer"


def test_childless(pki: Path, responder: Process) -> None:
    left = initiate(pki, "--childless", "--command", "status", "--command", "quit")
    assert left.end() == 0
    assert len(left.events("IkeSaUp")) == 1
    assert not left.events("ChildSaUp")


def test_a_signal_deletes_in_good_order(pki: Path, responder: Process) -> None:
    left = initiate(pki)
    assert left.wait_for("answer")["ok"]
    assert left.end(signal.SIGTERM) == 0
    assert left.events("IkeSaDown")[0]["reason"] == "deleted"
    assert responder.wait_for("event", event="IkeSaDown")["reason"] == "deleted by peer"
    assert responder.end(signal.SIGINT) == 0


def test_the_responder_deletes(pki: Path, responder: Process) -> None:
    left = initiate(pki)
    assert left.wait_for("answer")["ok"]
    responder.wait_for("event", event="ChildSaUp")
    assert responder.command("delete")["ok"]
    assert left.end() == 0
    assert left.events("IkeSaDown")[0]["reason"] == "deleted by peer"


def test_a_peer_that_is_gone_is_a_loss(pki: Path, responder: Process) -> None:
    left = initiate(pki, "--dpd-seconds", "0.2", "--retransmit-seconds", "0.1", "--retransmit-tries", "2")
    assert left.wait_for("answer")["ok"]
    responder.kill()
    assert left.end() == 4
    assert left.events("IkeSaDown")[0]["reason"] == "unreachable"


def test_somebody_else_is_refused(pki: Path, responder: Process) -> None:
    left = Process(
        "initiate", "--local", LEFT, "--remote", RIGHT, "--peer-identity", "somebody", *credentials(pki, "left")
    )
    assert left.end() == 3
    assert responder.wait_for("event", event="PeerRefused")["reason"] == "IdentityMismatch"


def test_a_pre_shared_key_for_both(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0x" + "5e" * 32 + "\n")
    arguments = (
        "initiate", "--local", LEFT, "--remote", RIGHT, "--identity", "left@example.org",
        "--peer-identity", "keyid:right", "--psk-file", str(secret), *PORTS,
    )  # fmt: skip
    who = ("--identity", "keyid:right", "--psk-file", str(secret))
    right = Process("respond", "--local", RIGHT, *who, *PORTS)
    assert right.command("status")["ok"]
    left = Process(*arguments, "--command", "quit")
    assert left.end() == 0
    assert left.events("IkeSaUp")[0]["identity"] == "keyid:right"
    assert right.wait_for("event", event="IkeSaUp")["identity"] == "left@example.org"

    secret.write_text("another secret")
    other = Process(*arguments)
    assert other.end() == 3
    assert "AUTHENTICATION_FAILED" in other.events("IkeSaDown")[0]["message"]


def test_a_post_quantum_secret_is_mixed_in(pki: Path, tmp_path: Path) -> None:
    secret = tmp_path / "ppk"
    secret.write_text("0x" + "a7" * 32)
    ppk = ("--ppk-file", str(secret), "--ppk-id", "both")
    right = Process("respond", "--local", RIGHT, *credentials(pki, "right"), *ppk)
    assert right.command("status")["ok"]
    left = initiate(pki, *ppk, "--command", "rekey-ike", "--command", "quit")
    assert left.end() == 0
    assert left.events("IkeSaUp")[0]["ppk"]
    without = initiate(pki)
    assert without.end() == 3


@pytest.mark.parametrize("size", ["576", "0"])
def test_messages_in_fragments_or_whole(pki: Path, responder: Process, size: str) -> None:
    left = initiate(pki, "--fragment-size", size, "--command", "quit")
    assert left.end() == 0
    assert len(left.events("ChildSaUp")) == 1


def test_esp_in_udp_without_a_nat(pki: Path, responder: Process) -> None:
    left = initiate(pki, "--encapsulation", "always", "--command", "quit")
    assert left.end() == 0
    assert left.events("ChildSaUp")[0]["encapsulation"] == {"local_port": PORT + 1, "remote_port": PORT + 1}
    assert responder.wait_for("event", event="ChildSaUp")["encapsulation"]["local_port"] == PORT + 1


def test_files_with_several_peers_and_children(pki: Path, responder: Process, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret of three")
    third = "127.0.0.3"
    ports = f"port: {PORT}\nnat-port: {PORT + 1}\n"
    (tmp_path / "third.yaml").write_text(f"""\
{ports}identity: third
peers:
  - local: {third}
    psk-file: secret
    children:
      - {{label: nets, ts-local: [10.3.0.0/16], ts-remote: [10.1.0.0/16]}}
      - {{label: ssh, mode: transport, ts-local: ["{third}[tcp/22]"], ts-remote: [{LEFT}]}}
""")
    (tmp_path / "left.yaml").write_text(f"""\
{ports}identity: left
certificate: {pki}/left.pem
key: {pki}/left.key
ca: {pki}/ca.pem
peers:
  - name: right
    local: {LEFT}
    remote: {RIGHT}
    identity: right
    ike: [aes128gcm16-prfsha256-ecp256, aes256gcm16-prfsha384-x25519]
    children: [{{esp: [aes256gcm16]}}]
  - name: third
    local: {LEFT}
    remote: {third}
    identity: third
    psk-file: secret
    children:
      - {{label: nets, ts-local: [10.1.0.0/24], ts-remote: [10.3.0.0/24]}}
      - {{label: ssh, mode: transport, ts-remote: ["{third}[tcp/22]"]}}
""")
    other = Process("respond", "--config", str(tmp_path / "third.yaml"))
    assert other.command("status")["ok"]
    left = Process("initiate", "--config", str(tmp_path / "left.yaml"))
    answers = [left.wait_for("answer") for _ in range(2)]
    assert {answer["command"]: answer["ok"] for answer in answers} == {"initiate right": True, "initiate third": True}
    sas = {sa["peer"]: sa for sa in left.command("status")["ike_sas"]}
    assert {peer: [child["label"] for child in sa["children"]] for peer, sa in sas.items()} == {
        "right": ["child"],
        "third": ["nets", "ssh"],
    }
    assert sas["third"]["children"][0]["ts_remote"] == ["10.3.0.0-10.3.0.255"]
    assert sas["third"]["children"][1]["mode"] == "transport"
    assert left.end(signal.SIGINT) == 0
    assert len(left.events("IkeSaDown")) == 2


def spis(process: Process) -> set[tuple[str, str]]:
    """Inbound and outbound SPIs of the CHILD SAs that it has."""
    sas = process.command("status")["ike_sas"]
    return {(child["spi_in"], child["spi_out"]) for sa in sas for child in sa["children"]}


def agree(left: Process, right: Process) -> None:
    assert spis(left) == {(spi_out, spi_in) for spi_in, spi_out in spis(right)}


@pytest.mark.parametrize("pfs", ["", "-x25519"])
def test_children_are_rekeyed_from_either_side(pki: Path, responder: Process, pfs: str) -> None:
    responder.end(signal.SIGTERM)
    esp = ("--esp", f"aes128gcm16{pfs}")
    right = Process("respond", "--local", RIGHT, *credentials(pki, "right"), *esp)
    right.command("status")
    left = initiate(pki, *esp)
    assert left.wait_for("answer")["ok"]
    for asker in (left, right, left):
        before = spis(left)
        assert asker.command("rekey-child")["ok"]
        assert not before & spis(left)
        agree(left, right)
    assert left.events("ChildSaUp")[1]["rekeyed_spi_in"] == left.events("ChildSaUp")[0]["spi_in"]


def test_ike_sas_are_rekeyed_from_either_side(pki: Path, responder: Process, tmp_path: Path) -> None:
    left = initiate(pki, "--key-log", str(tmp_path / "keys"))
    assert left.wait_for("answer")["ok"]
    children = spis(left)
    for asker in (left, responder):
        assert asker.command("rekey-ike")["ok"]
        assert spis(left) == children, "they have another IKE SA, and are the same"
        agree(left, responder)
    assert left.command("rekey-child")["ok"], "in the new IKE SA"
    agree(left, responder)
    assert len((tmp_path / "keys").read_text().splitlines()) == 3
    assert left.end(signal.SIGTERM) == 0


def test_an_ike_sa_is_replaced_by_another_one(pki: Path, responder: Process) -> None:
    left = initiate(pki)
    assert left.wait_for("answer")["ok"]
    assert left.command("reauthenticate")["ok"]
    (sa,) = left.command("status")["ike_sas"]
    assert sa["ike_sa"] == 2
    agree(left, responder)


def test_commands_at_once_from_both_sides(pki: Path, responder: Process) -> None:
    """Collisions: in the end both have the same."""
    left = initiate(pki)
    assert left.wait_for("answer")["ok"]
    responder.wait_for("event", event="ChildSaUp")
    for _ in range(5):
        for process in (left, responder):
            process.send("rekey-child &")
            process.send("rekey-ike &")
        for process in (left, responder):
            for _ in range(2):
                process.wait_for("answer")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (ours := spis(left)) != {(b, a) for a, b in spis(responder)} or len(ours) != 1:
        assert time.monotonic() < deadline, (ours, spis(responder))
        time.sleep(0.1)


def test_nobody_answers(pki: Path) -> None:
    left = initiate(pki, "--retransmit-seconds", "0.05", "--retransmit-tries", "2")
    assert left.end() == 3
    assert left.events("IkeSaDown")[0]["message"] == "no answer"


def test_text_is_for_people(pki: Path, responder: Process) -> None:
    command = [
        str(PROGRAM), "initiate", "--local", LEFT, "--remote", RIGHT, "--peer-identity", "right",
        *credentials(pki, "left"), "--command", "status", "--command", "quit",
    ]  # fmt: skip
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"IKE SA 1 up: right at {RIGHT}:{PORT}, aes256gcm16-prfsha384-x25519, we initiated")
    assert "IKE SA 1 down: deleted: asked to" in done.stdout


def test_installing_needs_privileges(pki: Path) -> None:
    """In a user namespace of its own a process has no power over the network of ours."""
    left = subprocess.run(
        ["unshare", "--user", str(PROGRAM), "initiate", "--local", LEFT, "--remote", RIGHT, "--peer-identity", "right",
         *credentials(pki, "left"), "--install"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
        env=os.environ,
    )  # fmt: skip
    assert left.returncode == 1
    assert left.stderr == "hauberk-ike: --install needs CAP_NET_ADMIN: run this as root, or without --install\n"


def test_the_key_log_is_for_its_owners_eyes(pki: Path, responder: Process, tmp_path: Path) -> None:
    log = tmp_path / "keys"
    left = initiate(pki, "--childless", "--key-log", str(log), "--command", "quit")
    assert left.end() == 0
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.read_text().startswith(left.events("IkeSaUp")[0]["spi_i"])

    log.chmod(0o640)
    refused = subprocess.run(
        [str(PROGRAM), "initiate", "--local", LEFT, "--remote", RIGHT, "--peer-identity", "right",
         *credentials(pki, "left"), "--key-log", str(log)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert refused.returncode == 1
    assert f"chmod 600 {log}" in refused.stderr
