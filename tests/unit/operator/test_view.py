"""Events come late, doubled or not at all; the view still ends up right."""

from __future__ import annotations

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk_operator.facts import NodeFacts, ReportFacts
from hauberk_operator.view import Table
from tests.unit.operator.builders import carries, node, node_json, report_json


def table(*facts: NodeFacts) -> Table[NodeFacts]:
    made: Table[NodeFacts] = Table()
    for one in facts:
        made.put(one)
    return made


def test_a_heartbeat_is_no_change() -> None:
    nodes = table(node("n1", version=1))
    assert not nodes.put(node("n1", version=2))
    assert nodes["n1"].resource_version == 2


def test_a_changed_object_is_a_change() -> None:
    assert table(node("n1", version=1)).put(node("n1", version=2, labels={"pool": "blue"}))


def test_a_late_event_does_not_undo_a_newer_version() -> None:
    nodes = table(node("n1", version=5, labels={"pool": "blue"}))
    assert not nodes.put(node("n1", version=4))
    assert nodes["n1"].labels["pool"] == "blue"


def test_a_late_event_does_not_revive_what_has_ended() -> None:
    nodes = table(node("n1", version=5))
    assert nodes.remove("n1", 6)
    assert not nodes.put(node("n1", version=5))
    assert not nodes


def test_an_object_of_the_same_name_made_later_stays() -> None:
    nodes = table(node("n1", uid="new", version=9))
    assert not nodes.remove("n1", 6)
    assert nodes["n1"].uid == "new"


def test_a_listing_mends_what_events_missed() -> None:
    nodes = table(node("n1", version=1), node("gone", version=2))
    assert nodes.replace([node("n1", version=1), node("n3", version=3)], 10)
    assert set(nodes) == {"n1", "n3"}
    assert not nodes.replace([node("n1", version=1), node("n3", version=3)], 11)


def test_what_is_younger_than_a_listing_stays() -> None:
    nodes = table(node("n9", version=12))
    assert nodes.remove("n1", 13) is False
    nodes.replace([node("n1", version=1)], 10)
    assert set(nodes) == {"n9"}, "n1 ended at 13, after the listing was made"


_versions = st.lists(
    st.tuples(st.sampled_from(["put", "remove"]), st.integers(1, 20)), min_size=1, max_size=12, unique_by=lambda e: e[1]
)


@settings(max_examples=50)
@given(_versions, st.randoms(use_true_random=False))
def test_in_whatever_order_events_come_the_newest_counts(history: list[tuple[str, int]], order: random.Random) -> None:
    shuffled = list(history)
    order.shuffle(shuffled)
    nodes: Table[NodeFacts] = Table()
    for what, version in shuffled:
        if what == "put":
            nodes.put(node("n1", version=version))
        else:
            nodes.remove("n1", version)
    what, version = max(history, key=lambda event: event[1])
    found = nodes.get("n1")
    assert (found.resource_version if found else None) == (version if what == "put" else None)


def test_what_thousands_of_objects_have_in_common_is_kept_once() -> None:
    """The text of JSON is new each time: a mesh of 5,000 would hold all of it 5,000 times."""
    one, other = (
        NodeFacts.parse(json.loads(json.dumps(node_json(name, labels={"zone": "north by northwest"}))))
        for name in ("n1", "n2")
    )
    assert one.labels["zone"] is other.labels["zone"]
    lines = [carries()]
    reports = [
        ReportFacts.parse(json.loads(json.dumps(report_json(name, tunnels=lines, bundle=["aa"]))))
        for name in ("n1", "n2")
    ]
    first, second = (report.status for report in reports)
    assert first is not None
    assert second is not None
    assert (first.kernel is second.kernel, first.tunnels is second.tunnels, first.bundle is second.bundle) == (
        True,
    ) * 3
    assert first.node_uid != second.node_uid
