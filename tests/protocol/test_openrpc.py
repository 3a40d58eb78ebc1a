"""The OpenRPC document: valid by the meta-schema's rules, and true to the table."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest

from orbit_protocol.methods import METHODS, Method
from orbit_protocol.notifications import NOTIFICATIONS
from orbit_protocol.openrpc import document

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
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "summary": {"type": "string"},
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
