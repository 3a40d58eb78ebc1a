"""Two ways of `orbitctl session list` beside the plain one: several `--host` in one table, and `--watch`.

Machines are asked one after the other, since each ssh may have to ask for a password on the one terminal. A
machine that fails does not hide the others: it is reported on stderr and by the exit code.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable
from datetime import datetime
from types import FrameType
from typing import Any

import click
import msgspec
from msgspec import Raw, Struct

from orbit_protocol.methods import SESSION_LIST
from orbit_protocol.params import SessionList
from orbit_protocol.types import Session
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.attach.terminal import ENDING, SignalReceived, do_nothing, raise_signal_received, read_signals
from orbitctl.client.client import ask_all
from orbitctl.client.ssh import Host
from orbitctl.commands.list_options import SessionOptions, drawn_sessions
from orbitctl.commands.session_table import NO_SESSIONS, names_of_workspaces, row_of
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.listing import View
from orbitctl.ui.output import is_smart_terminal, terminal_size
from orbitctl.ui.stdout import view_of_stdout

WATCH_SECONDS = 1.0
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l"  # alternate screen, cursor hidden, long lines cut
_LEAVE = b"\x1b[H\x1b[J\x1b[?7h\x1b[?25h\x1b[?1049l"
_END_KEYS = frozenset(b"qQ\x04")


class HostedSession(Struct, frozen=True, kw_only=True):
    """A session and its machine; `raw` is the session's JSON as it came."""

    host: Host
    session: Session
    raw: Raw


class _Page(Struct, frozen=True):
    sessions: list[Raw]


def list_of_hosts(app: App, params_at: Callable[[App], SessionList], limit: int | None, options: SessionOptions) -> int:
    """List the sessions of every host in one table.

    Args:
        app: The app, with several hosts.
        params_at: Returns the params for one of them, whose workspaces have other ids.
        limit: The most sessions of each host.
        options: What is shown.

    Returns:
        The exit code: 0, or that of the first host that failed.
    """
    sessions: list[HostedSession] = []
    names: dict[str, str] = {}
    errors: dict[Host, CommandError] = {}
    for host in app.hosts:
        at = app.at(host)
        try:
            found = _sessions_of(at, host, params_at(at), limit)
            if not (app.json or app.quiet) and options.uses("workspace"):
                names |= names_of_workspaces(at, [one.session for one in found])
            sessions += found
        except CommandError as error:
            errors[host] = error
        finally:
            at.close()
    _show_hosted(app, sessions, names, errors, options)
    codes = [app.print_error(error, f"{host.label}: ") for host, error in errors.items()]
    return codes[0] if codes else ExitCode.OK


def _sessions_of(at: App, host: Host, params: SessionList, limit: int | None) -> list[HostedSession]:
    answer = ask_all(at.client, SESSION_LIST, params, "sessions", limit)
    raw_sessions: list[Raw] = answer.read(_Page).sessions
    pairs = zip(answer.value.sessions, raw_sessions, strict=True)
    return [HostedSession(host=host, session=session, raw=raw) for session, raw in pairs]


def _show_hosted(
    app: App,
    sessions: list[HostedSession],
    names: dict[str, str],
    errors: dict[Host, CommandError],
    options: SessionOptions,
) -> None:
    if app.json:
        found = [{"host": one.host.name, **msgspec.json.decode(one.raw, type=dict[str, Raw])} for one in sessions]
        failed = [{"host": host.name, "message": error.message} for host, error in errors.items()]
        app.out.json(msgspec.json.encode({"sessions": found, "failed": failed}))
        return
    rows = [{**row_of(one.session), "machine": one.host.label} for one in sessions]
    view = view_of_stdout(View, workspaces=names)
    if app.quiet:
        for row in options.sorted(rows, view):
            app.out.line(row["id"])
    elif sessions or not app.out.terminal or options.parts is not None:
        sys.stdout.write(options.sessions_text(rows, view, of_hosts=True))
    else:
        app.out.note("no sessions")


def watch_sessions(app: App, params: SessionList, limit: int | None, options: SessionOptions) -> int:
    """Draw the table in place, once a second, until q, Ctrl-D or Ctrl-C; return the exit code.

    Raises:
        click.UsageError: stdin or stdout is not a terminal, or there are several hosts.
        CommandError: The daemon cannot be reached at first; later the message is shown instead of the table.
    """
    if not (app.out.terminal and sys.stdin.isatty() and is_smart_terminal()) or app.json or app.quiet:
        raise click.UsageError("--watch needs a terminal, and neither --json nor --quiet")
    if len(app.hosts) > 1:
        raise click.UsageError("--watch takes one machine")
    page = _page(app, params, limit, options)
    app.autostart = False  # a daemon that is stopped while this runs stays stopped
    try:
        with _WatchTerminal() as terminal:
            while True:
                terminal.draw(_frame(page, terminal_size()[1]))
                if terminal.wait_for_end(WATCH_SECONDS):
                    return ExitCode.OK
                page = _page_or_error(app, params, limit, options)
    except SignalReceived as received:
        return ExitCode.OK if received.number == signal.SIGINT else received.exit_code


