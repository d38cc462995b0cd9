"""What the demo and the drill claim, each with what was seen; the exit code is theirs."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass(slots=True, kw_only=True)
class Claims:
    """Prints as it goes; remembers what held."""

    started: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list[str])
    figures: dict[str, float | int] = field(default_factory=dict[str, float | int])
    output: TextIO = field(default_factory=lambda: sys.stdout)

    def progress(self, text: str) -> None:
        """One line, with the seconds since the start."""
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=self.output, flush=True)

    def show(self, text: str) -> None:
        """Output of a command or a table, indented."""
        for line in text.rstrip().splitlines():
            print(f"           {line}", file=self.output, flush=True)

    def check(self, claim: str, held: bool, seen: object = "") -> bool:
        """Print a claim and whether it held; what was seen is printed either way."""
        detail = f": {seen}" if seen != "" else ""
        self.progress(f"{'held  ' if held else 'FAILED'} {claim}{detail}")
        if not held:
            self.failed.append(claim)
        return held

    def write(self, path: Path) -> None:
        """The figures, one flat JSON object."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.figures, indent=2) + "\n")

    def conclude(self) -> int:
        """The exit code: 0 when every claim held, else 1."""
        if self.failed:
            print(f"\n{len(self.failed)} claim(s) did not hold: {'; '.join(self.failed)}", file=sys.stderr, flush=True)
            return 1
        print("\nEvery claim held.", file=self.output, flush=True)
        return 0
