"""Save, exit, attach and resize in every order with output, the picture's failures and each other."""

from __future__ import annotations

import asyncio
import fcntl
import signal
import struct
import termios
from unittest.mock import AsyncMock

import pytest

from orbit_protocol import params as p
from orbit_protocol.errors import (
    AlreadyRunning,
    Busy,
    InternalError,
    NotRunning,
    OrbitError,
    RequestTimeout,
    SpawnFailed,
    StorageFull,
)
from orbit_protocol.terminal_reset import RESET
from orbit_protocol.types import SessionConfig
from orbitd.keeper.client import KeptProgram
from orbitd.screens import messages as m
from orbitd.screens.client import PictureState
from orbitd.screens.note import Kind
from orbitd.sessions import endings, session
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import FILE_HEADER_BYTES
from orbitd.sessions.session import LiveSession, State
from orbitd.sessions.terminal import Landing
from sessions_support import MOMENT, Client, FakeKeeper, ScriptedProcess, Sessions, until


async def text(live: LiveSession) -> bytes:
    """Return what a session shows."""
    return (await live.picture.render(live.position, "text", scrollback=True)).data


async def opened(sessions: Sessions, name: str = "one") -> tuple[LiveSession, ScriptedProcess]:
    """Return a session that has printed `hello`, and the process that has its picture."""
    live = await sessions.run(name)
    await sessions.print(b"hello", name)
    assert await text(live) == b"hello"
    return live, sessions.template.processes[-1]


def terminal_size(sessions: Sessions) -> tuple[int, int]:
    """Return the columns and rows that a program sees."""
    rows, cols, _, _ = struct.unpack(
        "HHHH", fcntl.ioctl(sessions.keeper.terminals["one"], termios.TIOCGWINSZ, bytes(8))
    )
    return cols, rows


# Saving


async def test_output_while_it_is_saved(sessions: Sessions) -> None:
    """What comes while the picture is encoded and committed stays in the journal, and is saved next."""
    live, process = await opened(sessions)
    process.hold(m.Save)
    saving = asyncio.create_task(sessions.saver.save(live))
    await process.receive(m.Save)
    await sessions.print(b"-two")
    gate = sessions.store.gates["save_snapshot"] = asyncio.Event()
    process.release(m.Save)
    await until(lambda: "save_snapshot" in sessions.store.entered)
    await sessions.print(b"-three")
    gate.set()
    await saving
    assert live.save.timer is not None
    position = sessions.store.snapshots[-1][1]
    assert (
        sessions.store.saved("one")
        + b"".join(
            event.data
            for event in live._journal.events(position)
            if hasattr(event, "data")  # type: ignore[union-attr]
        )
        == b"hello-two-three"
    )
    assert await text(live) == b"hello-two-three"
    await sessions.saver.save(live)
    assert sessions.store.saved("one") == b"hello-two-three"
    assert sessions.journal().stat().st_size == FILE_HEADER_BYTES


async def test_the_journal_begins_where_the_snapshot_ends(sessions: Sessions) -> None:
    """After a save the file's first record is the one behind the snapshot's position: no gap, nothing twice."""
    live, _ = await opened(sessions)
    await sessions.saver.save(live)
    assert live._journal is not None
    assert live._journal.base == sessions.store.snapshots[-1][1] == live.save.position
    await sessions.print(b"-two")
    live.close_files()
    await live.open_files()
    assert await text(live) == b"hello-two"


async def test_a_new_file_is_followed_before_what_is_in_it(sessions: Sessions) -> None:
    """The process is given the new file before it is told of records that are in that one only."""
    live, process = await opened(sessions)
    await sessions.saver.save(live)
    base = live.position
    for _ in range(3):
        await sessions.print(b"x")
        await text(live)
    told = [each for each in process.messages if isinstance(each, m.Follow | m.Grown)]
    follow = next(number for number, each in enumerate(told) if isinstance(each, m.Follow) and each.base == base)
    assert all(isinstance(each, m.Follow) or each.position <= base for each in told[:follow])
    assert any(isinstance(each, m.Grown) and each.position > base for each in told[follow:])
    assert await text(live) == b"helloxxx"


