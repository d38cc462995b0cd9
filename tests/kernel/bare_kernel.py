"""One bare User-Mode Linux kernel, the lab's, that runs a module of this repository and powers off.

The module is started as `python -m MODULE OUTCOMES ARGUMENT...` and writes a JSON object to the file OUTCOMES: what
became of each of its stories, null or what went wrong. The host's files are there, read-only.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from tests.lab import build
from tests.lab.kernel_process import REPOSITORY, cpu_for

_INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp
mkdir /run/results; mount -t hostfs hostfs /run/results -o {results}
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run LANG=C.UTF-8; cd {repository}
{python} -B -m {module} /run/results/outcomes.json {arguments} >/run/results/log 2>&1
echo o >/proc/sysrq-trigger; sleep 10
"""


_running: set[int] = set()
"""The process groups of the kernels that run."""

_stopping = threading.Event()


def stop_all() -> None:
    """Ends the kernels that this process has booted, and those that it boots later. `boot` returns."""
    _stopping.set()
    for group in tuple(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def boot(
    module: str,
    results: Path,
    *arguments: str,
    seconds: float,
    memory: str = "512M",
    cpu: int = 0,
    started: Callable[[int], None] = lambda pid: None,
) -> str:
    """Runs `python -m MODULE OUTCOMES ARGUMENT...` in a kernel on the host's `cpu`th CPU, to its end or for so long.

    `results` is made; the module sees it as /run/results. started: told the kernel's process id. Returns how it ended,
    with what it said, for people.
    """
    results.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="kernel-") as directory:
        init, sockets = Path(directory, "init"), Path(directory, "sockets")
        sockets.mkdir()
        init.write_text(
            _INIT.format(
                results=shlex.quote(str(results)),
                repository=shlex.quote(str(REPOSITORY)),
                python=shlex.quote(sys.executable),
                module=module,
                arguments=shlex.join(arguments),
            )
        )
        init.chmod(0o755)
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),  # it ends with us, however we end
                *(
                    "taskset",
                    "-c",
                    str(cpu_for(cpu)),
                    str(build.ensure_kernel(print)),
                    f"mem={memory}",
                    "seccomp=auto",
                ),
                *("umid=bare", f"uml_dir={sockets}"),
                *("rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", "con=null", "con0=fd:0,fd:1", "quiet"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        console = ""
        _running.add(process.pid)
        if _stopping.is_set():
            stop_all()
        try:
            started(process.pid)
            console, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            console = f"still running after {seconds:.0f} s"
        finally:
            # A kernel is several processes; nothing is left of the group when it has powered off by itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _running.discard(process.pid)
    log = results / "log"
    said = log.read_text(errors="replace") if log.exists() else ""
    return f"the kernel ended (exit code {process.returncode}):\n{said}\n{console[-2000:]}"
