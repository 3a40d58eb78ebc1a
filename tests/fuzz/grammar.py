"""What is sent to the daemon under fuzzing: params from the method table, requests, batches, damage.

Everything is drawn from the OpenRPC document, so a method that is added later is covered at
once. `World` holds real ids, so that drawn calls reach the store and not only its door.
What could harm the machine that runs the tests is drawn in harmless forms only: no
shutdown, no backup over a file that is not ours, no program started but cat.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import strategies as st

from orbit_protocol.openrpc import document

SPEC: dict[str, Any] = msgspec.to_builtins(document())
METHODS: dict[str, dict[str, Any]] = {method["name"]: method for method in SPEC["methods"]}
SCHEMAS: dict[str, Any] = SPEC["components"]["schemas"]
FORBIDDEN = {"daemon.shutdown"}
"""Never drawn: it does what it says."""
WAITING = {"session.wait", "events.wait"}
UNMUTATED = {"maintenance.backup", "session.start", *WAITING}
"""Drawn as they are in `_harmless`, and never damaged: one byte more could name another file, or wait for ever."""
DRAWN = sorted(set(METHODS) - FORBIDDEN)
MUTABLE = sorted(set(DRAWN) - UNMUTATED)


@dataclass(frozen=True)
class World:
    """Ids that exist, by the kind of thing; the session that runs cat; and a folder that may be written."""

    ids: dict[str, list[str]]
    live: str
    folder: str


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
IDS: st.SearchStrategy[Any] = (
    st.integers()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.none()
)
NOT_IDS: st.SearchStrategy[Any] = st.booleans() | st.lists(st.integers(), max_size=2) | st.just({"id": 1})


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return SCHEMAS[schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema


def _string(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if schema.get("format") == "date-time":
        moments = st.sampled_from(["2000-01-01T00:00:00Z", "2020-02-29T23:59:60+14:00", "0001-01-01T00:00:00-01:00"])
        return moments | st.datetimes().map(lambda moment: moment.isoformat() + "Z")
    if schema.get("contentEncoding") == "base64":
        return st.binary(max_size=64).map(lambda data: base64.b64encode(data).decode()) | st.text(max_size=8)
    least, most = schema.get("minLength", 0), schema.get("maxLength", 64)
    edges = ["x" * most, "é" * most, "x" * (most + 1), "x" * max(least - 1, 0)]
    return st.text(max_size=min(most, 40)) | st.sampled_from(edges if most <= 4096 else [""])


def _integer(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63)
    return st.integers(low, high) | st.sampled_from([low - 1, low, high, high + 1, 2**64, 2**200])


def fitting(schema: dict[str, Any], world: World) -> st.SearchStrategy[Any]:
    """Draw what a schema describes, near its edges, and now and then just over them."""
    if "anyOf" in schema:
        return st.one_of([fitting(one, world) for one in schema["anyOf"]])
    one = _resolved(schema)
    if "enum" in one:
        return st.sampled_from(one["enum"])
    if one.get("type") == "object" and "properties" in one:
        required = set(one.get("required", []))
        fields = {name: field_value(name, field, world) for name, field in one["properties"].items()}
        return st.fixed_dictionaries(
            {name: value for name, value in fields.items() if name in required},
            optional={name: value for name, value in fields.items() if name not in required},
        )
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "string": _string(one),
        "integer": _integer(one),
        "number": st.floats(0, 1),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    if one.get("type") == "array":
        low, high = one.get("minItems", 0), one.get("maxItems", 4)
        return st.lists(fitting(one["items"], world), min_size=low, max_size=min(4, high))
    return kinds.get(one.get("type", ""), JSON)


def field_value(name: str, schema: dict[str, Any], world: World) -> st.SearchStrategy[Any]:
    """Draw a field's value: for an id often one that exists, for a command nothing that can be run."""
    if name == "command":
        return st.sampled_from(["/nonexistent/program", "/nonexistent/program 'a b'", "'", "", "a\0b"])
    if name == "command_bytes":
        return st.sampled_from([b"/nonexistent/caf\xe9", b"/nonexistent/program", b"", b"a\0b"]).map(_base64)
    if name == "cwd_bytes":
        return st.sampled_from([b"/", b"/nonexistent/caf\xe9", b"", b"relative"]).map(_base64)
    if name == "signal":
        return st.sampled_from(["TERM", "SIGWINCH", "hup"]) | st.text(max_size=17)
    if name == "cwd":
        return st.sampled_from(["/", "/nonexistent", "", "relative"])
    if name in ("id", "ref", "session_id", "workspace_id"):
        known = [one for kind in world.ids.values() for one in kind]
        return st.sampled_from([*known, *(one[:6] for one in known)]) | fitting(schema, world)
    return fitting(schema, world)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def params_of(method: str, world: World) -> st.SearchStrategy[Any]:
    """Draw params that fit a method, or nearly."""
    if method in UNMUTATED:
        return _harmless(method, world)
    described = METHODS[method]["params"]
    own, _, verb = method.partition(".")
    spared = -1 if verb == "delete" else 0  # only the last of a kind is ever deleted: calls shall find something
    ids = st.sampled_from(world.ids[own][spared:]) if own in world.ids else None
    fields = {
        param["name"]: ids
        if ids is not None and param["name"] == "id"
        else field_value(param["name"], param["schema"], world)
        for param in described
    }
    required = {param["name"] for param in described if param["required"]}
    return st.fixed_dictionaries(
        {name: value for name, value in fields.items() if name in required},
        optional={name: value for name, value in fields.items() if name not in required},
    )


