"""The OpenRPC document of the method table (OpenRPC specification 1.3.2)."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import msgspec

from orbit_protocol import VERSION
from orbit_protocol.errors import OrbitError
from orbit_protocol.methods import ANY_METHOD, METHODS, Method
from orbit_protocol.notifications import NOTIFICATIONS, Notification

_REF = "#/components/schemas/{name}"


@functools.cache
def document() -> dict[str, Any]:
    """Return the document. It is the same object each time; do not change it."""
    methods = list(METHODS.values())
    kinds = [kind for method in methods for kind in (method.params, method.result)]
    kinds += [notification.params for notification in NOTIFICATIONS]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    results = schemas[1 : 2 * len(methods) : 2]
    errors = {error.__name__: _error(error) for method in methods for error in (*ANY_METHOD, *method.errors)}
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "Orbit",
            "version": VERSION,
            "description": "Terminal sessions that last, over newline-delimited JSON on a Unix socket.",
            "license": {"name": "MIT"},
        },
        "methods": [_method(method, components, result) for method, result in zip(methods, results, strict=True)],
        "x-notifications": [_notification(notification, components) for notification in NOTIFICATIONS],
        "components": {"schemas": components, "errors": errors},
    }


def _method(method: Method[Any, Any], components: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": _described(components[method.params.__name__]),
        "result": {"name": "result", "schema": result},
        "errors": [{"$ref": f"#/components/errors/{error.__name__}"} for error in (*method.errors, *ANY_METHOD)],
    }


def _described(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of a Struct's schema, those that must be given first."""
    required = params.get("required", [])
    described = [
        {"name": name, "required": name in required, "schema": schema}
        for name, schema in params.get("properties", {}).items()
    ]
    return sorted(described, key=lambda param: not param["required"])


def _notification(notification: Notification[Any], components: dict[str, Any]) -> dict[str, Any]:
    """Return what the daemon sends unasked: OpenRPC has no word for it, so that it is an extension of the document."""
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
