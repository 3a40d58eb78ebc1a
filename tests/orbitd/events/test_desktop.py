"""Notifications on the desktop: which are shown, how, and that a flood is not. tests/live has a real service."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orbit_protocol.settings import NotificationSettings
from orbit_protocol.types import Event, Session, SessionConfig
from orbitd.events import child, desktop
from orbitd.events.child import Surroundings
from orbitd.events.desktop import Desktop, Shown, command, describe
from support import WAIT_SECS

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def session(status: Any = "detached", name: str | None = "web") -> Session:
    return Session(
        id="5e0c6f4e-58d5",
        name=name,
        session_type="local",
        workspace_id=None,
        config=SessionConfig(session_type="local"),
        status=status,
        created_at=NOW,
        last_active=NOW,
        live=True,
    )


def event(kind: str, **data: Any) -> Event:
    return Event(
        seq=7, at=NOW, kind=kind, session_id="s1", workspace_id=None, data=msgspec.Raw(msgspec.json.encode(data))
    )


LONG = event("command.finished", command="make", exit_code=2, duration_secs=81.5)


class Showing:
    """A stand-in for notify-send; each call waits, in its thread, until it may end."""

    def __init__(self, folder: Path) -> None:
        self.titles: list[tuple[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.may_end = threading.Event()
        self.program = folder / "notify-send"
        self.program.write_text("")
        self.program.chmod(0o755)
        self.surroundings = Surroundings(
            env={b"PATH": os.fsencode(folder), b"DBUS_SESSION_BUS_ADDRESS": b"unix:path=/x"}, umask=0o22
        )

    def __call__(self, argv: Sequence[str], _: Surroundings, __: Mapping[str, str], *___: object) -> str:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.may_end.wait(WAIT_SECS)
        self.titles.append((argv[-2], argv[-1]))
        self.at_once -= 1
        return ""


@pytest.fixture
def showing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Showing:
    monkeypatch.setattr(desktop, "command", lambda shown, env: command(shown, env, "linux"))
    return Showing(tmp_path)


def new_desktop(showing: Showing, one: Session | None = None, handled: Sequence[str] = (), **settings: Any) -> Desktop:
    found = session() if one is None else one
    return Desktop(
        NotificationSettings(**settings),
        lambda: showing.surroundings,
        lambda _: found,
        lambda kind: kind in handled,
        showing,
    )


@pytest.mark.parametrize(
    ("given", "title", "body"),
    [
        (LONG, "web: failed (exit 2) after 81.5 s", "make"),
        (event("command.finished", exit_code=0, duration_secs=30), "web: finished after 30 s", "A command has ended"),
        (event("command.finished", exit_code=0, duration_secs=29.9), None, None),
        (event("command.finished", exit_code=0), None, None),
        (event("terminal.bell"), "web: bell", "It rings."),
        (event("terminal.notification", title="t", body="b", urgency="low"), "t", "b"),
        (event("terminal.notification", title="", body="b"), "web", "b"),
        (event("session.disconnected"), "web: disconnected", "Its connection or its program is gone."),
    ],
)
def test_what_is_shown(given: Event, title: str | None, body: str | None) -> None:
    """A long command, a bell, what a program says, and a lost connection are shown, with the session's name."""
    shown = describe(given, session(), 30)
    assert (shown and (shown.title, shown.body)) == (title and (title, body))


@pytest.mark.parametrize(
    ("one", "handled", "settings"),
    [
        (session("active"), (), {}),
        (session(), ("command.finished",), {}),
        (session(), (), {"desktop": False}),
        (session(), (), {"command_finished_min_secs": 100}),
    ],
    ids=["somebody is at it", "a client shows it", "off", "too short"],
)
async def test_what_is_not_shown(
    showing: Showing, one: Session, handled: Sequence[str], settings: dict[str, Any]
) -> None:
    """Nothing is shown of a session that somebody is at, of what a client shows, and of what the settings leave out."""
    showing.may_end.set()
    subject = new_desktop(showing, one, handled, **settings)
    subject.handle(LONG)
    assert not subject._tasks
    await subject.close()


def test_settings() -> None:
    """Each setting takes its kind of event away; without any nothing is listened to."""
    every = {"command.finished", "terminal.bell", "terminal.notification", "session.disconnected"}
    for name, kind in (
        ("bell", "terminal.bell"),
        ("notification", "terminal.notification"),
        ("disconnected", "session.disconnected"),
    ):
        subject = Desktop(NotificationSettings(**{name: False}), lambda: None, lambda _: None, lambda _: False)
        assert subject.kinds == every - {kind}
    assert Desktop(NotificationSettings(desktop=False), lambda: None, lambda _: None, lambda _: False).kinds == set()


