"""What runs within the kernel: plays cases one after the other.

`run` boots a kernel and starts this as `python -m tests.interop.program OUTCOMES CACHE CASE...`, with the ids of the
cases. Each outcome is appended to OUTCOMES at once, as a line of JSON: the case's id, null or what went wrong, and how
long it took.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path

from tests.interop.bed import lay
from tests.interop.case import Case, Role
from tests.interop.cases import CASES
from tests.interop.credentials import identities
from tests.interop.events import BOTH, ENDS, they_vanish
from tests.interop.hauberk import Hauberk
from tests.interop.scene import Scene
from tests.interop.stranger import knock
from tests.lab.cache import CACHE_VARIABLE

LOG_BYTES = 20_000


def play(case: Case) -> None:
    """Raises AssertionError, with what both daemons said, when something isn't as it should be."""
    left, right = identities(case.terms.authentication)
    with lay(case.nat) as bed:
        ours, theirs = Hauberk(bed.left, bed.right), case.peer.daemon(case.peer.suite.tree, bed.right, bed.left)
        scene = Scene(
            bed=bed,
            ours=ours,
            theirs=theirs,
            terms=case.terms,
            identities=(left, right),
            initiates=case.role is Role.INITIATOR,
        )
        try:
            theirs.start(case.terms, right, left)
            scene.policies_before = {gateway.name: len(gateway.policies()) for gateway in (bed.left, bed.right)}
            if case.terms.cookie and scene.initiates:
                knock(bed.left, bed.right, case.terms)
            ours.start(case.terms, left, right, initiates=scene.initiates)
            if not scene.initiates:
                theirs.initiate()
            _tell(case, scene)
        except Exception as error:
            logs = f"--- ours ---\n{ours.log()[-LOG_BYTES:]}\n--- theirs ---\n{theirs.log()[-LOG_BYTES:]}"
            raise AssertionError(f"{error!r}\n{logs}") from error
        finally:
            ours.remove()
            theirs.remove()


def _tell(case: Case, scene: Scene) -> None:
    scene.ours.wait_for("IkeSaUp")
    scene.ours.wait_for("ChildSaUp")
    scene.protected()
    case.event(scene)
    if case.event in ENDS:
        if case.event is not they_vanish:
            scene.theirs.relent()
        scene.bare(ENDS[case.event])
        return
    scene.protected()
    scene.ours.quit()
    scene.theirs.relent()
    scene.bare(BOTH)


def main() -> None:
    outcomes, cache, *wanted = sys.argv[1:]
    os.environ[CACHE_VARIABLE] = cache
    by_id = {case.id: case for case in CASES}
    with Path(outcomes).open("a") as file:
        for name in wanted:
            started = time.monotonic()
            try:
                play(by_id[name])
                failure = None
            except Exception:  # noqa: BLE001 - whatever went wrong is the outcome
                failure = traceback.format_exc()
            seconds = round(time.monotonic() - started, 1)
            file.write(json.dumps({"case": name, "failure": failure, "seconds": seconds}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
