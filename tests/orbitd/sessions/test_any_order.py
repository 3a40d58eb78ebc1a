"""Everything that may happen to a session, in random orders: what is shown and stored is what its program printed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal

import pytest

from orbit_protocol import params as p
from orbit_protocol.errors import OrbitError
from orbitd.screens import client
from orbitd.screens import messages as m
from orbitd.screens.note import Kind
from orbitd.sessions import endings, frames, session
from orbitd.sessions.session import State
from sessions_support import Client, FullDisk, Sessions, until
from support import WAIT_SECS

SEEDS = range(int(os.environ.get("ORBIT_TEST_ORDERS", "40")))
STEPS = 40
HELD: list[type[m.Struct]] = [m.Open, m.Grown, m.Paint, m.Frame, m.Save, m.Render]


class Life:
    """A session to which anything happens."""

    def __init__(self, sessions: Sessions, seed: int, disk: FullDisk) -> None:
        self.disk = disk
        self.random = random.Random(seed)
        self.sessions = sessions
        self.printed = b""
        self.clients: list[Client] = []
        self.tasks: list[asyncio.Task[object]] = []

    def start(self, work: object) -> None:
        self.tasks.append(asyncio.ensure_future(work))  # type: ignore[arg-type]

    async def step(self) -> str:
        """Do one thing; return what."""
        what = self.random.choice([*["output"] * 4, *STEPS_BY_NAME])
        if what == "output":
            word = b"<%d>" % len(self.printed)
            self.printed += word
            self.sessions.write(word)
        else:
            await STEPS_BY_NAME[what](self)
        for _ in range(self.random.choice([0, 0, 1, 3, 20])):
            await asyncio.sleep(0)
        return what

    async def attach(self) -> None:
        attaching = self.sessions.client(
            size=(self.random.choice([80, 100]), 24),
            read_only=self.random.random() < 0.3,
            frames=self.random.choice(["auto", "auto", "auto", "never", "always"]),
        )
        self.clients.append(attaching)
        self.start(attaching.attach())

    async def leave(self) -> None:
        if self.clients:
            leaving = self.clients.pop(self.random.randrange(len(self.clients)))
            leaving.connection.close()

    async def resize(self) -> None:
        attached = [each for each in self.clients if each.id and each.connection.attachments]
        if attached:
            self.random.choice(attached).resize(self.random.choice([70, 80, 90, 100, 110]), 24)

    async def type(self) -> None:
        for each in self.clients:
            if each.id and each.connection.attachments and not each.read_only:
                with contextlib.suppress(OrbitError):
                    each.type(b"x")
                return

    async def congest(self) -> None:
        for each in self.clients:
            each.connection.is_congested = self.random.random() < 0.5

    async def drain(self) -> None:
        for each in self.clients:
            each.connection.drain()

    async def save(self) -> None:
        live = self.sessions.registry.get("one")
        assert live is not None
        self.start(self.sessions.saver.save(live))

    async def look(self) -> None:
        self.start(self.sessions.methods.screen(p.SessionScreen(id="one", scrollback=True)))

    async def free(self) -> None:
        live = self.sessions.registry.get("one")
        assert live is not None
        live._free_if_idle()

    async def die(self) -> None:
        for process in self.sessions.template.processes:
            if process.is_open and process.pictures:
                status = self.random.choice([1, -signal.SIGKILL])
                process.die(status)
                return

    async def crash(self) -> None:
        """Die while something is drawn, but never twice at one place."""
        for process in self.sessions.template.processes:
            picture = process.pictures.get("one")
            if process.is_open and picture is not None and picture.is_open:
                live = self.sessions.registry.get("one")
                if live is not None and live.picture._strike is None:
                    position = picture.follower.position
                    process.note.write("one", Kind.FEED, position, position + 1)
                    process.die()
                return

    async def fill(self) -> None:
        self.disk.is_full = True

    async def empty(self) -> None:
        self.disk.is_full = False

    async def hold(self) -> None:
        for process in self.sessions.template.processes:
            process.hold(self.random.choice(HELD))

    async def release(self) -> None:
        for process in self.sessions.template.processes:
            if process.is_open:
                process.release(*HELD)


STEPS_BY_NAME = {
    "attach": Life.attach,
    "leave": Life.leave,
    "resize": Life.resize,
    "type": Life.type,
    "congest": Life.congest,
    "drain": Life.drain,
    "save": Life.save,
    "look": Life.look,
    "free": Life.free,
    "die": Life.die,
    "crash": Life.crash,
    "fill": Life.fill,
    "empty": Life.empty,
    "hold": Life.hold,
    "release": Life.release,
}


@pytest.mark.parametrize("ends", [False, True], ids=["runs", "ends"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_any_order(sessions: Sessions, monkeypatch: pytest.MonkeyPatch, seed: int, ends: bool) -> None:
    """Whatever happens in between, picture, clients and snapshot have all output in the end, each byte once."""
    for name in ("STATUS_SECS", "TEMPLATE_RETRY_SECS"):
        monkeypatch.setattr(client, name, 0.001)
    monkeypatch.setattr(client, "MAX_KILLED", 10_000)
    monkeypatch.setattr(session, "REPAINT_SECS", 0.002)
    monkeypatch.setattr(frames, "FRAMES_A_SEC", 1e4)
    monkeypatch.setattr(frames, "RETRY_SECS", 0.002)
    # A machine that is busy loses nothing.
    monkeypatch.setattr(endings, "LAST_SAVE_SECS", WAIT_SECS)
    monkeypatch.setattr(session, "LAST_REPAINT_SECS", WAIT_SECS)
    live = await sessions.run()
    disk = FullDisk(monkeypatch)
    disk.is_full = False
    life = Life(sessions, seed, disk)
    story = [await life.step() for _ in range(STEPS)]
    disk.is_full = False
    for process in sessions.template.processes:
        process.recover()
    sessions.template.on_fork = lambda _: None
    for each in life.clients:
        each.connection.drain()
    if ends:
        await sessions.exit()
    else:
        life.printed += b"<end>"
        sessions.write(b"<end>")
        shown, position = b"", 0
        while not shown.endswith(b"<end>"):
            drawn = await live.picture.render(position, "text", scrollback=True)
            shown, position = drawn.data, drawn.position + 1
        assert shown == life.printed, story
    for failed in await asyncio.gather(*life.tasks, return_exceptions=True):
        assert failed is None or isinstance(failed, bool | OrbitError | OSError | Client | m.Struct), (story, failed)
    if ends:
        assert (live.state, sessions.store.sessions["one"].status) == (State.ENDED, "terminated"), story
        assert sessions.store.saved("one") == life.printed, story
        assert not sessions.journal().exists(), (story, sessions.journal().read_bytes())
    else:
        await sessions.saver.save(live)
        assert sessions.store.saved("one") == life.printed, story
    for each in life.clients:
        if each.id and (each.connection.attachments or ends):
            await until(lambda each=each: each.shown == life.printed or (each.shown and ends))
            assert each.shown == life.printed, story
    assert list(sessions.journal().parent.glob("*.unreadable-*")) == [], story