@pytest.mark.parametrize("moment", ["encoding", "committing"])
async def test_the_process_dies_in_a_save(sessions: Sessions, moment: str) -> None:
    """The save is answered by the next process, or was answered before; no output is lost to the picture."""
    live, process = await opened(sessions)
    gate = sessions.store.gates["save_snapshot"] = asyncio.Event()
    process.hold(m.Save)
    saving = asyncio.create_task(sessions.saver.save(live))
    await process.receive(m.Save)
    if moment == "committing":
        process.release(m.Save)
        await until(lambda: "save_snapshot" in sessions.store.entered)
    await sessions.print(b"-two")
    process.die(1)
    await until(lambda: live.picture.process is None or live.picture.is_failed)
    gate.set()
    await saving
    assert await text(live) == b"hello-two"
    assert sessions.store.saved("one") in (b"hello", b"hello-two")
    await sessions.saver.save(live)
    assert sessions.store.saved("one") == b"hello-two"


async def test_a_snapshot_is_committed_while_an_older_one_is_read(sessions: Sessions) -> None:
    """A picture that is rebuilt in that moment is built on the new one: the journal begins behind it."""
    live, process = await opened(sessions)
    await sessions.saver.save(live)
    await sessions.print(b"-two")
    assert await text(live) == b"hello-two"
    commit = sessions.store.gates["save_snapshot"] = asyncio.Event()
    sessions.store.entered.clear()
    saving = asyncio.create_task(sessions.saver.save(live))
    await until(lambda: "save_snapshot" in sessions.store.entered)
    process.die(1)
    await until(lambda: live.picture.state is PictureState.ABSENT)
    # The older snapshot is returned only after the newer one has been committed.
    read, load = asyncio.Event(), sessions.store.load_latest_screen
    loads = 0

    async def load_slowly(session_id: str) -> object:
        nonlocal loads
        loads += 1
        found = await load(session_id)
        if loads == 1:
            await read.wait()
        return found

    sessions.store.load_latest_screen = load_slowly  # type: ignore[method-assign,assignment]
    asked = asyncio.create_task(text(live))
    await until(lambda: loads == 1)
    commit.set()
    await saving
    read.set()
    assert await asked == b"hello-two"
    assert (loads, len(sessions.template.processes)) == (2, 2)


async def test_a_save_that_is_refused(sessions: Sessions) -> None:
    """The library's refusal in two processes fails that save; the journal stays, and the next one works."""
    live, process = await opened(sessions)
    process.hold(m.Save)
    sessions.template.on_fork = lambda forked: forked.hold(m.Save)
    saving = asyncio.create_task(sessions.saver.save(live))
    request = await process.receive(m.Save)
    process.send(m.Failed(request=request.request, session="one", reason="too long"))
    process = await sessions.template.forked(2)
    request = await process.receive(m.Save)
    process.send(m.Failed(request=request.request, session="one", reason="too long"))
    with pytest.raises(Busy):
        await saving
    assert ("too long" in live.save.failure, live.save.timer is not None) == (True, True)
    assert sessions.programs.warnings()[0].startswith("The screens of 1 session could not be saved: ")
    assert b"hello" in sessions.journal().read_bytes()
    process._waiting.clear()
    process.release(m.Save)
    await sessions.saver.save(live)
    assert (sessions.store.saved("one"), live.save.failure) == (b"hello", "")


