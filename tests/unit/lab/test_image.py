"""What the images are made of, and that the finished one runs. Building happens once, in the lab's cache."""

import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any, cast

import pytest

from tests.lab import image


def test_sources_are_what_the_dockerfile_copies() -> None:
    names = {str(path.relative_to(image.REPOSITORY)) for path in image.sources()}
    assert {"Dockerfile", "pyproject.toml", "requirements/runtime.txt", "crds/hauberk_api/names.py"} <= names
    assert not any("__pycache__" in name or name.startswith(("tests/", ".venv/", "charts/")) for name in names)


def test_dockerignore_admits_the_sources_and_nothing_else() -> None:
    # One names directories, the other walks them: neither may know one that the other doesn't.
    lines = (image.REPOSITORY / ".dockerignore").read_text().splitlines()
    admitted = {line[1:] for line in lines if line.startswith("!")}
    tops = {path.relative_to(image.REPOSITORY).parts[0] for path in image.sources()}
    assert tops - {"Dockerfile", ".dockerignore"} == admitted
    assert "*" in lines


def test_any_change_of_a_source_makes_another_image(tmp_path: Path) -> None:
    for directory in ("requirements", "operator", "agent", "crds"):
        (tmp_path / directory).mkdir()
    (tmp_path / "agent" / "__pycache__").mkdir()
    (tmp_path / "agent" / "__pycache__" / "daemon.pyc").touch()
    (tmp_path / "agent" / "daemon.py").touch()
    found = [str(path.relative_to(tmp_path)) for path in image.sources(tmp_path)]
    assert "agent/daemon.py" in found
    assert not [name for name in found if "pyc" in name]


def test_pip_in_the_build_looks_where_the_hosts_pip_looks() -> None:
    listed = """:env:.cert='/etc/ssl/ours.pem'
:env:.disable-pip-version-check='1'
global.cert='/etc/ssl/theirs.pem'
global.index-url='https://index.example/simple'
global.require-virtualenv='true'
install.trusted-host='index.example'
"""
    assert image.pip_settings(listed) == {
        "cert": "/etc/ssl/ours.pem",
        "index-url": "https://index.example/simple",
        "trusted-host": "index.example",
    }
    assert image.pip_settings("") == {}


def test_what_pip_installs_is_pinned_by_hash() -> None:
    dockerfile = (image.REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip[^&\n]*? install [^&\n]*", dockerfile)
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command


@pytest.mark.lab
def test_the_image_runs_and_is_lean(tmp_path: Path) -> None:
    archive = image.build()
    files = _unpack(archive, tmp_path / "root")
    config = _config(archive)
    assert config["config"]["Env"][-2:] == ["PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"]
    assert not [name for name in config["config"]["Env"] if name.startswith("PIP_")]
    # The last layer is our code, and nothing that a change of it doesn't change.
    assert all("hauberk" in name or name.count("/") < 5 for name in files[-1])
    assert not [name for layer in files for name in layer if "/site-packages/pip/" in name]
    for program in ("hauberk-operator", "hauberk-agent"):
        done = subprocess.run(
            ["chroot", str(tmp_path / "root"), f"/opt/hauberk/bin/{program}", "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert program in done.stdout
    # It would be compiled again at each start if what is in the image didn't serve.
    assert not [path for path in (tmp_path / "root" / "opt").rglob("*.pyc") if _is_checked(path)]
    loaded = subprocess.run(
        ["chroot", str(tmp_path / "root"), "/opt/hauberk/bin/python", "-c", _LOADED], capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr
    compiled = [tmp_path / "root" / line.removeprefix("/") for line in loaded.stdout.splitlines()]
    assert len(compiled) > 300
    assert not [path for path in compiled if not path.exists() or _is_checked(path)]


_LOADED = """
import sys
from importlib.util import cache_from_source
import hauberk_agent.agent, hauberk_agent.kube, hauberk_operator.cli
files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
print(*map(cache_from_source, [file for file in files if file.endswith(".py")]), sep="\\n")
"""
"""Where Python looks for what is compiled of all that a program loads."""


def _is_checked(path: Path) -> bool:
    """Whether Python compares a compiled file with its source: PEP 552's flags, unchecked hash is 1."""
    return int.from_bytes(path.read_bytes()[4:8], "little") != 1


def _config(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        return _json(tar, _manifest(tar)["config"]["digest"])


def _unpack(archive: Path, root: Path) -> list[list[str]]:
    """Unpacks the layers one over the other; the names of each layer's files."""
    root.mkdir()
    names: list[list[str]] = []
    with tarfile.open(archive) as tar:
        for layer in _manifest(tar)["layers"]:
            blob = tar.extractfile(_path(layer["digest"]))
            assert blob is not None
            with tarfile.open(fileobj=blob) as files:
                files.extractall(root, filter="tar")
                names.append(files.getnames())
    return names


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    index = _json_file(tar, "index.json")
    return _json(tar, index["manifests"][0]["digest"])


def _json(tar: tarfile.TarFile, digest: str) -> dict[str, Any]:
    return _json_file(tar, _path(digest))


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json_file(tar: tarfile.TarFile, name: str) -> dict[str, Any]:
    file = tar.extractfile(name)
    assert file is not None
    return cast("dict[str, Any]", json.load(file))