async def test_a_flood(showing: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many at once a few are shown, one after the other, and the number of the others."""
    monkeypatch.setattr(desktop, "PAUSE_SECS", 0)
    subject = new_desktop(showing)
    for _ in range(500):
        subject.handle(LONG)
    showing.may_end.set()
    await subject._tasks.finish(WAIT_SECS)
    assert [title for title, _ in showing.titles] == [*3 * ["web: failed (exit 2) after 81.5 s"], "Orbit"]
    assert showing.titles[-1][1] == "497 more notifications of sessions"
    assert showing.most_at_once == 1
    subject.handle(LONG)
    await subject._tasks.finish(WAIT_SECS)
    assert len(showing.titles) == 5
    await subject.close()


async def test_a_program_that_hangs(showing: Showing) -> None:
    """While a notification is being shown for ever, events are taken, and the daemon stops."""
    subject = new_desktop(showing)
    for _ in range(10):
        subject.handle(LONG)
    await asyncio.sleep(0)
    await subject.close()
    showing.may_end.set()


async def test_a_hanging_program_is_killed_at_the_end(showing: Showing) -> None:
    """The loop waits for its threads when it ends: the daemon's stop would last as long as the notification."""
    showing.program.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    started, ended = threading.Event(), threading.Event()
    failures: list[str] = []

    def run(*args: Any) -> str:
        *rest, on_start = args

        def note(pid: int) -> None:
            on_start(pid)
            started.set()

        failures.append(child.run(*rest, note))
        ended.set()
        return failures[0]

    subject = Desktop(NotificationSettings(), lambda: showing.surroundings, lambda _: session(), lambda _: False, run)
    subject.handle(LONG)
    assert await asyncio.to_thread(started.wait, WAIT_SECS)
    await subject.close()
    assert await asyncio.to_thread(ended.wait, WAIT_SECS)
    assert failures == ["signal SIGKILL"]


def test_text_of_notify_send(tmp_path: Path) -> None:
    """Markup and escapes in the body are text, options end before it, and what is long or unprintable is cut."""
    (tmp_path / "notify-send").write_text("")
    (tmp_path / "notify-send").chmod(0o755)
    env = {b"PATH": os.fsencode(tmp_path), b"DBUS_SESSION_BUS_ADDRESS": b"x"}
    shown = Shown(title="--icon=x <i>\x1b[1m" + 200 * "t", body="<b>&\\n\x07\n\ud800 " + 500 * "b", urgency="critical")
    *options, dashes, title, body = command(shown, env, "linux")
    assert options == [str(tmp_path / "notify-send"), "--app-name=Orbit", "--urgency=critical"]
    assert dashes == "--"
    assert title == "--icon=x <i> [1m" + 83 * "t" + "…"
    assert body == "&lt;b&gt;&amp;\\\\n ? " + 390 * "b" + "…"


def test_where_there_is_no_desktop(tmp_path: Path) -> None:
    """Without a session bus, or without notify-send, nothing is run."""
    shown = Shown(title="t", body="b")
    bus = {b"DBUS_SESSION_BUS_ADDRESS": b"x"}
    assert command(shown, {b"PATH": os.fsencode(tmp_path), **bus}, "linux") == []
    (tmp_path / "notify-send").write_text("")
    (tmp_path / "notify-send").chmod(0o755)
    path = {b"PATH": os.fsencode(tmp_path), b"XDG_RUNTIME_DIR": os.fsencode(tmp_path)}
    assert command(shown, path, "linux") == []
    (tmp_path / "bus").write_text("")
    assert command(shown, path, "linux") != []


def test_osascript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS the text is given as arguments, of which the script makes no code."""
    monkeypatch.setattr(desktop, "OSASCRIPT", "/nosuch")
    assert command(Shown(title="t", body="b"), {}, "darwin") == []
    program = tmp_path / "osascript"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(desktop, "OSASCRIPT", str(program))
    found = command(Shown(title='-e "', body='" & do shell script "x'), {}, "darwin")
    assert found[0] == str(program)
    assert found[-3:] == ["--", '-e "', '" & do shell script "x']
    assert "".join(found[1:-3]).count("argv") == 3
