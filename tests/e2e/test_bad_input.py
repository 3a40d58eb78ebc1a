"""Bad input, drawn from the method table: a method added later is covered at once.

For every param of every method the document's schema tells what it may hold; everything
else is tried against the real daemon. A refusal names the field and changes nothing.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbit_protocol.errors import ALL_ERRORS
from orbit_protocol.openrpc import document
from support import DaemonProcess, RawClient

SPEC: dict[str, Any] = msgspec.to_builtins(document())
METHODS: dict[str, dict[str, Any]] = {method["name"]: method for method in SPEC["methods"]}
SCHEMAS: dict[str, Any] = SPEC["components"]["schemas"]
CODES = {error.code for error in ALL_ERRORS}
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
NOT_FOUND = {"session": 1000, "snapshot": 1100, "workspace": 1200}


class World:
    """A daemon with one of everything, and a connection to it."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.workspace = client.call(
            "workspace.create", name="a workspace", layout={"layout_type": "grid", "config": {"b": 1, "a": 2}}
        )["id"]
        self.session = client.call(
            "session.create", config={"session_type": "local", "workspace_id": self.workspace}, name="a session"
        )["id"]
        self.snapshot = client.call(
            "snapshot.save", session_id=self.session, terminal_buffer=base64.b64encode(b"screen").decode()
        )["id"]
        self.ids = {"session": self.session, "snapshot": self.snapshot, "workspace": self.workspace}

    def state(self) -> Any:
        """Everything that a refused call must not have changed."""
        every = ["active", "detached", "terminated", "archived"]
        return [
            self.client.call("session.list", status=every),
            self.client.call("workspace.list"),
            self.client.call("snapshot.list", session_id=self.session),
        ]

    def valid(self, method: str, name: str, schema: dict[str, Any]) -> Any:
        """Return a value that the param may hold."""
        known = {
            "id": self.ids.get(method.split(".")[0], ""),
            "session_id": self.session,
            "workspace_id": self.workspace,
            "ref": self.ids.get(method.split(".")[0], ""),
            "path": "/nonexistent/backup.db",
            "signal": "TERM",
        }
        return known[name] if name in known else example(schema)

    def valid_params(self, method: str) -> dict[str, Any]:
        """Return the least params that fit the method."""
        required = [param for param in METHODS[method]["params"] if param["required"]]
        return {param["name"]: self.valid(method, param["name"], param["schema"]) for param in required}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    home = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
    daemon = DaemonProcess(home).start()
    with daemon.client() as client:
        yield World(client)
    daemon.kill()
    shutil.rmtree(home)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return SCHEMAS[schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema


def choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [resolved(one) for one in schema["anyOf"]] if "anyOf" in schema else [resolved(schema)]


def example(schema: dict[str, Any]) -> Any:
    """Return a value that fits a schema."""
    one = choices(schema)[0]
    if "enum" in one:
        return one["enum"][0]
    if one.get("format") == "date-time":
        return "2000-01-01T00:00:00Z"
    if one.get("contentEncoding") == "base64":
        return ""
    if one.get("type") == "object":
        return {name: example(one["properties"][name]) for name in one.get("required", [])}
    if one.get("type") == "array":
        return [example(one["items"])] * one.get("minItems", 0)
    return {"string": "x" * one.get("minLength", 1), "integer": one.get("minimum", 1), "boolean": False}.get(
        str(one.get("type")), {}
    )


STRANGERS: dict[str, Any] = {
    "null": None,
    "boolean": True,
    "integer": 7,
    "number": 7.5,
    "string": "a string",
    "array": [[]],
    "object": {"unknown": 1},
}


def bad_values(schema: dict[str, Any]) -> list[Any]:
    """Return values that a schema forbids: other types, and each limit passed by one."""
    allowed = choices(schema)
    if any("type" not in one and "enum" not in one for one in allowed):
        return []  # any JSON
    kinds = {one.get("type", "string") for one in allowed}
    kinds |= {"integer"} if "number" in kinds else set()
    wrong = [value for kind, value in STRANGERS.items() if kind not in kinds]
    return wrong + [value for one in allowed for value in beyond(one)]


def beyond(schema: dict[str, Any]) -> list[Any]:
    """Return values of the right type that go beyond its limits."""
    values: list[Any] = []
    if schema.get("type") == "string" or "enum" in schema:
        values += ["" for _ in range(bool(schema.get("minLength")))]
        values += ["x" * (schema["maxLength"] + 1)] if "maxLength" in schema else []
        values += ["no such value"] if "enum" in schema or "format" in schema else []
        values += ["not base64!", "AAA"] if schema.get("contentEncoding") == "base64" else []
    if schema.get("type") == "integer":
        values += [schema["minimum"] - 1, -(2**63), 2**70] if "minimum" in schema else []
        values += [schema["maximum"] + 1] if "maximum" in schema else []
    if schema.get("type") == "array":
        values += [[]] if schema.get("minItems") else []
        values += [[value] for value in bad_values(schema["items"])]
    if schema.get("type") == "object" and "properties" in schema:
        values += [{**example(schema), "unknown_field": 1}, *bad_fields(schema)]
    return values


def bad_fields(schema: dict[str, Any]) -> list[Any]:
    good = example(schema)
    wrong = [{**good, name: value} for name, field in schema["properties"].items() for value in bad_values(field)]
    return wrong + [{key: good[key] for key in good if key != name} for name in schema.get("required", [])]


@pytest.mark.parametrize("method", METHODS)
def test_every_bad_value_is_refused(world: World, method: str) -> None:
    """Wrong type, null, empty, too long, out of range, missing and unknown fields are -32602 and change nothing."""
    good = world.valid_params(method)
    before = world.state()
    tried = [({**good, "unknown_field": 1}, "unknown_field")]
    for param in METHODS[method]["params"]:
        name = param["name"]
        tried += [({**good, name: value}, name) for value in bad_values(param["schema"])]
        if param["required"]:
            tried.append(({key: good[key] for key in good if key != name}, name))
    for params, name in tried:
        error = world.client.error(method, **params)
        assert error["code"] == INVALID_PARAMS, (params, error)
        assert f"`{name}`" in error["message"] or f"$.{name}" in error["message"], (params, error)
    assert world.state() == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("params", ["[]", "[1]", "null", '"text"', "7", "true"])
def test_params_are_an_object(world: World, method: str, params: str) -> None:
    """Params by position are -32602, params that are not structured -32600; both are answered under their id."""
    answer = world.client.ask(f'{{"jsonrpc": "2.0", "method": "{method}", "params": {params}, "id": 1}}')
    assert (answer["id"], answer["error"]["code"]) == (1, INVALID_PARAMS if params.startswith("[") else -32600)


ID_PARAMS = [
    (method, param["name"])
    for method, described in METHODS.items()
    for param in described["params"]
    if param["name"] in ("id", "ref", "session_id", "workspace_id")
    and method not in ("$/cancelRequest", "$/watchProgress")  # their id is a request's: any may be asked for
]


def kind_of(method: str, name: str) -> str:
    return {"session_id": "session", "workspace_id": "workspace"}.get(name, method.split(".")[0])


@pytest.mark.parametrize(("method", "name"), ID_PARAMS)
def test_an_unknown_or_foreign_id_is_not_found(world: World, method: str, name: str) -> None:
    """An id of nothing, an id of another kind, and text that is no id are answered with the kind's own code."""
    kind = kind_of(method, name)
    foreign = [other for other_kind, other in world.ids.items() if other_kind != kind]
    before = world.state()
    for wrong in [str(uuid.uuid4()), "no id at all", "../../etc/passwd", "é" * 256, *foreign]:
        error = world.client.error(method, **{**world.valid_params(method), name: wrong})
        assert error["code"] == NOT_FOUND[kind], (wrong, error)
    assert world.state() == before


REFUSED_CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("host", {"session_type": "ssh", "host": "-oProxyCommand=touch /tmp/x"}),
    ("username", {"session_type": "ssh", "host": "h", "username": "-l"}),
    ("host", {"session_type": "ssh", "host": "a\nb"}),
    ("host", {"session_type": "ssh", "host": "a\u0000b"}),
    ("username", {"session_type": "ssh", "host": "h", "username": "a\u0007"}),
    ("host", {"session_type": "ssh"}),
    ("host", {"session_type": "local", "host": "h"}),
    ("port", {"session_type": "local", "port": 22}),
    ("username", {"session_type": "local", "username": "u"}),
    ("command", {"session_type": "local", "command": "a\u0000b"}),
]


