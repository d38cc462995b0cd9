"""A foreign daemon's root: the tree that `roots` made with a writable layer over it, and programs that run in it.

Used within the kernel that `program` runs in. Every program has no input and a time limit, or it is a daemon that is
stopped by its id.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

START_SECONDS = 20.0
COMMAND_SECONDS = 30.0
# What packages' installation scripts would have made, had they run.
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n_iked:x:101:101::/run/openiked:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\n_iked:x:101:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nprotocols: files\n",
    "etc/protocols": "icmp 1\ntcp 6\nudp 17\nipv6-icmp 58\n",
}


class Chroot:
    """A root of one daemon in one network namespace. `remove` ends what still runs in it."""

    def __init__(self, tree: Path, namespace: str) -> None:
        self._namespace = namespace
        self._layer = Path(f"/run/roots/{namespace}")
        self.path = self._layer / "root"
        self._daemons: list[subprocess.Popen[bytes]] = []
        upper, work = self._layer / "upper", self._layer / "work"
        for directory in (self.path, upper, work):
            directory.mkdir(parents=True)
        options = f"lowerdir={tree},upperdir={upper},workdir={work}"
        _mount("-t", "overlay", "overlay", str(self.path), "-o", options)
        for path in ("dev", "proc"):
            _mount("--rbind", f"/{path}", str(self.path / path))
        run = self.path / "var" / "run"
        if not run.is_symlink():
            if run.is_dir():
                run.rmdir()
            run.symlink_to("/run")
        for path, text in _ACCOUNTS.items():
            self.write(path, text)

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Writes a file, making its directories."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)

    def run(self, *argv: str, seconds: float = COMMAND_SECONDS, check: bool = True, **environment: str) -> str:
        """What a program says on both its outputs. Raises AssertionError, with that, if it fails or takes too long."""
        try:
            done = subprocess.run(
                self._argv(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
                env=_environment(environment),
            )
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{' '.join(argv)} took over {seconds:.0f} s: {_text(error.output)}") from error
        said = _text(done.stdout)
        assert done.returncode == 0 or not check, f"{' '.join(argv)} ended with {done.returncode}: {said}"
        return said

    def spawn(self, *argv: str, log: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a daemon; what it says goes to the file `log` in the root."""
        file = self.path / log
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as output:
            daemon = subprocess.Popen(
                self._argv(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(environment),
                start_new_session=True,
            )
        self._daemons.append(daemon)
        return daemon

    def read(self, path: str) -> str:
        """A file's text; nothing if there is none."""
        file = self.path / path
        return file.read_text(errors="replace") if file.exists() else ""

    def remove(self) -> None:
        """Ends what runs in it and takes it away."""
        for daemon in self._daemons:
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        subprocess.run(("umount", "--recursive", "--lazy", str(self.path)), check=True)
        shutil.rmtree(self._layer, ignore_errors=True)

    def _argv(self, argv: tuple[str, ...]) -> list[str]:
        return ["ip", "netns", "exec", self._namespace, "chroot", str(self.path), *argv]


def wait_until(look: Callable[[], bool], what: str, *, seconds: float = START_SECONDS) -> None:
    """Waits until `look()` is true. Raises AssertionError when it isn't in time."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


def _mount(*arguments: str) -> None:
    subprocess.run(("mount", *arguments), check=True)


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", **more}


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace").strip()
