"""What a run leaves behind: build/figures/interop.json for programs, docs/reference/interop.md for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.interop.case import PEERS, Case, Peer, Role
from tests.interop.reasons import REASONS, allowances, reasons
from tests.interop.run import Outcome

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = REPOSITORY / "build" / "figures" / "interop.json"
PAGE = REPOSITORY / "docs" / "reference" / "interop.md"

_INTRODUCTION = """# Interoperability

`make interop` plays Hauberk's IKEv2 (`hauberk-ike`) against the daemons below, as Debian builds them, and writes this
page. Everything is real: two gateways in network namespaces of a User-Mode Linux kernel, pods behind them, the foreign
daemon on one and ours on the other. In every case pings between the pods pass before and after the event, a capture
between the gateways shows ESP and no ping in clear, each kernel has exactly one SA a direction that counts them, the
same at both ends, and nothing is left in either kernel afterwards. While SAs are rekeyed or reauthenticated, by
whomever, a hundred pings a second go on, and none of them is lost. But where we reauthenticate, our peer may send on
the new CHILD SA before its answer has reached us: three at most may be lost then, which our kernel must have counted.

*initiator* and *responder* say which of our roles passed; *both* is both. A dash: the daemon can't. The numbers lead to
the reasons beneath the table, and to what is let pass.
"""


def write(outcomes: Iterable[Outcome]) -> None:
    """Writes both, of a run of all cases."""
    outcomes = list(outcomes)
    figures = [
        {
            "peer": outcome.case.peer.name,
            "version": outcome.case.peer.version,
            "role": outcome.case.role.value,
            "case": outcome.case.name,
            "passed": outcome.failure is None,
            "seconds": outcome.seconds,
        }
        for outcome in outcomes
    ]
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    versions = {peer: peer.version for peer in PEERS}
    passed = {outcome.case for outcome in outcomes if outcome.failure is None}
    PAGE.write_text(page([outcome.case for outcome in outcomes], passed, versions))


def page(cases: list[Case], passed: set[Case], versions: Mapping[Peer, str]) -> str:
    """The page. Where a case failed it says so."""
    heads = [f"{peer.name} {versions[peer]}" for peer in PEERS]
    summary = f"{len(passed)} of {len(cases)} cases passed."
    return "\n".join(
        (
            _INTRODUCTION,
            summary,
            "",
            _row(["case", *heads]),
            _row(["---"] * (1 + len(heads))),
            *rows(cases, passed),
            "",
            *(f"{number}. {reason.text}" for number, reason in enumerate(REASONS, 1)),
            "",
        )
    )


def rows(cases: list[Case], passed: set[Case]) -> list[str]:
    """The table's rows, one a case of whatever peer and role, in the order of the first."""
    names = dict.fromkeys(case.name for case in cases)
    return [
        _row(
            [
                name,
                *(_cell(name, peer, [case for case in cases if case.name == name], passed) for peer in PEERS),
            ]
        )
        for name in names
    ]


def _cell(name: str, peer: Peer, row: list[Case], passed: set[Case]) -> str:
    """What passed, and the numbers of the reasons why that is not all, or of what was let pass."""
    cases = [case for case in row if case.peer == peer]
    failed = [case.role.value for case in cases if case not in passed]
    if failed:
        return f"fails as {' and '.join(failed)}"
    word = "-" if not cases else "both" if is_whole(cases) else cases[0].role.value
    given = (*reasons(name, peer), *(allowances(name, peer) if cases else ()))
    numbers = ", ".join(str(1 + REASONS.index(reason)) for reason in given)
    return f"{word} ({numbers})" if numbers else word


def is_whole(cases: list[Case]) -> bool:
    """Whether cases of one row and daemon are in both roles."""
    return {case.role for case in cases} == set(Role)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
