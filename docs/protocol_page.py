"""docs/protocol.md, written from the OpenRPC document.

The prose that is in no table (framing, errors, batches) is in `PREFACE`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from orbit_protocol import PROTOCOL_VERSION
from orbit_protocol.errors import ALL_ERRORS
from orbit_protocol.jsonrpc import encode_message
from orbit_protocol.methods import METHODS
from orbit_protocol.notifications import NOTIFICATIONS
from orbit_protocol.openrpc import document
from orbit_protocol.types import Session, SessionConfig

MOMENT = datetime(2026, 1, 31, 12, 0, 0, 1, UTC)
ANSWERED = Session(
    id="5e0c6f4e-58d5-4d3a-9f6e-3c3f0f1f7c11",
    name="web",
    session_type="local",
    created_at=MOMENT,
    last_active=MOMENT,
    status="active",
    config=SessionConfig(session_type="local"),
    workspace_id=None,
)
"""What the example of a conversation is answered with."""

PREFACE = f"""# Orbit's protocol

Version {PROTOCOL_VERSION}. This page is generated from the method table (`python docs/generate.py`); `rpc.discover`
returns the same as an OpenRPC document.

## A conversation

Connect to the Unix stream socket (`$XDG_RUNTIME_DIR/orbit/orbitd.sock`, or `~/.local/state/orbit/orbitd.sock`
where there is no runtime folder; where that path is longer than a socket's may be, `orbitctl config show` prints the one
in its place) and write one JSON-RPC 2.0 message a line, in UTF-8:

```json
{{"jsonrpc": "2.0", "method": "session.create", "params": {{"config": {{"session_type": "local"}}, "name": "web"}}, "id": 1}}
```

The answer is one line too:

```json
{encode_message({"jsonrpc": "2.0", "result": ANSWERED, "id": 1}).decode()}
```

## Rules

- A line ends in `\\n`; `\\r\\n` is accepted; blank lines are skipped. A last line may lack its ending.
- `params` are an object, by name. A field that a method does not know is an error. Bytes are base64 (RFC 4648,
  section 4, padded), times are RFC 3339 with a time zone; the daemon answers in UTC.
- Text is UTF-8, but a path, a command line and a variable may hold any bytes. In text each byte that is not UTF-8 is
  `\\xNN`; then, and only then, a field of the same name with `_bytes` has all of the bytes, as `cwd_bytes` beside `cwd`.
  In params it wins, and the text beside it is ignored.
- Results may gain fields; ignore those that you do not know.
- A line that is not JSON is answered with -32700, and the connection goes on. A line longer than `max_message_bytes`
  (`daemon.info` has it; 16 MiB) is answered with -32600, `data.kind` `message_too_large`, and the connection is closed.
- A batch holds 1 to 100 requests. They run in order, and each has its answer. A notification has none, errors included.
- Requests that are not in a batch run concurrently, at most 16 a connection; their answers come in any order, so compare
  the ids. Wait for an answer before you send what depends on it.
- A call that waits for a program (`session.wait`; `session.input` and `session.send` while the program does not read),
  or works for long (`maintenance.backup`, `check`, `cleanup_snapshots`, `archive` and `vacuum`),
  takes none of the 16 places. At most 256 wait on a connection; one more is -32000 `busy`. `$/cancelRequest` with
  `{{"id": ID}}`, best as a notification, ends the calls that wait and have this id: they are answered with -32800
  `cancelled`. An id that no waiting call has is ignored; `1` and `"1"` are two ids. In a batch a wait holds the batch
  only. The end of the connection ends them too. Of work that is ended so, what it has done stays, and all is consistent:
  call again to go on.
- `$/watchProgress` with `{{"id": ID}}`, best as a notification, has the calls that work and have this id send `$/progress`,
  at most ten times a second, until they are answered. A daemon that does not know it ignores the notification.
- Input (`session.input`, `session.send`) of one connection to one session arrives in the order in which it was sent: by
  either method, pipelined, as notifications, in batches, and with waits between. Input behind a batch is typed after
  the batch's own.
