"""Commands in a node: client and server against each other, over loopback."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import frames, remote
from tests.lab.errors import Unreachable
from tests.lab.frames import FrameError, Kind
from tests.lab.kernel_process import REPOSITORY
from tests.lab.remote import Remote

ADDRESS = "127.0.0.77"  # of loopback, and nobody else's


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The server of a node, on loopback."""
    token = tmp_path_factory.mktemp("commands") / "token"
    token.write_text("right")
    argv = [sys.executable, "-m", "tests.lab.node_commands", ADDRESS, str(token)]
    with subprocess.Popen(argv, cwd=REPOSITORY) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection((ADDRESS, frames.PORT)).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "the server did not start"
                    time.sleep(0.02)
            yield
        finally:
            process.terminate()


@pytest.fixture
def node(server: None, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """The client's side, without a namespace."""

    def socket_here(namespace: str, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        return socket.socket(family, kind)

    monkeypatch.setattr(remote, "socket_inside", socket_here)
    return Remote(node="n1", namespace="none", address=ADDRESS, token="right")


def test_output_errors_and_exit_code_come_back_apart(node: Remote) -> None:
    done = node.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


def test_input_is_handed_over_to_its_end_however_long(node: Remote) -> None:
    data = bytes(range(256)) * 4096
    assert node.run(["cat"], stdin=data).stdout == data
    assert node.run(["wc", "-c"]).stdout.strip() == b"0"


def test_a_command_that_leaves_its_input_unread_ends_all_the_same(node: Remote) -> None:
    assert node.run(["true"], stdin=b"x" * 1_000_000).returncode == 0


def test_a_signal_is_told_as_such_and_a_missing_program_as_a_shell_would(node: Remote) -> None:
    assert node.run(["sh", "-c", "kill -9 $$"]).returncode == -9
    missing = node.run(["no-such-program"])
    assert missing.returncode == 127
    assert b"no-such-program" in missing.stderr


def test_output_comes_while_the_command_runs(node: Remote) -> None:
    seen: list[bytes] = []
    more = threading.Event()

    def on_stdout(data: bytes) -> None:
        seen.append(data)
        more.set()  # the command reads on only after its first line arrived

    def read() -> bytes:
        return b"" if not more.wait(10) or len(seen) > 1 else b"go\n" if seen == [b"first\n"] else b""

    returncode = node.stream(
        ["sh", "-c", "echo first; read word; echo $word"],
        read=read,
        on_stdout=on_stdout,
        on_stderr=lambda data: None,
        timeout=20,
    )
    assert returncode == 0
    assert b"".join(seen) == b"first\ngo\n"


def test_several_commands_run_at_once(node: Remote) -> None:
    started = time.monotonic()
    threads = [threading.Thread(target=node.run, args=(["sleep", "1"],)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 4, "five seconds one after the other"


def test_a_command_is_killed_with_all_its_children_when_the_client_has_had_enough(node: Remote, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(subprocess.TimeoutExpired):
        node.run(["sh", "-c", f"sleep 60 & echo $$ $! >{pids}; wait"], timeout=1)
    left = {f"/proc/{pid}" for pid in pids.read_text().split()}
    deadline = time.monotonic() + 10
    while left := {path for path in left if _runs(path)}:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)


def test_what_a_command_left_in_the_background_neither_stays_nor_keeps_us_waiting(node: Remote) -> None:
    done = node.run(["sh", "-c", "sleep 60 & echo $!"], timeout=20)
    assert done.returncode == 0
    assert not _runs(f"/proc/{int(done.stdout)}")


def test_without_the_token_nothing_runs(node: Remote, tmp_path: Path) -> None:
    intruder = Remote(node="n1", namespace="none", address=ADDRESS, token="wrong")
    with pytest.raises(Unreachable):
        intruder.run(["touch", str(tmp_path / "was-here")])
    assert not (tmp_path / "was-here").exists()
    assert "right" not in repr(node)


def test_a_server_that_gets_nonsense_serves_on(node: Remote) -> None:
    for nonsense in (b"\xff" * 5, frames.build(Kind.STDIN, b"x"), frames.build(Kind.START, b"{}")):
        with socket.create_connection((ADDRESS, frames.PORT)) as connection:
            connection.sendall(nonsense)
            assert connection.recv(1) == b""
    assert node.answers()


def test_nobody_there_is_told_by_the_nodes_name(monkeypatch: pytest.MonkeyPatch, node: Remote) -> None:
    gone = Remote(node="n9", namespace="none", address="127.0.0.78", token="right")
    with pytest.raises(Unreachable, match="node n9 does not answer"):
        gone.run(["true"])
    assert not gone.answers()


@given(st.binary(min_size=frames.HEADER.size, max_size=frames.HEADER.size))
def test_any_header_parses_or_is_refused(data: bytes) -> None:
    try:
        kind, length = frames.parse_header(data)
    except FrameError:
        return
    assert frames.HEADER.pack(kind, length) == data


@given(st.binary(max_size=200))
def test_any_start_parses_or_is_refused(data: bytes) -> None:
    try:
        start = frames.Start.parse(data)
    except FrameError:
        return
    assert start.argv


@given(st.lists(st.text(), min_size=1), st.text())
def test_a_start_survives_the_wire(argv: list[str], token: str) -> None:
    start = frames.Start(argv=argv, token=token)
    assert frames.Start.parse(start.build()) == start


@given(st.integers(-64, 255))
def test_an_exit_code_survives_the_wire(returncode: int) -> None:
    frame = frames.build_exit(returncode)
    kind, length = frames.parse_header(frame[: frames.HEADER.size])
    assert kind is Kind.EXIT
    assert frames.parse_exit(frame[frames.HEADER.size :][:length]) == returncode


def _runs(path: str) -> bool:
    try:
        return Path(path, "stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False
