"""`orbitctl events`: what has happened, and what happens from now on."""

from __future__ import annotations

import contextlib
import re
import select
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import Raw, Struct

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.errors import CursorExpired, ShuttingDown, from_object
from orbit_protocol.event_kinds import GROUPS, LIVE_KINDS, STORED_KINDS
from orbit_protocol.framing import LineFramer, LineTooLong
from orbit_protocol.json_text import decode_any
from orbit_protocol.jsonrpc import ErrorObject, Response, decode_response, encode_request
from orbit_protocol.notifications import EVENT, EVENTS_CURSOR, EVENTS_ENDED, CursorNotice, SubscriptionEndedNotice
from orbit_protocol.params import SIGNALS
from orbit_protocol.types import MAX_PAGE_SIZE
from orbitctl.app import App
from orbitctl.attach.reconnect import wait_for_daemon
from orbitctl.client.client import MAX_ANSWER_BYTES, ask_all
from orbitctl.commands.arguments import SESSION, WHEN, WORKSPACE
from orbitctl.errors import CommandError, from_daemon
from orbitctl.ui.text import duration, plural, rfc3339, size

if TYPE_CHECKING:
    from orbitctl.client.transport import Stream

_CURSOR = re.compile(r"([0-9a-z]+)-([0-9]+)")
_SHORT_ID = 8
_KIND_WIDTH = max(map(len, STORED_KINDS))
_NAME_WIDTH = 16
_SEND_SECS = 30.0
_EVERY_STATUS = ["active", "detached", "terminated", "archived"]


