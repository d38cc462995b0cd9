"""The disk that every node starts from: an ext4 file whose containerd already holds the images, unpacked.

A kernel of our own fills it, so that it needs nothing of the host's kernel and leaves no mounts behind: `build` boots
one whose first process is this module (`python -m tests.lab.disk CONFIGURATION`), which imports an archive into the
file system and powers off. Called by `cluster`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CAPACITY = "8G"  # sparse: it takes what is in it
DEADLINE_SECONDS = 240
DONE = "the images are on the disk"
FILE = "images.ext4"


def main() -> None:
    """The first process of the kernel that fills the disk."""
    configuration = json.loads(Path(sys.argv[1]).read_text())
    os.environ.update(PATH=configuration["search_path"], HOME="/root")
    for kind, path in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run"), ("tmpfs", "/tmp")):  # noqa: S108
        _run("mount", "-t", kind, kind, path)
    if not os.path.ismount("/dev"):
        _run("mount", "-t", "devtmpfs", "devtmpfs", "/dev")
    _run("mount", "-t", "ext4", "/dev/ubda", "/var/lib")
    _run("mount", "-t", "tmpfs", "tmpfs", "/opt")
    containerd = subprocess.Popen(["containerd", "-c", configuration["containerd_configuration"]])
    try:
        _import(configuration["archive"])
    except (OSError, RuntimeError) as error:
        print(f"disk: {error}", flush=True)
    else:
        print(DONE, flush=True)
    containerd.terminate()
    containerd.wait()
    _run("umount", "/var/lib")
    Path("/proc/sysrq-trigger").write_text("o")  # power off
    while True:
        time.sleep(1)


def _import(archive: str) -> None:
    deadline = time.monotonic() + 20
    while not os.path.exists("/run/containerd/containerd.sock"):
        if time.monotonic() > deadline:
            raise RuntimeError("containerd did not start")
        time.sleep(0.05)
    _run("ctr", "-n", "k8s.io", "images", "import", "--local", archive)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(argv)}` failed")


def build(*, kernel: Path, containerd: Path, archives: Sequence[Path]) -> Path:
    """Returns the disk with the pause image and the archives' images on it, built unless it is there.

    Each archive goes onto a copy of the disk with those before it: put first what seldom changes. kernel: the kernel's
    binary. containerd: the directory of containerd's. archives: OCI archives. Errors: BuildError.
    """
    from tests.lab import cache, oci
    from tests.lab.errors import BuildError

    busybox = Path("/bin/busybox")
    if not busybox.exists():
        raise BuildError("busybox is not installed: run `python -m tests.lab build` as root")
    key = cache.key(Path(__file__), Path(oci.__file__), busybox, CAPACITY, kernel.parent.name, containerd.name)
    part = cache.Part(name="disk", key=key)

    def make_first(work: Path, out: Path) -> None:
        file = out / FILE
        subprocess.run(["truncate", "-s", CAPACITY, str(file)], check=True)
        made = subprocess.run(["mkfs.ext4", "-q", "-F", str(file)], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise BuildError(f"mkfs.ext4 failed: {made.stderr.strip()}")
        oci.write_sleeper(busybox, work / "pause.tar")
        _fill(file, work / "pause.tar", kernel=kernel, containerd=containerd, work=work, log=part.log)

    disk = part.ensure(make_first)
    for archive in archives:
        key = cache.key(key, archive)
        part = cache.Part(name="disk", key=key)

        def make_next(work: Path, out: Path, below: Path = disk, archive: Path = archive, log: Path = part.log) -> None:
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(below / FILE), str(out)], check=True)
            _fill(out / FILE, archive, kernel=kernel, containerd=containerd, work=work, log=log)

        below, disk = disk, part.ensure(make_next)
        os.utime(below)  # it was of use: younger than those that were not
    os.utime(disk)
    return disk / FILE


def _fill(file: Path, archive: Path, *, kernel: Path, containerd: Path, work: Path, log: Path) -> None:
    """Boots a kernel that imports one archive into a disk."""
    from tests.lab import containers
    from tests.lab.errors import BuildError
    from tests.lab.kernel_process import Kernel, cpu_for, write_init
    from tests.lab.process import spawn

    (work / "containerd.toml").write_text(containers.containerd_configuration())
    (work / "configuration.json").write_text(
        json.dumps(
            {
                "search_path": f"{containerd}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "containerd_configuration": str(work / "containerd.toml"),
                "archive": str(archive),
            }
        )
    )
    write_init(work / "init", "tests.lab.disk", str(work / "configuration.json"))
    sockets = work / "s"
    sockets.mkdir(exist_ok=True)
    booted = Kernel(binary=kernel, name="disk", sockets=sockets, init=work / "init", disk=str(file))
    log.write_bytes(b"")
    process = spawn(booted.argv(cpu_for(0)), log=log)
    try:
        in_time = process.wait_gone(DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait_gone(5)
    if not in_time or DONE not in log.read_text(errors="replace"):
        raise BuildError(f"the images of {archive.name} could not be written to the nodes' disk", log=log)


if __name__ == "__main__":
    main()
