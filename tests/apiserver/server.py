"""etcd and kube-apiserver, started as in the lab, in a network namespace of their own; no nodes, no controllers.

    with ApiServer() as server:
        server.apply_crds()
        server.kubectl("apply", "-f", "-", stdin=manifest)

Everything lies in one directory and one namespace, both named hauberk-api-PID-COUNT after the process that made them.
What a killed process left behind is removed by the next start. Used by the fixture in `fixtures`, and by tests that
want a server of their own, to stop it for one.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import yaml

from hauberk_api.kinds import GROUP
from tests.apiserver.binaries import binary
from tests.lab import addresses, network, pki
from tests.lab.addresses import Family
from tests.lab.api import Api
from tests.lab.controlplane import APISERVER, ETCD, ControlPlane
from tests.lab.errors import CommandFailed, LabError, NotInTime
from tests.lab.process import Process, in_network_namespace, spawn

PREFIX: Final = "hauberk-api-"
CRDS: Final = Path(__file__).resolve().parent.parent.parent / "crds"
START_SECONDS: Final = 90.0
SERVE_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0

_counter = itertools.count()


class ApiServer:
    """A running API server with RBAC, NodeRestriction, an audit log and service accounts. A context manager."""

    def __init__(self) -> None:
        self.netns: Final = f"{PREFIX}{os.getpid()}-{next(_counter)}"
        """The network namespace that the server is in: nothing outside reaches it."""
        self.directory: Final = Path(tempfile.gettempdir()) / self.netns
        """Where all of its files lie."""
        self.kubeconfig: Final = self.directory / "admin.kubeconfig"
        """Of a member of system:masters."""
        self._processes: dict[str, Process] = {}
        self._family = Family.IPV4
        self._authority: pki.Pair | None = None

    def __enter__(self) -> Self:
        """Start; returns when /readyz says ok. Raises LabError, having removed everything."""
        if os.geteuid() != 0:
            raise LabError("an API server of its own needs root, for a network namespace: run the tests with sudo")
        remove_leftovers()
        binaries = binary(APISERVER).parent
        if shutil.which(ETCD) is None:
            raise LabError("etcd is missing: run `python -m tests.lab build`")
        try:
            self._start(binaries)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def url(self) -> str:
        """The server's address inside the namespace."""
        return self._control_plane().url

    @property
    def audit_log(self) -> Path:
        """Every request, one JSON event (audit.k8s.io/v1) a line."""
        return self._control_plane().audit_log

    @property
    def api(self) -> Api:
        """Plain requests as admin, for which kubectl is too slow."""
        plane = self._control_plane()
        return Api(namespace=self.netns, address=addresses.control_plane(self._family)[0], pki=plane.pki)

    def command_inside(self, *argv: str) -> list[str]:
        """The command line that runs a program where it reaches the server."""
        return network.command_inside(self.netns, argv)

    def kubectl(
        self,
        *arguments: str,
        stdin: str | None = None,
        check: bool = True,
        kubeconfig: Path | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, by default as admin. Raises CommandFailed with what kubectl said, unless check is False."""
        command = self.command_inside(
            str(binary("kubectl")),
            f"--kubeconfig={kubeconfig or self.kubeconfig}",
            f"--cache-dir={self.directory / 'kubectl'}",
            *arguments,
        )
        done = subprocess.run(command, input=stdin or "", capture_output=True, text=True, check=False, timeout=timeout)
        if check and done.returncode != 0:
            raise CommandFailed(done.returncode, command, done.stdout, done.stderr)
        return done

    def apply_crds(self) -> None:
        """Apply crds/*.yaml and wait until the API server serves them."""
        self.kubectl("apply", "--server-side", f"--filename={CRDS}")
        wanted = {yaml.safe_load(path.read_text())["spec"]["names"]["plural"] for path in CRDS.glob("*.yaml")}
        deadline = time.monotonic() + SERVE_SECONDS
        while missing := wanted - self._served():
            if time.monotonic() > deadline:
                raise NotInTime(f"the API server does not serve {', '.join(sorted(missing))}")
            time.sleep(0.1)

    def token(
        self,
        service_account: str,
        *,
        namespace: str = "default",
        pod: Mapping[str, str] | None = None,
        seconds: int = 3600,
    ) -> str:
        """A token of an existing service account; pod ({"name": ..., "uid": ...}) binds it to that pod.

        Raises ApiRefused.
        """
        spec: dict[str, Any] = {"expirationSeconds": seconds}
        if pod is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", **pod}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        answer = json.loads(self.api.request("POST", path, request))
        token: str = answer["status"]["token"]
        return token

    def kubeconfig_for_token(self, token: str, name: str) -> Path:
        """Write NAME.kubeconfig, which authenticates with a token."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        return self._write_kubeconfig(name, yaml.safe_dump(config, sort_keys=False))

    def kubeconfig_for_user(self, user: str, *, group: str, name: str) -> Path:
        """Write NAME.kubeconfig, which authenticates with a client certificate: `system:node:n1` in `system:nodes`."""
        if self._authority is None:
            raise LabError("the API server is not running")
        client = pki.issue(self._authority, user, organization=group, now=_now())
        config = pki.kubeconfig(server=self.url, authority=self._authority, client=client)
        return self._write_kubeconfig(name, config)

    def stop_answering(self) -> None:
        """End kube-apiserver alone; what it stored stays in etcd."""
        process = self._processes.pop(APISERVER)
        process.kill()
        if not process.wait_gone(STOP_SECONDS):
            raise NotInTime(f"{APISERVER} does not end", log=self._log(APISERVER))

    def answer_again(self) -> None:
        """Start kube-apiserver again after stop_answering."""
        self._spawn(APISERVER)
        self._wait_ready()

    def _served(self) -> set[str]:
        """The plural names of Hauberk's kinds that kubectl can find."""
        listed = self.kubectl("api-resources", f"--api-group={GROUP}", "--cached=false", "--output=name", check=False)
        return {line.partition(".")[0] for line in listed.stdout.split()}

    def _write_kubeconfig(self, name: str, content: str) -> Path:
        path = self.directory / f"{name}.kubeconfig"
        pki.write_secret(path, content)
        return path

    def _control_plane(self, binaries: Path | None = None) -> ControlPlane:
        return ControlPlane(
            family=self._family, run_directory=self.directory, binaries=binaries or binary(APISERVER).parent
        )

    def _start(self, binaries: Path) -> None:
        self.directory.mkdir(mode=0o700)
        network.create(self.netns, self._family)
        plane = self._control_plane(binaries)
        plane.pki.mkdir()
        self._authority = authority = pki.new_authority("hauberk-api-ca", now=_now())
        authority.write(plane.pki, "ca")
        names = plane.server_names()
        pki.issue(authority, "kube-apiserver", server_names=names, now=_now()).write(plane.pki, "apiserver")
        admin = pki.issue(authority, "admin", organization="system:masters", now=_now())
        admin.write(plane.pki, "admin")
        admin.write(plane.pki, "apiserver-kubelet-client")  # there are no kubelets, but the flag wants a file
        private, public = pki.new_signing_key()
        pki.write_secret(plane.pki / "service-accounts.key", private)
        pki.write_secret(plane.pki / "service-accounts.pub", public)
        pki.write_secret(self.kubeconfig, pki.kubeconfig(server=plane.url, authority=authority, client=admin))
        plane.write_audit_policy()
        self._spawn(ETCD)
        self._spawn(APISERVER)
        self._wait_ready()

    def _spawn(self, name: str) -> None:
        command = self._control_plane().commands()[name]
        self._processes[name] = spawn(self.command_inside(*command), log=self._log(name))

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.api.is_ready():
            for name, process in self._processes.items():
                if not process.is_alive():
                    raise LabError(LabError(f"{name} ended at once", log=self._log(name)).with_log_tail())
            if time.monotonic() > deadline:
                late = NotInTime(f"{APISERVER} is not ready after {START_SECONDS:.0f} s", log=self._log(APISERVER))
                raise NotInTime(late.with_log_tail())
            time.sleep(0.1)

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _stop(self) -> None:
        for process in self._processes.values():
            process.kill()
        stuck = [name for name, process in self._processes.items() if not process.wait_gone(STOP_SECONDS)]
        self._processes.clear()
        self._authority = None
        _remove(self.netns)
        if stuck:
            raise NotInTime(f"{', '.join(stuck)} could not be ended")


def remove_leftovers() -> None:
    """Remove what processes that are gone left behind: their servers, namespaces and directories."""
    temporary = Path(tempfile.gettempdir())
    names = {path.name for parent in (Path("/run/netns"), temporary) for path in parent.glob(f"{PREFIX}*-*")}
    for name in names:
        pid = name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            _remove(name)


def _remove(name: str) -> None:
    """End whatever is in a namespace of ours, then remove the namespace and its directory."""
    path = network.namespace_path(name)
    if path.exists():
        for pid in in_network_namespace(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        network.remove(name)
    shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
