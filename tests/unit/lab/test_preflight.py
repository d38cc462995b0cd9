"""A machine that can't run the lab hears one sentence that says what is missing."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.lab import preflight
from tests.lab.errors import PreflightError
from tests.lab.preflight import Machine

GIB = 2**30
FIT = Machine(
    system="Linux",
    architecture="x86_64",
    user_id=0,
    namespaces_refusal=None,
    shared_memory_free=8 * GIB,
    shared_memory_executable=True,
    memory_available=8 * GIB,
    disk_free=50 * GIB,
    cache=Path("/somewhere/cache"),
    repository=Path("/somewhere/hauberk"),
    python_in_nodes=Path("/"),
)


def test_a_fit_machine_hears_nothing() -> None:
    preflight.check(FIT, lab="default", nodes=3, built=False)


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        ({"user_id": 1000}, "The lab needs root, for network namespaces: run it with sudo."),
        ({"architecture": "aarch64"}, "on x86_64; this is Linux on aarch64"),
        ({"system": "Darwin"}, "runs on Linux"),
        ({"namespaces_refusal": "Operation not permitted"}, r"refuses them \(Operation not permitted\).*privileged"),
        ({"shared_memory_free": None}, "mount a tmpfs"),
        ({"shared_memory_free": 64 * 2**20}, "3 nodes need 2.1 GiB in /dev/shm, and 0.1 GiB are free.*--shm-size"),
        ({"shared_memory_executable": False}, "noexec"),
        ({"memory_available": 2 * GIB}, "3 nodes need 3.2 GiB of memory, and 2.0 GiB are available"),
        ({"disk_free": 3 * GIB}, r"12.0 GiB of disk space in /somewhere/cache, and 3.0 GiB are free"),
        ({"cache": Path("/tmp/cache")}, "set HAUBERK_LAB_CACHE"),  # noqa: S108
        ({"cache": Path("/somewhere") / ("deep" * 20)}, "too long for the sockets"),
        ({"repository": Path("/opt/hauberk")}, "repository is in /opt/hauberk.*move it"),
        ({"python_in_nodes": Path("/nonexistent/python")}, "install python3"),
    ],
)
def test_each_lack_is_told_in_one_sentence(lacking: dict[str, Any], says: str) -> None:
    machine = dataclasses.replace(FIT, **lacking)
    with pytest.raises(PreflightError, match=says):
        preflight.check(machine, lab="default", nodes=3, built=False)
    assert len(list(preflight.complaints(machine, lab="default", nodes=3, built=False))) == 1


def test_a_built_lab_needs_less_disk_space() -> None:
    machine = dataclasses.replace(FIT, disk_free=3 * GIB)
    preflight.check(machine, lab="default", nodes=3, built=True)


def test_not_being_root_comes_before_what_only_root_could_mend() -> None:
    machine = dataclasses.replace(FIT, user_id=1000, shared_memory_free=0)
    with pytest.raises(PreflightError, match="sudo"):
        preflight.check(machine, lab="default", nodes=3, built=True)
