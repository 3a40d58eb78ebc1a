"""docs/protocol.md: how a client is written, in prose, and what methods, notifications, events and types hold, generated.

The prose comes first (`GUIDE`); its blocks are run by tests/documents. All else is written from the OpenRPC document.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from orbit_protocol import PROTOCOL_VERSION
from orbit_protocol.errors import ALL_ERRORS
from orbit_protocol.event_data import example_of
from orbit_protocol.jsonrpc import encode_message
from orbit_protocol.methods import ANY_METHOD, METHODS
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
    config=SessionConfig(session_type="local", command="cat"),
    workspace_id=None,
)
"""What the example of a conversation is answered with."""

GUIDE = r"""# Orbit's protocol

orbitd keeps terminal sessions, and serves them as JSON-RPC 2.0 on a Unix socket. This page is all that a client needs.
The first half is a guide, to be read once; the second lists every method, notification, event, type and error.

- [A first conversation](#a-first-conversation), [finding and starting the daemon](#finding-and-starting-the-daemon),
  [framing](#framing), [requests and answers](#requests-and-answers)
- [A session in a window](#a-session-in-a-window), with xterm.js; [events](#events);
  [workspaces](#workspaces); [previews](#previews)
- [Versions](#versions-and-compatibility), [errors](#errors), [methods](#methods), [notifications](#notifications),
  [kinds of events](#kinds-of-events), [types](#types)

`rpc.discover` answers with the second half as an OpenRPC document. [A client for Node.js](../examples/javascript/orbit.js)
has everything of the guide in one file without dependencies, and [types](../examples/javascript/orbit.d.ts) for
TypeScript.

## A first conversation

One line is one message. `nc` is a client:

```sh
orbitctl daemon start
nc -NU "$XDG_RUNTIME_DIR/orbit/orbitd.sock" <<'END'
{"jsonrpc": "2.0", "method": "daemon.ping", "id": 1}
END
```

(Where your `nc` has no `-N`, or there is no `XDG_RUNTIME_DIR`, pipe the line into `orbitctl dial-stdio`.)

A session is recorded first, and started when somebody wants it. This line records one, sent as the ping was:

```json
{"jsonrpc": "2.0", "method": "session.create", "params": {"config": {"session_type": "local", "command": "cat"}, "name": "web"}, "id": 1}
```

The answer is a line too:

```json
@ANSWERED@
```

`session.attach` starts the program and shows it; `session.input` types, here `hello` and Enter:

```sh
id=$(orbitctl session show web -q)
{
  echo '{"jsonrpc": "2.0", "method": "session.attach", "params": {"id": "'$id'", "attachment_id": "window", "cols": 80, "rows": 24, "start": true}, "id": 2}'
  sleep 1
  echo '{"jsonrpc": "2.0", "method": "session.input", "params": {"attachment_id": "window", "data": "aGVsbG8N"}, "id": 3}'
  sleep 1
} | nc -NU "$XDG_RUNTIME_DIR/orbit/orbitd.sock"
```

The answer to `session.attach` has the screen, as `repaint`. What the program writes from then on comes in notifications:

```json
{"jsonrpc": "2.0", "method": "session.output", "params": {"attachment_id": "window", "data": "aGVsbG8NCmhlbGxvDQo="}}
```

The end of the connection ends the window and not the program. [A session in a window](#a-session-in-a-window) has the rest.

## Finding and starting the daemon

Ask the first that answers:

1. `$ORBITD_SOCKET`, where it is set, and then nobody else. (In a session it is set by the daemon, with the same path in
   `$ORBIT_SOCKET`. Where both are equal, go on with 2 if nobody answers.)
2. `$XDG_RUNTIME_DIR/orbit/orbitd.sock`; where there is no `XDG_RUNTIME_DIR`, `$XDG_STATE_HOME/orbit/orbitd.sock`, which is
   `~/.local/state/orbit/orbitd.sock` unless that variable is set.
3. The path in the line `socket PATH` of the lock beside the database, `$XDG_DATA_HOME/orbit/sessions.db.lock`, which is
   `~/.local/share/orbit/sessions.db.lock` by default. The daemon that runs has written it. So programs of cron, which have
   no runtime folder, find it too, and those whose path would be longer than a socket's may be.
4. Nobody: run `orbitctl rpc call daemon.info`. It finds the daemon or starts it, by its service where one is installed, and
   waits until it serves. It knows the configuration too. Connect to the `socket_path` that it prints. It exits with 3, and a
   sentence for people on its standard error, where no daemon can be had.

"Nobody answers" is ENOENT, ECONNREFUSED, or a connection that ends before its first answer: the socket of a daemon that
was just killed takes connections for a moment. So ask for `daemon.ping` first. Everything else (EACCES, no answer) is
worth showing to the user.

Folders and socket belong to their user and nobody else may enter; the daemon serves no other user. On another machine,
`orbitctl dial-stdio` connects its standard input and output to the daemon there: run it by ssh, and speak as here.

## Framing

Speak one of two. The first line of a connection decides for its whole life, both ways.

**Lines** (newline-delimited JSON). A message is one line in UTF-8, and has no newline inside. A line ends in `\n`; `\r\n` is
accepted; blank lines are skipped; a last line may lack its ending. A line that is no JSON is answered with -32700, and the
connection goes on. Read like this: keep bytes until there is a `\n`. A message may be larger than any buffer of yours.

**Headers**, as editors' libraries have them (vscode-jsonrpc; "base protocol" of the Language Server Protocol):

```sh
printf 'Content-Length: 52\r\n\r\n{"jsonrpc": "2.0", "method": "daemon.ping", "id": 1}' |
  nc -NU "$XDG_RUNTIME_DIR/orbit/orbitd.sock"
```

The number is in bytes, and the body may have newlines. Names of headers are taken in any case, and others than
`Content-Length` and `Content-Type` are ignored; lines may end in `\n` alone; 8 KiB of headers is the most. A charset may be
utf-8 only. Where the daemon cannot know where the next message begins (no or no single length, something else between
messages), it answers with -32700 and closes. A body that is no JSON costs one error, as a line does.

In both: a message longer than `max_message_bytes` (16 MiB; `daemon.info` has it) is answered with -32600, `data.kind`
`message_too_large`, and the connection is closed. Answers may be longer. When all connections are used, a new one is sent
one line with -32000 `busy`, whatever it would have spoken, and closed.

## Requests and answers

- `params` are an object, by name. A param that a method does not know is an error: so a typing error is not lost.
- Results, notifications and data of events may gain fields: ignore those that you do not know.
- Bytes are base64 (RFC 4648, section 4, padded); times are RFC 3339 with a time zone, in UTC in answers.
- Text is UTF-8, but a path, a command line and a variable may hold any bytes. In text each byte that is not UTF-8 is
  `\xNN`; then, and only then, a field of the same name with `_bytes` has all of the bytes, as `cwd_bytes` beside `cwd`.
  In params it wins, and the text beside it is ignored.
- Requests run concurrently, at most 16 a connection, and **their answers come in any order**: compare the ids. Wait for
  an answer before you send what depends on it. The exception is input: `session.input` and `session.send` to one session
  arrive in the order in which they were sent, pipelined, as notifications, in batches, and with waits between.
- A batch holds 1 to 100 requests. They run in order, and the answer is one list. A request without an id is a
  notification: it has no answer, errors included.
- A call that waits for a program (`session.wait`, `events.wait`; `session.input` and `session.send` while the program
  does not read), or works for long (`maintenance.*`), takes none of the 16 places; `x-can-wait` marks them in
  `rpc.discover`. At most 256 wait on a connection; one more is -32000 `busy`. `$/cancelRequest` with `{"id": ID}`, best as a
  notification, ends those that have this id: they are answered with -32800 `cancelled`. `1` and `"1"` are two ids. An id that
  no waiting call has is ignored. In a batch a wait holds the batch only. The end of the connection ends them too. What work
  has done by then stays, and all is consistent: call again to go on.
- `$/watchProgress` with `{"id": ID}`, best as a notification, has the calls that work and have this id send `$/progress`,
  at most ten times a second. A daemon that does not know it ignores the notification.
- An answered write is on disk. Answered input has been written to the program's terminal: no end of the daemon loses it.
  Input that was not answered is in doubt: do not send it again.
- An error of input has in `data.written` how many bytes of its call were taken (0 where it is missing); the rest is not
  typed, also where the call was cancelled: then `data.ahead` has how many bytes of earlier input were still to be taken.
  A session has room for 1 MiB of input that its program does not read; beyond that, input is -32000 `busy` at once. What
  a client has sent before it leaves or disconnects is typed all the same. A notification that is refused is lost.
- Input, `session.resize`, `session.signal`, `session.leave` and `$/cancelRequest` are carried out while the client does
  not read what it is sent, too, and while other requests wait for a place. Up to 64 KiB of answers to them are kept.

The rest of the guide uses this client, `~/client.mjs`. It is as short as one can be:

```js
import { createConnection } from "node:net";

export function connect(path = `${process.env.XDG_RUNTIME_DIR}/orbit/orbitd.sock`) {
  const socket = createConnection(path).setEncoding("utf8");
  const calls = new Map();
  const listeners = {};
  let lastId = 0;
  let rest = "";
  socket.on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const { id, method, params, result, error } of lines.map((line) => JSON.parse(line))) {
      if (method) listeners[method]?.(params);
      else if (error) calls.get(id)?.reject(Object.assign(new Error(error.message), error));
      else calls.get(id)?.resolve(result);
      calls.delete(id);
    }
  });
  socket.on("error", () => {}); // "close" follows, and Node.js would end the process
  socket.on("close", () => calls.forEach(({ reject }) => reject(new Error("the connection has ended"))));
  return {
    socket,
    on: (method, listener) => (listeners[method] = listener),
    notify: (method, params) => socket.write(JSON.stringify({ jsonrpc: "2.0", method, params }) + "\n"),
    call: (method, params = {}) =>
      new Promise((resolve, reject) => {
        calls.set(++lastId, { resolve, reject });
        socket.write(JSON.stringify({ jsonrpc: "2.0", id: lastId, method, params }) + "\n");
      }),
  };
}
```

## A session in a window

Here is a window of xterm.js at a new session. Any terminal does that takes bytes; where it is in a browser, what is
between it and the socket (Electron's main process, a WebSocket) passes messages on.

```js
import { Terminal } from "@xterm/xterm";
import { connect } from "./client.mjs";

const terminal = new Terminal({ cols: 80, rows: 24, scrollback: 10_000 });
const orbit = connect(); // one connection a window
const attachment_id = "window"; // unique on its connection: so it is known before the first notification
const size = () => ({ cols: terminal.cols, rows: terminal.rows });

// Flow control: read no more while the terminal has much to draw.
let undrawn = 0;
const draw = (base64) => {
  const bytes = Buffer.from(base64, "base64");
  undrawn += bytes.length;
  if (undrawn > 500_000) orbit.socket.pause();
  terminal.write(bytes, () => {
    undrawn -= bytes.length;
    if (undrawn < 100_000) orbit.socket.resume();
  });
};

// What comes in the same read as the answer waits until the answer is drawn.
let isAttached;
const attached = new Promise((resolve) => (isAttached = resolve));
orbit.on("session.output", ({ data }) => attached.then(() => draw(data)));
orbit.on("session.repaint", ({ data }) => attached.then(() => draw(data)));
orbit.on("session.detached", () => orbit.socket.end());
orbit.on("session.exited", ({ exit_code }) => {
  console.log("ended with", exit_code);
  orbit.socket.end();
});

const { id } = await orbit.call("session.create", { config: { session_type: "local", command: "sh" } });
const params = { id, attachment_id, ...size(), start: true, scrollback_lines: 10_000 };
draw((await orbit.call("session.attach", params)).repaint);
isAttached();

terminal.onData((text) => {
  const data = Buffer.from(text).toString("base64");
  orbit.call("session.input", { attachment_id, data }).catch(console.error);
});
terminal.onResize(() => orbit.call("session.resize", { attachment_id, ...size() }));
```

The rules, one by one:

1. **One connection a window.** Then a window that reads slowly slows nobody else down, not even your other windows.
2. **Draw in order**: first the `repaint` of the answer, then what follows it. `session.output` may come in the same read as
   the answer, so in a language with promises code after an `await` runs too late. Either draw the repaint where the
   answer is read, or keep the rest back until it is drawn, as here.
3. **Write repaints as they are.** Each, that of the answer too, may be written to a terminal in any state: it begins with
   the reset that it needs. Do not clear or reset the terminal before it, and keep no picture of your own. Output is bytes,
   cut anywhere: give the terminal bytes, not text.
4. **Send all that `onData` gives**, as UTF-8 (and what `onBinary` gives, byte by byte). What is a terminal's answer to a
   question of the program is dropped by the daemon, which has answered already. So every question has one answer, and old
   ones never reach the shell. Give colours in `terminal` of `session.attach`, so that programs which ask see yours.
5. **Resize.** Send `session.resize` whenever the window has another size; those that come together are one. The client
   that attached, resized or typed last, and may type, owns the session's size.
6. **Other windows of other sizes** need nothing of you. One that does not own the size is sent frames: `session.repaint`
   with the `reason` `frame`, the part around the cursor that fits, at most 30 a second, and no output meanwhile. With
   `"frames": "never"` it gets the session's whole size instead: make the terminal as large as `session.cols` and
   `session.rows` of the answer say, and then `cols` and `rows` of each repaint.
7. **Flow control** is not reading. What is more than 1 MiB behind is left out, and one repaint with the `reason` `behind`
   comes when you read again: the program and all others go on. `lost_lines` says how much history is missing; a
   `session.refresh` with `scrollback_lines` brings it. Input is taken while you do not read, but its answer waits behind
   what you have not read.
8. **The end.** `session.exited`: the program has ended, and the picture stays. `session.detached`: somebody else wanted
   this window to go. `session.leave`, or closing the connection: you did. In both of these the program goes on.
9. **Reconnect** when the connection ends without one of these: the daemon was restarted, and the program went on. Wait
   20 ms, then twice as long each time, 2 s at most; connect as [above](#finding-and-starting-the-daemon), but start no
   daemon: its user may have stopped it. Attach again, without `start`, which would run a program that has ended meanwhile
   once more; and draw. So that history is not there twice, write `ESC c` first, which empties the terminal in its turn; or
   attach with the last `history_line` that you were given as `after_line`, beside `scrollback_lines`, and only what is
   newer is drawn. An error that is `retryable` is one more reason to wait. Any other
   (1000 `session_not_found`, 1006 `not_running`) is the end.
10. **Read-only** windows (`read_only: true`) may not type, and never own the size. What they should not do, such as set
    the clipboard (OSC 52), is up to you: output is what the program wrote.
11. **Environment.** A program that is started gets the environment of a new login, unless you give one as `env`: an app
    gives its own, so that a session has what its windows always had. It is not stored.

A session that an app hosts itself is recorded without being started (`session.create`), and its screens are kept by
`snapshot.save`. `session.update_status` says whether somebody is at it.

## Events

Whoever is connected can hear what happens: what other clients do, what programs say, and how the daemon is. Changes are
stored in the same transaction as what they tell of, and replayed: so an app misses nothing, however long it was away.

The first screen of an app, and all that comes after:

```js
import { connect } from "./client.mjs";

const app = connect();
const { cursor } = await app.call("events.list", { limit: 0 }); // before the lists: nothing falls between
const { sessions } = await app.call("session.list");
const { workspaces } = await app.call("workspace.list");
console.log(sessions.length, "sessions,", workspaces.length, "workspaces");

let newest = cursor; // keep it; with it the app goes on where it was, after a restart too
app.on("events.cursor", ({ cursor }) => (newest = cursor));
app.on("event", ({ kind, data, cursor }) => {
  newest = cursor ?? newest;
  console.log(kind, data.name);
  app.socket.end(); // an app would go on
});
await app.call("events.subscribe", { since: cursor });
await app.call("session.create", { config: { session_type: "local" } });
```

- Stored `session.*` events have the session in `data`, and `workspace.*` events the workspace: replace what you show by it,
  and remove it at `.deleted` and `session.archived`. The first events may be older than the list, which was read after the
  cursor. Since each has the whole thing, the last one wins, and it comes. Only `session.started` and `.reconnected` are
  written before the program is there: their `pid` is null, and `session.get` has it.
- `since` is a cursor: the subscription begins with every stored event after it, in order, without a gap or a double where
  they meet the new ones. Keep the newest `cursor` of `event` and `events.cursor`, and subscribe with it when you
  come back. `events.cursor` comes where filters have left you without an event for long.
- Live kinds (`session.title`, `session.output_seen` and others) are sent while they happen and never stored: `seq` and
  `cursor` are null. Their `data` has only those fields of the session that have changed: put them into what you show. With
  `"live": false` they are left out.
- `terminal.*` and `command.finished` have what the program said. Of the session that `session_id` names, `bell`,
  `notification` and `last_command` have the newest of it. `bell` and `notification` are empty again
  once a client that may type has come, as its `session.attached` shows.
- `kinds` are names or groups (`session.*`). `snapshot.saved` comes only when it is named.
- 1300 `cursor_expired`: what you missed is not kept any more, or a backup was put in the place of the database. Read
  everything anew, as at the first time. `events.ended` may say the same of a subscription; after any other error in it,
  subscribe again from your cursor.
- A slow subscriber holds nobody up: its stored events wait in the database, its live ones are left out.
- An app that shows notifications itself names their kinds as `handles`: while it is subscribed, the daemon shows none of
  these on the desktop.
- `events.wait` is for scripts: it answers with the first event that fits.

## Workspaces

A workspace is a name, a layout and the sessions in it. The layout's `config` is whatever the app wants: any JSON, kept to
the letter. Say in it which session is in which pane, by its id.

```json
{"jsonrpc": "2.0", "method": "workspace.create", "params": {"name": "shop", "layout": {"layout_type": "splits", "config": {"panes": []}}}, "id": 2}
```

- `session.create` with `config.workspace_id`, or `session.move`, puts a session into it.
- `workspace.open` starts every session of it that does not run, in its folder, size and picture, and answers when all are
  started; `failed` names those that could not be, and stops no other. Then attach a window to each.
- `workspace.park` ends their programs and keeps everything else. `workspace.open` brings it back.
- `workspace.export` gives a document of layout and configurations, without contents, for a file of a project;
  `workspace.import` makes a new workspace of it, with new sessions. Each keeps its id where that is free; else it gets
  another one, which replaces the old one in the layout, too.

## Previews

`session.screen` draws a session that nobody needs to be attached to: as `svg` for a page, `html`, `text`, or `vt` for a
terminal. `theme` has the colours, `cursor` says whether the cursor is drawn, and `first_line` and `lines` cut a part out:
`{"format": "svg", "first_line": -10, "lines": 10}` are the last ten lines. It works for sessions that have ended, too.
Draw again when `session.output_seen` says that something was written; that is at most once a second.

## Versions and compatibility

This is version @VERSION@ of the protocol (`protocol_version` of `daemon.info`). The number grows when something is changed that
clients rely on. A client that finds a higher one than it knows should say so. Within a version:

- methods, params that may be left out, fields of results, notifications, kinds of events and errors are added;
- nothing is removed, and nothing gets another meaning. A param that you leave out keeps the meaning that it has today;
- so ignore fields, notifications, kinds and members of `data` that you do not know, and treat an error that you do not
  know by its `retryable`;
- an older daemon refuses methods (-32601) and params (-32602) that it does not know. `rpc.discover` says what it has;
  `features` of `daemon.info` names what is not a method: `live` where it can run programs, `headers` where it reads
  headers, `events` where it has them.
"""

ERRORS = """## Errors

`error` is `{"code", "message", "data": {"kind", "hint", "retryable"}}`. Compare `kind` or `code`. Show `message` and `hint` to
people: the first names the thing, the second the next step. `retryable` says that the same call may succeed later. Some
kinds add members to `data`. @ANY@ may be the answer to any call.

| code | kind | meaning | what to do | try again |
|---|---|---|---|---|
"""

METHODS_TEXT = """## Methods

A param without a default must be given. Every method may also fail with @ANY@."""

NOTIFIED = """## Notifications

What the daemon sends without being asked, to the connection that has attached, subscribed or asked for progress.
`rpc.discover` has these as `x-notifications`."""

EVENTS = """## Kinds of events

The `kind` of an `event`, and the type of its `data`; `rpc.discover` has these as `x-events`, with an example of each. One
as it comes:

```json
@EXAMPLE@
```

Of what programs say (`terminal.*`, `command.*`) at most five a second are kept of a session, after a burst of 50.

| kind | when | data | stored |
|---|---|---|---|
"""


def protocol_markdown() -> str:
    """Return the whole page."""
    spec = document()
    schemas: dict[str, Any] = spec["components"]["schemas"]
    any_method = _list([f"`{error.kind}`" for error in ANY_METHOD])
    answered = encode_message({"jsonrpc": "2.0", "result": ANSWERED, "id": 1}).decode()
    example = json.dumps({"jsonrpc": "2.0", "method": "event", "params": example_of("command.finished")})
    params = {method.params.__name__ for method in METHODS.values()}
    params |= {notification.params.__name__ for notification in NOTIFICATIONS}
    parts = [
        GUIDE.replace("@ANSWERED@", answered).replace("@VERSION@", str(PROTOCOL_VERSION)),
        ERRORS.replace("@ANY@", any_method) + "\n".join(_errors()),
        METHODS_TEXT.replace("@ANY@", any_method),
        *(_method(method, spec["components"]["errors"]) for method in spec["methods"]),
        NOTIFIED,
        *(_notification(notification) for notification in spec["x-notifications"]),
        EVENTS.replace("@EXAMPLE@", example) + "\n".join(_event(event) for event in spec["x-events"]),
        "## Types",
        *(_struct(name, schema) for name, schema in schemas.items() if name not in params),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _list(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _errors() -> list[str]:
    rows = sorted(ALL_ERRORS, key=lambda error: (error.code > 0, abs(error.code), error.kind))
    return [
        f"| {error.code} | `{error.kind}` | {_first_line(error.__doc__)} | {error.default_hint} "
        f"| {'yes' if error.retryable else ''} |"
        for error in rows
    ]


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def _method(method: dict[str, Any], errors: dict[str, Any]) -> str:
    general = {error.kind for error in ANY_METHOD}
    kinds = [errors[_target(reference)]["data"]["kind"] for reference in method["errors"]]
    own = [f"`{kind}`" for kind in kinds if kind not in general]
    lines = [f"### `{method['name']}`", "", method["summary"], ""]
    if method["description"] != method["summary"]:
        lines += [method["description"], ""]
    lines += _params(method["params"])
    result = f"Result: {_kind(method['result']['schema'])}."
    failures = f" May fail with {', '.join(own)}." if own else ""
    waits = " It can wait, and be cancelled." if method.get("x-can-wait") else ""
    lines.append(result + failures + waits)
    return "\n".join(lines)


def _notification(notification: dict[str, Any]) -> str:
    lines = [f"### `{notification['name']}`", "", notification["summary"], "", notification["description"], ""]
    lines += _fields({param["name"]: param["schema"] for param in notification["params"]})
    return "\n".join([*lines, "", "```json", json.dumps(notification["example"]), "```"])


def _event(event: dict[str, Any]) -> str:
    return (
        f"| `{event['kind']}` | {event['summary']} | {_kind(event['data'])} | {'yes' if event['stored'] else 'live'} |"
    )


def _params(params: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of params, with an empty one behind it; none where there are no params."""
    rows = [
        f"| `{param['name']}` | {_kind(param['schema'])} | {_default(param)} | {param['description']} |"
        for param in params
    ]
    return ["| param | type | default | |", "|---|---|---|---|", *rows, ""] if rows else []


def _default(param: dict[str, Any]) -> str:
    if param["required"]:
        return ""
    return f"`{json.dumps(param['schema'].get('default'))}`"


def _struct(name: str, schema: dict[str, Any]) -> str:
    return "\n".join([f"### {name}", "", schema.get("description", ""), "", *_fields(schema.get("properties", {}))])


def _fields(properties: dict[str, Any]) -> list[str]:
    rows = [f"| `{name}` | {_kind(kind)} | {kind.get('description', '')} |" for name, kind in properties.items()]
    return ["| field | type | |", "|---|---|---|", *rows] if rows else []


def _target(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rsplit("/", 1)[-1]


_RANGES = {
    ("minimum", "maximum"): "{} to {}",
    ("minLength", "maxLength"): "{} to {} characters",
    ("minItems", "maxItems"): "{} to {} items",
}
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} members",
    "pattern": "`{}`",
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
    ranges = {keys: text for keys, text in _RANGES.items() if all(key in schema for key in keys)}
    limits = [text.format(*(schema[key] for key in keys)) for keys, text in ranges.items()]
    both = {key for keys in ranges for key in keys}
    limits += [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema and key not in both]
    return _plain_kind(schema) + (f" ({', '.join(limits)})" if limits else "")


def _plain_kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_kind(schema['items'])}"
    if schema.get("contentEncoding") == "base64":
        return "base64"
    if schema.get("format") == "date-time":
        return "time"
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), dict) and values:
        return f"object of {_kind(values)}"
    return str(kind) if kind else "any JSON"
