"""`orbitctl logs`: what a session's program has printed, as lines, and what it prints from now on."""

from __future__ import annotations

import base64
import select
import sys
from collections import deque
from collections.abc import Callable, Sequence

import click
import msgspec
from msgspec import Struct

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol import results as r
from orbit_protocol.errors import Busy, NotRunning, ShuttingDown, WouldLoop, from_object
from orbit_protocol.types import Session
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.attach.connection import ConnectionLost, DaemonConnection, Message
from orbitctl.attach.reconnect import wait_for_daemon
from orbitctl.attach.text_lines import TextLines, lines_of
from orbitctl.commands.arguments import SESSION, OptionalSession
from orbitctl.commands.session_table import label
from orbitctl.errors import CommandError, ExitCode, from_daemon
from orbitctl.ui.text import plural

_ALL_LINES = 1_000_000
_COMPARED_LINES = 200
"""Of what was printed last: the lines by which the place is found after the window's width has changed."""
_MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Output that has been read from the socket and not been printed."""


class _Picture(Struct, frozen=True, kw_only=True):
    """The answer to an attach, or to a refresh."""

    repaint: bytes
    history_line: int = 0
    attachment_id: str = ""
    session: Session | None = None


@click.command(
    epilog="""\b
Examples:
  orbitctl logs web
  orbitctl logs web -f -n 20
  orbitctl logs web | less
""",
)
@click.argument("session", cls=OptionalSession, type=SESSION, required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with each line that it prints, until it has ended.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Begin with the last N lines [all].")
@click.pass_obj
def logs(app: App, session: str | None, follow: bool, lines: int | None) -> None:
    """Print what a session's program has printed.

    That is its history and its screen, as text without colours; lines that the window's edge has
    broken are whole. In a session, without a SESSION: of this one.
    """
    if follow and (app.json or app.quiet):
        raise click.UsageError("--follow prints lines, neither JSON nor ids")
    found = app.session(app.named_or_this(session), or_begins=True)

    def write(text: Sequence[str]) -> None:
        for line in text:
            sys.stdout.write((visible(line) if app.out.terminal else line) + "\n")
        sys.stdout.flush()

    if follow:
        _Follower(app, found.id, label(found), write).run(lines)
        return
    how: p.ScreenFormat = "text" if app.json else "vt"
    answer = app.ask(m.SESSION_SCREEN, p.SessionScreen(id=found.id, format=how, scrollback=True))
    app.show(answer, lambda shown: write(_last(_lines(shown), lines)), lambda _: [found.id])


def _is_ready(connection: DaemonConnection, *, wait: bool) -> bool:
    """Return whether something has come, or else wait for it; what is unsent is sent meanwhile."""
    writable = [connection] if connection.has_unsent else []
    ready, may_send, _ = select.select([connection], writable, [], None if wait else 0)
    if may_send:
        connection.flush()
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
    """

    def __init__(self, app: App, session_id: str, name: str, write: Callable[[Sequence[str]], None]) -> None:
        self._app, self._id, self._name, self._write = app, session_id, name, write
        self._text, self._size = TextLines(1, 1), (1, 1)
        self._base = 0  # the number of the first row that `_text` knows of
        self._next: int | None = None  # that of the first row which is not printed; None before the first picture
        self._last: int | None = None
        self._printed: deque[str] = deque(maxlen=_COMPARED_LINES)
        self._is_reflowed = False  # since `_next` was found: rows have other numbers now
        self._attachment_id = ""
        self._request = 0  # for a picture, while it is not answered

    def run(self, last: int | None) -> None:
        """Print the last lines, and each that comes, until the program has ended. Raises: CommandError."""
        self._last = last
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
                self._write(self._text.finish())
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
        screen = self._app.call(m.SESSION_SCREEN, p.SessionScreen(id=self._id, format="vt", scrollback=True))
        self._text = TextLines(screen.cols, screen.rows)
        data = base64.b64decode(screen.data)
        if self._next is None:
            lines = [line for _, line in self._text.draw(data)] + self._text.finish()
            self._write(_last(lines, self._last))
            return
        self._print(data, history_line)
        self._write(self._text.finish())

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
            self._write(_last(lines, self._last))
            self._printed += lines
            return
        start = sum(self._base + end < self._next for end, _ in drawn)
        if self._is_reflowed:
            start = _behind(lines, list(self._printed), start)
        elif (lost := self._base - self._next) > 0:
            self._app.out.note(f"... {plural(lost, 'line')} came too fast and {'is' if lost == 1 else 'are'} left out")
        self._is_reflowed = False
        self._print_lines(lines[start:])

    def _print_lines(self, lines: list[str]) -> None:
        self._write(lines)
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
