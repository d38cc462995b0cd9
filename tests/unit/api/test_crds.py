"""The schemas in crds/*.yaml and the models of hauberk_api say the same, in both directions."""

from __future__ import annotations

import re
from enum import Enum
from itertools import chain, product
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk_api.conditions import Condition
from hauberk_api.kinds import (
    GROUP,
    MESH_KIND,
    MESH_NAME,
    MESHES,
    NODE_KIND,
    NODES,
    REPORT_KIND,
    REPORTS,
    TUNNEL_KIND,
    TUNNELS,
    VERSION,
)
from hauberk_api.mesh import MeshSpec
from hauberk_api.model import Model
from hauberk_api.node import NodeSpec
from hauberk_api.plan import Plan
from hauberk_api.report import MAX_UNWELL, ReportStatus
from hauberk_api.tunnel import DEFAULT_ESP_PROPOSALS, DEFAULT_IKE_PROPOSALS, TunnelSpec
from hauberk_ike.algorithms import ENCRYPTIONS, ESNS, INTEGRITIES, KEY_EXCHANGES, PRFS
from hauberk_ike.proposals import EspProposal, IkeProposal
from tests.unit.api.schema import Json, completed, definition, definitions, fields, schema, without_empty

_TYPES: dict[Any, str] = {str: "string", int: "integer", bool: "boolean"}

_MODELS: list[tuple[type[Model], Json]] = [
    (TunnelSpec, schema(TUNNEL_KIND, "spec")),
    (MeshSpec, schema(MESH_KIND, "spec")),
    (Plan, schema(MESH_KIND, "status", "plan")),
    (NodeSpec, schema(NODE_KIND, "spec")),
    (ReportStatus, schema(REPORT_KIND, "status")),
    (Condition, schema(TUNNEL_KIND, "status", "conditions")["items"]),
    (Condition, schema(MESH_KIND, "status", "conditions")["items"]),
]


def _differences(model: type[Model], node: Json, path: str) -> list[str]:
    """Where a model and a schema disagree: fields, types, enums, what is required."""
    found: list[str] = []
    aliases = {info.alias or name: info for name, info in model.model_fields.items()}
    properties: Json = node["properties"]
    found += [f"{path}.{name}: only in the schema" for name in properties.keys() - aliases.keys()]
    for alias, info in aliases.items():
        where = f"{path}.{alias}"
        if alias not in properties:
            found.append(f"{where}: only in the model")
            continue
        found += _type_differences(info.annotation, properties[alias], where)
        if info.is_required() and alias not in node.get("required", ()):
            found.append(f"{where}: required by the model, not by the schema")
    return found


def _type_differences(annotation: Any, node: Json, where: str) -> list[str]:
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (a for a in get_args(annotation) if a is not NoneType)
    if get_origin(annotation) is tuple:
        if node["type"] != "array":
            return [f"{where}: an array in the model, {node['type']} in the schema"]
        return _type_differences(get_args(annotation)[0], node["items"], f"{where}[]")
    if get_origin(annotation) is dict:
        return _type_differences(get_args(annotation)[1], node["additionalProperties"], f"{where}{{}}")
    if issubclass(annotation, Model):
        return _differences(annotation, node, where)
    if issubclass(annotation, Enum):
        values = [member.value for member in annotation]
        return (
            [] if node.get("enum") == values else [f"{where}: {values} in the model, {node.get('enum')} in the schema"]
        )
    wanted = _TYPES[annotation]
    return [] if node["type"] == wanted else [f"{where}: {wanted} in the model, {node['type']} in the schema"]


@pytest.mark.parametrize(("model", "node"), _MODELS, ids=lambda v: v.__name__ if isinstance(v, type) else "")
def test_model_and_schema_have_the_same_fields_types_and_values(model: type[Model], node: Json) -> None:
    assert _differences(model, node, model.__name__) == []


@pytest.mark.parametrize(("model", "kind"), [(TunnelSpec, TUNNEL_KIND), (MeshSpec, MESH_KIND)])
def test_an_empty_spec_means_the_same_to_the_api_server_and_to_us(model: type[Model], kind: str) -> None:
    bare: list[Json] = [{}, {"spec": {}}]
    for written in bare:
        stored = completed(schema(kind), written)
        assert model.from_object(stored["spec"]) == model()
        assert without_empty(stored["spec"]) == without_empty(model().to_object())


@pytest.mark.parametrize(("model", "kind"), [(TunnelSpec, TUNNEL_KIND), (MeshSpec, MESH_KIND)])
def test_each_default_of_a_part_is_the_default_of_the_model(model: type[Model], kind: str) -> None:
    """A part given in part is completed by the schema just as by the model."""
    for name, info in model.model_fields.items():
        part: Any = info.annotation
        if isinstance(part, type) and issubclass(part, Model) and not info.is_required():
            alias = info.alias or name
            stored = completed(schema(kind, "spec", alias), {})
            assert part.from_object(stored) == part()


def test_default_proposals_are_those_of_the_model() -> None:
    spec = schema(TUNNEL_KIND, "spec")["properties"]
    assert tuple(spec["ike"]["properties"]["proposals"]["default"]) == DEFAULT_IKE_PROPOSALS
    assert tuple(spec["esp"]["properties"]["proposals"]["default"]) == DEFAULT_ESP_PROPOSALS


def test_statuses_have_no_defaults() -> None:
    """A default in a status would be there after every write, and the operator, comparing, would write for ever."""
    for found in definitions():
        status = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
        assert [path for path, field in fields(status) if "default" in field] == []