- Answered input has been written to the program's terminal: no end of the daemon loses it. Input that was not answered
  is in doubt: do not send it again. An error has in `data.written` how many bytes of its call were taken (0 where it
  is missing); the rest is not typed, also where the call was cancelled: then `data.ahead` has how many bytes of earlier
  input were still to be taken. A session has room for 1 MiB of input that its
  program does not read; beyond that, input is -32000 `busy` at once. What a client has sent before it leaves or
  disconnects is typed all the same. A notification is never answered, so one that is refused is lost.
- Input, `session.resize`, `session.signal`, `session.leave` and `$/cancelRequest` are carried out while the client does
  not read what it is sent, too, and while other requests wait for a place. Up to 64 KiB of answers to them are kept.
- An answered write is on disk.
- Only processes of the daemon's own user are served.

## Errors

`error` is `{{"code", "message", "data": {{"kind", "hint", "retryable"}}}}`. Compare `kind` or `code`; show `message` and
`hint` to people; `retryable` says that the same call may succeed later. Some kinds add members to `data`.

| code | kind | meaning |
|---|---|---|
"""


NOTIFIED = """## Notifications

What the daemon sends without being asked, to the connection that has attached. The first may come right behind the answer
of `session.attach`, in the same read: choose the `attachment_id` yourself, and you know it before. `rpc.discover` has
these as `x-notifications`."""


def protocol_markdown() -> str:
    """Return the whole page."""
    spec = document()
    schemas: dict[str, Any] = spec["components"]["schemas"]
    rows = sorted(ALL_ERRORS, key=lambda error: (error.code > 0, abs(error.code), error.kind))
    errors = [f"| {error.code} | `{error.kind}` | {_first_line(error.__doc__)} |" for error in rows]
    methods = [_method(method, spec["components"]["errors"]) for method in spec["methods"]]
    params = {method.params.__name__ for method in METHODS.values()}
    params |= {notification.params.__name__ for notification in NOTIFICATIONS}
    types = [_type(name, schema) for name, schema in schemas.items() if name not in params]
    notifications = [_notification(notification) for notification in spec["x-notifications"]]
    parts = [
        PREFACE + "\n".join(errors),
        "## Methods",
        *methods,
        NOTIFIED,
        *notifications,
        "## Types",
        *types,
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def _method(method: dict[str, Any], errors: dict[str, Any]) -> str:
    kinds = [f"`{errors[_target(reference)]['data']['kind']}`" for reference in method["errors"]]
    lines = [f"### `{method['name']}`", "", method["summary"], ""]
    lines += _params(method["params"])
    lines.append(f"Result: {_kind(method['result']['schema'])}. May fail with {', '.join(kinds)}.")
    return "\n".join(lines)


def _notification(notification: dict[str, Any]) -> str:
    lines = [f"### `{notification['name']}`", "", notification["description"], "", *_params(notification["params"])]
    return "\n".join([*lines, "```json", json.dumps(notification["example"]), "```"])


def _params(params: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of params, with an empty one behind it; none where there are no params."""
    rows = [_row(param["name"], param["schema"], "" if param["required"] else "optional") for param in params]
    return ["| param | type | |", "|---|---|---|", *rows, ""] if rows else []


def _type(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    lines = [f"### {name}", "", schema.get("description", ""), "", "| field | type | |", "|---|---|---|"]
    lines += [
        _row(field, kind, "" if field in required else "optional")
        for field, kind in schema.get("properties", {}).items()
    ]
    return "\n".join(lines)


def _row(name: str, schema: dict[str, Any], note: str) -> str:
    notes = [note, schema.get("description", "")]
    return f"| `{name}` | {_kind(schema)} | {' '.join(text for text in notes if text)} |"


def _target(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rsplit("/", 1)[-1]


_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}


def _kind(schema: dict[str, Any]) -> str:
    """Write a schema in a few words; a `|` would end the table's cell."""
    if "$ref" in schema:
        name = _target(schema)
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    limits = ", ".join(text.format(schema[key]) for key, text in _LIMITS.items() if key in schema)
    return _plain_kind(schema) + (f" ({limits})" if limits else "")


def _plain_kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_kind(schema['items'])}"
    if schema.get("contentEncoding") == "base64":
        return "base64"
    if schema.get("format") == "date-time":
        return "time"
    return str(kind) if kind else "any JSON"
