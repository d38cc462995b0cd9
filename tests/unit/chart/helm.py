"""Runs helm on the repository's chart. Used by the chart's tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.apiserver.binaries import binary

CHART: Final = Path(__file__).resolve().parents[3] / "charts" / "hauberk"
NAMESPACE: Final = "hauberk-system"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Helm:
    """helm with files of its own below a directory; prefix: the command line that leads to where it runs."""

    directory: Path
    kubeconfig: Path | None = None
    prefix: Sequence[str] = ()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm; the caller looks at the exit code. Raises LabError, with how to get it, when there is no helm."""
        homes = {f"HELM_{kind}_HOME": str(self.directory / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        environment = os.environ | homes | {"KUBECONFIG": str(self.kubeconfig or self.directory / "none")}
        return subprocess.run(
            [*self.prefix, str(binary("helm")), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=environment,
        )

    def render(self, values: Object | None = None, *, namespace: str = NAMESPACE) -> Rendered:
        """What `helm template` makes of the chart with these values. Raises AssertionError with helm's sentence."""
        done = self.template(values, namespace=namespace)
        assert done.returncode == 0, done.stderr
        return Rendered(objects=tuple(obj for obj in yaml.safe_load_all(done.stdout) if obj is not None))

    def template(self, values: Object | None = None, *, namespace: str = NAMESPACE) -> subprocess.CompletedProcess[str]:
        """`helm template`, as it ends."""
        settings = [f"--set-json={name}={json.dumps(value)}" for name, value in (values or {}).items()]
        return self.run("template", "hauberk", str(CHART), f"--namespace={namespace}", *settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The objects of a rendered chart."""

    objects: tuple[Object, ...]

    def one(self, kind: str, name: str) -> Object:
        """The one object of that kind and name."""
        (found,) = (obj for obj in self.of(kind) if obj["metadata"]["name"] == name)
        return found

    def of(self, kind: str) -> Iterator[Object]:
        """All objects of a kind."""
        return (obj for obj in self.objects if obj["kind"] == kind)

    def pod_templates(self) -> dict[str, Object]:
        """The pod specs, by the name of what makes the pods."""
        return {
            obj["metadata"]["name"]: obj["spec"]["template"]["spec"]
            for obj in self.objects
            if obj["kind"] in {"Deployment", "DaemonSet", "Job"}
        }
