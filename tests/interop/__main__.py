"""`python -m tests.interop [PATTERN]`: plays all cases, or those whose id matches. A whole run writes the figures and
the page in the docs."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tests.interop import report
from tests.interop.cases import CASES
from tests.interop.run import play
from tests.lab.errors import LabError


def main() -> None:
    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    wanted = [case for case in CASES if re.search(pattern, case.id)]
    if not wanted:
        sys.exit(f"no case matches {pattern!r}; they are:\n" + "\n".join(case.id for case in CASES))
    try:
        with tempfile.TemporaryDirectory(prefix="interop-") as directory:
            outcomes = play(wanted, lambda sentence: print(sentence, flush=True), directory=Path(directory))
    except LabError as error:
        sys.exit(error.with_log_tail())
    if len(wanted) == len(CASES):
        report.write(outcomes.values())
        print(f"written: {report.FIGURES}, {report.PAGE}")
    failed = [outcome for outcome in outcomes.values() if outcome.failure is not None]
    for outcome in failed:
        print(f"\n=== {outcome.case.id} ===\n{outcome.failure}")
    print(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
