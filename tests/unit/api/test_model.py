"""What all API models do: parse strictly, write sparsely, never change, keep silent about what may be large."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hauberk_api.node import NodeSpec, Role, peers
from hauberk_api.plan import Plan
from hauberk_api.report import WORST_FIRST, UnwellReason
from hauberk_api.tunnel import Esp, TunnelSpec


def test_fields_are_camel_case_on_the_wire() -> None:
    node = NodeSpec.from_object({"nodeUID": "u", "addresses": ["192.0.2.1"], "podCIDRs": ["10.0.0.0/24"]})
    assert (node.node_uid, node.pod_cidrs) == ("u", ("10.0.0.0/24",))
    assert node.to_object() == {
        "nodeUID": "u", "addresses": ["192.0.2.1"], "podCIDRs": ["10.0.0.0/24"], "memberships": [],
    }  # fmt: skip


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    assert TunnelSpec.from_object({"quantum": True, "esp": {"entangled": 1}}) == TunnelSpec()


def test_what_is_absent_is_not_written() -> None:
    written = TunnelSpec().to_object()
    assert "hubSelector" not in written
    assert "rekeyBytes" not in written["esp"]
    assert Esp(rekey_bytes=1).to_object()["rekeyBytes"] == 1


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"topology": "Ring"}, ("topology",)),
        ({"esp": {"rekeySeconds": "soon"}}, ("esp", "rekeySeconds")),
        ({"traffic": {"overlay": {"port": 1}}}, ("traffic", "overlay", "protocol")),
        (None, ()),
        ("spec", ()),
    ],
)
def test_a_fault_names_the_field_as_people_write_it(data: object, field: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        TunnelSpec.from_object(data)
    assert refused.value.errors()[0]["loc"] == field


def test_models_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TunnelSpec().topology = "FullMesh"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_plan_in_a_log_does_not_spell_out_the_trust_bundle() -> None:
    assert "PEM" not in repr(Plan(generation=1, trust_bundle="PEM"))


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        (Role.MEMBER, Role.MEMBER, True),
        (Role.HUB, Role.HUB, True),
        (Role.HUB, Role.SPOKE, True),
        (Role.SPOKE, Role.HUB, True),
        (Role.SPOKE, Role.SPOKE, False),
    ],
)
def test_all_peer_but_two_spokes(one: Role, other: Role, wanted: bool) -> None:
    assert peers(one, other) is wanted


def test_every_reason_to_be_unwell_has_its_place_in_the_order() -> None:
    assert set(WORST_FIRST) == set(UnwellReason)
    assert WORST_FIRST[-1] is UnwellReason.ESTABLISHING