class _WatchTerminal:
    """The terminal of stdin and stdout while a table is drawn on it; a context manager that restores it.

    It shows the alternate screen without a cursor, and keys come at once and are not echoed; Ctrl-C stays a signal,
    unlike in raw mode. Signals that end the process raise `SignalReceived`, wherever it is. SIGTSTP, which Ctrl-Z
    sends, is carried out in its handler: the daemon that is being waited for meanwhile may not answer for long. That
    is why nothing here is written through Python's buffers, which a handler may not enter a second time.
    """

    def __init__(self) -> None:
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._saved_attributes = termios.tcgetattr(self._input)
        self._is_taken = False
        self._old_handlers: dict[int, Any] = {}
        self._wake, self._wake_write = os.pipe()

    def __enter__(self) -> _WatchTerminal:
        """Install the signal handlers and take the terminal."""
        for descriptor in (self._wake, self._wake_write):
            os.set_blocking(descriptor, False)
        try:
            # The kernel's handler is CPython's own: it writes the signal's number here at once, and the Python handler
            # runs later.
            signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
            for numbers, handler in (
                (ENDING, raise_signal_received),
                ((signal.SIGTSTP,), self._suspend),
                ((signal.SIGWINCH, signal.SIGCONT), do_nothing),
            ):
                for number in numbers:
                    if signal.getsignal(number) is not signal.SIG_IGN:  # as after nohup(1)
                        self._old_handlers[number] = signal.signal(number, handler)
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Restore terminal and signal handlers, also after a hangup."""
        for number in (*ENDING, signal.SIGTSTP):  # another one may not interrupt what follows
            signal.signal(number, signal.SIG_IGN)
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number in (*ENDING, signal.SIGTSTP, signal.SIGWINCH, signal.SIGCONT):
            signal.signal(number, self._old_handlers.get(number, signal.SIG_IGN))
        os.close(self._wake)
        os.close(self._wake_write)

    def draw(self, picture: str) -> None:
        """Show a picture, which replaces the last one. Raises: OSError after a hangup."""
        data = picture.encode(sys.stdout.encoding, "backslashreplace")
        while data:
            select.select([], [self._output], [])  # somebody else may have made it non-blocking
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self._output, data) :]

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until it is time to draw again, or a signal asks for that; return True after a key that ends."""
        ready = select.select([self._input, self._wake], [], [], seconds)[0]
        if self._wake in ready:
            read_signals(self._wake)
        if self._input not in ready:
            return False
        try:
            typed = os.read(self._input, 4096)
        except BlockingIOError:
            return False
        except OSError:  # a hangup
            typed = b""
        return not typed or not _END_KEYS.isdisjoint(typed)  # all that was typed: it may come in one piece

    def _is_in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._input) == os.getpgrp()
        except OSError:  # it is not our controlling terminal: no signal comes then
            return True

    def _take(self) -> None:
        self._is_taken = True
        while True:
            try:
                # TCSANOW: the default discards what was typed ahead, and waits for a terminal stopped by Ctrl-S.
                tty.setcbreak(self._input, termios.TCSANOW)
                break
            except termios.error as error:
                # In the background SIGTTOU has stopped us, and SIGCONT, which has a handler, interrupted the call.
                if error.args[0] != errno.EINTR:
                    raise
        os.write(self._output, _ENTER)

    def _give_back(self) -> None:
        """Restore the terminal; raise nothing, and wait two seconds at most for one that takes no output."""
        if not self._is_taken:
            return
        self._is_taken = False
        # In the background, as after SIGSTOP and `kill %1`, SIGTTOU would stop us, and a shell has settings of its own.
        if self._is_in_foreground():
            with contextlib.suppress(termios.error):  # a hangup
                termios.tcsetattr(self._input, termios.TCSANOW, self._saved_attributes)
        with contextlib.suppress(OSError, termios.error):
            if not select.select([], [self._output], [], 1.0)[1]:
                # It is stopped by Ctrl-S, or nobody reads it: what the kernel holds for it is dropped. A stop by a key
                # is not undone by TCOON alone, only one by TCOOFF is (Linux, tty_ioctl.c).
                termios.tcflush(self._output, termios.TCOFLUSH)
                termios.tcflow(self._output, termios.TCOOFF)
                termios.tcflow(self._output, termios.TCOON)
            if select.select([], [self._output], [], 1.0)[1]:
                os.write(self._output, _LEAVE)

    def _suspend(self, _number: int, _frame: FrameType | None) -> None:
        """Give the terminal back and stop, as SIGTSTP does by default; take it again when we are continued."""
        self._give_back()
        read_signals(self._wake)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        if signal.SIGCONT not in read_signals(self._wake):
            # The kernel does not stop a process of an orphaned process group, which no shell could continue
            # (`ssh -t host orbitctl ...`): who wants to leave and cannot be called back has left.
            raise SignalReceived(signal.SIGINT)
        self._take()
        os.write(self._wake_write, b"\0")  # draw again, at once


def _page(app: App, params: SessionList, limit: int | None, options: SessionOptions) -> str:
    sessions = ask_all(app.client, SESSION_LIST, params, "sessions", limit).value.sessions
    if not sessions:
        return NO_SESSIONS
    return drawn_sessions(app, sessions, options)


def _page_or_error(app: App, params: SessionList, limit: int | None, options: SessionOptions) -> str:
    try:
        return _page(app, params, limit, options)
    except CommandError as error:
        app.close()  # the next attempt is made on a new connection
        return visible(error.message)


def _frame(page: str, height: int) -> str:
    """Return a page as it is drawn on a terminal of some lines, with the time and the key below it."""
    lines = page.rstrip("\n").split("\n")
    more = len(lines) - max(0, height - 2)
    if more > 1:
        lines = [*lines[:-more], f"... and {more} more"]
    lines.append(f"\x1b[2m{datetime.now().astimezone():%H:%M:%S}  q ends\x1b[m")
    return "\x1b[H" + "\x1b[K\r\n".join(lines[-height:]) + "\x1b[K\x1b[J"
