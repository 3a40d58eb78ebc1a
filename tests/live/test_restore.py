"""A start with sessions that cannot be restored: they are named, and everybody else's are. A real store and keeper."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ctl_support import Orbitctl
from keeper_support import KeeperProcess, open_files
from live.sessions import start
from live_support import Viewer
from orbit_os.files import UnsafeFolder
from orbit_protocol import params as p
from orbit_protocol.errors import LiveUnavailable, NotRunning, SessionNotFound, SpawnFailed, StorageFull
from orbit_protocol.params import SessionScreen
from orbit_protocol.settings import HistorySettings
from orbit_protocol.types import Session, SessionConfig
from orbitd.history.history import History
from orbitd.keeper import client as client_module
from orbitd.keeper.client import KeeperClient, KeeperGone, KeptProgram, Spawned, SpawnRequest, UnsupportedRequest
from orbitd.manager import SessionManager
from orbitd.screens.model import TerminalError
from orbitd.sessions import keeper_connection, restore
from orbitd.sessions import programs as programs_module
from orbitd.sessions.files import OpenFiles, SessionFiles
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import Output
from orbitd.sessions.methods import SessionMethods
from orbitd.sessions.programs import LiveSettings, Programs
from orbitd.sessions.restore import finish_restoring, restore_sessions
from orbitd.sessions.session import LiveSession
from support import WAIT_SECS, DaemonProcess, RawClient

ERRORS: list[Exception] = [
    TerminalError("no"),
    UnsafeFolder("open to others"),
    SpawnFailed("the journal cannot be opened"),
    StorageFull("no room"),
    OSError(5, "Input/output error"),
    MemoryError(),
    RuntimeError("anything"),
]


class Daemons:
    """Daemons of one database, one after the other, without sockets."""

    def __init__(self, home: Path, manager: SessionManager) -> None:
        self.home = home
        self.manager = manager
        self.keeper = KeeperProcess(f"{manager.path}.keeper")
        self.history = History(str(home / "history.db"), HistorySettings())
        self.programs = self._programs()

    def _programs(self) -> Programs:
        settings = LiveSettings(
            keeper_socket=self.keeper.path,
            journal_folder=str(self.home / "state" / "journal"),
            landing_file=str(self.home / "run" / "landing"),
            agent_folder=str(self.home / "state" / "agent"),
            daemon_socket="/nowhere",
            program_umask=0o022,
            scrollback_max_bytes=1 << 20,
            total_scrollback_bytes=1 << 24,
        )
        return Programs(self.manager, self.history, settings, auto_save_interval_secs=3600)

    async def start_session(self, command: str | None = "cat", **config: Any) -> Session:
        made = await self.manager.create_session(SessionConfig(session_type="local", command=command, **config))
        return await self.programs.start(made.id, 80, 24, None)

    async def restart(self, *, start_again: bool = False) -> Programs:
        """Close one daemon and start the next one, which restores the sessions."""
        await self.programs.close()
        self.programs = self._programs()
        await restore_sessions(self.manager, self.programs, start_again=start_again)
        return self.programs

    async def reboot(self, *, start_again: bool = True) -> Programs:
        """Restart with every program gone."""
        await self.programs.close()
        self.keeper.kill()
        return await self.restart(start_again=start_again)

    def running(self) -> set[str]:
        """Return the sessions that have a program."""
        return {live.id for live in self.programs.registry if live.has_program}

    def pid(self, session: Session) -> int:
        live = self.programs.registry.running(session.id)
        assert live is not None
        return live.pid

    async def text(self, session: Session) -> str:
        """Return what is on a session's screen, with its history."""
        methods = SessionMethods(self.manager, self.programs)
        return (await methods.screen(SessionScreen(id=session.id, scrollback=True))).data

    async def wait_for_text(self, session: Session, wanted: bytes) -> None:
        """Wait until a running session shows a text."""
        live, position = self.programs.registry.running(session.id), 0
        assert live is not None
        async with asyncio.timeout(WAIT_SECS):
            while wanted not in (drawn := await live.picture.render(position, "text", scrollback=True)).data:
                position = drawn.position + 1

    async def wait_for_exit(self, exited: asyncio.Event) -> None:
        """Wait until the exit that a keeper reports has been handled."""
        async with asyncio.timeout(WAIT_SECS):
            await exited.wait()
        await self.programs._tasks.finish(WAIT_SECS)

    def journal(self, session: Session) -> Path:
        return self.home / "state" / "journal" / session.id


@pytest.fixture
async def daemons(home: Path) -> AsyncIterator[Daemons]:
    (home / "state").mkdir(0o700)
    async with SessionManager.open(home / "store" / "sessions.db") as manager:
        daemons = Daemons(home, manager)
        yield daemons
        await daemons.programs.close()
        await daemons.history.close()
        daemons.keeper.kill()


