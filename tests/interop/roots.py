"""Root trees with the daemons of others: strongSwan, libreswan and OpenIKED, as Debian builds them.

One tree a suite, as the daemons of one suite share their libraries. debootstrap downloads what is needed and verifies
Debian's signatures; the packages are then only unpacked, not configured: that takes seconds instead of minutes, runs no
program of theirs on this machine, and lets daemons lie side by side whose packages conflict. A daemon is started in a
kernel of the tests alone (`daemon`), with its root read-only.

The trees are parts of the lab's cache (tests/lab/cache.py). Called by `runner`, and by `python -m tests.interop.roots`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cache, packages
from tests.lab.cache import Part
from tests.lab.errors import BuildError

Progress = Callable[[str], None]

STRONGSWAN_PACKAGES = (
    "charon-systemd",
    "libcharon-extra-plugins",
    "libstrongswan-extra-plugins",
    "libstrongswan-standard-plugins",
    "strongswan-swanctl",
)
_MANIFEST = "packages"
# Downloads that failed are tried again, as mirrors have bad moments.
_ATTEMPTS = 3
_NOT_IN_ROOT = (
    "debootstrap",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/zoneinfo",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite of Debian's, and what is taken from it. `script`: whose rules debootstrap follows for it."""

    name: str
    script: str
    wanted: tuple[str, ...]

    @property
    def part(self) -> Part:
        """The tree, keyed by all that decides what is in it, but for the mirror's moods."""
        return Part(name=f"root-{self.name}", key=cache.key(self.name, *self.wanted, "without", *_NOT_IN_ROOT))

    @property
    def tree(self) -> Path:
        """Where the finished tree lies."""
        return self.part.path / "tree"

    def version(self, package: str) -> str:
        """The upstream version of a package in the finished tree. Raises KeyError."""
        listed = dict(line.split() for line in (self.part.require() / _MANIFEST).read_text().splitlines())
        # [epoch:]upstream[-revision], Debian Policy section 5.6.12
        return listed[package].rpartition(":")[2].rpartition("-")[0]


TRIXIE = Suite(name="trixie", script="trixie", wanted=(*STRONGSWAN_PACKAGES, "libreswan", "openiked"))
# debootstrap in Debian 12 has no script for a suite that is younger than it is.
FORKY = Suite(name="forky", script="sid", wanted=STRONGSWAN_PACKAGES)
SUITES = (TRIXIE, FORKY)


def ensure(progress: Progress, suites: Sequence[Suite] = SUITES) -> None:
    """Makes the trees that are missing, at once, as most of it is waiting for the network. Errors: BuildError."""
    missing = [suite for suite in suites if not suite.part.is_built()]
    if not missing:
        return
    packages.install_missing(packages.RUNNING, cache.directory() / "logs" / "packages.log", progress)
    if os.geteuid() != 0:
        raise BuildError("the roots of foreign daemons are made with debootstrap, which needs root: run this with sudo")
    with ThreadPoolExecutor(len(missing)) as pool:
        for building in [pool.submit(_ensure, suite, progress) for suite in missing]:
            building.result()


def _ensure(suite: Suite, progress: Progress) -> None:
    part = suite.part
    progress(f"building {part.name}: {', '.join(suite.wanted)} (half a minute; log: {part.log})")
    part.ensure(lambda work, out: _make(suite, work, out))
    progress(f"built {part.name}")


def _make(suite: Suite, work: Path, out: Path) -> None:
    downloads = work / "downloads"
    downloads.mkdir(exist_ok=True)  # an interrupted build does not download again
    suite.part.log.write_bytes(b"")
    for attempt in range(1, _ATTEMPTS + 1):
        shutil.rmtree(work / "tree", ignore_errors=True)
        try:
            _download(suite, downloads, work / "tree")
            break
        except BuildError:
            if attempt == _ATTEMPTS:
                raise
    tree = work / "tree"
    archives = sorted((tree / "var" / "cache" / "apt" / "archives").glob("*.deb"))
    (out / _MANIFEST).write_text("".join(_manifest_line(archive.name) for archive in archives))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for unpacking in [pool.submit(_run, suite, ["dpkg-deb", "-x", str(path), str(tree)]) for path in archives]:
            unpacking.result()
    for path in _NOT_IN_ROOT:
        shutil.rmtree(tree / path, ignore_errors=True)
    _run(suite, ["ldconfig", "-r", str(tree)])
    tree.rename(out / "tree")


def _download(suite: Suite, downloads: Path, tree: Path) -> None:
    """debootstrap's first stage: it downloads all, verifies it, and unpacks what is essential."""
    # In a mount namespace of its own: what it mounts in the tree goes with it, however it ends.
    argv = ["unshare", "--mount", "debootstrap", "--foreign", "--variant=minbase", "--force-check-gpg"]
    argv += [f"--cache-dir={downloads}", f"--include={','.join(suite.wanted)}", suite.name, str(tree)]
    mirror = packages.debian_mirror()
    script = f"/usr/share/debootstrap/scripts/{suite.script}"
    # The script is named after the mirror, so without a mirror there is no way to say it.
    _run(suite, [*argv, *mirror, *([script] if mirror else [])])


def _manifest_line(archive: str) -> str:
    """`NAME VERSION` of a file name like `libacl1_2.3.2-2+b1_amd64.deb`, whose version may hold an escaped colon."""
    found = re.fullmatch(r"([^_]+)_([^_]+)_[^_]+\.deb", archive)
    if found is None:
        raise BuildError(f"{archive} is no name of a Debian package")
    return f"{found[1]} {found[2].replace('%3a', ':')}\n"


def _run(suite: Suite, argv: list[str]) -> None:
    with suite.part.log.open("ab") as output:
        output.write(f"$ {' '.join(argv)}\n".encode())
        output.flush()
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if done.returncode != 0:
        raise BuildError(f"{suite.part.name} could not be built: `{argv[0]}` failed", log=suite.part.log)


def main() -> None:
    """Makes the trees, and says which versions they hold."""
    try:
        ensure(lambda sentence: print(sentence, file=sys.stderr, flush=True))
    except BuildError as error:
        sys.exit(error.with_log_tail())
    for suite in SUITES:
        print(suite.tree, *(f"{package}={suite.version(package)}" for package in suite.wanted))


if __name__ == "__main__":
    main()