class Since(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A cursor, as `--json` prints it with each event, or a time."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | datetime:
        """Return a cursor, or an aware datetime. Raises: click.BadParameter."""
        if isinstance(value, datetime) or _CURSOR.fullmatch(value):
            found: str | datetime = value
            return found
        try:
            return WHEN.convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is neither a cursor nor a moment such as 10m, '2 hours ago', 15:10", param, ctx)


class _Event(Struct, frozen=True, kw_only=True):
    """An event as it is shown; the members are those of the protocol's."""

    seq: int | None
    at: datetime
    kind: str
    session_id: str | None
    workspace_id: str | None
    data: Raw
    cursor: str | None = None


class _Page(Struct, frozen=True):
    events: list[Raw]
    cursor: str


@click.command(
    epilog="""\b
Examples:
  orbitctl events --since 10m
  orbitctl events -f -n 10 --session web
  orbitctl events --kind command.finished --kind 'terminal.*'
  orbitctl events -f -n 10 --workspace shop --json

--since takes a time ('yesterday 15:10', 2026-01-31T12:00), a span back from now, or the `cursor`
of an event: then what came after that one is printed. --follow goes on over restarts of orbitd, and
misses nothing and prints nothing twice.
""",
)
@click.option("-f", "--follow", is_flag=True, help="Print what happens from now on; with --since or -n, after that.")
@click.option("--since", type=Since(), metavar="WHEN", help="Begin at a time, a span such as 10m, or a cursor.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([*GROUPS, *STORED_KINDS, *LIVE_KINDS]),
    metavar="KIND",
    help="Events of this kind, such as session.exited or 'session.*'.",
)
@click.option("--session", type=SESSION, metavar="SESSION", help="Events of this session.")
@click.option("--workspace", type=WORKSPACE, metavar="WORKSPACE", help="Events of this workspace and its sessions.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Begin with the last N events [all].")
@click.pass_obj
def events(
    app: App,
    follow: bool,
    since: str | datetime | None,
    kinds: tuple[str, ...],
    session: str | None,
    workspace: str | None,
    lines: int | None,
) -> None:
    """Print what has happened, and what happens from now on.

    That is to sessions and workspaces, in their terminals, and to orbitd. Each line has the
    time, the kind of event, the session or workspace, and what happened. With --json each line
    is an event as the daemon sends it. Titles, folders, progress and output are only heard by
    --follow, and where --kind names them.
    """
    wanted = p.EventsList(
        kinds=list(kinds) or None,
        session_id=app.session(session, or_begins=True).id if session else None,
        workspace_id=app.workspace(workspace).id if workspace else None,
    )
    stored = _Stored(app, wanted)
    cursor = stored.cursor_at(since) if isinstance(since, datetime) else since
    printer = _Printer(app)
    newest = stored.newest()
    if lines is not None:
        printer.print(stored.last(lines, cursor, newest))
        cursor = newest
    elif not follow:
        for page in stored.pages(cursor, newest):
            printer.print(page)
    if follow:
        _Follower(app, wanted, printer, cursor or newest).run()


class _Stored:
    """The stored events that are wanted.

    Args:
        app: The app.
        wanted: Kinds, session and workspace.
    """

    def __init__(self, app: App, wanted: p.EventsList) -> None:
        self._app = app
        self._wanted = wanted

    def newest(self) -> str:
        """Return the cursor behind the newest event. Raises: CommandError."""
        return self._ask(None, 0).cursor

    def pages(self, since: str | None, until: str) -> Iterator[list[Raw]]:
        """Iterate over the events between two cursors, or from the oldest on. Raises: CommandError."""
        end = _seq(until)
        while True:
            page = self._ask(since, MAX_PAGE_SIZE)
            fitting = [each for each in page.events if (_decode(each).seq or 0) <= end]
            if fitting:
                yield fitting
            if len(fitting) < len(page.events) or not page.events or _seq(page.cursor) >= end:
                return
            since = page.cursor

    def last(self, count: int, since: str | None, until: str) -> list[Raw]:
        """Return the last events between two cursors. Raises: CommandError."""
        first, end, span = 0 if since is None else _seq(since), _seq(until), max(count, 1)
        found: deque[Raw] = deque(maxlen=min(count, sys.maxsize))
        while count:
            start = max(first, end - span)
            found.clear()
            try:
                for page in self.pages(since if start == first else _cursor(until, start), until):
                    found.extend(page)
            except CommandError as error:
                # So old an event is not kept, and neither is one before it: what there is begins at the oldest.
                if not isinstance(error.__cause__, CursorExpired) or start == first:
                    raise
                first, since, span = start, None, end - start
                continue
            if len(found) == count or start == first:
                break
            span *= 8
        return list(found)

    def cursor_at(self, moment: datetime) -> str | None:
        """Return the cursor before the first event of a time or later, None without one. Raises: CommandError."""
        # Seqs grow with time, so the place is found by halving; each question reads one row.
        newest = self._ask(None, 0, only=False).cursor
        low, high = 0, _seq(newest)
        first = self._ask(None, 1, only=False).events
        if not first:
            return None
        low = _decode(first[0]).seq or 0
        if _decode(first[0]).at >= moment:
            return _cursor(newest, low - 1)
        while low < high:
            middle = (low + high) // 2
            if self._begins_before(_cursor(newest, middle), moment):
                low = middle + 1
            else:
                high = middle
        return _cursor(newest, low)

    def _begins_before(self, cursor: str, moment: datetime) -> bool:
        """Return whether the first event behind a cursor is older than a time."""
        try:
            found = self._ask(cursor, 1, only=False).events
        except CommandError as error:
            if isinstance(error.__cause__, CursorExpired):
                return True
            raise
        return bool(found) and _decode(found[0]).at < moment

    def _ask(self, since: str | None, limit: int, *, only: bool = True) -> _Page:
        wanted = self._wanted if only else p.EventsList()
        params = msgspec.structs.replace(wanted, since=since, limit=limit)
        found: _Page = self._app.ask(m.EVENTS_LIST, params).read(_Page)
        return found


def _seq(cursor: str) -> int:
    return int(cursor.rpartition("-")[2])


def _cursor(other: str, seq: int) -> str:
    """Return the cursor behind an event, with the epoch of another cursor."""
    return f"{other.rpartition('-')[0]}-{seq}"


def _decode(raw: bytes | Raw) -> _Event:
    return msgspec.json.decode(raw, type=_Event)


class _ConnectionLost(Exception):
    """The daemon has gone, or is about to."""


class _Follower:
    """Prints events as they come, over restarts of the daemon.

    Args:
        app: The app.
        wanted: Which events.
        printer: Prints them.
        cursor: Behind which they begin.
    """

    def __init__(self, app: App, wanted: p.EventsList, printer: _Printer, cursor: str) -> None:
        self._app, self._printer, self._cursor = app, printer, cursor
        self._wanted = p.EventsSubscribe(
            kinds=wanted.kinds,
            session_id=wanted.session_id,
            workspace_id=wanted.workspace_id,
            # Titles and output come many times a second: only for those who name them.
            live=not LIVE_KINDS.keys().isdisjoint(wanted.kinds or ()),
        )

    def run(self) -> None:
        """Print events until this is interrupted. Raises: CommandError, BrokenPipeError."""
        may_start = self._app.autostart
        while True:
            stream = self._app.open_stream()
            self._app.autostart = False  # a question for a name starts no daemon that was stopped just now
            try:
                self._follow(stream)
            except _ConnectionLost:
                self._app.close()
            finally:
                stream.close()
            self._app.autostart = may_start  # one that has crashed is started again, as for a client that is attached
            try:
                wait_for_daemon(self._app)
            except CommandError as error:
                hint = f"`orbitctl events -f --since {self._cursor}` goes on when the daemon runs."
                raise CommandError(error.message, error.exit_code, hint=hint) from error

    def _follow(self, stream: Stream) -> None:
        """Follow on one connection. Raises: _ConnectionLost, CommandError, BrokenPipeError."""
        params = msgspec.structs.replace(self._wanted, since=self._cursor)
        self._send(stream, encode_request(m.EVENTS_SUBSCRIBE.name, params, 1))
        framer = LineFramer(MAX_ANSWER_BYTES)
        # A reader of our output that leaves is noticed at once, and not only by the next event.
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLIN)
        with contextlib.suppress(OSError, ValueError):  # it is no descriptor
            poll.register(sys.stdout.fileno(), 0)
        while True:
            if any(descriptor != stream.fileno() for descriptor, _ in poll.poll()):
                raise BrokenPipeError
            try:
                data = stream.receive(_SEND_SECS)
            except (OSError, CommandError) as error:  # the latter where ssh has ended
                raise _ConnectionLost from error
            if not data:
                raise _ConnectionLost
            for event in framer.receive(data):
                if isinstance(event, LineTooLong):
                    raise CommandError(f"an event is longer than {event.limit} bytes")
                self._take(decode_response(event.data))
            self._printer.flush()

    def _send(self, stream: Stream, message: bytes) -> None:
        rest = memoryview(message)
        try:
            while rest:
                rest = rest[stream.send(rest, _SEND_SECS) :]
        except OSError as error:
            raise _ConnectionLost from error

    def _take(self, message: Response) -> None:
        """Handle an answer or a notification. Raises: _ConnectionLost, CommandError."""
        if isinstance(message.error, ErrorObject):
            error = from_object(message.error)
            if isinstance(error, ShuttingDown):
                raise _ConnectionLost
            raise from_daemon(error) from error
        if message.method is msgspec.UNSET or not isinstance(message.params, Raw):
            return  # the answer: it begins where it was asked to
        if message.method == EVENT.name:
            event = _decode(message.params)
            self._printer.print([Raw(msgspec.json.encode(event))], flush=False)
            self._cursor = event.cursor or self._cursor
        elif message.method == EVENTS_CURSOR.name:
            self._cursor = msgspec.json.decode(message.params, type=CursorNotice).cursor
        elif message.method == EVENTS_ENDED.name:
            why = msgspec.json.decode(message.params, type=SubscriptionEndedNotice).error
            error = from_object(why)
            raise from_daemon(error) from error