async def test_what_comes_back_after_a_reboot(daemons: Daemons) -> None:
    """Shells, and what has `restart` or `resume`, under their screens; one that cannot be started is named alone.

    What has ended, other commands, and all of it where the user does not want that, wait until they are asked for.
    """
    resume = "sh -c 'echo resumed; cat'"
    login, shell, kept, resumed, broken, _, ended = sessions = [
        await daemons.start_session(None, env={"SHELL": "/bin/sh"}),
        await daemons.start_session("sh -i"),
        await daemons.start_session(restart=True),
        await daemons.start_session("sh -c 'echo first; read x'", resume=resume),
        await daemons.start_session(resume="/nonexistent/program"),
        await daemons.start_session(),
        await daemons.start_session(None, env={"SHELL": "/bin/sh"}),
    ]
    await daemons.manager.update_session_status(shell.id, "active")
    await daemons.wait_for_text(resumed, b"first")
    methods = SessionMethods(daemons.manager, daemons.programs)
    await methods.terminate(ended.id)
    await daemons.reboot(start_again=False)
    assert daemons.running() == set()
    assert [(await daemons.manager.get_session(one.id)).live for one in sessions] == [False] * 7
    for one in sessions[:6]:
        await daemons.manager.start_program(one.id, 80, 24)  # as one does that is killed just after
    programs = await daemons.reboot()
    await programs.wait_for_comebacks()
    assert daemons.running() == {login.id, shell.id, kept.id, resumed.id}
    await daemons.wait_for_text(resumed, b"first")
    await daemons.wait_for_text(resumed, b"resumed")
    found = await daemons.manager.get_session(broken.id)
    assert (found.status, found.live, found.exit_code) == ("detached", False, None)
    [warning] = programs.warnings()
    assert broken.id in warning
    await daemons.reboot()
    assert daemons.programs.warnings() == [], "a start that has failed is not tried at each boot"


async def test_a_command_for_coming_back_is_for_what_was_lost(daemons: Daemons, exited: asyncio.Event) -> None:
    """Asked for, a lost session resumes too; one that has ended begins with its own command, even if resuming fails."""
    session = await daemons.start_session("sh -c 'echo own; cat'", resume="sh -c 'echo resumed; exit 3'")
    await daemons.reboot(start_again=False)
    await daemons.programs.start(session.id, 80, 24, None)
    await daemons.wait_for_exit(exited)
    assert (await daemons.manager.get_session(session.id)).exit_code == 3
    assert "resumed" in await daemons.text(session)
    await daemons.reboot()
    assert daemons.running() == set()
    await daemons.programs.start(session.id, 80, 24, None)
    await daemons.wait_for_text(session, b"own")


