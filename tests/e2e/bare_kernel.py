"""One bare User-Mode Linux kernel, the lab's, that runs a module of this repository and powers off.

The module is started as `python -m MODULE OUTCOMES` and writes a JSON object to the file OUTCOMES: what became of each
of its stories, null or what went wrong. The host's files are there, read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import build
from tests.lab.kernel_process import REPOSITORY, cpu_for

_INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp
mkdir /run/results; mount -t hostfs hostfs /run/results -o {results}
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run LANG=C.UTF-8; cd {repository}
{python} -B -m {module} /run/results/outcomes.json >/run/results/log 2>&1
echo o >/proc/sysrq-trigger; sleep 10
"""


def tell(module: str, directory: Path, *, seconds: float, memory: str = "512M") -> dict[str, str | None]:
    """The stories' outcomes. Fails the test, with what was said, when there are none after so many seconds."""
    (directory / "sockets").mkdir()
    init, results = directory / "init", directory / "results"
    results.mkdir()
    init.write_text(
        _INIT.format(
            results=shlex.quote(str(results)),
            repository=shlex.quote(str(REPOSITORY)),
            python=shlex.quote(sys.executable),
            module=module,
        )
    )
    init.chmod(0o755)
    kernel = build.ensure(print).kernel
    process = subprocess.Popen(
        [
            *("taskset", "-c", str(cpu_for(0)), str(kernel), f"mem={memory}", "seccomp=auto"),
            *("umid=bare", f"uml_dir={directory / 'sockets'}"),
            *("rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", "con=null", "con0=fd:0,fd:1", "quiet"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    console = ""
    try:
        console, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        console = f"still running after {seconds:.0f} s"
    finally:
        # A kernel is several processes; nothing is left of the group when it has powered off by itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    written = results / "outcomes.json"
    if not written.exists():
        log = results / "log"
        said = log.read_text() if log.exists() else ""
        pytest.fail(f"the kernel told no stories (exit code {process.returncode}):\n{said}\n{console[-2000:]}")
    return json.loads(written.read_text())