@pytest.mark.parametrize(("field", "config"), REFUSED_CONFIGS)
def test_a_config_that_ssh_would_misread_is_refused(world: World, field: str, config: dict[str, Any]) -> None:
    """A host or user that ssh would take for an option, and control characters, are refused by name."""
    error = world.client.error("session.create", config=config)
    assert (error["code"], f"`{field}`" in error["message"]) == (INVALID_PARAMS, True), error


@pytest.mark.parametrize("name", ["a\nb", "\u001b[31m", "a\u0000", "\u009b", "tab\t"])
def test_a_name_that_would_steer_a_terminal_is_refused(world: World, name: str) -> None:
    """Names hold no control characters, since lists of them are printed."""
    codes = [
        world.client.error("session.create", config={"session_type": "local"}, name=name)["code"],
        world.client.error("session.rename", id=world.session, name=name)["code"],
        world.client.error("workspace.rename", id=world.workspace, name=name)["code"],
    ]
    assert codes == [INVALID_PARAMS] * 3


def test_names_as_long_as_the_limit_are_kept(world: World) -> None:
    """256 characters of any script are a name."""
    name = "é日" * 128
    session = world.client.call("session.create", config={"session_type": "local"}, name=name)
    assert world.client.call("session.find", ref=name)["id"] == session["id"]
    world.client.call("session.delete", id=session["id"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=10), children, max_size=3),
    max_leaves=5,
)
HARMLESS = sorted(set(METHODS) - {"daemon.shutdown", "maintenance.backup"})


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_random_params_are_answered(world: World, data: st.DataObject) -> None:
    """Whatever stands in the params, the answer is a result or an error of the table, never an internal one."""
    method = data.draw(st.sampled_from(HARMLESS))
    names = [param["name"] for param in METHODS[method]["params"]]
    params = data.draw(st.dictionaries(st.sampled_from([*names, "extra"]) if names else st.just("extra"), JSON))
    if method == "events.wait":
        params["timeout_secs"] = 0  # without it, a call that is right waits for ever
    line = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
    answer = world.client.ask(line)
    assert answer["id"] == 1
    assert "result" in answer or (answer["error"]["code"] in CODES and answer["error"]["code"] != INTERNAL_ERROR), (
        answer
    )
