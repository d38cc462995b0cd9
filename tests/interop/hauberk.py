"""Our side: `hauberk-ike` on the left gateway, told what to do on its standard input and heard as JSON lines."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.interop.bed import Gateway
from tests.interop.credentials import Identity
from tests.interop.terms import CHILD, PPK, PPK_IDENTITY, PSK, Authentication, Terms

PATIENCE_SECONDS = 20.0
_PROGRAM = Path(sys.executable).parent / "hauberk-ike"


class Hauberk:
    """One run of the command. Deeds raise AssertionError, with what was said, when they fail or take too long."""

    def __init__(self, here: Gateway, there: Gateway) -> None:
        self._here, self._there = here, there
        self._directory = Path(f"/run/ours-{os.urandom(4).hex()}")
        self._directory.mkdir(mode=0o700)
        self._process: subprocess.Popen[bytes] | None = None
        self._selector = selectors.DefaultSelector()
        self._partial = b""
        self.lines: list[dict[str, Any]] = []
        """Everything that it reported."""

    def start(self, terms: Terms, here: Identity, there: Identity, *, initiates: bool) -> None:
        """Starts it: an initiator begins at once, a responder is ready when this returns."""
        self._start("initiate" if initiates else "respond", [*self._who(terms, here, there), *self._what(terms)])
        if not initiates:
            self.command("status")  # which it reads when its sockets are bound

    def come_back(self, terms: Terms, here: Identity, there: Identity) -> None:
        """Starts it after it was killed: it knows nothing of before, says so, and initiates."""
        assert self._process is not None
        self._close()
        self._selector = selectors.DefaultSelector()
        self._partial = b""
        self.lines.clear()
        self._start("initiate", [*self._who(terms, here, there), *self._what(terms), "--initial-contact"])

    def _start(self, word: str, wishes: list[str]) -> None:
        argv = ["ip", "netns", "exec", self._here.name, str(_PROGRAM), word, *wishes]
        argv += ["--install", "--output", "json", "--retransmit-seconds", "0.5", "--retransmit-tries", "4"]
        with (self._directory / "stderr").open("ab") as errors:
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def tell(self, line: str) -> None:
        """Gives it a command, and waits for nothing."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def command(self, line: str, *, check: bool = True) -> dict[str, Any]:
        """Gives it a command and returns the answer, which must be that it is done."""
        seen = len(self.lines)
        self.tell(line)
        answer = self.wait(lambda said: said.get("command") == line, f"an answer to {line!r}", since=seen)
        assert answer["ok"] or not check, f"{line!r} was answered {answer}"
        return answer

    def wait(
        self,
        fits: Callable[[dict[str, Any]], bool],
        what: str,
        *,
        since: int = 0,
        seconds: float = PATIENCE_SECONDS,
    ) -> dict[str, Any]:
        """The first line, from the `since`th on, that fits."""
        deadline = time.monotonic() + seconds
        while True:
            for line in self.lines[since:]:
                if fits(line):
                    return line
            left = deadline - time.monotonic()
            assert left > 0, f"not within {seconds:.0f} s: {what}"
            assert self._read(left) or time.monotonic() >= deadline, f"it ended before this: {what}"

    def wait_for(self, event: str, *, since: int = 0, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The first such event, from the `since`th line on."""
        return self.wait(lambda line: line.get("event") == event, event, since=since, seconds=seconds)

    def events(self, name: str) -> list[dict[str, Any]]:
        """All such events so far."""
        while self._read(0.0):
            pass
        return [line for line in self.lines if line.get("event") == name]

    def _read(self, seconds: float) -> bool:
        """Takes in what it says within so long; false when it says nothing, or nothing more."""
        assert self._process is not None
        assert self._process.stdout is not None
        if not self._selector.select(seconds):
            return False
        data = os.read(self._process.stdout.fileno(), 65536)
        *whole, self._partial = (self._partial + data).split(b"\n")
        self.lines.extend(json.loads(line) for line in whole)
        return bool(data)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def clean_up(self) -> dict[str, Any]:
        """Lets another run remove what killed ones have left; what it says."""
        argv = ["ip", "netns", "exec", self._here.name, str(_PROGRAM), "cleanup", "--output", "json"]
        return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    def quit(self) -> None:
        """Lets it delete everything in good order, and waits for its end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise AssertionError("hauberk-ike did not end on SIGTERM") from error

    def log(self) -> str:
        """What it said so far, on both its outputs."""
        if self._process is not None and self._process.stdout is not None and not self._process.stdout.closed:
            while self._read(0.0):
                pass
        errors = self._directory / "stderr"
        said = [json.dumps(line) for line in self.lines]
        return "\n".join((*said, errors.read_text(errors="replace") if errors.exists() else ""))

    def remove(self) -> None:
        """Ends it, without a word to its peer."""
        self._close()

    def _close(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
        self._selector.close()

    def _who(self, terms: Terms, here: Identity, there: Identity) -> list[str]:
        # Whoever may move is taken from anywhere.
        remote = "any" if terms.mobike else str(self._there.seen[terms.outer])
        argv = ["--local", str(self._here.addresses[terms.outer]), "--remote", remote]
        argv += ["--identity", here.name, "--peer-identity", there.name]
        for name, secret in (("psk", PSK), ("ppk", PPK)):
            (self._directory / name).write_text(secret)
            (self._directory / name).chmod(0o600)
        if terms.ppk:
            argv += ["--ppk-file", str(self._directory / "ppk"), "--ppk-id", PPK_IDENTITY]
        if terms.authentication is Authentication.PSK:
            return [*argv, "--psk-file", str(self._directory / "psk")]
        files = {"leaf.pem": b"".join((here.leaf_pem, *here.intermediates_pem)), "root.pem": here.root_pem}
        for name, content in (*files.items(), ("key.pem", here.key_pem)):
            (self._directory / name).write_bytes(content)
            (self._directory / name).chmod(0o600)
        argv += ["--certificate", str(self._directory / "leaf.pem"), "--key", str(self._directory / "key.pem")]
        return [*argv, "--ca", str(self._directory / "root.pem")]

    def _what(self, terms: Terms) -> list[str]:
        side, here, there = terms.ours, self._here, self._there
        argv = ["--ike", side.ike or terms.ike, "--esp", side.esp or terms.esp, "--label", CHILD]
        argv += ["--mode", "transport" if terms.transport else "tunnel", "--dpd-seconds", str(side.dpd_seconds)]
        if side.rekey_child_packets:
            argv += ["--rekey-packets", str(side.rekey_child_packets)]
        argv += ["--encapsulation", "always" if side.encapsulate else "auto", *(["--mobike"] if terms.mobike else [])]
        argv += [*(["--children-apart"] if terms.childless else [])]
        argv += [*(["--cookie-threshold", "0"] if terms.cookie else [])]
        if terms.fragment_size:
            argv += ["--fragment-size", str(terms.fragment_size)]
        if not terms.transport:
            local = side.local or tuple(here.networks[version] for version in terms.inner)
            remote = side.remote or tuple(there.networks[version] for version in terms.inner)
            argv += [word for selector in local for word in ("--ts-local", selector)]
            argv += [word for selector in remote for word in ("--ts-remote", selector)]
        return argv
