"""The file of `--key-log`: lines for Wireshark (`hauberk_ike.key_log`), for the eyes of its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hauberk_diagnose.errors import Trouble


class KeyLogFile:
    """Appends lines. Other runs may append to the same file."""

    def __init__(self, path: Path) -> None:
        """Makes the file with mode 0600, or takes one that nobody else can read. Raises Trouble."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise Trouble(f"{path}: {error.strerror or error}; name a file that can be written") from None
        if stat.S_IMODE(os.fstat(self._descriptor).st_mode) & 0o077:
            os.close(self._descriptor)
            raise Trouble(f"{path} is open to others, and keys are to be written into it: chmod 600 {path}")

    def write(self, line: str) -> None:
        """One line, whole: what an endpoint's `key_log` calls. A full disk must not end IKE SAs, so that is ignored."""
        try:
            os.write(self._descriptor, f"{line}\n".encode())
        except OSError:
            return

    def close(self) -> None:
        os.close(self._descriptor)