@pytest.mark.parametrize(
    ("kind", "plural", "short"),
    [
        (TUNNEL_KIND, TUNNELS, "ipt"),
        (MESH_KIND, MESHES, "ipm"),
        (NODE_KIND, NODES, "ipn"),
        (REPORT_KIND, REPORTS, "ipr"),
    ],
)
def test_kinds_are_named_as_the_programs_name_them(kind: str, plural: str, short: str) -> None:
    found = definition(kind)
    names = found["spec"]["names"]
    (version,) = found["spec"]["versions"]
    assert found["metadata"]["name"] == f"{plural}.{GROUP}"
    assert (found["spec"]["group"], found["spec"]["scope"], version["name"]) == (GROUP, "Cluster", VERSION)
    assert (names["plural"], names["shortNames"], names["categories"]) == (plural, [short], ["hauberk"])
    assert version["subresources"] == {"status": {}}


def test_every_field_is_described() -> None:
    for found in definitions():
        top = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        bare = [path for path, field in fields(top) if not field.get("description")]
        assert bare == [".metadata"], "the API server takes no description there, and wants one everywhere else"


def test_everything_in_a_spec_is_bounded() -> None:
    """Rules over unbounded lists and strings cost too much, and objects would grow as large as etcd lets them."""
    for found in definitions():
        top = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        for path, field in fields(top.get("spec", {})):
            bounds = {
                "array": "maxItems",
                "string": "maxLength",
                "object": "maxProperties" if "additionalProperties" in field else "type",
            }
            assert field["type"] not in bounds or bounds[field["type"]] in field or "enum" in field, path


def test_every_rule_has_a_sentence_that_says_what_to_do() -> None:
    for found in definitions():
        top = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for path, field in chain([("", top)], fields(top)):
            for rule in field.get("x-kubernetes-validations", ()):
                sentence = rule.get("message") or rule["messageExpression"]
                assert re.search(r":|;|,", sentence), (path, sentence)
                assert "\n" not in sentence, (path, sentence)


def test_columns_show_fields_that_there_are() -> None:
    for found in definitions():
        (version,) = found["spec"]["versions"]
        known = {path for path, _ in fields(version["schema"]["openAPIV3Schema"])} | {".metadata.creationTimestamp"}
        for column in version["additionalPrinterColumns"]:
            path = re.sub(r"\[[^\]]*\]", "[]", column["jsonPath"])
            assert path in known, column


def test_the_only_mesh_is_the_one_that_the_programs_use() -> None:
    (rule,) = schema(MESH_KIND)["x-kubernetes-validations"]
    assert rule["rule"] == f"self.metadata.name == '{MESH_NAME}'"


def test_reports_are_bounded_as_agreed() -> None:
    assert schema(REPORT_KIND, "status", "unwell")["maxItems"] == MAX_UNWELL


def _pattern(part: str) -> re.Pattern[str]:
    """What the schema takes for a proposal."""
    (rule,) = schema(TUNNEL_KIND, "spec", part, "proposals")["items"]["x-kubernetes-validations"]
    found = re.fullmatch(r"self\.matches\('(.*)'\)", rule["rule"])
    assert found is not None
    return re.compile(found[1])


def test_all_algorithms_that_the_agent_has_are_admitted() -> None:
    ciphers = [cipher.word for cipher in ENCRYPTIONS.values() if cipher.is_aead]
    beside = ["-".join(pair) for pair in product(ENCRYPTIONS.keys() - ciphers, INTEGRITIES)]
    for words in (*product(ciphers, PRFS, KEY_EXCHANGES), *product(beside, PRFS, KEY_EXCHANGES)):
        assert _pattern("ike").search("-".join(words)), words
    classical = [method for method in KEY_EXCHANGES if not method.startswith("mlkem")]
    hybrid = [f"ke1_{method}" for method in KEY_EXCHANGES if method.startswith("mlkem")]
    for words in product((ciphers[0], beside[0]), PRFS, classical, hybrid):
        assert _pattern("ike").search("-".join(words)), words
    for words in product((*ciphers, *beside), ESNS):
        assert _pattern("esp").search("-".join(words)), words
    for method in KEY_EXCHANGES:
        assert _pattern("esp").search(f"aes128gcm16-{method}-esn"), method


def test_additional_key_exchanges_are_admitted() -> None:
    for additional in ("ke1_mlkem768", "ke1_mlkem1024", "ke1_mlkem768-ke1_none", "ke1_mlkem1024-ke1_mlkem768"):
        assert _pattern("ike").search(f"aes256gcm16-prfsha384-x25519-{additional}"), additional
        assert _pattern("esp").search(f"aes256gcm16-x25519-{additional}-esn"), additional
        assert not _pattern("ike").search(f"aes256gcm16-prfsha384-{additional}"), additional
        assert not _pattern("esp").search(f"aes256gcm16-{additional}-esn"), additional


@settings(deadline=None)
@given(
    ike=st.from_regex(_pattern("ike"), fullmatch=True),
    esp=st.from_regex(_pattern("esp"), fullmatch=True),
)
def test_what_is_admitted_the_agent_understands(ike: str, esp: str) -> None:
    IkeProposal.parse(ike)
    EspProposal.parse(esp)


def test_a_difference_between_model_and_schema_is_found() -> None:

    class Other(Model):
        mode: int = 0
        unknown: str = ""

    found = _differences(Other, schema(TUNNEL_KIND, "spec"), "Other")
    assert "Other.unknown: only in the model" in found
    assert "Other.mode: integer in the model, string in the schema" in found
    assert "Other.topology: only in the schema" in found
