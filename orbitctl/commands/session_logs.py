"""`orbitctl logs`: what a session's program has printed, as lines, and what it prints from now on."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TextIO

import click
import msgspec
from msgspec import Struct

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol import results as r
from orbit_protocol.errors import Busy, MethodNotFound, NotRunning, ShuttingDown, StorageError, WouldLoop, from_object
from orbit_protocol.types import Session
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.attach.connection import ConnectionLost, DaemonConnection, Message
from orbitctl.attach.reconnect import wait_for_daemon
from orbitctl.attach.text_lines import TextLines, lines_of
from orbitctl.commands.arguments import SESSION, WHEN, OptionalSession
from orbitctl.commands.session_table import label
from orbitctl.errors import CommandError, ExitCode, from_daemon
from orbitctl.ui.text import plural

_ALL_LINES = 1_000_000
_COMPARED_LINES = 200
"""Of what was printed last: the lines by which the place is found after the window's width has changed."""
_PAGE_LINES = 10_000
_PICTURE_LINES = 100_000
"""More lines than the picture of a session holds."""
_MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Output that has been read from the socket and not been printed."""


class _Picture(Struct, frozen=True, kw_only=True):
    """The answer to an attach, or to a refresh."""

    repaint: bytes
    history_line: int = 0
    attachment_id: str = ""
    session: Session | None = None


Write = Callable[[Sequence[str], Sequence[datetime | None] | None], None]
"""Prints lines, and when each was shown; without times, that is now."""


@click.command(
    epilog="""\b
Examples:
  orbitctl logs web
  orbitctl logs web -f -n 20
  orbitctl logs web --since '10 minutes ago' --timestamps
  orbitctl logs web | less
