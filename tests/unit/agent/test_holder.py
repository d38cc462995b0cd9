"""The socket holder, over its real socket: what is given to it outlives the giver."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from hauberk_agent.deposit import Deposit
from hauberk_agent.holder import HELD, KEEP, KEPT, MOST_SOCKETS, REFUSED, TAKE, Holder
from hauberk_agent.transport import Transport
from hauberk_ike import SocketAddress
from tests.unit.agent.test_transport import Listener, free_port

LOOPBACK = "127.0.0.1"


@contextmanager
def holding(path: Path) -> Generator[Holder]:
    """A holder that serves meanwhile, in a thread."""
    holder = Holder(path)
    thread = threading.Thread(target=holder.serve)
    thread.start()
    try:
        yield holder
    finally:
        holder.stop()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holder" / "sockets"


@contextmanager
def bound(port: int = 0) -> Generator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, port))
        yield sock


def send(data: bytes, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, (LOOPBACK, port))


def test_a_socket_outlives_who_gave_it(path: Path) -> None:
    with holding(path):
        with bound() as sock:
            port = sock.getsockname()[1]
            first = Deposit(path)
            assert first.keep([sock])
            first.close()
        with pytest.raises(OSError, match="in use"), bound(port):
            pass  # -> held, so nobody else gets it
        send(b"while nobody was there", port)

        second = Deposit(path)
        taken = second.take()
        local = SocketAddress(host=ip_address(LOOPBACK), port=port)
        assert list(taken) == [local]
        send(b"now", port)
        taken[local].settimeout(5)
        assert taken[local].recv(100) == b"now"  # -> and what came for nobody is gone
        taken[local].close()

        with pytest.raises(OSError, match="in use"), bound(port):
            pass  # -> taking does not end the holding
        second.close()
    with bound(port):
        pass  # -> the end of the holder does


def test_what_is_kept_replaces_what_was(path: Path) -> None:
    with holding(path) as holder, bound() as one, bound() as other:
        deposit = Deposit(path)
        assert deposit.keep([one, other])
        assert len(holder.held) == 2
        assert deposit.keep([other])
        assert holder.held == (f"{LOOPBACK}:{other.getsockname()[1]}",)
        deposit.close()


def test_only_datagram_sockets_are_held(path: Path, tmp_path: Path) -> None:
    with (
        holding(path) as holder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        (tmp_path / "file").open("wb") as file,
        bound() as sock,
    ):
        agent.settimeout(5)
        agent.connect(str(path))
        socket.send_fds(agent, [KEEP], [stream.fileno(), file.fileno(), sock.fileno()])
        assert agent.recv(100) == KEPT
        assert holder.held == (f"{LOOPBACK}:{sock.getsockname()[1]}",)


def test_nonsense_is_refused_and_loses_nothing(path: Path) -> None:
    with holding(path) as holder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent, bound() as sock:
        deposit = Deposit(path)
        assert deposit.keep([sock])
        agent.settimeout(5)
        agent.connect(str(path))
        agent.send(b"hauberk 2 keep")
        assert agent.recv(100).startswith(REFUSED)
        agent.send(KEEP + b"x" * 1000)
        assert agent.recv(100).startswith(REFUSED)
        assert len(holder.held) == 1
        socket.send_fds(agent, [TAKE], [])
        answer, descriptors, _, _ = socket.recv_fds(agent, 100, MOST_SOCKETS)
        assert (answer, len(descriptors)) == (HELD, 1)
        os.close(descriptors[0])
        deposit.close()


def test_other_users_get_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holding(path), bound() as sock:
        deposit = Deposit(path)
        assert deposit.keep([sock])
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        stranger = Deposit(path)
        assert stranger.take() == {}
        assert stranger.problem is not None
        deposit.close()
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_holder_leaves_the_first_alone(path: Path) -> None:
    with holding(path), pytest.raises(OSError, match="another holder"):
        Holder(path)


def test_what_a_killed_holder_left_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as killed:
        killed.bind(str(path))
    with holding(path):
        deposit = Deposit(path)
        assert deposit.take() == {}
        assert deposit.problem is None
        deposit.close()


def test_a_missing_holder_is_said_once_and_found_when_it_comes(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with bound() as sock:
        deposit = Deposit(path)
        assert not deposit.keep([sock])
        assert not deposit.keep([sock])
        assert "a restart would interrupt" in str(deposit.problem)
        assert len([each for each in caplog.records if "no socket holder" in each.getMessage()]) == 1
        assert not deposit.connected
        with holding(path):
            assert deposit.keep([sock])
            assert deposit.connected
            assert deposit.problem is None
        assert not deposit.connected  # -> and lost when it goes


def test_an_agent_takes_over_from_the_one_before(path: Path) -> None:
    ike, encapsulation = free_port(), free_port()

    def transport(listener: Listener) -> Transport:
        return Transport(listener, port=ike, encapsulation_port=encapsulation, bypass=False, deposit=Deposit(path))

    async def story() -> None:
        first = transport(Listener())
        first.listen([ip_address(LOOPBACK)])
        assert first.problems == ()
        assert first.deposited
        first.close()

        without = Transport(Listener(), port=ike, encapsulation_port=encapsulation, bypass=False)
        without.listen([ip_address(LOOPBACK)])
        assert len(without.problems) == 2  # -> held, so taken for whoever does not ask for them
        without.close()

        heard = Listener()
        second = transport(heard)
        second.listen([ip_address(LOOPBACK)])
        assert second.problems == ()
        send(b"to the second", ike)
        async with asyncio.timeout(5):
            await heard.woken.wait()
        second.listen([])
        assert second.deposited  # -> a node without addresses needs no sockets, and none are held for it
        second.close()

    with holding(path) as holder:
        asyncio.run(story())
        assert holder.held == ()


def test_a_holder_that_comes_late_or_anew_gets_the_sockets(path: Path) -> None:
    async def story() -> None:
        transport = Transport(Listener(), port=free_port(), bypass=False, deposit=Deposit(path))
        transport.listen([ip_address(LOOPBACK)])
        assert transport.problems == ()
        assert not transport.deposited
        for _ in range(2):
            with holding(path) as holder:
                transport.keep_deposited()
                assert transport.deposited
                assert len(holder.held) == 1
            assert not transport.deposited
        transport.close()

    asyncio.run(story())


def test_the_program_ends_on_sigterm_and_is_small(path: Path) -> None:
    command = [sys.executable, "-c", "from hauberk_agent.holder import main; main()", "--socket", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        assert "listening" in program.stderr.readline()
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 0
    assert not path.exists()
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, hauberk_agent.holder; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    ours = {name for name in loaded if name.startswith("hauberk")}
    assert ours == {"hauberk_agent", "hauberk_agent.holder"}
    assert not {"asyncio", "cryptography", "pydantic"} & set(loaded)


def test_a_place_where_it_cannot_listen_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-c", "from hauberk_agent.holder import main; main()"]
    done = subprocess.run(
        [*command, "--socket", str(tmp_path / "file" / "sockets")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("hauberk-holder: ")
    assert "Traceback" not in done.stderr
