"""No terminal content and no param in any log: every method is driven with marked values, at every level.

All that a client can send carries `MARK`, in plain text or as base64; whatever happens to it,
neither form may stand in the daemon's log.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from live_support import encoded
from orbit_protocol.methods import METHODS
from orbit_protocol.openrpc import document
from orbitd.logs import FORMATTERS
from orbitd.rpc.dispatch import Dispatcher, Handlers
from support import DaemonProcess, RawClient

pytestmark = pytest.mark.slow

MARK = "mArKeD"
MARK64 = base64.b64encode(MARK.encode()).decode()
SPEC: dict[str, Any] = msgspec.to_builtins(document())
SCHEMAS: dict[str, Any] = SPEC["components"]["schemas"]
LAST = ("daemon.shutdown", "session.terminate", "session.delete", "snapshot.delete", "workspace.delete")
FORMATS: list[Literal["text", "json"]] = ["text", "json"]


def marked(schema: dict[str, Any]) -> Any:
    """Return a value that fits a schema, with the mark wherever text can stand."""
    one = next((each for each in schema.get("anyOf", []) if each.get("type") != "null"), schema)
    if "$ref" in one:
        one = SCHEMAS[one["$ref"].rsplit("/", 1)[-1]]
    if "enum" in one:
        return one["enum"][0]
    if one.get("format") == "date-time":
        return "2000-01-01T00:00:00Z"
    if one.get("contentEncoding") == "base64":
        return MARK64
    if "properties" in one:
        return {name: marked(field) for name, field in one["properties"].items()}
    if one.get("type") == "array":
        return [marked(one["items"])] * one.get("minItems", 1)
    plain = {"string": MARK, "integer": one.get("minimum", 1), "number": 0.01, "boolean": True}
    return plain[one["type"]] if one.get("type") in plain else {MARK: MARK}


def variants(params: dict[str, Any], known: dict[str, str]) -> Iterator[Any]:
    """Yield params of every fate: taken, refused by their type, by their size, by what they refer to."""
    yield params
    yield {**params, **{name: value for name, value in known.items() if name in params}}
    yield {**params, MARK: MARK}
    yield [MARK]
    for name in params:
        yield {**params, name: MARK * 100}
        yield {**params, name: f"{MARK}\0"}
        yield {**params, name: [MARK]}
        yield {**params, name: {MARK: MARK}}


def drive(client: RawClient, known: dict[str, str], home: Path) -> int:
    """Call every method in every variant; return how many calls that were."""
    calls = 0
    for method in [*(name for name in METHODS if name not in LAST), *LAST[1:]]:
        described = next(one for one in SPEC["methods"] if one["name"] == method)
        params = {param["name"]: marked(param["schema"]) for param in described["params"]}
        if "config" in params:
            params["config"] = {"session_type": "local", "command": f"/nonexistent/{MARK}", "env": {MARK: MARK}}
        file = f"{home}/{MARK}.db"
        own = {"id": known.get(method.split(".")[0], MARK), "path": file, "path_bytes": encoded(file)}
        for each in variants(params, {**known, **own}):
            answer = client.ask(json.dumps({"jsonrpc": "2.0", "method": method, "params": each, "id": MARK}))
            assert answer["id"] == MARK
            calls += 1
    return calls


GARBAGE = [
    MARK.encode(),
    f'{{"jsonrpc": "2.0", "method": "{MARK}", "params": {{"{MARK}": 1}}, "id": 1}}'.encode(),
    f'{{"jsonrpc": "{MARK}", "method": "daemon.ping", "id": 1}}'.encode(),
    f'{{"jsonrpc": "2.0", "method": "daemon.ping", "id": ["{MARK}"]}}'.encode(),
    f'["{MARK}"]'.encode(),
    b"\xff" + MARK.encode(),
    f'{{"jsonrpc": "2.0", "method": "session.find", "params": {{"ref": "{MARK}'.encode(),
]


def things(client: RawClient) -> dict[str, str]:
    """Make one of everything; return the ids by the params that refer to them."""
    layout = {"layout_type": MARK, "config": {MARK: MARK}}
    workspace = client.call("workspace.create", name=f"{MARK} 1", layout=layout)["id"]
    config = {"session_type": "local", "command": f"/bin/cat {MARK}", "workspace_id": workspace}
    session = client.call("session.create", config=config, name=f"{MARK} 1")["id"]
    client.call("snapshot.save", session_id=session, terminal_buffer=MARK64, scrollback=MARK64)
    snapshot = client.call("snapshot.latest", session_id=session)["id"]
    return {
        "session": session,
        "session_id": session,
        "workspace": workspace,
        "workspace_id": workspace,
        "snapshot": snapshot,
    }


def assert_unmarked(log: str) -> None:
    found = [line for line in log.splitlines() if MARK in line or MARK64 in line]
    assert found == []


@pytest.mark.parametrize("log_format", FORMATS)
def test_no_method_logs_what_it_was_given(stopped_daemon: DaemonProcess, log_format: str) -> None:
    """Taken or refused, nothing that any method was sent is in the log, at the level that tells most."""
    stopped_daemon.arguments = ("--log-level", "debug", "--log-format", log_format)
    with stopped_daemon.start().client() as client:
        known = things(client)
        calls = drive(client, known, stopped_daemon.home)
        for line in GARBAGE:
            client.ask(line)
        client.call("daemon.shutdown")
        while line := client.read_line():
            assert "method" in json.loads(line)
    assert stopped_daemon.stop() == 0
    log = stopped_daemon.log()
    assert calls > 10 * len(METHODS)
    assert "stopped" in log
    assert_unmarked(log)


@pytest.mark.parametrize("log_format", FORMATS)
def test_no_failure_of_the_store_logs_what_it_was_given(stopped_daemon: DaemonProcess, log_format: str) -> None:
    """With its tables gone under it every call fails inside, and what is logged of that quotes nothing."""
    stopped_daemon.arguments = ("--log-level", "debug", "--log-format", log_format)
    with stopped_daemon.start().client() as client:
        known = things(client)
        with contextlib.closing(sqlite3.connect(stopped_daemon.database_path)) as connection:
            for table in ("sessions", "session_snapshots", "workspaces", "archived_sessions", "meta"):
                connection.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
            connection.commit()
        drive(client, known, stopped_daemon.home)
    stopped_daemon.stop()
    assert "request failed" in stopped_daemon.log()
    assert_unmarked(stopped_daemon.log())


@pytest.mark.parametrize("log_format", FORMATS)
async def test_no_defect_logs_what_it_was_given(log_format: Literal["text", "json"]) -> None:
    """Whatever a handler raises, with the params in its text or as its cause, the peer and the log see none of it."""

    async def fail(_: None, params: Any) -> Any:
        try:
            raise KeyError(MARK)
        except KeyError as error:
            raise RuntimeError(f"{MARK} {params!r}") from error

    handlers: Handlers[None] = Handlers()
    for method in METHODS.values():
        handlers.add(method, fail)
    written = StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(FORMATTERS[log_format]())
    logger = logging.getLogger("orbitd")
    logger.addHandler(handler)
    try:
        answers = [await Dispatcher(handlers).dispatch(line, None) for line in _one_line_a_method()]
    finally:
        logger.removeHandler(handler)
    assert len(written.getvalue().splitlines()) == len(METHODS)
    assert_unmarked(written.getvalue())
    assert_unmarked(b"\n".join(answer for answer in answers if answer).decode())


DOCUMENT = {"orbit_workspace": 1, "name": MARK, "layout": {"layout_type": MARK, "config": MARK}, "sessions": []}


def _one_line_a_method() -> list[bytes]:
    found = []
    for described in SPEC["methods"]:
        params = {param["name"]: marked(param["schema"]) for param in described["params"]}
        params |= {"config": {"session_type": "local"}} if "config" in params else {}
        params |= {"path": f"/{MARK}", "path_bytes": encoded(f"/{MARK}")} if "path" in params else {}
        params |= {"signal": "TERM"} if "signal" in params else {}
        params |= {"limits": {}} if "limits" in params else {}
        params |= {"for": "text", "silence_secs": None} if "pattern" in params else {}
        params |= {"theme": {}} if "theme" in params else {}
        params |= {"since": None} if "first" in params else {}
        params |= {"until": None} if "until" in params else {}
        params |= {"cursor": None} if {"path", "cursor"} <= params.keys() else {}
        params |= {"document": DOCUMENT} if "document" in params else {}
        params |= {"terminal": {}, "frames": "auto"} if "terminal" in params else {}
        found.append(json.dumps({"jsonrpc": "2.0", "method": described["name"], "params": params, "id": 1}).encode())
    return found


@pytest.mark.parametrize("log_format", FORMATS)
def test_no_screen_is_logged(stopped_daemon: DaemonProcess, log_format: str) -> None:
    """What a live program shows, its title, its environment and what is typed stay out of the log."""
    stopped_daemon.arguments = ("--log-level", "debug", "--log-format", log_format)
    script = f"printf '\\033]2;{MARK}\\007{MARK}\\n'; exec cat"
    with stopped_daemon.start().client() as client:
        config = {"session_type": "local", "command": f'/bin/sh -c "{script}"', "env": {"A": MARK}}
        session = client.call("session.create", config=config, name=MARK)["id"]
        client.call("session.start", id=session, env={"B": MARK, MARK: "1"})
        client.call("session.send", id=session, data=base64.b64encode(f"{MARK}\n".encode()).decode())
        client.call("session.attach", id=session, cols=80, rows=24, env={"C": MARK})
        client.call("session.screen", id=session, format="html")
        client.call("session.terminate", id=session)
        assert client.call("session.wait", id=session, timeout_secs=20)
    assert stopped_daemon.stop() == 0
    assert_unmarked(stopped_daemon.log())