def _harmless(method: str, world: World) -> st.SearchStrategy[Any]:
    if method == "maintenance.backup":
        return st.sampled_from([{"path": f"{world.folder}/copy.db"}, {"path": "relative"}, {"path": 7}, {}])
    one = st.fixed_dictionaries({"id": st.just(world.live) | st.text(max_size=8)})
    if method in WAITING:
        one = one if method == "session.wait" else st.fixed_dictionaries({}, optional={"since": st.text(max_size=8)})
        return one.flatmap(lambda params: st.floats(-0.01, 0.03).map(lambda secs: {**params, "timeout_secs": secs}))
    size = st.integers(0, 70_000)
    return st.one_of(one, st.fixed_dictionaries({"id": st.just(world.live), "cols": size, "rows": size}))


@st.composite
def wild_params(draw: st.DrawFn, method: str, world: World) -> Any:
    """Draw params of which some are missing, of another type, or of no method."""
    params = draw(params_of(method, world))
    if method in UNMUTATED or not draw(st.booleans()):
        return params
    for name in draw(st.lists(st.sampled_from([*params, "extra"]), max_size=2)):
        if draw(st.booleans()):
            params[name] = draw(JSON)
        else:
            params.pop(name, None)
    return params


@st.composite
def requests(draw: st.DrawFn, world: World) -> dict[str, Any]:
    """Draw a request object, of which little or nothing is wrong."""
    method = draw(st.sampled_from(DRAWN))
    request: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": draw(IDS)}
    request["params"] = draw(wild_params(method, world))
    fault = draw(st.sampled_from(["none"] * 6 + ["notification", "no params", "member", "extra", "version", "id"]))
    if fault == "notification":
        del request["id"]
    elif fault == "no params":
        del request["params"]
    elif fault == "member":
        del request[draw(st.sampled_from(sorted(request)))]
    elif fault == "extra":
        request[draw(st.text(max_size=5))] = draw(JSON)
    elif fault == "version":
        request["jsonrpc"] = draw(JSON)
    elif fault == "id":
        request["id"] = draw(NOT_IDS)
    if method == "events.wait":  # which waits for ever without params
        request.setdefault("params", {"timeout_secs": 0.0})
    return request


@st.composite
def damaged(draw: st.DrawFn, world: World) -> bytes:
    """Draw a request's bytes with some of them flipped, left out, doubled or cut off; still one line."""
    method = draw(st.sampled_from(MUTABLE))
    request = {"jsonrpc": "2.0", "method": method, "params": draw(params_of(method, world)), "id": draw(IDS)}
    line = bytearray(json.dumps(request, ensure_ascii=draw(st.booleans())).encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(line) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "drop", "insert", "cut", "double"]))
        if kind == "flip" and line:
            line[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "drop":
            del line[at : at + draw(st.integers(1, 8))]
        elif kind == "insert":
            line[at:at] = draw(st.binary(min_size=1, max_size=6))
        elif kind == "cut":
            del line[at:]
        else:
            line[at:at] = line[at : at + 20]
    return bytes(line).replace(b"\n", b"\t")


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def lines(world: World) -> st.SearchStrategy[bytes]:
    """Draw one line without its ending: a request, a batch, damage, JSON of any kind, bytes of any kind."""
    one = requests(world)
    batches = st.lists(one | NOT_IDS | JSON, max_size=6).map(_encode)
    bombs = st.sampled_from([b"[" * 1500, b'{"a":' * 1500, b'{"id":1,"params":' + b"[" * 1500, b"\0", b"\xff", b"\r"])
    garbage = st.binary(max_size=60).map(lambda data: data.replace(b"\n", b""))
    return st.one_of(one.map(_encode), one.map(_encode), batches, damaged(world), JSON.map(_encode), garbage, bombs)
