"""What no file of the repository may hold: the address of a package registry, or a path of somebody's machine.

Called by `make check`. Prints each offending line and ends with 1 if there is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# Spelled in pieces, so that this file is not its own first finding.
_REGISTRIES = (
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "npmjs" + ".org",
    "proxy.golang" + ".org",
    "deb.debian" + ".org",
)
_LOCKS = {"uv.lock", "poetry.lock", "package-lock.json"}
_MACHINE_PATH = re.compile(r"(?<![\w.~{}/-])/(?:home|work|farm|Users)/\w")


def findings(path: Path, text: str) -> list[str]:
    """The offending lines of one file, as `path:line: what`."""
    found = [f"{path}: a lock file names package registries"] if path.name in _LOCKS else []
    for number, line in enumerate(text.splitlines(), 1):
        found += [f"{path}:{number}: names the registry {host}" for host in _REGISTRIES if host in line]
        if _MACHINE_PATH.search(line):
            found.append(f"{path}:{number}: names a path of one machine: {line.strip()[:80]}")
    return found


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    found: list[str] = []
    for name in listed.stdout.splitlines():
        path = Path(name)
        if path.is_file():
            found += findings(path, path.read_text(errors="replace"))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