async def test_sessions_that_wait_for_their_turn(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are served meanwhile; who asks for one waits for it; the next daemon starts those that had no turn."""
    monkeypatch.setattr(restore, "STARTED_FIRST_SECS", 0.0)
    monkeypatch.setattr(programs_module, "STARTED_TOGETHER", 1)
    names = ["sh -i"] * 4
    sessions = [await daemons.start_session(name) for name in names]
    gate, spawn = asyncio.Event(), KeeperClient.spawn

    async def wait(client: KeeperClient, request: SpawnRequest) -> Spawned:
        await gate.wait()
        return await spawn(client, request)

    monkeypatch.setattr(KeeperClient, "spawn", wait)
    programs = await daemons.reboot()
    methods = SessionMethods(daemons.manager, programs)
    rows = [methods.with_live_fields(await daemons.manager.get_session(one.id)) for one in sessions]
    assert [(row.live, row.status) for row in rows] == [(False, "detached")] * 4
    assert not (await methods.terminate(sessions[0].id)).live
    await methods.delete(sessions[1].id)
    asked = asyncio.ensure_future(methods.signal(sessions[2].id, signal.SIGCONT))
    await asyncio.sleep(0)
    programs.start_closing()
    gate.set()
    with contextlib.suppress(NotRunning):
        await asked
    await programs.wait_for_comebacks()
    running = daemons.running()
    assert len(running) == 1
    await daemons.restart(start_again=True)
    await daemons.programs.wait_for_comebacks()
    assert daemons.running() == {sessions[2].id, sessions[3].id}
    assert running < daemons.running()


async def test_passwd_is_not_asked_on_the_loop(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a command is a shell may need an answer of a server: clients are served meanwhile."""
    await daemons.start_session("sh -i")
    asked: list[bool] = []

    def is_shell(_: str, **__: Any) -> bool:
        asked.append(threading.current_thread() is threading.main_thread())
        return True

    monkeypatch.setattr(restore, "is_interactive_shell", is_shell)
    await daemons.reboot()
    await daemons.programs.wait_for_comebacks()
    assert len(daemons.running()) == 1
    assert set(asked) == {False}


async def test_a_start_that_the_stop_cuts_off_is_made_by_the_next_daemon(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell whose turn came as the daemon stopped comes back all the same."""
    session = await daemons.start_session("sh -i")

    async def cut_off(_: KeeperClient, __: SpawnRequest) -> Spawned:
        daemons.programs.start_closing()
        raise LiveUnavailable("the daemon stops")

    with monkeypatch.context() as patched:
        patched.setattr(KeeperClient, "spawn", cut_off)
        await daemons.reboot()
        await daemons.programs.wait_for_comebacks()
    await daemons.restart(start_again=True)
    await daemons.programs.wait_for_comebacks()
    assert daemons.running() == {session.id}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """Session ids that can be neither taken over nor opened, and why."""
    errors: dict[str, Exception] = {}
    take_over, open_files = Programs.take_over, SessionFiles.open

    def fail_to_take_over(programs: Programs, live: LiveSession, session: Session, program: KeptProgram) -> None:
        if session.id in errors:
            raise errors[session.id]
        take_over(programs, live, session, program)

    async def fail_to_open(files: SessionFiles, session_id: str, *, create: bool) -> OpenFiles:
        if session_id in errors:
            raise errors[session_id]
        return await open_files(files, session_id, create=create)

    monkeypatch.setattr(Programs, "take_over", fail_to_take_over)
    monkeypatch.setattr(SessionFiles, "open", fail_to_open)
    return errors


@pytest.fixture
def exited(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a keeper has reported an exit."""
    reported = asyncio.Event()
    handle = Programs.handle_exit

    def handled(programs: Programs, program: KeptProgram) -> None:
        handle(programs, program)
        reported.set()

    monkeypatch.setattr(Programs, "handle_exit", handled)
    return reported


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("rebooted", [False, True], ids=["taken over", "rebooted"])
async def test_one_session_that_cannot_be_restored(
    daemons: Daemons, failing: dict[str, Exception], error: Exception, rebooted: bool
) -> None:
    """It is detached, not live, named and keeps its journal; the others are restored; starting it tries again."""
    sessions = [await daemons.start_session() for _ in range(3)]
    first, broken, last = sessions
    await daemons.manager.update_session_status(broken.id, "active")
    before = daemons.journal(broken).read_bytes()
    failing[broken.id] = error
    if rebooted:
        await daemons.programs.close()
        daemons.keeper.kill()
    programs = await daemons.restart()
    assert daemons.running() == (set() if rebooted else {first.id, last.id})
    found = [await daemons.manager.get_session(session.id) for session in sessions]
    assert [session.status for session in found] == ["detached"] * 3
    [warning] = programs.warnings()
    assert broken.id in warning
    assert daemons.journal(broken).read_bytes()[: len(before)] == before
    failing.clear()
    started = await programs.start(broken.id, 80, 24, None)
    assert started.live
    assert broken.id in daemons.running()
    assert programs.warnings() == []


def break_keeper(patched: pytest.MonkeyPatch, call: str, error: Exception) -> None:
    """Have a call of the keeper's client fail."""

    async def fail(*_: object, **__: object) -> None:
        raise error

    patched.setattr(KeeperClient, call, fail)


@pytest.mark.parametrize(
    "error", [KeeperGone("it does not answer"), OSError(13, "Permission denied"), ValueError("garbage")], ids=repr
)
@pytest.mark.parametrize("call", ["connect", "programs"])
async def test_a_keeper_that_does_not_serve(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, error: Exception, call: str
) -> None:
    """What runs is not known then: no session is taken for ended or started a second time, and a warning says so.

    A request that needs a program is refused. When the keeper serves, all is there again by itself.
    """
    session = await daemons.start_session()
    pid = daemons.pid(session)
    with monkeypatch.context() as patched:
        break_keeper(patched, call, error)
        patched.setattr(keeper_connection, "ANSWER_SECS", 0.01)
        programs = await daemons.restart()
        methods = SessionMethods(daemons.manager, programs)
        assert (await daemons.manager.get_session(session.id)).live
        assert not methods.with_live_fields(session).live
        assert daemons.journal(session).exists()
        [warning] = programs.warnings()
        assert "No live session is there" in warning
        for request in (
            programs.start(session.id, 80, 24, None),
            daemons.start_session(),
            methods.terminate(session.id),
            methods.delete(session.id),
            methods.wait(p.SessionWait(id=session.id, timeout_secs=0)),
            methods.signal(session.id, 9),
        ):
            with pytest.raises(LiveUnavailable) as refused:
                await request
            [warning] = programs.warnings()  # a try in between may have failed in another way: without an answer
            assert refused.value.data()["reason"] in warning
        assert (await daemons.manager.get_session(session.id)).status == "detached"
    await programs.keeper.require_known()
    await programs.keeper.reached()
    assert daemons.pid(session) == pid
    assert programs.warnings() == []
    os.kill(pid, 0)


async def test_a_keeper_that_answers_late(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, exited: asyncio.Event
) -> None:
    """What became of programs while the keeper was stopped is stored once it goes on, and all is read again."""
    monkeypatch.setattr(keeper_connection, "ANSWER_SECS", 0.01)
    session, ending = await daemons.start_session(), await daemons.start_session("sh -c 'read x; exit 7'")
    keeper = (await daemons.programs.keeper.client()).keeper_pid
    await daemons.programs.close()
    os.kill(keeper, signal.SIGSTOP)
    try:
        programs = await daemons.restart()
        assert f"pid {keeper}" in programs.warnings()[0]
        restoring = asyncio.ensure_future(finish_restoring(programs))
        with pytest.raises(LiveUnavailable):
            await daemons.programs.start(session.id, 80, 24, None)
    finally:
        os.kill(keeper, signal.SIGCONT)
    await restoring
    assert daemons.running() == {session.id, ending.id}
    live = programs.registry.running(ending.id)
    assert live is not None
    live.write_input(b"\n")
    await daemons.wait_for_exit(exited)
    assert (await daemons.manager.get_session(ending.id)).exit_code == 7


async def test_a_start_whose_connection_is_lost(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start fails, and the program that the keeper has started all the same does not run on unseen."""
    await daemons.start_session()
    spawn = KeeperClient.spawn

    async def lose(client: KeeperClient, request: SpawnRequest) -> None:
        os.close((await spawn(client, request)).master_fd)
        client._channel._connection_lost("no descriptor was left for what it sent")
        raise KeeperGone("it is lost")

    with monkeypatch.context() as patched:
        patched.setattr(KeeperClient, "spawn", lose)
        with pytest.raises(KeeperGone):
            await daemons.start_session()
    await daemons.programs.keeper.reached()
    client = await daemons.programs.keeper.client()
    async with asyncio.timeout(WAIT_SECS):
        while len(await client.programs()) > 1:  # each is a round trip; its exit comes after one of them
            pass
    assert len(daemons.running()) == 1
    assert await daemons.start_session()


async def test_a_keeper_that_is_stopped_under_a_daemon(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs it is refused as unavailable, and no session is recorded as running; with SIGCONT all goes on."""
    monkeypatch.setattr(client_module, "ANSWER_SECONDS", 0.05)
    session = await daemons.start_session()
    other = await daemons.manager.create_session(SessionConfig(session_type="local", command="cat"))
    keeper = (await daemons.programs.keeper.client()).keeper_pid
    os.kill(keeper, signal.SIGSTOP)
    try:
        for request in (
            daemons.programs.start(other.id, 80, 24, None),
            SessionMethods(daemons.manager, daemons.programs).signal(session.id, 0),
        ):
            with pytest.raises(LiveUnavailable, match=f"pid {keeper}"):
                await request
    finally:
        os.kill(keeper, signal.SIGCONT)
    assert not (await daemons.manager.get_session(other.id)).live
    monkeypatch.undo()
    assert (await daemons.programs.start(other.id, 80, 24, None)).live
    assert daemons.running() == {session.id, other.id}


async def test_what_was_refused_is_not_done_later(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal and an end that a stopped keeper could not carry out are not carried out once it goes on."""
    monkeypatch.setattr(client_module, "ANSWER_SECONDS", 0.05)
    command = "sh -c 'read x; echo $x is here; cat'"
    session, other = await daemons.start_session(command), await daemons.start_session(command)
    methods = SessionMethods(daemons.manager, daemons.programs)
    client = await daemons.programs.keeper.client()
    os.kill(client.keeper_pid, signal.SIGSTOP)
    try:
        for request in (methods.terminate(session.id), methods.signal(other.id, signal.SIGKILL)):
            with pytest.raises(LiveUnavailable, match=f"pid {client.keeper_pid}"):
                await request
    finally:
        os.kill(client.keeper_pid, signal.SIGCONT)
    monkeypatch.undo()
    await client.programs()  # answered after all that was sent before
    for one in (session, other):
        live = daemons.programs.registry.running(one.id)
        assert live is not None
        assert not live.is_terminating
        live.write_input(b"all\n")
        await daemons.wait_for_text(one, b"all is here")


@pytest.mark.parametrize("wish", ["terminate", "delete"])
async def test_a_program_that_ends_just_before_it_is_ended(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    """While the keeper is asked for an answer a program may end by itself: what was wished for is so."""
    session = await daemons.start_session()
    live = daemons.programs.registry.running(session.id)
    assert live is not None
    require_answer = daemons.programs.keeper.require_answer

    async def answer_late() -> None:
        os.kill(live.pid, signal.SIGKILL)
        await live.exited
        await require_answer()

    monkeypatch.setattr(daemons.programs.keeper, "require_answer", answer_late)
    methods = SessionMethods(daemons.manager, daemons.programs)
    if wish == "delete":
        await methods.delete(session.id)
        with pytest.raises(SessionNotFound):
            await daemons.manager.get_session(session.id)
    else:
        assert (await methods.terminate(session.id)).status == "terminated"


async def test_a_connection_to_the_keeper_that_is_lost(daemons: Daemons) -> None:
    """Programs are not called gone for it: this daemon connects again, and stores what has ended meanwhile."""
    session, ending = await daemons.start_session(), await daemons.start_session("sh -c 'read x; exit 7'")
    programs = daemons.programs
    pid, client = daemons.pid(session), await programs.keeper.client()
    client._channel._connection_lost("no descriptor was left for what it sent")
    await programs.keeper.require_known()
    await programs.keeper.reached()
    assert daemons.running() == {session.id, ending.id}
    assert daemons.pid(session) == pid
    assert (await programs.keeper.client()).keeper_pid == client.keeper_pid
    assert await daemons.start_session()
    live = programs.registry.running(ending.id)
    assert live is not None
    os.kill(live.pid, 9)
    async with asyncio.timeout(WAIT_SECS):
        assert (await live.exited).exit_signal == 9


def socket_inode(path: Path) -> int:
    """Return the number of a socket's file."""
    assert path.is_socket()
    return path.stat().st_ino


async def test_a_removed_socket_is_bound_again(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connected daemon has the keeper make it again; where that cannot be, a warning says so until it can."""
    await daemons.start_session()
    keeper, socket = daemons.programs.keeper, Path(daemons.keeper.path)
    await keeper.check_socket()
    before = socket_inode(socket)
    put(socket, "nothing")
    await keeper.check_socket()
    assert socket_inode(socket) != before
    assert daemons.programs.warnings() == []
    put(socket, "nothing")
    put(socket, "folder")
    await keeper.check_socket()
    [warning] = daemons.programs.warnings()
    assert str(socket) in warning
    put(socket, "nothing")
    with monkeypatch.context() as patched:
        break_keeper(patched, "bind", UnsupportedRequest("no request bind"))
        await keeper.check_socket()
        assert "an earlier Orbit" in daemons.programs.warnings()[0]
    await keeper.check_socket()
    assert daemons.programs.warnings() == []
    assert socket_inode(socket)
    await daemons.restart()
    assert len(daemons.running()) == 1


def put(path: Path, kind: str) -> None:
    """Put something in a path's place, or remove it."""
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("x")
    elif kind == "link":
        path.symlink_to(path.with_name("nowhere"))
    elif path.is_dir():
        path.rmdir()
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_something_else_in_the_keepers_place(daemons: Daemons, kind: str) -> None:
    """A file, a folder or a link where the keeper's socket would be keeps no daemon from starting."""
    put(Path(daemons.keeper.path), kind)
    await daemons.restart()
    made = await daemons.manager.create_session(SessionConfig(session_type="local", command="cat"))
    with pytest.raises((SpawnFailed, LiveUnavailable)):
        await daemons.programs.start(made.id, 80, 24, None)
    assert not daemons.journal(made).exists()
    put(Path(daemons.keeper.path), "nothing")
    await daemons.programs.start(made.id, 80, 24, None)


async def test_an_exit_before_its_session_is_taken_over(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, exited: asyncio.Event
) -> None:
    """A program that ends between the keeper's list and its take-over is stored with its exit and last output."""
    session = await daemons.start_session("sh -c 'read x; echo last words; exit 7'")
    list_interrupted = SessionManager.list_interrupted

    async def end_first(manager: SessionManager) -> list[Session]:
        master = await (await daemons.programs.keeper.client()).take(session.id)
        os.write(master, b"\n")
        os.close(master)
        async with asyncio.timeout(WAIT_SECS):
            await exited.wait()
        return await list_interrupted(manager)

    monkeypatch.setattr(SessionManager, "list_interrupted", end_first)
    await daemons.restart()
    await daemons.wait_for_exit(exited)
    ended = await daemons.manager.get_session(session.id)
    assert (ended.status, ended.exit_code, ended.live) == ("terminated", 7, False)
    assert "last words" in await daemons.text(session)
    assert not daemons.journal(session).exists()


async def assert_exit_is_stored(daemons: Daemons, session: Session, pid: int, exited: asyncio.Event) -> None:
    """Kill a program that was not taken over, and check that its session ends."""
    os.kill(pid, 9)
    await daemons.wait_for_exit(exited)
    ended = await daemons.manager.get_session(session.id)
    assert (ended.status, ended.exit_signal, ended.live) == ("terminated", 9, False)


async def test_an_exit_of_a_session_that_was_not_taken_over(
    daemons: Daemons, failing: dict[str, Exception], exited: asyncio.Event
) -> None:
    """Its exit is stored too; what was on its screen stays in its journal where that cannot be drawn."""
    session = await daemons.start_session("sh -c 'echo words; read x; exit 7'")
    pid = daemons.pid(session)
    failing[session.id] = MemoryError()
    await daemons.restart()
    await assert_exit_is_stored(daemons, session, pid, exited)
    assert daemons.journal(session).exists()


async def test_a_second_try_that_fails_too(
    daemons: Daemons, failing: dict[str, Exception], exited: asyncio.Event
) -> None:
    """A start that cannot take the program over leaves it recorded as running, so that its exit is stored."""
    session = await daemons.start_session("sh -c 'read x; exit 7'")
    pid = daemons.pid(session)
    failing[session.id] = TerminalError("too long")
    programs = await daemons.restart()
    with pytest.raises(TerminalError):
        await programs.start(session.id, 80, 24, None)
    assert programs.warnings() != []
    await assert_exit_is_stored(daemons, session, pid, exited)


@pytest.mark.parametrize(("method", "options"), [("terminate", {}), ("delete", {}), ("delete", {"purge": True})])
async def test_ending_a_session_that_was_not_taken_over(
    daemons: Daemons, failing: dict[str, Exception], exited: asyncio.Event, method: str, options: dict[str, bool]
) -> None:
    """Its program is ended with it, and the warning goes; its journal, which could not be read, only with a purge."""
    session = await daemons.start_session()
    failing[session.id] = TerminalError("too long")
    programs = await daemons.restart()
    await getattr(SessionMethods(daemons.manager, programs), method)(session.id, **options)
    await daemons.wait_for_exit(exited)
    assert await (await programs.keeper.client()).programs() == []
    assert programs.warnings() == []
    assert daemons.journal(session).exists() == (not options)


@pytest.mark.parametrize("command", ["/nonexistent/program", "/", "'unclosed"])
async def test_a_start_that_fails_leaves_nothing(daemons: Daemons, command: str) -> None:
    """There is no journal and no link to an agent, and the row is as it was."""
    made = await daemons.manager.create_session(SessionConfig(session_type="local", command=command))
    agent = {b"SSH_AUTH_SOCK": b"/dev/null"}
    with pytest.raises(SpawnFailed):
        await daemons.programs.start(made.id, 80, 24, agent)
    assert list((daemons.home / "state").rglob(f"{made.id}*")) == []
    found = await daemons.manager.get_session(made.id)
    assert (found.live, found.status, found.exit_code) == (False, made.status, None)


async def test_a_start_that_fails_keeps_earlier_output(daemons: Daemons) -> None:
    """A journal with output that is not saved is not removed by a start that fails."""
    made = await daemons.manager.create_session(SessionConfig(session_type="local", command="/nonexistent"))
    daemons.journal(made).parent.mkdir(0o700)
    with Journal(daemons.journal(made)) as journal:
        journal.append(Output(data=b"unsaved"))
    daemons.programs.agents.update(made.id, {b"SSH_AUTH_SOCK": b"/dev/null"})
    with pytest.raises(SpawnFailed):
        await daemons.programs.start(made.id, 80, 24, {b"SSH_AUTH_SOCK": b"/dev/zero"})
    assert "unsaved" in await daemons.text(made)
    assert daemons.programs.agents.exists(made.id)


async def test_an_older_database_under_a_running_program(daemons: Daemons) -> None:
    """Where output is in no journal and no snapshot, the screen says so, and shows what follows; no file is kept."""
    session = await daemons.start_session()
    live = daemons.programs.registry.running(session.id)
    assert live is not None
    live.write_input(b"gone\r")
    await daemons.wait_for_text(session, b"gone\ngone")
    await daemons.programs.close()
    for one in (await daemons.manager.list_snapshots(session.id)).snapshots:
        await daemons.manager.delete_snapshot(one.id)
    daemons.programs = daemons._programs()
    await restore_sessions(daemons.manager, daemons.programs, start_again=False)
    await finish_restoring(daemons.programs)
    assert "bytes of output are missing" in await daemons.text(session)
    live = daemons.programs.registry.running(session.id)
    assert live is not None
    live.write_input(b"after\r")
    await daemons.wait_for_text(session, b"after\nafter")
    (warning,) = daemons.programs.warnings()
    assert f"of session {session.id} printed are missing from its screen" in warning
    assert os.listdir(daemons.journal(session).parent) == [session.id]


async def test_a_start_without_its_journal_keeps_it(daemons: Daemons, failing: dict[str, Exception]) -> None:
    """A journal that cannot be opened for a start is not removed: what is in it is shown by the next one."""
    made = await daemons.manager.create_session(SessionConfig(session_type="local", command="cat"))
    daemons.journal(made).parent.mkdir(0o700)
    with Journal(daemons.journal(made)) as journal:
        journal.append(Output(data=b"unsaved"))
    failing[made.id] = SpawnFailed("too many open files")
    with pytest.raises(SpawnFailed):
        await daemons.programs.start(made.id, 80, 24, None)
    failing.clear()
    await daemons.programs.start(made.id, 80, 24, None)
    await daemons.wait_for_text(made, b"unsaved")


async def test_output_whose_journal_cannot_be_opened(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits in the terminal, and status names the session; it is shown once the journal can be opened."""
    session = await daemons.start_session("sh -c 'read x; echo words; cat'")
    tries = asyncio.Queue[str]()
    broken = True
    open_files = SessionFiles.open

    async def open_later(files: SessionFiles, session_id: str, *, create: bool) -> OpenFiles:
        tries.put_nowait(session_id)
        if broken:
            raise SpawnFailed("no descriptor is left")
        return await open_files(files, session_id, create=create)

    monkeypatch.setattr("orbitd.sessions.session.RETRY_SECS", 0.001)
    monkeypatch.setattr(SessionFiles, "open", open_later)
    programs = await daemons.restart()
    await finish_restoring(programs)
    live = programs.registry.running(session.id)
    assert live is not None
    live.write_input(b"\n")
    async with asyncio.timeout(WAIT_SECS):
        assert [await tries.get() for _ in range(3)] == [session.id] * 3
    [warning] = programs.warnings()
    assert (session.id in warning, "no descriptor is left" in warning) == (True, True)
    broken = False
    async with asyncio.timeout(WAIT_SECS):
        await tries.get()
    await daemons.wait_for_text(session, b"words")
    assert programs.warnings() == []


async def test_a_start_whose_screen_fails_leaves_no_program(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, exited: asyncio.Event
) -> None:
    """Where the screen cannot take the terminal's size, terminal and journal are closed and the program is ended."""
    made = await daemons.manager.create_session(SessionConfig(session_type="local", command="cat"))
    await daemons.start_session()
    programs = await daemons.restart()

    def fail(*_: object) -> None:
        raise TerminalError("no")

    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(LiveSession, "resize_screen", fail)
        with pytest.raises(TerminalError):
            await programs.start(made.id, 100, 30, None)
    await daemons.wait_for_exit(exited)
    assert open_files() == before
    assert made.id not in [program.id for program in await (await programs.keeper.client()).programs()]
    assert (await programs.start(made.id, 100, 30, None)).status == "detached"


UNFINISHED = b"\x1b]2;" + b"A" * (17 << 20)


@pytest.mark.parametrize("alternate", [False, True])
async def test_a_screen_that_cannot_be_encoded(daemons: Daemons, alternate: bool) -> None:
    """It is saved by its portable bytes, with its history, and restored from them; its journal is not needed then."""
    lines = b"".join(b"line %d\r\n" % number for number in range(200))
    fullscreen = b"\x1b[?1049hfull screen" if alternate else b""
    made = await daemons.manager.create_session(SessionConfig(session_type="local"))
    daemons.journal(made).parent.mkdir(0o700)
    with Journal(daemons.journal(made)) as journal:
        for data in (lines + fullscreen, UNFINISHED):
            journal.append(Output(data=data))
        position = journal.position
    expected = await daemons.text(made)
    with daemons.programs.registry.using(made.id) as stopped:
        await daemons.programs.endings.save_stopped(made.id)
        assert stopped.save.position == position
    assert not daemons.journal(made).exists()
    found = await daemons.text(made)
    assert found.split() == expected.split()
    if not alternate:
        assert "line 0\n" in found


@pytest.mark.parametrize(("wrong", "lost"), [(4, []), (7, [5])], ids=["one bit", "three bits"])
def test_wrong_bits_in_the_journal_of_a_running_session(
    daemon: DaemonProcess, client: RawClient, wrong: int, lost: list[int]
) -> None:
    """One is put right; more cost a line, and a note tells so; status and doctor name the file until it is gone."""
    session_id = start(client, "sh -c 'stty -echo; while read line; do echo $line; done'")
    viewer = Viewer(client, session_id)
    for number in range(1, 10):
        viewer.type(f"line{number}-{'x' * 40}\n")
        viewer.read_until(f"line{number}-")
    daemon.kill()
    journal = daemon.home / ".local" / "state" / "orbit" / "journal" / session_id
    data = bytearray(journal.read_bytes())
    data[data.index(b"line5-")] ^= wrong
    journal.write_bytes(data)
    for _ in range(2):
        with daemon.start().client() as again:
            assert again.call("session.get", id=session_id)["live"]
            shown = again.call("session.screen", id=session_id, scrollback=True)["data"]
            assert [number for number in range(1, 10) if f"line{number}-" not in shown] == lost
            assert ("bytes of output could not be read" in shown) == (lost != [])
            [warning] = again.call("daemon.info")["warnings"]
        daemon.kill()
    [aside] = journal.parent.glob(f"{session_id}.damaged-*")
    assert (aside.read_bytes(), aside.stat().st_mode & 0o777) == (data, 0o600)
    assert str(aside) in warning
    assert f"kept={aside}" in daemon.wait_for_log("journal damaged")
    daemon.start()
    assert str(aside) in Orbitctl(daemon.home)("doctor").out.decode()
    aside.unlink()
    with daemon.client() as again:
        assert again.call("daemon.info")["warnings"] == []
        again.call("session.delete", id=session_id)


def test_a_running_program_whose_row_is_gone(daemon: DaemonProcess, client: RawClient) -> None:
    """It runs on as a session without a name, with its screen, and the first daemon that finds it so tells of it."""
    session_id = start(client, "cat")
    viewer = Viewer(client, session_id)
    viewer.type("before\n")
    viewer.read_until("before\r\nbefore")
    daemon.kill()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{daemon.database_path}{suffix}").unlink(missing_ok=True)
    for lost in (True, False):
        with daemon.start().client() as again:
            found = again.call("session.get", id=session_id)
            assert (found["live"], found["status"], found["name"]) == (True, "detached", None)
            assert "before" in again.call("session.screen", id=session_id, scrollback=True)["data"]
            warnings = again.call("daemon.info")["warnings"]
            assert [session_id in warning for warning in warnings] == [False, True] * lost
            assert ["is new, while programs" in warning for warning in warnings] == [True, False] * lost
        daemon.kill()
    with daemon.start().client() as again:
        viewer = Viewer(again, session_id)
        viewer.type("after\n")
        viewer.read_until("after\r\nafter")
        again.call("session.delete", id=session_id)


def test_an_older_backup_under_a_running_program(daemon: DaemonProcess, client: RawClient) -> None:
    """The journal goes on where the newer database's screen ends, so the restore takes that screen over."""
    session_id = start(client, "cat")
    first, second = (str(daemon.home / name) for name in ("first.db", "second.db"))
    kept = []
    for number, backup in enumerate((first, second)):
        with daemon.client() as connected:
            viewer = Viewer(connected, session_id)
            viewer.type(f"line {number}\n")
            viewer.read_until(f"line {number}\r\nline {number}")
            connected.call("maintenance.backup", path=backup)
        daemon.stop()  # which saves the screen
        restored = Orbitctl(daemon.home).ok("maintenance", "restore", "--yes", "--json", first).json
        assert (restored["carried_over"], restored.get("not_carried_over")) == (1, None)
        kept.append(restored["safety_copy"])
        daemon.start()
    # An older one, one that is as old, and the newest, which was set aside and has nothing newer beside it.
    for backup, carried in ((second, 1), (kept[1], 0)):
        daemon.stop()
        restored = Orbitctl(daemon.home).ok("maintenance", "restore", "--yes", "--json", backup).json
        assert restored["carried_over"] == carried
        daemon.start()
    with daemon.client() as again:
        shown = again.call("session.screen", id=session_id, scrollback=True)["data"]
        assert shown.split() == ["line", "0"] * 2 + ["line", "1"] * 2
        snapshots = again.call("snapshot.list", session_id=session_id)["snapshots"]
        assert [again.call("snapshot.get", id=one["id"])["format"] for one in snapshots] == ["vt"] * len(snapshots)
        assert again.call("maintenance.check")["ok"]
        viewer = Viewer(again, session_id)
        viewer.type("after\n")
        viewer.read_until("after\r\nafter")
        assert "missing" not in daemon.log()
        again.call("session.delete", id=session_id)


async def test_one_that_cannot_be_cleaned_up_keeps_no_other(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is to be deleted and fails, or whose files cannot be removed, is tried by the next daemon."""
    store, programs, made = daemons.manager, daemons.programs, []
    for _ in range(4):
        made.append(await store.create_session(SessionConfig(session_type="local", auto_remove=True)))
        await store.start_program(made[-1].id, 80, 24)
        await store.end_program(made[-1].id, "terminated", 0)
    gone = sorted(one.id for one in made[2:])
    for session_id in gone:
        await store.delete_session(session_id)
    trash_session, remove_files = store.trash_session, programs.remove_files

    async def trash(session_id: str) -> bool:
        if session_id == made[0].id:
            raise StorageFull("no room")
        return await trash_session(session_id)

    def remove(live: LiveSession) -> None:
        if live.id == gone[0]:
            raise OSError(5, "Input/output error")
        remove_files(live)

    monkeypatch.setattr(store, "trash_session", trash)
    monkeypatch.setattr(programs, "remove_files", remove)
    await programs.clean_up()
    assert [one.id for one in (await store.list_deleted_sessions()).sessions] == [made[1].id]
    assert await store.list_purged() == gone[:1]
