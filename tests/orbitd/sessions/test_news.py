"""What programs say becomes events and marks, each once, whatever happens to pictures and daemons."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from orbit_protocol.event_data import EVENT_DATA
from orbit_protocol.types import CommandFinished, Progress, TerminalNotification
from orbitd.screens import messages as m
from orbitd.screens.client import PictureState
from orbitd.sessions import news
from orbitd.sessions.news import SAID_AT_ONCE, RateLimit
from orbitd.sessions.session import LiveSession
from orbitd.store.events import NewEvent
from sessions_support import Sessions, scripted, until

NOTE = b"\x1b]9;%d\x07"


class Listener:
    """Hears live events."""

    def __init__(self) -> None:
        self.has_live_listeners = True
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def publish_live(self, kind: str, session_id: str, data: bytes | Struct) -> None:
        if self.has_live_listeners:
            assert session_id == "one"
            assert isinstance(data, EVENT_DATA[kind])  # type: ignore[arg-type]  # one class each
            self.heard.append((kind, json.loads(msgspec.json.encode(data))))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the data of one kind."""
        return [data for each, data in self.heard if each == kind]


class Timers:
    """The timers of a session's news, which a test lets run."""

    def __init__(self, live: LiveSession) -> None:
        self.now = asyncio.get_running_loop().time()
        self.due: list[tuple[float, Callable[[], None]]] = []
        live.news._loop = self  # type: ignore[assignment]  # as much of a loop as it needs

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timers.Handle:
        return self.call_at(self.now + delay, callback)

    def call_at(self, moment: float, callback: Callable[[], None]) -> Timers.Handle:
        entry = (moment, callback)
        self.due.append(entry)
        return Timers.Handle(self, entry)

    class Handle:
        def __init__(self, timers: Timers, entry: tuple[float, Callable[[], None]]) -> None:
            self.timers, self.entry = timers, entry

        def cancel(self) -> None:
            if self.entry in self.timers.due:
                self.timers.due.remove(self.entry)

    def advance(self, secs: float) -> None:
        """Let time pass."""
        end = self.now + secs
        while ready := sorted((each for each in self.due if each[0] <= end), key=lambda each: each[0]):
            self.due.remove(ready[0])
            self.now = ready[0][0]
            ready[0][1]()
        self.now = end


def kinds(events: list[NewEvent]) -> list[str]:
    """Return the kinds of events."""
    return [each.kind for each in events]


def bodies(events: list[NewEvent]) -> list[str]:
    """Return the texts of the notifications."""
    return [json.loads(each.data)["body"] for each in events if each.kind == "terminal.notification"]


async def say(sessions: Sessions, data: bytes) -> LiveSession:
    """Have the program print, and wait until its picture has that."""
    live = sessions.registry.get("one")
    assert live is not None
    position = await sessions.print(data)
    await until(lambda: live.picture.fed >= position)
    return live


def shown(sessions: Sessions) -> Any:
    """Return the session as a list shows it."""
    return sessions.methods.with_live_fields(sessions.store.sessions["one"])


async def test_a_notification(sessions: Sessions) -> None:
    """It is an event with its text, and a mark on the session until somebody who may type attaches."""
    await sessions.run()
    await say(sessions, b"x\x1b]777;notify;Tests;3 failed\x1b\\y")
    (event,) = sessions.store.said
    assert (event.kind, event.session_id) == ("terminal.notification", "one")
    assert json.loads(event.data) == {"title": "Tests", "body": "3 failed", "urgency": "normal"}
    note = TerminalNotification(title="Tests", body="3 failed")
    assert (shown(sessions).notification, shown(sessions).unseen_output, shown(sessions).bell) == (note, True, False)
    assert sessions.store.sessions["one"].notification == note
    await sessions.attach(read_only=True)
    assert shown(sessions).notification == note
    client = await sessions.attach()
    assert (shown(sessions).notification, shown(sessions).unseen_output) == (None, False)
    assert sessions.store.sessions["one"].notification is None
    await say(sessions, NOTE % 2)
    assert bodies(sessions.store.said) == ["3 failed", "2"]
    assert (shown(sessions).notification, shown(sessions).unseen_output) == (None, False)
    client.connection.close()
    await say(sessions, b"more")
    assert (shown(sessions).notification, shown(sessions).unseen_output) == (None, True)


async def test_a_command(sessions: Sessions) -> None:
    """A command that has finished is an event and the last command of its session, whoever follows."""
    await sessions.run()
    await sessions.attach()
    await say(sessions, b"\x1b]133;C;cmdline_url=make\x07")
    assert shown(sessions).last_command is None
    await say(sessions, b"\x1b]133;D;2\x07")
    command = CommandFinished(command="make", exit_code=2, duration_secs=0.0, cwd="/")
    assert shown(sessions).last_command == sessions.store.sessions["one"].last_command == command
    assert kinds(sessions.store.said) == ["command.finished"]
    assert json.loads(sessions.store.said[0].data)["cwd"] == "/"


