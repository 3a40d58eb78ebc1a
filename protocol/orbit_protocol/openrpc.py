"""The OpenRPC document of the method table (OpenRPC specification 1.3.2)."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import msgspec

from orbit_protocol import VERSION
from orbit_protocol.errors import OrbitError
from orbit_protocol.methods import ANY_METHOD, METHODS, Method

_REF = "#/components/schemas/{name}"


@functools.cache
def document() -> dict[str, Any]:
    """Return the document. It is the same object each time; do not change it."""
    methods = list(METHODS.values())
    kinds = [kind for method in methods for kind in (method.params, method.result)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    pairs = zip(schemas[::2], schemas[1::2], strict=True)
    errors = {error.__name__: _error(error) for method in methods for error in (*ANY_METHOD, *method.errors)}
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "Orbit",
            "version": VERSION,
            "description": "Terminal sessions that last, over newline-delimited JSON on a Unix socket.",
            "license": {"name": "MIT"},
        },
        "methods": [_method(method, components, result) for method, (_, result) in zip(methods, pairs, strict=True)],
        "components": {"schemas": components, "errors": errors},
    }


def _method(method: Method[Any, Any], components: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    params = components[method.params.__name__]
    required = params.get("required", [])
    described = [
        {"name": name, "required": name in required, "schema": schema}
        for name, schema in params.get("properties", {}).items()
    ]
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": sorted(described, key=lambda param: not param["required"]),
        "result": {"name": "result", "schema": result},
        "errors": [{"$ref": f"#/components/errors/{error.__name__}"} for error in (*method.errors, *ANY_METHOD)],
    }


def _error(error: type[OrbitError]) -> dict[str, Any]:
    summary = (error.__doc__ or "").strip().splitlines()[0]
    data = {"kind": error.kind, "hint": error.default_hint, "retryable": error.retryable}
    return {"code": error.code, "message": summary, "data": data}