async def test_a_journal_that_cannot_be_cut_off(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot counts all the same: the records that it covers are replayed by nobody."""
    live, _ = await opened(sessions)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_new_file", fail)
        with pytest.raises(OSError, match="space"):
            await sessions.saver.save(live)
    assert b"hello" in sessions.journal().read_bytes()
    await sessions.saver.save(live)
    live.close_files()
    await live.open_files()
    assert await text(live) == b"hello"


async def test_an_idle_session_is_freed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved, quiet and without clients it has no picture, and no open journal; output and a look bring both back."""
    monkeypatch.setattr(session, "IDLE_SECS", 0.001)
    live, process = await opened(sessions)
    await sessions.saver.save(live)
    await until(lambda: live.picture.state is PictureState.ABSENT)
    assert (live._journal, live.picture.held, sessions.registry.held_bytes) == (None, 0, 0)
    await until(lambda: process.sent(m.Close))
    sessions.write(b"-two")
    await until(lambda: live.picture.state is PictureState.OPEN)
    assert await text(live) == b"hello-two"
    assert process.sent(m.Open)[-1].base.portable == b"hello"


async def test_a_look_at_an_idle_session(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose screen was only shown is freed again."""
    monkeypatch.setattr(session, "IDLE_SECS", 0.001)
    live, _ = await opened(sessions)
    await sessions.saver.save(live)
    await until(lambda: live.picture.state is PictureState.ABSENT)
    assert (await sessions.methods.screen(p.SessionScreen(id="one"))).data == "hello"
    await until(lambda: live.picture.state is PictureState.ABSENT)
    assert live._journal is None


@pytest.mark.parametrize("why", ["a client", "not saved"])
async def test_what_is_needed_is_not_freed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """A session with a client, or with output that is not saved, keeps its picture."""
    monkeypatch.setattr(session, "IDLE_SECS", 0.001)
    live, _ = await opened(sessions)
    if why == "a client":
        await sessions.attach()
    live._start_idle_timer()
    await until(lambda: live._idle_timer is None)
    assert live.picture.state is PictureState.OPEN


async def test_a_look_that_is_cancelled(sessions: Sessions) -> None:
    """A session whose journal is being opened is forgotten when it is open, and then the journal is closed."""
    await opened(sessions)
    await sessions.exit()
    sessions.journal().touch(0o600)
    gate = sessions.store.gates["load_latest_screen"] = asyncio.Event()
    look = asyncio.create_task(sessions.methods.screen(p.SessionScreen(id="one")))
    await until(lambda: (live := sessions.registry.get("one")) is not None and live._opening)
    live = sessions.registry.get("one")
    assert live is not None
    look.cancel()
    await asyncio.wait([look])
    assert sessions.registry.get("one") is live
    gate.set()
    await until(lambda: sessions.registry.get("one") is None)
    assert live._journal is None


async def test_a_program_that_runs_unseen_and_whose_terminal_does_not_come(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That start fails as the keeper does; the program is taken over, and runs."""
    sessions.store.add("one")
    kept = KeptProgram(id="one", pid=1 << 24, started_at=MOMENT)
    monkeypatch.setattr(sessions.keeper, "spawn", AsyncMock(side_effect=AlreadyRunning("it runs")))
    monkeypatch.setattr(sessions.keeper, "programs", AsyncMock(return_value=[kept]))
    monkeypatch.setattr(sessions.keeper, "take", AsyncMock(side_effect=Busy("not now")))
    with pytest.raises(Busy):
        await sessions.run()
    live = sessions.registry.get("one")
    assert live is not None
    assert (live.state, sessions.store.sessions["one"].live) == (State.RUNNING, True)


# The end of a program


async def test_the_last_output_is_in_the_last_snapshot(sessions: Sessions) -> None:
    """What is still in the terminal when a program has ended is read, saved and sent, before the exit is."""
    live, _ = await opened(sessions)
    client = await sessions.attach()
    sessions.write(b" last words")
    await sessions.exit(exit_code=7)
    assert sessions.store.saved("one") == client.shown == b"hello last words"
    assert client.story[-1] == "exited"
    found = sessions.store.sessions["one"]
    assert (found.status, found.exit_code, found.live) == ("terminated", 7, False)
    assert (live.state, sessions.journal().exists()) == (State.ENDED, False)
    assert sessions.keeper.released == ["one"]
    assert sessions.registry.get("one") is None


async def test_a_program_ends_in_a_save(sessions: Sessions) -> None:
    """A save that runs when a program ends is finished first; a second one has the last output."""
    live, process = await opened(sessions)
    process.hold(m.Save)
    saving = asyncio.create_task(sessions.saver.save(live))
    await process.receive(m.Save)
    sessions.write(b" last words")
    ending = sessions.exit()
    await until(lambda: live.state is State.ENDING)
    process.release(m.Save)
    await asyncio.gather(saving, ending)
    assert sessions.store.saved("one") == b"hello last words"


async def test_a_picture_that_dies_while_the_last_screen_is_saved(sessions: Sessions) -> None:
    """It is rebuilt, and the last screen is saved by the next process."""
    _, process = await opened(sessions)
    process.hold(m.Save)
    sessions.write(b" last words")
    ending = sessions.exit()
    await process.receive(m.Save)
    process.note.write("one", Kind.DRAW, 0, 0)
    process.die()
    await ending
    assert sessions.store.saved("one") == b"hello last words"
    assert not sessions.journal().exists()


async def test_a_last_output_that_breaks_the_picture(sessions: Sessions) -> None:
    """The exit is stored with a screen that goes on behind it under a divider."""
    await opened(sessions)
    sessions.template.poison = [b"BOOM"]
    sessions.write(b"BOOM")
    await sessions.exit()
    assert b"could not be drawn" in sessions.store.saved("one")
    assert sessions.store.sessions["one"].status == "terminated"


async def test_a_picture_that_never_comes(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the exit is stored without it, clients are notified, and the journal keeps the last screen."""
    monkeypatch.setattr(endings, "LAST_SAVE_SECS", 0.001)
    monkeypatch.setattr(session, "LAST_REPAINT_SECS", 0.001)
    _, process = await opened(sessions)
    client = await sessions.attach()
    process.stop()
    sessions.write(b" last words")
    await sessions.exit()
    assert sessions.store.sessions["one"].status == "terminated"
    assert (client.shown, client.story[-1]) == (b"hello last words", "exited")
    assert b"last words" in sessions.journal().read_bytes()
    process.go_on()
    screen = await sessions.methods.screen(p.SessionScreen(id="one", scrollback=True))
    assert screen.data == "hello last words"


async def test_a_last_screen_is_saved_once_that_is_possible(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last save that failed is tried again after the program's end, until the snapshot has the last output."""
    monkeypatch.setattr(endings, "LAST_SAVE_SECS", 0.001)
    sessions.saver.retry_secs = 0.001
    sessions.template.on_fork = lambda process: process.hold(m.Save)
    await opened(sessions)
    sessions.write(b" last words")
    await sessions.exit()
    assert (sessions.store.snapshots, sessions.journal().exists()) == ([], True)
    monkeypatch.setattr(endings, "LAST_SAVE_SECS", 60.0)
    sessions.template.on_fork = lambda _: None
    for process in sessions.template.processes:
        process.release(m.Save)
    await until(lambda: not sessions.journal().exists())
    assert sessions.store.saved("one") == b"hello last words"


async def test_a_terminal_that_another_process_goes_on_printing_to(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel may hold of the program's is read when it has ended, and then the terminal is closed."""
    monkeypatch.setattr(session, "MAX_DRAINED_BYTES", 16 * 1024)
    live, _ = await opened(sessions)
    reads = 0

    def read(*_: object) -> tuple[bytes, bool]:
        nonlocal reads
        reads += 1
        assert reads < 1000, "it is read for ever"
        return b"y" * 4096, False

    monkeypatch.setattr(Landing, "read", read)
    await sessions.exit()
    assert live.state is State.ENDED
    assert len(sessions.store.saved("one")) >= session.MAX_DRAINED_BYTES


async def test_a_terminal_whose_journal_cannot_be_opened(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed at the program's end all the same; the loop does not go on reading it."""
    live, _ = await opened(sessions)
    live.close_files()
    master = live._master
    assert master is not None
    failing = AsyncMock(side_effect=SpawnFailed("The session's journal cannot be opened"))
    monkeypatch.setattr(sessions.programs.files, "open", failing)
    sessions.write(b" last words")
    await until(lambda: live.not_opened)
    await sessions.exit()
    assert (live.state, master.is_closed) == (State.ENDED, True)


async def test_a_client_that_is_behind_sees_the_end(sessions: Sessions) -> None:
    """It is sent the last screen in one repaint, then the exit."""
    await opened(sessions)
    behind, quick = await sessions.attach(), await sessions.attach()
    behind.connection.is_congested = True
    await sessions.print(b"-a")
    await sessions.print(b"-b")
    sessions.write(b" last words")
    await sessions.exit()
    assert behind.shown == quick.shown == b"hello-a-b last words"
    assert (behind.story[-2:], quick.story[-1]) == (["repaint", "exited"], "exited")


async def test_a_client_that_is_behind_and_a_picture_that_never_comes(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent the exit all the same."""
    monkeypatch.setattr(endings, "LAST_SAVE_SECS", 0.001)
    monkeypatch.setattr(session, "LAST_REPAINT_SECS", 0.001)
    _, process = await opened(sessions)
    behind = await sessions.attach()
    behind.connection.is_congested = True
    await sessions.print(b"-a")
    await sessions.print(b"-b")
    process.stop()
    await sessions.exit()
    assert behind.story[-1] == "exited"


@pytest.mark.parametrize("which", ["framed", "owner"])
async def test_a_window_that_is_resized_during_the_end(sessions: Sessions, which: str) -> None:
    """It is sent the last screen at its new size, although the last frames were being drawn already."""
    live, process = await opened(sessions)
    windows = {"owner": await sessions.attach(), "framed": await sessions.attach(read_only=True, size=(100, 24))}
    sessions.write(b" last words")
    process.hold(m.Frame)
    ending = sessions.exit()
    await until(lambda: "end_program" in sessions.store.entered and live.state is State.ENDING)
    await process.receive(m.Frame, len(process.sent(m.Frame)) + 1)
    windows[which].resize(90, 24)
    process.release(m.Frame)
    await ending
    for window in windows.values():
        assert (window.shown, window.story[-1]) == (b"hello last words", "exited")


async def test_an_attach_during_the_end(sessions: Sessions) -> None:
    """It is refused, or sees the last screen and the exit; it does not hang, and leaves no attachment."""
    live, _ = await opened(sessions)
    gate = sessions.store.gates["end_program"] = asyncio.Event()
    ending = sessions.exit()
    await until(lambda: "end_program" in sessions.store.entered)
    client = sessions.client()
    asking = asyncio.create_task(client.ask())
    await until(lambda: live.attachments)
    gate.set()
    with pytest.raises(NotRunning):
        await asking
    await ending
    assert (client.connection.attachments, live.attachments) == ({}, [])
    assert live.state is State.ENDED


async def test_a_key_during_the_end(sessions: Sessions) -> None:
    """It is refused: nobody can read it; the terminal that was closed is not opened again."""
    live, _ = await opened(sessions)
    client = await sessions.attach()
    gate = sessions.store.gates["end_program"] = asyncio.Event()
    ending = sessions.exit()
    await until(lambda: "end_program" in sessions.store.entered)
    with pytest.raises(NotRunning):
        await sessions.send(b"x")
    with pytest.raises(NotRunning):
        client.type(b"x")
    assert not live.has_terminal
    gate.set()
    await ending


async def test_a_terminal_that_comes_after_the_end(sessions: Sessions) -> None:
    """One that was being fetched for a key when the program ended is closed, and not read for ever."""
    live, _ = await opened(sessions)
    gate = sessions.store.gates["end_program"] = asyncio.Event()
    ending = sessions.exit()
    await until(lambda: "end_program" in sessions.store.entered)
    await sessions.programs.keeper.fetch_terminal(live)
    assert not live.has_terminal
    gate.set()
    await ending


@pytest.mark.parametrize("where", ["save_snapshot", "end_program"])
async def test_an_exit_that_cannot_be_stored(sessions: Sessions, where: str) -> None:
    """Clients are notified; the journal and the keeper keep it; it is stored as soon as that works."""
    live, _ = await opened(sessions)
    client = await sessions.attach()
    sessions.saver.retry_secs = 0.001
    sessions.store.errors[where] = [StorageFull("no room")]
    await sessions.exit(exit_code=7)
    assert (live.state, client.story[-1], sessions.keeper.released) == (State.UNSTORED, "exited", [])
    assert await sessions.methods.wait(p.SessionWait(id="one", timeout_secs=1.0))
    await until(lambda: live.state is State.ENDED)
    await until(lambda: sessions.keeper.released == ["one"])
    assert sessions.store.sessions["one"].exit_code == 7
    assert sessions.store.saved("one") == b"hello"
    assert not sessions.journal().exists()


async def test_a_session_is_deleted_while_its_program_ends(sessions: Sessions) -> None:
    """Nothing is left of it, and its clients are notified."""
    live, process = await opened(sessions)
    client = await sessions.attach()
    process.hold(m.Save)
    ending = sessions.exit()
    await process.receive(m.Save)
    del sessions.store.sessions["one"]
    process.release(m.Save)
    await ending
    assert (client.story[-1], live.state) == ("exited", State.ENDED)
    assert sessions.registry.get("one") is None


async def test_what_a_session_shows_is_saved_after_its_deletion_failed(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its program did not end in time; when it does, its last screen is stored as any other's."""
    await opened(sessions)
    monkeypatch.setattr(endings, "TERMINATE_GRACE_SECS", 0.001)
    with pytest.raises(RequestTimeout):
        await sessions.methods.delete("one")
    await sessions.exit()
    assert sessions.store.saved("one") == b"hello"
    assert not sessions.journal().exists()


@pytest.mark.parametrize("reason", ["refused", "cancelled"])
async def test_a_session_that_the_store_did_not_delete_keeps_its_last_screen(sessions: Sessions, reason: str) -> None:
    """Its program has been ended for the deletion, which fails then, or whose client does not wait for it."""
    await opened(sessions)
    if reason == "refused":
        sessions.store.errors["delete_session"] = [StorageFull("no room")]
    else:
        sessions.store.gates["delete_session"] = asyncio.Event()
    deleting = asyncio.create_task(sessions.methods.delete("one"))
    await until(lambda: sessions.keeper.signals)
    sessions.exit()
    if reason == "cancelled":
        await until(lambda: "delete_session" in sessions.store.entered)
        deleting.cancel()
    with pytest.raises(StorageFull if reason == "refused" else asyncio.CancelledError):
        await deleting
    await until(lambda: not sessions.journal().exists())
    assert sessions.store.saved("one") == b"hello"


async def test_a_lost_connection_keeps_screen_and_clients(sessions: Sessions) -> None:
    """While ssh is to be started again clients stay, keys are refused, and ending it sends the exit."""
    config = SessionConfig(session_type="ssh", host="h", reconnect=True)
    live = await sessions.run(session_type="ssh", config=config)
    await sessions.print(b"hello")
    client = await sessions.attach()
    await sessions.exit(exit_code=255)
    assert (live.state, "exited" in client.story) == (State.RECONNECTING, False)
    assert b"connection lost" in await text(live)
    with pytest.raises(NotRunning, match="reconnecting") as refused:
        client.type(b"meant for the program before")
    assert refused.value.extra == {"written": 0}
    await sessions.methods.terminate("one")
    assert (live.state, client.story[-1]) == (State.ENDED, "exited")
    assert live.retry is None


@pytest.mark.parametrize("foreground", ["nothing", "itself", "a job"])
async def test_whom_the_end_of_a_session_reaches(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, foreground: str
) -> None:
    """The job in the foreground and the program, each once, are hung up, then killed."""
    monkeypatch.setattr(endings, "TERMINATE_GRACE_SECS", 0.001)
    live = await sessions.run()
    group = {"nothing": None, "itself": live.pid, "a job": 4242}[foreground]
    monkeypatch.setattr(LiveSession, "foreground_group", group)
    with pytest.raises(RequestTimeout):
        await sessions.methods.terminate("one")
    targets = ["foreground", "group"] if foreground == "a job" else ["group"]
    sent = [number for number in (signal.SIGHUP, signal.SIGCONT, signal.SIGKILL) for _ in targets]
    assert sessions.keeper.signals == [("one", number) for number in sent]
    assert sessions.keeper.targets == targets * 3


@pytest.mark.parametrize("error", [NotRunning("it has gone"), InternalError("Operation not permitted")], ids=repr)
async def test_a_job_that_cannot_be_signalled(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, error: OrbitError
) -> None:
    """A signal for a job that has just ended is the program's; for one of another user it is refused.

    Either keeps no session from being ended.
    """
    monkeypatch.setattr(endings, "TERMINATE_GRACE_SECS", 0.001)
    monkeypatch.setattr(LiveSession, "foreground_group", 4242)
    await sessions.run()
    send = FakeKeeper.signal

    async def fail(keeper: FakeKeeper, program_id: str, number: int, target: str = "group") -> None:
        if target == "foreground":
            raise error
        await send(keeper, program_id, number)

    monkeypatch.setattr(FakeKeeper, "signal", fail)
    if isinstance(error, NotRunning):
        await sessions.methods.signal("one", signal.SIGTERM)
        assert sessions.keeper.signals == [("one", signal.SIGTERM)]
    else:
        with pytest.raises(InternalError, match="not permitted"):
            await sessions.methods.signal("one", signal.SIGTERM)
    with pytest.raises(RequestTimeout):
        await sessions.methods.terminate("one")
    assert sessions.keeper.signals[-1] == ("one", signal.SIGKILL)


# Attaching


async def test_output_around_a_repaint(sessions: Sessions) -> None:
    """Each byte is shown once, whether it comes before, while or after the first repaint is drawn."""
    _, process = await opened(sessions)
    client = sessions.client(size=(80, 24))
    process.hold(m.Paint)
    asking = asyncio.create_task(client.ask())
    await process.receive(m.Paint)
    await sessions.print(b"-before")
    process.release(m.Paint)
    await asking
    await sessions.print(b"-between")
    client.settle()
    await sessions.print(b"-after")
    assert client.shown == b"hello-before-between-after"
    assert client.story == ["output"] * len(client.story)


@pytest.mark.parametrize("what", ["detach", "exit", "leave"])
async def test_the_end_of_an_attach_that_waits(sessions: Sessions, what: str) -> None:
    """A client that is detached, whose program ends, or who goes meanwhile is answered with an error."""
    live, process = await opened(sessions)
    client = sessions.client()
    process.hold(m.Paint)
    asking = asyncio.create_task(client.ask())
    await process.receive(m.Paint)
    if what == "detach":
        live.detach_all()
    elif what == "leave":
        client.connection.close()
    else:
        await sessions.exit()
    process.release(m.Paint)
    with pytest.raises(NotRunning):
        await asking
    assert (client.connection.attachments, live.attachments) == ({}, [])


async def test_a_picture_that_is_late(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is answered with a blank screen at first; the picture follows, and shows each byte once."""
    monkeypatch.setattr(session, "REPAINT_SECS", 0.001)
    _, process = await opened(sessions)
    process.hold(m.Paint)
    client = await sessions.attach()
    assert (client.shown, client.story) == (RESET, [])
    process.release(m.Paint)
    await until(lambda: client.story)
    await sessions.print(b"-two")
    assert client.shown == b"hello-two"


async def test_output_is_not_held_back_for_a_late_picture(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a picture is late the output is sent as it is; the picture replaces it then, and nothing is lost."""
    live, process = await opened(sessions)
    client = await sessions.attach()
    monkeypatch.setattr(session, "REPAINT_SECS", 0.001)
    process.hold(m.Paint, m.Grown)
    client.resize(100, 30)
    await sessions.print(b"-two")
    await until(lambda: client.shown == b"hello-two")
    await sessions.print(b"-three")
    await until(lambda: client.shown == b"hello-two-three")
    process.release(m.Paint, m.Grown)
    await until(lambda: client.story[-1] == "repaint")
    await sessions.print(b"-four")
    assert client.shown == await text(live) == b"hello-two-three-four"


async def test_output_is_not_held_back_for_a_damaged_picture(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program whose screen cannot be drawn goes on, and its clients see all that it prints."""
    monkeypatch.setattr(session, "REPAINT_SECS", 0.001)
    live, _ = await opened(sessions)
    client = await sessions.attach()
    sessions.template.poison = [b"BOOM"]
    for _ in range(3):
        await sessions.print(b"BOOM")
    await until(lambda: live.picture.state is PictureState.DAMAGED)
    await sessions.print(b"raw")
    await until(lambda: client.shown.endswith(b"raw"))
    live.picture._handle_quiet()
    await until(lambda: client.story[-1] == "repaint" and b"drawn" in client.shown)
    await sessions.print(b"again")
    assert client.shown == await text(live)


async def test_a_repaint_that_is_refused(sessions: Sessions) -> None:
    """Where the library refuses to draw, a client gets the output as it is, and a repaint at the next occasion."""
    _, process = await opened(sessions)
    client = await sessions.attach()
    process.hold(m.Paint)
    client.resize(100, 30)
    request = await process.receive(m.Paint, 2)
    process.send(m.Failed(request=request.request, session="one", reason="no"))
    process._waiting.clear()
    await sessions.print(b"-two")
    await until(lambda: client.shown == b"hello-two")
    process.release(m.Paint)
    client.resize(90, 30)
    await until(lambda: client.story[-1] == "repaint")
    assert client.shown == b"hello-two"


async def test_a_repaint_that_is_refused_is_tried_again(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was sent no picture gets one later, though nothing else happens."""
    monkeypatch.setattr(session, "REPAINT_SECS", 0.01)
    live, _ = await opened(sessions)
    client = await sessions.attach()
    paint, refusals = live.picture.paint, [Busy("not now"), Busy("not now")]

    async def refuse_at_first(at_least: int, scrollback_lines: int = 0, after_line: int | None = None) -> m.Painted:
        if refusals:
            raise refusals.pop()
        return await paint(at_least, scrollback_lines)

    monkeypatch.setattr(live.picture, "paint", refuse_at_first)
    client.resize(80, 25)
    await until(lambda: client.story and client.story[-1] == "repaint")
    assert client.shown == b"hello"


async def test_a_client_that_does_not_read(sessions: Sessions) -> None:
    """Its output is dropped; when it has read everything one repaint shows it all. Others miss nothing meanwhile."""
    await opened(sessions)
    slow, quick = await sessions.attach(), await sessions.attach()
    slow.connection.is_congested = True
    for number in range(5):
        await sessions.print(b"-%d" % number)
    assert quick.shown == b"hello-0-1-2-3-4"
    before = len(slow.story)
    slow.connection.drain()
    await until(lambda: slow.story[-1] == "repaint")
    await sessions.print(b"-end")
    assert slow.shown == quick.shown
    assert slow.story[before:] == ["repaint", "output"]


async def test_a_reader_leaves_the_size_alone(sessions: Sessions) -> None:
    """A read-only client neither sets the size, nor types."""
    await opened(sessions)
    await sessions.attach(size=(100, 30))
    reader = await sessions.attach(size=(50, 10), read_only=True)
    reader.resize(60, 10)
    assert terminal_size(sessions) == (100, 30)
    with pytest.raises(OrbitError):
        reader.type(b"x")
    assert sessions.typed() == b""


# Resizing


async def test_many_resizes_cost_few_pictures(sessions: Sessions) -> None:
    """Resizes that come together are drawn together: one picture while they come, one behind the last."""
    _, process = await opened(sessions)
    client = await sessions.attach()
    before = len(process.sent(m.Paint))
    for cols in range(81, 131):
        client.resize(cols, 24)
    await until(lambda: client.story[-1:] == ["repaint"] and client.connection.sent[-1]["params"]["cols"] == 130)
    assert len(process.sent(m.Paint)) - before <= 2
    assert terminal_size(sessions) == (130, 24)


async def test_output_behind_a_resize_waits_for_its_repaint(sessions: Sessions) -> None:
    """What the program draws for the new size comes behind the picture of the new size."""
    _, process = await opened(sessions)
    client = await sessions.attach()
    process.hold(m.Paint)
    client.resize(100, 30)
    await sessions.print(b"-new")
    assert client.story == []
    process.release(m.Paint)
    await until(lambda: client.story)
    assert (client.story[0], client.shown) == ("repaint", b"hello-new")
    assert client.connection.sent[0]["params"]["cols"] == 100


async def test_two_clients_of_two_sizes(sessions: Sessions) -> None:
    """The size is that of the last to attach or resize, and of the other one when that leaves; all are repainted."""
    await opened(sessions)
    clients: list[Client] = [await sessions.attach(size=(100, 30)), await sessions.attach(size=(70, 20))]
    assert terminal_size(sessions) == (70, 20)
    clients[0].resize(101, 31)
    assert terminal_size(sessions) == (101, 31)
    for client, cols in zip(clients, (101, 70), strict=True):
        await until(
            lambda client=client, cols=cols: (
                client.connection.sent and client.connection.sent[-1]["params"]["cols"] == cols
            )
        )
    clients[0].connection.close()
    assert terminal_size(sessions) == (70, 20)
    await until(lambda: clients[1].connection.sent[-1]["params"]["reason"] == "resized")
    await sessions.print(b"-two")
    assert clients[1].shown == b"hello-two"


async def test_a_resize_while_the_picture_is_rebuilt(sessions: Sessions) -> None:
    """The program has the new size at once; the client is repainted when the picture is there again."""
    _, process = await opened(sessions)
    client = await sessions.attach()
    process.hold(m.Grown)
    client.resize(100, 30)
    assert terminal_size(sessions) == (100, 30)
    await process.receive(m.Paint, 2)
    process.die(1)
    await until(lambda: client.story == ["repaint"])
    assert (client.shown, client.connection.sent[0]["params"]["rows"]) == (b"hello", 30)


# Floods and keys


async def test_a_flood_gives_way_to_a_key_elsewhere(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody types into one session a flood in another pauses after each read; without that it does not."""
    monkeypatch.setattr(session, "FLOOD_BYTES", 1000)
    live, _ = await opened(sessions)
    await sessions.run("two")
    pauses: list[str] = []
    assert live._master is not None
    pause = live._master.pause
    monkeypatch.setattr(live._master, "pause", lambda reason: (pauses.append(reason), pause(reason)))
    await sessions.print(b"x" * 3000)
    assert pauses == []
    await sessions.send(b"k", "two")
    await sessions.print(b"x" * 3000)
    assert set(pauses) == {"give way"}
    await sessions.print(b"x")
    count = len(pauses)
    await sessions.send(b"k")
    await sessions.print(b"x" * 3000)
    assert len(pauses) == count


async def test_a_picture_that_is_far_behind_slows_its_program(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading pauses while the picture is too far behind, and goes on when it has caught up."""
    monkeypatch.setattr("orbitd.screens.client.MAX_LAG_BYTES", 100)
    live, process = await opened(sessions)
    process.hold(m.Grown)
    await sessions.print(b"x" * 200)
    position = live.position
    sessions.write(b"waits")
    for _ in range(50):
        await asyncio.sleep(0)
    assert live.position == position
    process.release(m.Grown)
    await until(lambda: live.position > position)
    assert await text(live) == b"hello" + b"x" * 200 + b"waits"
