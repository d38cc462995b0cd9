"""The other side of a comparison: strongSwan's charon, in a root tree of its own, on one of the hosts.

As its package ships it, or tuned to do as well as it can; without a log, as ours writes none about a handshake, and
with its certificate cache, which is on by default.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Generator
from enum import Enum
from pathlib import Path
from typing import Final

from benchmarks.ike.errors import BenchmarkError
from benchmarks.ike.hauberk import Load
from benchmarks.ike.identity import Identity
from benchmarks.ike.process import Daemon
from benchmarks.ike.vici import Vici
from benchmarks.ike.wire import Host

_PLUGINS: Final = "random drbg openssl nonce x509 constraints pubkey pem pkcs8 kernel-netlink socket-default vici"
_START_SECONDS: Final = 20.0
_PATIENCE_SECONDS: Final = 60.0
_CALIBRATIONS: Final = 3
_INSIDE: Final = "/bench"
"""Where the benchmark's directory is in charon's root."""
_CONNECTION: Final = "peer"

# A root of its own around the tree's programs, so that the tree stays as it was; in its own mount namespace, so that
# what is mounted goes with the process. Arguments: the tree, our directory, its place inside, and the program to run.
_START_SCRIPT: Final = """
root="$2/root"
mkdir -p "$root"
mount --make-rprivate /
mount -t tmpfs tmpfs "$root"
mkdir "$root/usr" "$root/run" "$root/proc" "$root/dev" "$root$3"
mount --bind "$1/usr" "$root/usr"
mount --bind "$2" "$root$3"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
cp -a "$1/etc" "$root/etc"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
echo root:x:0:0:root:/:/bin/sh >"$root/etc/passwd"
echo root:x:0: >"$root/etc/group"
shift 3
exec chroot "$root" "$@"
"""
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"

_STRONGSWAN_CONF: Final = """
{package}
charon-systemd {{
    {tuning}
    install_routes = no
    install_virtual_ip = no
    # Every initiation is an IKE SA of its own.
    reuse_ikesa = no
    # All the load comes from one address here: neither side is to take it for a flood.
    dos_protection = no
    journal {{
        default = -1
    }}
    plugins {{
        vici {{
            socket = unix://{inside}/charon.vici
        }}
    }}
}}
"""

_TUNED: Final = f"""
    load = {_PLUGINS}
    ikesa_table_size = 8192
    ikesa_table_segments = 16
"""

_SWANCTL_CONF: Final = """
connections {{
    {connection} {{
        version = 2
        local_addrs = {local}
        remote_addrs = {remote}
        proposals = {proposal}
        childless = {childless}
        unique = never
        mobike = no
        send_cert = always
        local {{
            auth = pubkey
            certs = cert.pem
            id = {identity}
        }}
        remote {{
            auth = pubkey
            id = {peer}
        }}
    }}
}}
"""


class Tuning(Enum):
    """How charon is set up."""

    PACKAGED = "packaged"
    """With the plugins and settings that Debian's package comes with."""
    TUNED = "tuned"
    """With the plugins that the handshake needs, OpenSSL's cryptography, and a hash table for its IKE SAs."""


