"""The OpenRPC document: valid by the meta-schema's rules, and true to the table."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest

from orbit_protocol.descriptions import DESCRIPTIONS, description_of
from orbit_protocol.event_kinds import LIVE_KINDS, STORED_KINDS
from orbit_protocol.methods import METHODS, Method
from orbit_protocol.notifications import NOTIFICATIONS, EventNotice
from orbit_protocol.openrpc import STRUCTS, document

SPEC: dict[str, Any] = msgspec.to_builtins(document())

# The rules of the OpenRPC 1.3.2 meta-schema for the parts of a document that ours has.
_REFERENCE = {"type": "object", "required": ["$ref"], "properties": {"$ref": {"type": "string"}}, "maxProperties": 1}
_DESCRIPTOR = {
    "type": "object",
    "required": ["name", "schema"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "description": {"type": "string"},
        "summary": {"type": "string"},
        "schema": {"type": ["object", "boolean"]},
        "required": {"type": "boolean"},
        "deprecated": {"type": "boolean"},
    },
}
_ERROR = {
    "type": "object",
    "required": ["code", "message"],
    "additionalProperties": False,
    "properties": {"code": {"type": "integer"}, "message": {"type": "string"}, "data": {}},
}
META_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["info", "methods", "openrpc"],
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "properties": {
        "openrpc": {"type": "string", "pattern": r"^1\.3\.\d+$"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "additionalProperties": False,
            "properties": {
                "title": {"type": "string"},
                "description": {"type": "string"},
                "version": {"type": "string"},
                "license": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
        },
        "methods": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "params"],
                "additionalProperties": False,
                "patternProperties": {"^x-": {}},
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "summary": {"type": "string"},
                    "description": {"type": "string"},
                    "paramStructure": {"enum": ["by-position", "by-name", "either"]},
                    "params": {"type": "array", "items": {"oneOf": [_DESCRIPTOR, _REFERENCE]}},
                    "result": {"oneOf": [_DESCRIPTOR, _REFERENCE]},
                    "errors": {"type": "array", "items": {"oneOf": [_ERROR, _REFERENCE]}},
                },
            },
        },
        "components": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "schemas": {"type": "object", "patternProperties": {"^[0-9a-zA-Z-_]+$": {"type": "object"}}},
                "errors": {"type": "object", "additionalProperties": _ERROR},
            },
        },
    },
}


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for child in value.values() for found in references(child)]
    if isinstance(value, list):
        return [found for child in value for found in references(child)]
    return []


def test_the_document_keeps_the_meta_schema() -> None:
    """The document has the members that OpenRPC asks for, and no others."""
    assert list(jsonschema.Draft202012Validator(META_SCHEMA).iter_errors(SPEC)) == []


def test_every_reference_leads_somewhere() -> None:
    """No `$ref` points at a component that is not there."""
    for reference in references(SPEC):
        target: Any = SPEC
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert target


def test_every_component_is_a_json_schema() -> None:
    """Each schema is valid by JSON Schema 2020-12."""
    for schema in SPEC["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_is_described_as_it_is(method: Method[Any, Any]) -> None:
    """Names, order and need of params in the document are those of the Struct; required ones come first."""
    described = next(one for one in SPEC["methods"] if one["name"] == method.name)
    fields = {field.encode_name: field.required for field in msgspec.structs.fields(method.params)}
    assert {param["name"]: param["required"] for param in described["params"]} == fields
    assert [param["required"] for param in described["params"]] == sorted(fields.values(), reverse=True)
    assert described["summary"] == method.summary


def test_the_document_can_be_sent() -> None:
    """Encoding and reading the document again changes nothing."""
    assert msgspec.json.decode(msgspec.json.encode(document())) == SPEC


def test_every_notification_is_described() -> None:
    """What the daemon sends unasked is in the document, with its params and an example that decodes as them."""
    described = {each["name"]: each for each in SPEC["x-notifications"]}
    sessions = ["session.output", "session.repaint", "session.exited", "session.detached"]
    assert list(described) == [*sessions, "event", "events.cursor", "events.ended", "$/progress"]
    for notification in NOTIFICATIONS:
        example = described[notification.name]["example"]
        names = {param["name"] for param in described[notification.name]["params"]}
        assert example["method"] == notification.name
        assert set(example["params"]) <= names
        msgspec.json.decode(msgspec.json.encode(example["params"]), type=notification.params)  # with raw JSON in it


def test_every_field_is_described_once() -> None:
    """Each field of each type says what it means, and no description is of a field that is not there."""
    used = set()
    for name, schema in SPEC["components"]["schemas"].items():
        for field in schema.get("properties", {}):
            assert description_of(STRUCTS[name], field), f"{name}.{field} has no description"
            keys = [f"{one.__name__}.{field}" for one in STRUCTS[name].__mro__] + [field]
            used.add(next(key for key in keys if key in DESCRIPTIONS))
    assert DESCRIPTIONS.keys() - used == set()


def test_a_param_says_what_it_means_and_its_default() -> None:
    """A param that may be left out has its default in its schema, unless none stands for it; each has a description."""
    for method in SPEC["methods"]:
        for param in method["params"]:
            assert param["description"]
            assert param["required"] or "default" in param["schema"] or param["name"].endswith("_bytes")
    attach = next(one for one in SPEC["methods"] if one["name"] == "session.attach")
    assert {one["name"]: one["schema"].get("default") for one in attach["params"]}["frames"] == "auto"
    assert attach["params"][0]["description"] == "The session's full id."


def test_a_method_says_how_it_is_served() -> None:
    """Which methods can wait, overtake others, and are served on connections that are kept back, is in the document."""
    for flag, attribute in (("x-can-wait", "can_wait"), ("x-urgent", "is_urgent"), ("x-in-reserve", "in_reserve")):
        flagged = {one["name"] for one in SPEC["methods"] if one.get(flag)}
        assert flagged == {name for name, method in METHODS.items() if getattr(method, attribute)}


def test_an_error_says_what_to_do() -> None:
    """Every error has a sentence, a kind, and the next step."""
    for error in SPEC["components"]["errors"].values():
        assert error["message"].endswith((".", ").", "."))
        assert error["data"]["kind"]
        assert error["data"]["hint"].endswith(".")


def test_every_kind_of_event_is_described() -> None:
    """Each kind, stored or live, has a sentence and an example that decodes, with data of the schema that it names."""
    described = {each["kind"]: each for each in SPEC["x-events"]}
    assert list(described) == [*STORED_KINDS, *LIVE_KINDS]
    for kind, each in described.items():
        params = each["example"]["params"]
        assert each["summary"]
        assert (params["kind"], params["seq"] is not None) == (kind, each["stored"])
        msgspec.json.decode(msgspec.json.encode(params), type=EventNotice)
        schema = {**each["data"], "components": SPEC["components"]}
        jsonschema.Draft202012Validator(schema).validate(params["data"])
    assert [kind for kind, each in described.items() if each["on_request"]] == ["snapshot.saved"]
