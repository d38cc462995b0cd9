"""The images that run in the lab's nodes, as OCI archives in the cache.

    base     localhost/python:KEY             a Debian with Python, made with debootstrap, as there is no registry
    image    localhost/hauberk:dev            the repository's Dockerfile on that base
    tools    localhost/hauberk-tools:dev      the base with busybox (ping, wget, nc, ip), for pods that test

buildah builds them, with a storage of its own in the cache. With its overlay driver a change of code takes it about ten
seconds; where the kernel or the file system refuses that it copies whole trees (vfs), and takes a minute. Called by the
command line, the demo and the tests on the lab; `python -m tests.lab.image` builds both and says where they are.
"""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.lab import cache, packages
from tests.lab.cache import Part
from tests.lab.errors import BuildError

Progress = Callable[[str], None]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
IMAGE = "localhost/hauberk:dev"
TOOLS_IMAGE = "localhost/hauberk-tools:dev"
SUITE = "trixie"
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
# What a container never reads.
_NOT_IN_BASE = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt",
    "var/log",
)
_DEPENDENCIES = "localhost/hauberk-dependencies:dev"
_TOOLS_DOCKERFILE = """ARG PYTHON
FROM ${PYTHON}
COPY busybox /opt/busybox/busybox
RUN /opt/busybox/busybox --install -s /opt/busybox
ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/opt/busybox
CMD ["sleep", "infinity"]
"""
# What of pip's settings says where packages come from and whom to trust.
_PIP_SETTINGS = frozenset(
    [
        "cert",
        "default-timeout",
        "extra-index-url",
        "find-links",
        "index-url",
        "no-index",
        "proxy",
        "retries",
        "timeout",
        "trusted-host",
    ]
)
_KEPT = 3  # archives of each image


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def build(progress: Progress = _say) -> Path:
    """The OCI archive of localhost/hauberk:dev as this tree makes it, built unless it is there. Errors: BuildError."""
    base = _base_part()
    part = Part(name="image", key=cache.key(base.key, *_with_names(sources())))
    if part.is_built():
        return _archive(part)
    _ensure_base(base, progress)
    progress(f"building {IMAGE} (seconds; with new dependencies about a minute; log: {part.log})")

    def make(work: Path, out: Path) -> None:
        buildah = _Buildah.find(part.log)
        context = ["--build-arg", f"PYTHON={buildah.base(base)}", *_pip_mounts(work), str(REPOSITORY)]
        # The stage that costs has a name of its own, so that tidying up leaves it.
        buildah("build", "--layers", "--isolation=chroot", "--target=dependencies", "--tag", _DEPENDENCIES, *context)
        buildah("build", "--layers", "--isolation=chroot", "--tag", IMAGE, *context)
        buildah("push", IMAGE, f"oci-archive:{out / 'image.tar'}:{IMAGE}")
        buildah("rmi", "--prune")

    part.ensure(make)
    cache.discard_older(part.name, _KEPT, in_use={part.path})
    return _archive(part)


def build_tools(progress: Progress = _say) -> Path:
    """The OCI archive of localhost/hauberk-tools:dev, built unless it is there. Errors: BuildError."""
    packages.install_missing(packages.RUNNING, _packages_log(), progress)
    base = _base_part()
    busybox = Path("/bin/busybox")
    part = Part(name="tools", key=cache.key(base.key, _TOOLS_DOCKERFILE, busybox))
    if part.is_built():
        return _archive(part)
    _ensure_base(base, progress)
    progress(f"building {TOOLS_IMAGE} (some seconds; log: {part.log})")

    def make(work: Path, out: Path) -> None:
        buildah = _Buildah.find(part.log)
        context = work / "context"
        context.mkdir(exist_ok=True)
        shutil.copyfile(busybox, context / "busybox")
        (context / "busybox").chmod(0o755)
        (context / "Dockerfile").write_text(_TOOLS_DOCKERFILE)
        arguments = ["--build-arg", f"PYTHON={buildah.base(base)}", str(context)]
        buildah("build", "--layers=false", "--isolation=chroot", "--tag", TOOLS_IMAGE, *arguments)
        buildah("push", TOOLS_IMAGE, f"oci-archive:{out / 'image.tar'}:{TOOLS_IMAGE}")

    part.ensure(make)
    cache.discard_older(part.name, _KEPT, in_use={part.path})
    return _archive(part)


def sources(repository: Path = REPOSITORY) -> list[Path]:
    """What goes into the image, sorted: what .dockerignore admits, the Dockerfile and .dockerignore itself."""
    top = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE")
    found = [repository / name for name in top]
    for directory in ("requirements", "operator", "agent", "crds"):
        below = (repository / directory).rglob("*")
        found.extend(path for path in below if path.is_file() and "__pycache__" not in path.parts)
    return sorted(found)


def _with_names(paths: Sequence[Path]) -> Iterator[str | Path]:
    for path in paths:
        yield str(path.relative_to(REPOSITORY))
        yield path


def _archive(part: Part) -> Path:
    return part.path / "image.tar"


