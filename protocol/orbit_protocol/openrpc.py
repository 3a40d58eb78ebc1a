"""The OpenRPC document of the method table (OpenRPC specification 1.3.2).

What OpenRPC has no word for stands in extensions: which methods can wait (`x-can-wait`), are urgent (`x-urgent`) and
are served on connections that are kept back (`x-in-reserve`), what the daemon sends unasked (`x-notifications`), and
the kinds of events (`x-events`).
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import msgspec

from orbit_protocol import PROTOCOL_VERSION, VERSION
from orbit_protocol.descriptions import description_of
from orbit_protocol.errors import OrbitError
from orbit_protocol.event_data import data_types, describe_kinds
from orbit_protocol.methods import ANY_METHOD, METHODS, Method
from orbit_protocol.notifications import NOTIFICATIONS, Notification

_THINGS = ("session", "snapshot", "workspace")
_REF = "#/components/schemas/{name}"
_MODULES = {f"orbit_protocol.{name}" for name in ("types", "params", "results", "notifications", "event_data")}


def _structs() -> dict[str, type[msgspec.Struct]]:
    """Return every Struct of the contract by its name, which is that of its schema."""
    found: dict[str, type[msgspec.Struct]] = {}
    below = [msgspec.Struct]
    while below:
        children = below.pop().__subclasses__()
        below += children
        found |= {child.__name__: child for child in children if child.__module__ in _MODULES}
    return found


STRUCTS = _structs()


@functools.cache
def document() -> dict[str, Any]:
    """Return the document. It is the same object each time; do not change it."""
    methods = list(METHODS.values())
    kinds = [kind for method in methods for kind in (method.params, method.result)]
    kinds += [notification.params for notification in NOTIFICATIONS]
    schemas, components = msgspec.json.schema_components([*kinds, *data_types()], ref_template=_REF)
    for name, schema in components.items():
        _describe(STRUCTS[name], schema)
    results = schemas[1 : 2 * len(methods) : 2]
    errors = {error.__name__: _error(error) for method in methods for error in (*ANY_METHOD, *method.errors)}
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "Orbit",
            "version": VERSION,
            "description": f"Terminal sessions that last, over JSON-RPC 2.0 on a Unix socket: a line a message, or "
            f"behind Content-Length headers. This is version {PROTOCOL_VERSION} of the protocol.",
            "license": {"name": "MIT"},
        },
        "methods": [_method(method, components, result) for method, result in zip(methods, results, strict=True)],
        "x-notifications": [_notification(notification, components) for notification in NOTIFICATIONS],
        "x-events": describe_kinds(_REF),
        "components": {"schemas": components, "errors": errors},
    }


def _describe(struct: type[msgspec.Struct], schema: dict[str, Any]) -> None:
    """Add what a Struct and its fields mean to its schema."""
    schema["description"] = inspect.cleandoc(struct.__doc__ or "")
    for name, field in schema.get("properties", {}).items():
        if description := description_of(struct, name):
            # The words of a type, as that an id is a UUID, are of less use than what this one is of.
            field["description"] = description


def _method(method: Method[Any, Any], components: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    flags = {"x-can-wait": method.can_wait, "x-urgent": method.is_urgent, "x-in-reserve": method.in_reserve}
    params = components[method.params.__name__]
    return {
        "name": method.name,
        "summary": method.summary,
        "description": params["description"] if params.get("properties") else method.summary,
        "paramStructure": "by-name",
        "params": [_about(method, param) for param in _described(params)],
        "result": {"name": "result", "schema": result},
        "errors": [{"$ref": f"#/components/errors/{error.__name__}"} for error in (*method.errors, *ANY_METHOD)],
        **{name: True for name, is_so in flags.items() if is_so},
    }


def _about(method: Method[Any, Any], param: dict[str, Any]) -> dict[str, Any]:
    """Say what an id is of that many methods take."""
    group = method.name.partition(".")[0]
    return {**param, "description": f"The {group}'s full id."} if param["name"] == "id" and group in _THINGS else param


def _described(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of a Struct's schema, those that must be given first."""
    required = params.get("required", [])
    described = [
        {"name": name, "description": schema.get("description", ""), "required": name in required, "schema": schema}
        for name, schema in params.get("properties", {}).items()
    ]
    return sorted(described, key=lambda param: not param["required"])


def _notification(notification: Notification[Any], components: dict[str, Any]) -> dict[str, Any]:
    schema = components[notification.params.__name__]
    return {
        "name": notification.name,
        "summary": notification.summary,
        "description": schema.get("description", ""),
        "params": _described(schema),
        "example": {"jsonrpc": "2.0", "method": notification.name, "params": notification.example},
    }


def _error(error: type[OrbitError]) -> dict[str, Any]:
    summary = (error.__doc__ or "").strip().splitlines()[0]
    data = {"kind": error.kind, "hint": error.default_hint, "retryable": error.retryable}
    return {"code": error.code, "message": summary, "data": data}
