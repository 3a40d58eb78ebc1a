"""Notifications on the user's desktop, of sessions that nobody is at: notify-send(1), or osascript(1) on macOS.

Where there is no desktop nothing is shown, and nothing is wrong: which program there is, and whether a session bus is,
is looked at each time. One runs at a time. Of many that come at once the first ones are shown, and the number of the
others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from orbit_protocol.settings import NotificationSettings
from orbit_protocol.types import CommandFinished, Event, Session, TerminalNotification
from orbit_protocol.visible import seconds
from orbitd.background_tasks import BackgroundTasks
from orbitd.events import child
from orbitd.events.child import Surroundings
from orbitd.logs import event as log_event

log = logging.getLogger("orbitd.desktop")

LIMIT_SECS = 10.0
"""After this long the program is killed."""
SHOWN_TOGETHER = 3
"""How many are shown one after the other; what has come meanwhile is counted in one more."""
PAUSE_SECS = 3.0
"""How long the next ones wait then."""
TITLE_CHARS, BODY_CHARS = 100, 400
OSASCRIPT = "/usr/bin/osascript"
_SCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)

_notification = msgspec.json.Decoder(TerminalNotification)
_command = msgspec.json.Decoder(CommandFinished)

_Run = Callable[[Sequence[str], Surroundings, Mapping[str, str], float, Callable[[int], None]], str]


class Shown(Struct, frozen=True, kw_only=True):
    """A notification, as text."""

    title: str
    body: str
    urgency: str = "normal"


class Desktop:
    """Shows notifications, on the event loop; programs are waited for in threads.

    Args:
        settings: Which.
        surroundings: Returns what programs are started with; called in a thread, as it may ask passwd.
        session: Returns a session, None where it is not known.
        is_handled: Returns whether a client shows events of a kind by itself.
        run: Runs a program.
    """

    def __init__(
        self,
        settings: NotificationSettings,
        surroundings: Callable[[], Surroundings],
        session: Callable[[str], Session | None],
        is_handled: Callable[[str], bool],
        run: _Run = child.run,
    ) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._session = session
        self._is_handled = is_handled
        self._run_program = run
        self._waiting: deque[Shown] = deque()
        self._left_out = 0
        self._tasks = BackgroundTasks(log, "notification failed")
        self._is_showing = self._is_closed = False
        self._failure = ""
        self._group: int | None = None  # of the program that runs

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of events that are shown."""
        settings = self._settings
        wanted = {
            "command.finished": True,
            "terminal.bell": settings.bell,
            "terminal.notification": settings.notification,
            "session.disconnected": settings.disconnected,
        }
        return frozenset(kind for kind, is_wanted in wanted.items() if is_wanted and settings.desktop)

    def handle(self, event: Event) -> None:
        """Show an event, now or with others."""
        if event.kind not in self.kinds or event.session_id is None or self._is_handled(event.kind):
            return
        session = self._session(event.session_id)
        if session is None or session.status == "active":  # who is at it sees it
            return
        shown = describe(event, session, self._settings.command_finished_min_secs)
        if shown is None or self._is_closed:
            return
        if len(self._waiting) < SHOWN_TOGETHER:
            self._waiting.append(shown)
        else:
            self._left_out += 1
        if not self._is_showing:
            self._is_showing = True
            self._tasks.start(self._show_all())

    async def _show_all(self) -> None:
        try:
            while self._waiting and not self._is_closed:
                while self._waiting and not self._is_closed:
                    await self._show(self._waiting.popleft())
                if self._left_out:
                    count, self._left_out = self._left_out, 0
                    await self._show(Shown(title="Orbit", body=f"{count} more notifications of sessions"))
                await asyncio.sleep(PAUSE_SECS)
        finally:
            self._is_showing = False

    async def _show(self, shown: Shown) -> None:
        failure = await asyncio.to_thread(self._run, shown)
        if failure and failure != self._failure:
            log_event(log, logging.INFO, "notification not shown", error=failure)
        self._failure = failure

    def _run(self, shown: Shown) -> str:
        surroundings = self._surroundings()
        argv = command(shown, surroundings.env)
        try:
            return self._run_program(argv, surroundings, {}, LIMIT_SECS, self._started) if argv else ""
        finally:
            self._group = None

    def _started(self, group: int) -> None:
        self._group = group
        if self._is_closed:  # which has not seen it
            child.kill_group(group)

    async def close(self) -> None:
        """Show nothing more, and kill the program that runs: the event loop ends once its thread has."""
        self._is_closed = True
        self._waiting.clear()
        if (group := self._group) is not None:
            child.kill_group(group)
        await self._tasks.cancel()


def describe(event: Event, session: Session, min_secs: float) -> Shown | None:
    """Return what is shown of an event, None where it is not worth it."""
    name = session.name or session.id[:8]
    if event.kind == "terminal.notification":
        said = _notification.decode(event.data)
        return Shown(title=said.title or name, body=said.body or name, urgency=said.urgency)
    if event.kind == "command.finished":
        ran = _command.decode(event.data)
        if ran.duration_secs is None or ran.duration_secs < min_secs:
            return None
        how = "finished" if ran.exit_code in (0, None) else f"failed (exit {ran.exit_code})"
        return Shown(
            title=f"{name}: {how} after {seconds(ran.duration_secs)}", body=ran.command or "A command has ended"
        )
    if event.kind == "session.disconnected":
        return Shown(title=f"{name}: disconnected", body="Its connection or its program is gone.")
    return Shown(title=f"{name}: bell", body=session.title or session.config.command or "It rings.")


def command(shown: Shown, env: Mapping[bytes, bytes], platform: str = sys.platform) -> list[str]:
    """Return the command that shows a notification; nothing where there is no desktop."""
    title, body = _line(shown.title, TITLE_CHARS), _line(shown.body, BODY_CHARS)
    if platform == "darwin":
        script = [word for line in _SCRIPT for word in ("-e", line)]
        return [OSASCRIPT, *script, "--", title, body] if os.access(OSASCRIPT, os.X_OK) else []
    program = shutil.which("notify-send", path=os.fsdecode(env.get(b"PATH", b"")))
    if program is None or not _has_bus(env):
        return []
    # The body is markup, in which notify-send reads escapes of C too; the summary is neither.
    markup = body.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\\", "\\\\")
    return [program, "--app-name=Orbit", f"--urgency={shown.urgency}", "--", title, markup]


def _has_bus(env: Mapping[bytes, bytes]) -> bool:
    """Return whether there is a session bus: where the environment says, or where the user's manager makes it."""
    runtime = env.get(b"XDG_RUNTIME_DIR", b"")
    return bool(env.get(b"DBUS_SESSION_BUS_ADDRESS")) or (runtime != b"" and os.path.exists(runtime + b"/bus"))


def _line(text: str, limit: int) -> str:
    """Return text on one line, without controls and lone surrogates, cut to a number of characters."""
    plain = "".join(each if each.isprintable() else " " for each in text.encode(errors="replace").decode())
    words = " ".join(plain.split())
    return words if len(words) <= limit else words[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