def _packages_log() -> Path:
    return cache.directory() / "logs" / "packages.log"


def _base_part() -> Part:
    return Part(name="base", key=cache.key(SUITE, *BASE_PACKAGES, "without", *_NOT_IN_BASE))


def _ensure_base(part: Part, progress: Progress) -> None:
    packages.install_missing(packages.RUNNING, _packages_log(), progress)
    if part.is_built():
        return
    if os.geteuid() != 0:
        raise BuildError("the base image is made with debootstrap, which needs root: run this with sudo")
    progress(f"building the base image, Debian {SUITE} with Python (about a minute; log: {part.log})")

    def make(work: Path, out: Path) -> None:
        tree, downloads = work / "tree", work / "downloads"
        shutil.rmtree(tree, ignore_errors=True)
        downloads.mkdir(exist_ok=True)  # an interrupted build does not download again
        part.log.write_bytes(b"")
        # In a mount namespace of its own: what it mounts in the tree goes with it, however it ends.
        argv = [
            "unshare",
            "--mount",
            "debootstrap",
            "--variant=minbase",
            "--force-check-gpg",
            f"--cache-dir={downloads}",
        ]
        argv += [f"--include={','.join(BASE_PACKAGES)}", SUITE, str(tree), *packages.debian_mirror()]
        _run(argv, part.log)
        for path in _NOT_IN_BASE:
            shutil.rmtree(tree / path, ignore_errors=True)
        _run(["tar", "-C", str(tree), "--numeric-owner", "-cf", str(out / "rootfs.tar"), "."], part.log)
        (out / "Dockerfile").write_text('FROM scratch\nADD rootfs.tar /\nCMD ["python3"]\n')

    part.ensure(make)


def _pip_mounts(work: Path) -> list[str]:
    """buildah's options that let pip in the build find packages the way the host's pip does.

    Mounted files, as environment variables would be committed to the image.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    settings = pip_settings(listed)
    for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if chosen := os.environ.get(variable):
            settings.setdefault("cert", chosen)
    mounts: list[str] = []
    certificates = Path(settings.get("cert", "/nonexistent"))
    if certificates.is_file():
        settings["cert"] = "/etc/pip-ca.pem"
        mounts += ["--volume", f"{certificates.resolve()}:{settings['cert']}:ro"]
    for wheels in settings.get("find-links", "").split():
        if Path(wheels).is_dir():
            mounts += ["--volume", f"{wheels}:{wheels}:ro"]
    file = work / "pip.conf"
    file.touch(mode=0o600)  # an index's address may hold a password
    lines = [f"{name} = {value}".replace("\n", "\n    ") for name, value in settings.items()]
    file.write_text("\n".join(["[global]", *lines, ""]))
    return [*mounts, "--volume", f"{file}:/etc/pip.conf:ro"]


def pip_settings(listed: str) -> dict[str, str]:
    """What `pip config list` says of where packages come from; the environment's word counts most, as in pip itself."""
    found: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, equals, value = line.partition("=")
        setting = name.rpartition(".")[2]
        if equals and setting in _PIP_SETTINGS:
            found[setting] = str(ast.literal_eval(value))
    return found


class _Buildah:
    """buildah with a storage of its own in the cache, and its output in a part's log."""

    def __init__(self, log: Path, driver: str) -> None:
        storage = cache.directory() / "containers"
        # What is mounted doesn't outlive a boot, and its record must not either.
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        self._log = log
        self._argv = ["buildah", "--storage-driver", driver]
        self._argv += ["--root", str(storage / driver), "--runroot", str(storage / f"{driver}-run-{boot}")]

    @classmethod
    def find(cls, log: Path) -> "_Buildah":
        """With the overlay driver where that works."""
        log.write_bytes(b"")
        overlay = cls(log, "overlay")
        return overlay if overlay._try("info") else cls(log, "vfs")

    def base(self, part: Part) -> str:
        """The name of the base image, which is in the storage afterwards."""
        name = f"localhost/python:{part.key}"
        if not self._try("inspect", "--type=image", name):
            self("build", "--layers=false", "--isolation=chroot", "--tag", name, str(part.require()))
        return name

    def _try(self, *arguments: str) -> bool:
        quiet = subprocess.run([*self._argv, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return quiet.returncode == 0

    def __call__(self, *arguments: str) -> None:
        _run([*self._argv, *arguments], self._log)


def _run(argv: Sequence[str], log: Path) -> None:
    """Runs a step of a build. Errors: BuildError with the log."""
    with log.open("ab") as output:
        output.write(f"$ {' '.join(argv)}\n".encode())
        output.flush()
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        except OSError as error:
            raise BuildError(f"{argv[0]} could not be started: {error.strerror}") from error
    if done.returncode != 0:
        step = " ".join([Path(argv[0]).name, *[word for word in argv[1:] if not word.startswith("-")][:1]])
        raise BuildError(f"`{step}` failed", log=log)


if __name__ == "__main__":
    try:
        print(build())
        print(build_tools())
    except BuildError as error:
        sys.exit(error.with_log_tail())