class Charon(Daemon):
    """charon, in either role."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, vici: Vici, host: Host) -> None:
        super().__init__("charon", process, log)
        self._vici = vici
        self._host = host

    def version(self) -> str:
        """As it says itself."""
        return self._vici.request("version")["version"]

    def established(self) -> int:
        """How many IKE SAs it has; those that are half-open are left out."""
        stats = self._vici.request("stats")
        return int(stats["ikesas.total"]) - int(stats["ikesas.half-open"])

    def initiate(self, count: int, *, parallel: int) -> Load:
        """Sets up `count` IKE SAs with its peer, about `parallel` at a time. Raises BenchmarkError if one fails.

        It is told once for each, and not asked how it went: that would be on its account. What is under way is known
        from the packets on the cable; a handshake takes the same number of them every time.
        """
        packets = min(self._handshake_packets() for _ in range(_CALIBRATIONS))
        before = self.established()
        start = self._host.passed().packets
        deadline = time.monotonic() + _PATIENCE_SECONDS
        started = time.perf_counter()
        for number in range(count):
            while number - (self._host.passed().packets - start) // packets >= parallel:
                self._wait(deadline, f"{number} of {count} begun")
            self._initiate_one()
        while self._host.passed().packets - start < count * packets:
            self._wait(deadline, "all begun")
        seconds = time.perf_counter() - started
        while (done := self.established() - before) < count:
            self._wait(deadline, f"{done} of {count} done")
        if done != count:
            raise BenchmarkError(f"charon has set up {done} IKE SAs instead of {count}")
        return Load(made=count + _CALIBRATIONS, rate=count / seconds)

    def control_seconds(self, count: int) -> float:
        """CPU seconds that it takes to be told something `count` times: a request that it finds nothing to do for."""
        started = self.cpu_seconds()
        for _ in range(count):
            with contextlib.suppress(BenchmarkError):
                self._vici.request("initiate", {"ike": "nobody", "timeout": "-1", "loglevel": "-1"})
        return self.cpu_seconds() - started

    def _handshake_packets(self) -> int:
        """The packets of one handshake, by making one."""
        before, sas = self._host.passed().packets, self.established()
        self._initiate_one()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.established() == sas:
            self._wait(deadline, "the first begun")
        return self._host.passed().packets - before

    def _initiate_one(self) -> None:
        self._vici.request("initiate", {"ike": _CONNECTION, "timeout": "-1", "loglevel": "-1"})

    def _wait(self, deadline: float, state: str) -> None:
        self.check()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"charon's handshakes have not ended in {_PATIENCE_SECONDS:.0f} s ({state})")
        time.sleep(0.001)


@contextlib.contextmanager
def charon(
    host: Host,
    *,
    root: Path,
    tuning: Tuning,
    identity: Identity,
    peer: Identity,
    remote: Host,
    proposal: str,
    directory: Path,
) -> Generator[Charon]:
    """charon on `host`, until the block ends. `root` is a tree with strongSwan in it, and stays as it is."""
    swanctl = directory / "swanctl"
    for subdirectory, name, content in (
        (".", "swanctl.conf", _swanctl_conf(host, remote, identity, peer, proposal)),
        ("x509", "cert.pem", identity.certificate),
        ("x509ca", "root.pem", identity.root),
        ("private", "key.pem", identity.key),
    ):
        (swanctl / subdirectory).mkdir(parents=True, exist_ok=True)
        (swanctl / subdirectory / name).write_text(content)
    (directory / "strongswan.conf").write_text(
        _STRONGSWAN_CONF.format(
            package="include /etc/strongswan.conf" if tuning is Tuning.PACKAGED else "",
            tuning=_TUNED if tuning is Tuning.TUNED else "",
            inside=_INSIDE,
        )
    )
    socket, log = directory / "charon.vici", directory / "log"
    socket.unlink(missing_ok=True)
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *host.command(*_inside(root, directory, "charon-systemd"))],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={"PATH": _PATH, "STRONGSWAN_CONF": f"{_INSIDE}/strongswan.conf"},
        )
    with process:
        try:
            vici = _connect(Daemon("charon", process, log), socket)
            try:
                _load(root, directory)
                yield Charon(process, log, vici, host)
            finally:
                vici.close()
        finally:
            process.kill()


def _inside(root: Path, directory: Path, *argv: str) -> list[str]:
    """The command that runs `argv` in the root, with the benchmark's directory in it; it becomes the program itself."""
    return ["unshare", "--mount", "sh", "-euc", _START_SCRIPT, "charon", str(root), str(directory), _INSIDE, *argv]


def _swanctl_conf(host: Host, remote: Host, identity: Identity, peer: Identity, proposal: str) -> str:
    return _SWANCTL_CONF.format(
        connection=_CONNECTION,
        local=host.address,
        remote=remote.address,
        proposal=proposal,
        childless="force",
        identity=identity.name,
        peer=peer.name,
    )


def _connect(daemon: Daemon, socket: Path) -> Vici:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        daemon.check()
        try:
            return Vici(socket)
        except OSError as error:
            if time.monotonic() > deadline:
                raise BenchmarkError(
                    f"charon has not started in {_START_SECONDS:.0f} s; {daemon.last_words()}"
                ) from error
        time.sleep(0.02)


def _load(root: Path, directory: Path) -> None:
    """Its configuration, the way people load it."""
    argv = ["swanctl", "--load-all", "--uri", f"unix://{_INSIDE}/charon.vici"]
    loaded = subprocess.run(
        _inside(root, directory, *argv),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": _PATH, "SWANCTL_DIR": f"{_INSIDE}/swanctl"},
    )
    if loaded.returncode != 0:
        raise BenchmarkError(f"charon does not take its configuration: {loaded.stdout}{loaded.stderr}")