class _Printer:
    """Prints events: as JSON, as cursors, or as lines for a person.

    Args:
        app: The app.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._names: dict[str, str] | None = None

    def print(self, found: Sequence[Raw], *, flush: bool = True) -> None:
        """Print events. Raises: BrokenPipeError."""
        for raw in found:
            if self._app.json:
                self._app.out.json(bytes(raw))
                continue
            event = _decode(raw)
            if self._app.quiet:
                if event.cursor is not None:
                    self._app.out.line(event.cursor)
            else:
                self._app.out.line(self._line(event))
        if flush:
            self.flush()

    def flush(self) -> None:
        """Show what was printed. Raises: BrokenPipeError."""
        sys.stdout.flush()

    def _line(self, event: _Event) -> str:
        data = decode_any(event.data)
        data = data if isinstance(data, dict) else {}
        if self._app.out.terminal:
            moment = f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}"
        else:
            moment = rfc3339(event.at.astimezone(UTC))
        name = self._name(event, data)
        line = f"{moment}  {event.kind:<{_KIND_WIDTH}}  {name:<{_NAME_WIDTH}}  {_phrase(event.kind, data)}"
        return line.rstrip()

    def _name(self, event: _Event, data: dict[str, Any]) -> str:
        """Return what a person calls that of which an event is."""
        if event.kind.startswith("daemon."):
            return "orbitd"
        about = event.session_id or event.workspace_id
        if about is None:
            return "-"
        if data.get("id") == about:  # the event has the session or the workspace itself
            self._known()[about] = data.get("name") or about[:_SHORT_ID]
        elif about not in self._known():
            self._known()[about] = self._ask_name(about)
        return self._known()[about]

    def _known(self) -> dict[str, str]:
        """Return the names of sessions by id: all that there are, asked for once."""
        if self._names is None:
            self._names = {}
            with contextlib.suppress(CommandError):
                params = p.SessionList(status=_EVERY_STATUS)  # type: ignore[arg-type]  # literals of the protocol
                found = ask_all(self._app.client, m.SESSION_LIST, params, "sessions").value.sessions
                self._names = {each.id: each.name or each.id[:_SHORT_ID] for each in found}
        return self._names

    def _ask_name(self, session_id: str) -> str:
        try:
            found = self._app.call(m.SESSION_GET, p.ById(id=session_id))
        except CommandError:  # it is deleted
            return session_id[:_SHORT_ID]
        return found.name or session_id[:_SHORT_ID]


def _phrase(kind: str, data: dict[str, Any]) -> str:
    """Return what has happened, in a few words."""
    maker = _PHRASES.get(kind)
    words = "" if maker is None else maker(data)
    return " ".join(words.split())


def _exit(data: dict[str, Any]) -> str:
    if isinstance(number := data.get("exit_signal"), int):
        names = {value: name.removeprefix("SIG") for name, value in SIGNALS.items()}
        return f"signal {names.get(number, number)}"
    return "" if data.get("exit_code") is None else f"exit {data['exit_code']}"


def _command(data: dict[str, Any]) -> str:
    config = data.get("config") or {}
    if config.get("session_type") == "ssh":
        return f"ssh {config.get('host') or ''}"
    return str(config.get("command") or "")


def _client(data: dict[str, Any]) -> str:
    words = [] if data.get("client_pid") is None else [f"by pid {data['client_pid']}"]
    words += ["read-only"] if data.get("read_only") else []
    words += [str(data["reason"])] if data.get("reason") else []
    return ", ".join(words)


def _reason(data: dict[str, Any]) -> str:
    return str(data.get("reason") or _exit(data))


def _finished(data: dict[str, Any]) -> str:
    words = [str(data["command"])] if data.get("command") else []
    words += [f"exit {data['exit_code']}"] if data.get("exit_code") is not None else []
    words += [f"after {duration(data['duration_secs'])}"] if data.get("duration_secs") else []
    return ", ".join(words)


def _notification(data: dict[str, Any]) -> str:
    return ": ".join(str(data[part]) for part in ("title", "body") if data.get(part))


def _progress(data: dict[str, Any]) -> str:
    shown = data.get("progress", data) or {}
    percent = "" if shown.get("percent") is None else f"{shown['percent']} %"
    state = shown.get("state") or ""
    return percent if state == "normal" else f"{state} {percent}"


def _member(name: str, before: str = "") -> Any:
    return lambda data: f"{before}{data[name]}" if data.get(name) not in (None, "") else ""


_PHRASES: dict[str, Any] = {
    "session.created": _command,
    "session.started": _command,
    "session.exited": _exit,
    "session.disconnected": _reason,
    "session.reconnected": _reason,
    "session.terminated": _exit,
    "session.attached": _client,
    "session.detached": _client,
    "session.deleted": lambda data: "for good" if data.get("purged") else "into the trash",
    "session.title": _member("title"),
    "session.cwd": _member("cwd"),
    "session.progress": _progress,
    "snapshot.saved": lambda data: size(data["buffer_bytes"]) if "buffer_bytes" in data else "",
    "terminal.notification": _notification,
    "terminal.dropped": lambda data: f"{plural(data.get('count') or 0, 'event')} too fast, left out",
    "command.finished": _finished,
    "daemon.started": _member("version", "orbitd "),
    "daemon.stopping": _member("version", "orbitd "),
    "daemon.warning": _member("warning"),
    "daemon.cleared": _member("warning"),
}
"""By kind, what an event says beside its kind, from its data."""
