"""Where the lab keeps what it builds, and how a part comes to be there whole or not at all.

The cache is `$HAUBERK_LAB_CACHE`, by default ~/.cache/hauberk/lab:

    parts/NAME-KEY/    a finished part; KEY is a hash of all that went into it
    work/NAME-KEY/     a part being built; left behind by an interrupted build, which so resumes where it stopped
    logs/NAME.log      what the last build of a part said
    run/LAB/           a lab that is up

Called by `build` and `disk`, which make parts, and by `cluster`, which looks them up.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import BuildError

CACHE_VARIABLE = "HAUBERK_LAB_CACHE"


def directory() -> Path:
    """The cache's directory, which need not exist yet."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "hauberk" / "lab"


def key(*ingredients: str | bytes | Path) -> str:
    """A hash of ingredients, in order: texts and bytes for themselves, a Path for its file's content."""
    whole = hashlib.sha256()
    for ingredient in ingredients:
        if isinstance(ingredient, Path):
            with ingredient.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        else:
            data = ingredient.encode() if isinstance(ingredient, str) else ingredient
            digest = hashlib.sha256(data).digest()
        whole.update(digest)  # of fixed length: no two lists of ingredients run together
    return whole.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing that the lab builds once: a name and the hash of all that went into it."""

    name: str
    key: str

    @property
    def path(self) -> Path:
        """Where the finished part lies."""
        return directory() / "parts" / f"{self.name}-{self.key}"

    @property
    def log(self) -> Path:
        """What its last build said."""
        return directory() / "logs" / f"{self.name}.log"

    def is_built(self) -> bool:
        """True when the part is there, whole."""
        return self.path.is_dir()

    def ensure(self, make: Callable[[Path, Path], None]) -> Path:
        """Builds the part unless it is there, and returns its path.

        `make(work, out)` fills the directory `out`; `work` is scratch that survives an interruption. Processes that
        want the same part wait for the first of them. Errors: whatever `make` raises.
        """
        if self.is_built():
            return self.path
        with self._locked():
            if self.is_built():
                return self.path
            work = directory() / "work" / f"{self.name}-{self.key}"
            out = work / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            make(work, out)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            out.rename(self.path)
            shutil.rmtree(work, ignore_errors=True)
        return self.path

    def require(self) -> Path:
        """Returns the finished part's path. Errors: BuildError when it isn't there."""
        if not self.is_built():
            raise BuildError(f"{self.name} is not built: run `python -m tests.lab build` first")
        return self.path

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        locks = directory() / "work"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def discard_older(name: str, keep: int, *, in_use: set[Path]) -> None:
    """Removes all but the newest `keep` parts of a name; parts in use stay."""
    found = sorted((directory() / "parts").glob(f"{name}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[keep:]:
        if path not in in_use:
            shutil.rmtree(path, ignore_errors=True)
