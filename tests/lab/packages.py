"""The programs that the lab takes from Debian, installed when they are missing. Called by `build`."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.lab.errors import BuildError

# What each program (or file) comes in.
RUNNING = {
    "/usr/bin/etcd": "etcd-server",
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/lib/cni/host-local": "containernetworking-plugins",
    "/bin/busybox": "busybox-static",
    "/usr/sbin/mkfs.ext4": "e2fsprogs",
    "ip": "iproute2",
    "nft": "nftables",
    "iptables": "iptables",
    "taskset": "util-linux",
    "setpriv": "util-linux",
    "tcpdump": "tcpdump",
    "tshark": "tshark",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
BUILDING_KERNEL = {
    "gcc": "gcc",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "xz": "xz-utils",
    "/usr/include/libelf.h": "libelf-dev",
    "/usr/include/stdio.h": "libc6-dev",
}


def missing(wanted: dict[str, str]) -> list[str]:
    """The names of the packages that hold what isn't there."""
    return sorted({package for program, package in wanted.items() if not _is_there(program)})


def install_missing(wanted: dict[str, str], log: Path, progress: Callable[[str], None]) -> None:
    """Installs what isn't there, if anything. Errors: BuildError, also when that would need root."""
    packages = missing(wanted)
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise BuildError(f"these are missing, and there is no apt-get to install them: {_needed(wanted)}")
    if os.geteuid() != 0:
        raise BuildError(f"these Debian packages are missing, and installing them needs root: {' '.join(packages)}")
    progress(f"installing Debian packages: {' '.join(packages)}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for argv in (
            ["apt-get", "update"],
            ["apt-get", "install", "--yes", "--no-install-recommends", *packages],
        ):
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, check=False
            )
            if done.returncode != 0:
                raise BuildError(f"`{' '.join(argv)}` failed", log=log)
    if still := missing(wanted):
        raise BuildError(f"installed, but still missing what is in: {' '.join(still)}", log=log)


def debian_mirror() -> list[str]:
    """The mirror that apt uses, if it is one of Debian's; else debootstrap's own default."""
    if shutil.which("apt-get") is None:
        return []
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    return sorted({line.split()[1] for line in listed if line.startswith("Debian ") and "security" not in line})[:1]


def _needed(wanted: dict[str, str]) -> str:
    return ", ".join(sorted(program for program in wanted if not _is_there(program)))


def _is_there(program: str) -> bool:
    if program.startswith("/usr/include/"):
        # Debian's multiarch puts some headers one level deeper.
        return os.path.exists(program) or bool(list(Path("/usr/include").glob(f"*-linux-gnu/{Path(program).name}")))
    found = os.path.exists(program) if program.startswith("/") else shutil.which(program) is not None
    return found or shutil.which(Path(program).name, path="/usr/sbin:/usr/bin:/sbin:/bin") is not None


def which(name: str, fits: Callable[[Path], bool], directories: Iterable[str] | None = None) -> Path | None:
    """The first program of that name on PATH that fits."""
    for directory in directories if directories is not None else os.get_exec_path():
        candidate = Path(directory) / name
        if os.access(candidate, os.X_OK) and candidate.is_file() and fits(candidate):
            return candidate
    return None