async def test_the_folder_of_a_remote_command_is_not_known(sessions: Sessions) -> None:
    """A folder of this machine is not that of a command on another one."""
    await sessions.run(session_type="ssh")
    await say(sessions, b"\x1b]133;C\x07\x1b]133;D\x07")
    assert json.loads(sessions.store.said[0].data)["cwd"] is None


async def test_bells(sessions: Sessions) -> None:
    """A bell is an event at most once a second, while nobody follows who may type; one that ends an OSC is none."""
    timers = Timers(await sessions.run())
    await say(sessions, b"\x1b]0;title\x07")
    assert not shown(sessions).bell
    await say(sessions, b"\x07")
    await say(sessions, b"\x07\x07")
    assert (kinds(sessions.store.said), shown(sessions).bell) == (["terminal.bell"], True)
    timers.advance(1.1)
    await say(sessions, b"\x07")
    assert kinds(sessions.store.said) == ["terminal.bell"] * 2
    client = await sessions.attach()
    assert not shown(sessions).bell
    timers.advance(5)
    await say(sessions, b"\x07")
    assert (len(sessions.store.said), shown(sessions).bell) == (2, False)
    client.connection.close()
    assert not shown(sessions).bell


async def test_a_flood_is_counted(sessions: Sessions) -> None:
    """Beyond 50 at once and 5 a second nothing is stored but how many were left out."""
    live = await sessions.run()
    timers = Timers(live)
    for first in range(0, 1000, 100):
        await say(sessions, b"".join(NOTE % number for number in range(first, first + 100)))
    assert bodies(sessions.store.said) == [str(number) for number in range(SAID_AT_ONCE)]
    timers.advance(news.DROPPED_SECS)
    assert kinds(sessions.store.said)[SAID_AT_ONCE:] == ["terminal.dropped"]
    assert json.loads(sessions.store.said[-1].data) == {"count": 1000 - SAID_AT_ONCE}
    await say(sessions, b"".join(NOTE % number for number in range(20)))
    assert bodies(sessions.store.said)[SAID_AT_ONCE:] == [str(number) for number in range(10)]
    live.news.end(has_ended=False)
    assert json.loads(sessions.store.said[-1].data) == {"count": 10}


def test_rate_limit() -> None:
    """50 at once, then 5 a second, and never more than 50 after a pause."""
    limit = RateLimit(0.0)
    assert sum(limit.take(0.0) for _ in range(100)) == 50
    assert sum(limit.take(1.0) for _ in range(100)) == 5
    assert sum(limit.take(1.1) for _ in range(100)) == 0
    assert sum(limit.take(10_000.0) for _ in range(100)) == 50


async def test_each_is_heard_once_when_pictures_are_built_again(sessions: Sessions) -> None:
    """Neither a screens process that dies nor one that is evicted has anything heard twice, or not at all."""
    live = await sessions.run()
    await say(sessions, NOTE % 0)
    process = sessions.template.processes[-1]
    process.hold(m.Grown)
    await sessions.print(NOTE % 1)
    process.die()
    await until(lambda: bodies(sessions.store.said) == ["0", "1"])
    live.picture.close()
    assert live.picture.state is PictureState.ABSENT
    await say(sessions, NOTE % 2)
    await sessions.saver.save(live)
    live.close_files()
    await live.open_files()
    await say(sessions, NOTE % 3 + b"\x1b]9;ha")
    sessions.template.processes[-1].die()
    await say(sessions, b"lf\x07")
    assert bodies(sessions.store.said) == ["0", "1", "2", "3", "half"]
    positions = [each.position or 0 for each in sessions.store.said]
    assert positions == sorted(set(positions))
    assert positions[-1] == live.position