""",
)
@click.argument("session", cls=OptionalSession, type=SESSION, required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with each line that it prints, until it has ended.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Begin with the last N lines [all].")
@click.option("--since", type=WHEN, help="Begin with what it has printed since this moment.")
@click.option("--timestamps", is_flag=True, help="Print before each line when it was shown.")
@click.pass_obj
def logs(
    app: App, session: str | None, follow: bool, lines: int | None, since: datetime | None, timestamps: bool
) -> None:
    """Print what a session's program has printed.

    That is its history, as far as it is kept, and its screen, as text without colours; lines that the
    window's edge has broken are whole. It is there of sessions that have ended, too. In a session,
    without a SESSION: of this one.
    """
    if follow and (app.json or app.quiet):
        raise click.UsageError("--follow prints lines, neither JSON nor ids")
    lines = None if lines is None else min(lines, p.MAX_LINE)
    found = app.session(app.named_or_this(session), or_begins=True)

    def write(text: Sequence[str], times: Sequence[datetime | None] | None = None) -> None:
        now = [datetime.now(UTC)] * len(text)
        for line, at in zip(text, now if times is None else times, strict=True):
            moment = "" if not timestamps else f"{_local(at)} "
            sys.stdout.write(moment + (visible(line) if app.out.terminal else line) + "\n")
        sys.stdout.flush()

    kept = _Kept(app, found.id, is_needed=since is not None or timestamps, has_times=timestamps)
    if follow:
        _Follower(app, found.id, label(found), write, kept).run(lines, since)
    elif app.json and (timestamps or since is not None or lines is not None):
        limit = p.MAX_HISTORY_LINES if lines is None else min(lines, p.MAX_HISTORY_LINES)
        first = kept.first(None if lines is None else limit, since)
        page = p.HistoryLinesPage(session_id=found.id, first=first, limit=max(limit, 1))
        app.show(app.ask(m.HISTORY_LINES, page), lambda _: None, lambda _: [found.id])
    elif app.json or app.quiet or not kept.write(write, lines, since):
        how: p.ScreenFormat = "text" if app.json else "vt"
        answer = app.ask(m.SESSION_SCREEN, p.SessionScreen(id=found.id, format=how, scrollback=True))
        app.show(answer, lambda shown: write(_last(_lines(shown), lines)), lambda _: [found.id])


def _local(at: datetime | None) -> str:
    """Return a time as RFC 3339 has it, in the local zone."""
    return "-" if at is None else at.astimezone().isoformat(timespec="milliseconds")


class _Kept:
    """The lines of a session that the daemon has kept, by their numbers.

    Args:
        app: The app.
        session_id: The session.
        is_needed: Without them the command fails.
        has_times: Whether it is to be known when each was shown.
    """

    def __init__(self, app: App, session_id: str, *, is_needed: bool, has_times: bool) -> None:
        self._app, self._id, self._is_needed = app, session_id, is_needed
        self.has_times = has_times

    def page(self, first: int | None, limit: int, since: datetime | None = None) -> r.HistoryPage | None:
        """Return some lines; None where none are kept, or the daemon is an older one. Raises: CommandError."""
        limit = min(max(limit, 1), _PAGE_LINES)
        params = p.HistoryLinesPage(session_id=self._id, first=first, since=since, limit=limit)
        try:
            page = self._app.call(m.HISTORY_LINES, params)
        except CommandError as error:
            if self._is_needed or not isinstance(error.__cause__, MethodNotFound | StorageError):
                raise
            if isinstance(error.__cause__, StorageError):  # the session's own screen and scrollback lie elsewhere
                self._app.out.problem("warning", f"only what the scrollback holds is printed: {error.message}", "33")
            return None
        if page.total or not self._is_needed:
            return page if page.total else None
        raise CommandError(
            "nothing that it has printed is kept with its times",
            ExitCode.NOT_FOUND,
            hint="`orbitctl logs` without --since and --timestamps prints what is on its screen.",
        )

    def first(self, last: int | None, since: datetime | None) -> int:
        """Return where the last lines begin of those since a moment. Raises: CommandError."""
        if last == 0:
            return p.MAX_LINE
        if since is None:
            return 0 if last is None else -last
        page = self.page(None, 1, since)
        assert page is not None  # they are needed
        return page.first if last is None else max(page.first, page.total - last)

    def lines(self, page: r.HistoryPage, end: int) -> Iterator[list[r.HistoryLine]]:
        """Yield the lines of a page, and those behind it, until before the number `end`. Raises: CommandError."""
        following: r.HistoryPage | None = page
        while following is not None and following.lines:
            yield [line for line in following.lines if line.line < end]
            last = following.lines[-1].line + 1
            following = self.page(last, end - last) if last < end else None

    def write(self, write: Write, last: int | None, since: datetime | None) -> bool:
        """Print the lines, the last ones of those since a moment; return whether any are kept. Raises: CommandError."""
        page = self.page(self.first(last, since), _PAGE_LINES if last is None else last)
        if page is None:
            return False
        wants_older = since is None and page.oldest > 0 and (last is None or page.total - last < page.oldest)
        if wants_older and not self._is_needed and self._write_picture(write, last, page.total - page.oldest):
            return True
        for lines in self.lines(page, page.total):
            write([line.text for line in lines], [line.at for line in lines])
        return True

    def _write_picture(self, write: Write, last: int | None, count: int) -> bool:
        """Print the lines of the session's screen and its history there, where those are as many as `count` at least.

        Then it holds all that is kept, and what was dropped, or was printed before anything was kept, besides.
        """
        if not 0 < count < _PICTURE_LINES:
            return False
        try:
            screen = self._app.call(m.SESSION_SCREEN, p.SessionScreen(id=self._id, format="vt", scrollback=True))
        except CommandError:
            return False
        lines = _lines(screen)
        if len(lines) < count:
            return False
        write(_last(lines, last), None)
        return True


def _output_pipe() -> list[TextIO]:
    """Return stdout if it is a pipe: it becomes readable when its reader ends, as in `logs -f | grep -m 1`."""
    with contextlib.suppress(OSError):  # a stream without a descriptor
        if stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):
            return [sys.stdout]
    return []


def _is_ready(connection: DaemonConnection, *, wait: bool) -> bool:
    """Return whether something has come, or else wait for it; what is unsent is sent meanwhile."""
    writable = [connection] if connection.has_unsent else []
    watched: list[DaemonConnection | TextIO] = [connection, *_output_pipe()]
    ready, may_send, _ = select.select(watched, writable, [], None if wait else 0)
    if may_send:
        connection.flush()
    if sys.stdout in ready:
        raise BrokenPipeError
    return bool(ready) or wait


def _lines(screen: r.Screen) -> list[str]:
    return lines_of(base64.b64decode(screen.data), screen.cols, screen.rows)


def _last(lines: list[str], count: int | None) -> list[str]:
    return lines if count is None else lines[max(0, len(lines) - count) :]


class _Follower:
    """Follows a session as a reader, whose window changes nothing for the others.

    The lines are taken from the output, byte for byte. Where the daemon has left some out, since they came faster than
    they were read, the history is asked for: rows have numbers, which `history_line` counts, and the first that is not
    printed yet is known. So a line is printed once, and one that the history does not hold any more is counted. Where
    the width changes, rows get other numbers: then the lines that were printed last are looked for.

    Args:
        app: The app.
        session_id: The session.
        name: What it is called in messages.
        write: Prints lines.
        kept: What the daemon has kept of it, for what its picture does not hold.
    """

    def __init__(self, app: App, session_id: str, name: str, write: Write, kept: _Kept) -> None:
        self._app, self._id, self._name, self._write, self._kept = app, session_id, name, write, kept
        self._text, self._size = TextLines(1, 1), (1, 1)
        self._base = 0  # the number of the first row that `_text` knows of
        self._next: int | None = None  # that of the first row which is not printed; None before the first picture
        self._last: int | None = None
        self._since: datetime | None = None
        self._printed: deque[str] = deque(maxlen=_COMPARED_LINES)
        self._is_reflowed = False  # since `_next` was found: rows have other numbers now
        self._attachment_id = ""
        self._request = 0  # for a picture, while it is not answered

    def run(self, last: int | None, since: datetime | None) -> None:
        """Print the last lines, and each that comes, until the program has ended. Raises: CommandError."""
        self._last, self._since = last, since
        while True:
            self._app.close()
            connection = DaemonConnection(self._app.open_stream())
            try:
                self._follow(connection)
                return
            except ConnectionLost:
                self._set_next()
            finally:
                connection.close()
            wait_for_daemon(self._app)

    def _follow(self, connection: DaemonConnection) -> None:
        """Follow on one connection. Raises: ConnectionLost, CommandError."""
        size = {"cols": 80, "rows": 24}
        history = {"scrollback_lines": _ALL_LINES, "after_line": 0}
        attach = {"id": self._id, "read_only": True, "frames": "never", **history, **size}
        self._request = connection.request(m.SESSION_ATTACH.name, attach)
        messages: deque[Message] = deque()
        waiting_bytes, lost = 0, None
        while True:
            # All that has come is read first: the daemon leaves out what a client has not read of a flood.
            while lost is None and waiting_bytes < _MAX_WAITING_BYTES and _is_ready(connection, wait=not messages):
                try:
                    for message in connection.receive():
                        messages.append(message)
                        waiting_bytes += len(message.params.data)
                except ConnectionLost as error:
                    lost = error
            if not messages and lost is not None:
                raise lost
            message = messages.popleft()
            waiting_bytes -= len(message.params.data)
            if self._take(connection, message):
                return

    def _take(self, connection: DaemonConnection, message: Message) -> bool:
        """Handle a message; return whether it is the last one."""
        notice = message.params
        if message.method == "session.output":
            if not self._request:  # else the picture that is waited for has it
                self._print_lines(self._text.feed(notice.data))
        elif message.method == "session.repaint":
            # Output may have been left out, whatever the reason is: the history has it.
            self._size = notice.cols, notice.rows
            self._is_reflowed |= notice.reason == "resized"
            if self._request:
                return False
            self._set_next()
            refresh = {"attachment_id": self._attachment_id, "scrollback_lines": _ALL_LINES}
            self._request = connection.request(m.SESSION_REFRESH.name, refresh)
        elif message.method == "session.exited":
            if self._request:
                self._print_end(notice.history_line)
            else:
                self._write(self._text.finish(), None)
            return True
        elif message.method == "session.detached":
            self._app.out.note(f"{self._name} was detached from elsewhere")
            return True
        elif message.id == self._request:
            return self._answered(message)
        return False

    def _answered(self, message: Message) -> bool:
        """Handle a picture, or why there is none; return whether the program has ended. Raises: CommandError."""
        if message.error is None:
            picture = msgspec.convert(message.result, _Picture)
            self._attachment_id = picture.attachment_id or self._attachment_id
            if picture.session is not None:
                self._size = picture.session.cols or 80, picture.session.rows or 24
            self._request = 0
            self._text = TextLines(*self._size)
            self._print(picture.repaint, picture.history_line)
            return False
        error = from_object(message.error)
        if isinstance(error, Busy | ShuttingDown):
            raise ConnectionLost(error.message)
        if isinstance(error, WouldLoop):
            raise CommandError(
                f"{self._name} cannot be followed here: it would print its own lines again and again",
                ExitCode.CONFLICT,
                hint=error.hint,
            ) from error
        if not isinstance(error, NotRunning):
            raise from_daemon(error) from error
        self._print_end(None)
        return True

    def _set_next(self) -> None:
        """Keep which row is the first that is not printed, before the picture is replaced."""
        if self._attachment_id and not self._request:
            self._next = self._base + self._text.next_row()

    def _print_end(self, history_line: int | None) -> None:
        """Print what is not printed yet of a program that has ended. Raises: CommandError."""
        if self._next is None and self._kept.write(self._write, self._last, self._since):
            return
        screen = self._app.call(m.SESSION_SCREEN, p.SessionScreen(id=self._id, format="vt", scrollback=True))
        self._text = TextLines(screen.cols, screen.rows)
        data = base64.b64decode(screen.data)
        if self._next is None:
            lines = [line for _, line in self._text.draw(data)] + self._text.finish()
            self._write(_last(lines, self._last), None)
            return
        self._print(data, history_line)
        self._write(self._text.finish(), None)

    def _print(self, picture: bytes, history_line: int | None) -> None:
        """Print the complete lines of a picture that are not printed yet; say how many it does not hold any more.

        Args:
            picture: Of history and screen.
            history_line: The number of the screen's first row; None if its history is all that there was.
        """
        drawn = self._text.draw(picture)
        lines = [line for _, line in drawn]
        self._base = 0 if history_line is None else history_line - self._text.scrolled
        if self._next is None:
            self._print_first(lines, self._base_line(drawn, history_line))
            self._printed += lines
            return
        start = sum(self._base + end < self._next for end, _ in drawn)
        if self._is_reflowed:
            start = _behind(lines, list(self._printed), start)
        elif (lost := self._base - self._next) > 0:
            self._app.out.note(f"... {plural(lost, 'line')} came too fast and {'is' if lost == 1 else 'are'} left out")
        self._is_reflowed = False
        self._print_lines(lines[start:])

    def _base_line(self, drawn: Sequence[tuple[int, str]], history_line: int | None) -> int:
        """Return the number of the first line of a picture: `history_line` counts those that have left the screen."""
        return max(0, (history_line or 0) - sum(end < self._text.scrolled for end, _ in drawn))

    def _print_first(self, lines: list[str], base: int) -> None:
        """Print the lines of the first picture, and before them those that it does not hold. Raises: CommandError."""
        start = 0 if self._last is None else max(0, base + len(lines) - self._last)
        page = None
        if self._since is not None:
            start = max(start, self._kept.first(None, self._since))
        if start < base:
            page = self._kept.page(start, base - start)
        for older in self._kept.lines(page, base) if page is not None else ():
            self._write([line.text for line in older], [line.at for line in older])
        shown = lines[max(0, start - base) :]
        self._write(shown, self._times(base + len(lines) - len(shown), len(shown)))

    def _times(self, first: int, count: int) -> list[datetime | None] | None:
        """Return when lines were shown, where that is wanted; for those of this moment it is not known yet."""
        page = self._kept.page(first, count) if count and self._kept.has_times else None
        if page is None:
            return None
        known = {line.line: line.at for lines in self._kept.lines(page, first + count) for line in lines}
        now = datetime.now(UTC)
        return [known.get(number, now) for number in range(first, first + count)]

    def _print_lines(self, lines: list[str]) -> None:
        self._write(lines, None)
        self._printed += lines


def _behind(lines: list[str], printed: list[str], near: int) -> int:
    """Return the index behind the lines that were printed last: where most of them are, and of several the nearest."""
    best, most = near, 0
    for index in range(1, len(lines) + 1):
        if not printed or lines[index - 1] != printed[-1]:
            continue
        common = 1
        while common < min(index, len(printed)) and lines[index - 1 - common] == printed[-1 - common]:
            common += 1
        if (common, -abs(index - near)) > (most, -abs(best - near)):
            best, most = index, common
    return best
