"""Everything that the lab raises.

LabError               one sentence for people; `log` names the file whose end explains it
├── PreflightError     this machine can't run the lab; nothing was started
├── BuildError         a part could not be built
├── LabNotUp           no lab of that name is up
├── NodeUnknown        the lab has no such node
├── Unreachable        a node does not answer on the management network
└── NotInTime          something did not come about before its deadline

CommandFailed          a subprocess.CalledProcessError that says what the command said
"""

import subprocess
from pathlib import Path


class LabError(Exception):
    """Something that the lab could not do, in one sentence."""

    def __init__(self, sentence: str, *, log: Path | None = None) -> None:
        super().__init__(sentence)
        self.log = log

    def with_log_tail(self, lines: int = 40) -> str:
        """Returns the sentence and, where there is a log, its last lines."""
        if self.log is None or not self.log.exists():
            return str(self)
        tail = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([str(self), f"the end of {self.log}:", *(f"  | {line}" for line in tail)])


class PreflightError(LabError):
    """This machine can't run the lab; nothing was started."""


class BuildError(LabError):
    """A part could not be built."""


class LabNotUp(LabError):  # noqa: N818 (it reads as what happened)
    """No lab of that name is up."""


class NodeUnknown(LabError):  # noqa: N818 (it reads as what happened)
    """The lab has no node of that name."""


class Unreachable(LabError):  # noqa: N818 (it reads as what happened)
    """A node does not answer on the management network."""


class NotInTime(LabError):  # noqa: N818 (it reads as what happened)
    """Something did not come about before its deadline."""


class CommandFailed(subprocess.CalledProcessError):
    """A command ended with an exit code other than 0; its text holds what the command said."""

    def __str__(self) -> str:
        said = str(self.stderr or self.output or "").strip() or "no output"
        return f"{' '.join(map(str, self.cmd))} ended with exit code {self.returncode}: {said}"