async def test_each_is_heard_once_by_another_daemon(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon goes on behind the last event that is stored, whatever the one before had read; old bells are silent."""
    with scripted(monkeypatch, home) as first:
        await first.run()
        for number in range(3):
            await say(first, NOTE % number)
        await say(first, b"\x07")
        stored, row = list(first.store.said), first.store.sessions["one"]
        first.template.processes[-1].hold(m.Grown)
        await first.print(NOTE % 3)
        journal = first.journal().read_bytes()
        await first.close()
    (home / "state" / "journal" / "one").write_bytes(journal)
    with scripted(monkeypatch, home) as second:
        second.store.sessions["one"], second.store.said = row, stored[:2]  # the third was not committed
        with second.registry.using("one") as live:
            await live.open_files()
            live.picture.wake()
            await until(lambda: live.picture.fed == live.position)
        assert kinds(second.store.said) == ["terminal.notification"] * 4
        assert bodies(second.store.said) == ["0", "1", "2", "3"]
        await second.close()


async def test_events_are_committed_before_the_snapshot_that_covers_them(sessions: Sessions) -> None:
    """A save waits until what was said before its position is stored: after a kill nothing reads that again."""
    live = await sessions.run()
    await sessions.print(NOTE % 1)
    await sessions.saver.save(live)
    assert [kind for kind, _ in sessions.store.story] == ["terminal.notification", "snapshot"]
    assert sessions.store.entered.index("said_settled") < sessions.store.entered.index("save_snapshot")


async def test_progress(sessions: Sessions) -> None:
    """Progress is shown while the program shows it, stored now and then and at a save, and gone with the program."""
    sessions.programs.outlet.live = listener = Listener()
    live = await sessions.run()
    await say(sessions, b"x")
    process = sessions.template.processes[-1]
    for state, percent, expected in [
        (1, 45, Progress(state="normal", percent=45)),
        (2, 45, Progress(state="error", percent=45)),
        (3, -1, Progress(state="indeterminate")),
        (4, 100, Progress(state="paused", percent=100)),
        (9, 5, None),
        (1, 0, Progress(state="normal", percent=0)),
    ]:
        facts = m.Facts(progress=(state, percent))
        process.send(m.Fed(session="one", position=live.position, facts=facts))
        await until(lambda facts=facts: live.picture.facts == facts)
        assert shown(sessions).progress == expected
    assert sessions.store.sessions["one"].progress == Progress(state="normal", percent=45)
    heard = [data["progress"] for data in listener.of("session.progress")]
    assert heard[0] == {"state": "normal", "percent": 45}
    assert heard[2] == {"state": "indeterminate", "percent": None}
    assert heard[4] is None
    await sessions.saver.save(live)
    assert sessions.store.sessions["one"].progress == Progress(state="normal", percent=0)
    await sessions.exit()
    assert shown(sessions).progress is None
    assert sessions.store.sessions["one"].progress is None


async def test_title_and_folder(sessions: Sessions) -> None:
    """A title is published when it changes, and not once more when a picture is built again."""
    sessions.programs.outlet.live = listener = Listener()
    sessions.store.add("one", title="stored")
    live = await sessions.run()
    await say(sessions, b"x")
    process = sessions.template.processes[-1]
    for title in ("stored", "new", "new", "", "last"):
        process.send(m.Fed(session="one", position=live.position, facts=m.Facts(title=title), held=len(title)))
        await until(lambda title=title: live.picture.facts.title == title)
    # An older screen than the newest, as while it is built again.
    process.send(m.Fed(session="one", position=0, facts=m.Facts(title="old"), held=77))
    await until(lambda: live.picture.held == 77)
    assert [data["title"] for data in listener.of("session.title")] == ["new", None, "last"]
    assert live.picture.facts.title == "last"
    live.news.handle_folder(b"/tmp/\xff")
    assert listener.of("session.cwd") == [{"cwd": "/tmp/\\xff", "cwd_bytes": "L3RtcC//"}]


async def test_silence(sessions: Sessions) -> None:
    """A session is silent once after it has printed, and active when it prints again; in between it has no timer."""
    sessions.programs.outlet.live = listener = Listener()
    live = await sessions.run()
    timers = Timers(live)
    await say(sessions, b"one")
    timers.advance(20)
    await say(sessions, b"two")
    assert len(timers.due) == 1
    timers.advance(20)
    assert not listener.of("session.silent")
    timers.advance(11)
    assert listener.of("session.silent") == [{}]
    assert not timers.due
    assert not listener.of("session.active")
    await say(sessions, b"three")
    assert listener.of("session.active") == [{}]
    assert {data["unseen_output"] for data in listener.of("session.output_seen")} == {True}
    await sessions.exit()
    assert not timers.due
    assert live.news.fields()["unseen_output"]


async def test_nobody_listens(sessions: Sessions) -> None:
    """Nothing is made of what nobody hears."""
    sessions.programs.outlet.live = listener = Listener()
    listener.has_live_listeners = False
    await sessions.run()
    await say(sessions, b"one")
    assert not listener.heard


async def test_marks_of_a_row_are_kept(sessions: Sessions) -> None:
    """What is stored of a session stays while it has no program, when it is started, and when its files are opened."""
    note, command = TerminalNotification(title="a", body="b"), CommandFinished(command="make", exit_code=0)
    sessions.store.add("one", bell=True, notification=note, unseen_output=True, last_command=command)
    assert shown(sessions).notification == note
    await sessions.run()
    await say(sessions, b"x")
    assert (shown(sessions).bell, shown(sessions).notification, shown(sessions).last_command) == (True, note, command)
    await sessions.attach()
    assert (shown(sessions).bell, shown(sessions).notification, shown(sessions).last_command) == (False, None, command)


async def test_a_session_that_is_gone(sessions: Sessions) -> None:
    """What the program of a session says that is being deleted is lost with it."""
    live = await sessions.run()
    await say(sessions, b"x")
    del sessions.store.sessions["one"]
    sessions.template.processes[-1].send(m.Fed(session="one", position=live.position, bells=1, unsaid=3))
    await until(lambda: kinds(sessions.store.said) == ["terminal.bell"])
