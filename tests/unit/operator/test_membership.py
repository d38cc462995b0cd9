"""Label selectors mean what they mean elsewhere in Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from hauberk_api.node import Role
from hauberk_api.tunnel import LabelSelector, TunnelSpec
from hauberk_operator.membership import matches, select_members
from tests.unit.operator.builders import node

LABELS = {"pool": "blue", "zone": "a"}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"pool": "blue"}}, True),
        ({"matchLabels": {"pool": "blue", "zone": "b"}}, False),
        ({"matchExpressions": [{"key": "pool", "operator": "In", "values": ["red", "blue"]}]}, True),
        ({"matchExpressions": [{"key": "pool", "operator": "In", "values": ["red"]}]}, False),
        ({"matchExpressions": [{"key": "none", "operator": "In", "values": ["red"]}]}, False),
        ({"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["red"]}]}, True),
        ({"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["blue"]}]}, False),
        ({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["red"]}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "none", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "Resembles", "values": ["a"]}]}, False),
        (
            {
                "matchLabels": {"pool": "blue"},
                "matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}],
            },
            False,
        ),
    ],
)
def test_selectors(selector: dict[str, Any], selected: bool) -> None:
    assert matches(LabelSelector.from_object(selector), LABELS) is selected


def test_only_linux_nodes_are_members() -> None:
    nodes = [node("n1"), node("n2", system="windows"), node("n3")]
    assert select_members(TunnelSpec(), nodes) == {"n1": Role.MEMBER, "n3": Role.MEMBER}


def test_hubs_are_those_members_that_the_hub_selector_matches() -> None:
    spec = TunnelSpec.from_object(
        {
            "topology": "HubAndSpoke",
            "nodeSelector": {"matchLabels": {"pool": "blue"}},
            "hubSelector": {"matchLabels": {"hub": "yes"}},
        }
    )
    nodes = [
        node("n1", labels={"pool": "blue", "hub": "yes"}),
        node("n2", labels={"pool": "blue"}),
        node("n3", labels={"hub": "yes"}),
    ]
    assert select_members(spec, nodes) == {"n1": Role.HUB, "n2": Role.SPOKE}
