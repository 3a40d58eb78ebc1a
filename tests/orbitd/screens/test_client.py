"""orbitd's side of the screens processes, at scripted ones: what is rebuilt where, and what becomes of what broke."""

from __future__ import annotations

import asyncio
import errno
import signal
from pathlib import Path

import pytest

from keeper_support import open_files
from orbit_protocol.errors import Busy, NotRunning, OrbitError, SnapshotNotFound
from orbitd.screens import client
from orbitd.screens import messages as m
from orbitd.screens.client import PictureState
from orbitd.screens.model import Appearance
from orbitd.screens.note import Kind
from orbitd.sessions import session
from orbitd.sessions.files import SessionFiles
from orbitd.sessions.journal import Journal
from orbitd.sessions.session import LiveSession
from sessions_support import FullDisk, ScriptedProcess, Sessions, scripted, until

BOOM = b"BOOM"


async def text(live: LiveSession) -> bytes:
    """Return what a session shows."""
    return (await live.picture.render(live.position, "text", scrollback=True)).data


async def opened(sessions: Sessions, *names: str) -> list[LiveSession]:
    """Return sessions that have printed their names, and whose pictures are there."""
    found = [await sessions.run(name) for name in names]
    for live in found:
        await sessions.print(live.id.encode(), live.id)
        assert await text(live) == live.id.encode()
    return found


def process_of(sessions: Sessions, live: LiveSession) -> ScriptedProcess:
    """Return the process that has a session's picture."""
    process = live.picture.process
    assert process is not None
    return next(each for each in sessions.template.processes if each.number == process.number)


def kept_aside(sessions: Sessions, session_id: str = "one") -> list[bytes]:
    """Return the files with what could not be drawn."""
    folder = sessions.journal(session_id).parent
    return [path.read_bytes() for path in sorted(folder.glob(f"{session_id}.unreadable-*"))]


@pytest.fixture
def quick(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> Sessions:
    """Sessions whose timers are short."""
    for name in ("SLOW_SECS", "QUIET_SECS", "STATUS_SECS", "TEMPLATE_RETRY_SECS"):
        monkeypatch.setattr(client, name, 0.001)
    return sessions


# Building on demand


async def test_nothing_is_built_before_somebody_needs_it(sessions: Sessions) -> None:
    """A session without output, and nobody who looks, has no picture; no template is started for it."""
    sessions.store.add("one")
    live = LiveSession("one", sessions.programs._shared)
    await live.open_files()
    assert (live.picture.state, sessions.template.starts) == (PictureState.ABSENT, 0)
    assert await text(live) == b""
    assert (live.picture.state, sessions.template.starts) == (PictureState.OPEN, 1)
    live.close()


async def test_all_share_a_process(sessions: Sessions) -> None:
    """Well-behaved sessions are drawn by one process."""
    await opened(sessions, "one", "two", "three")
    assert len(sessions.template.processes) == 1


async def test_what_is_asked_while_it_is_built_is_answered(sessions: Sessions) -> None:
    """Requests of before the picture is there are sent once it is; each is answered once, in any number."""
    live = await sessions.run()
    sessions.template.on_fork = lambda process: process.hold(m.Open)
    await sessions.print(b"hello")
    asked = [asyncio.create_task(text(live)) for _ in range(3)]
    process = await sessions.template.forked()
    await process.receive(m.Open)
    assert process.sent(m.Render) == []
    process.release(m.Open)
    assert await asyncio.gather(*asked) == [b"hello"] * 3
    assert len(process.sent(m.Render)) == 3


async def test_output_is_told_in_few_messages(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output of a moment is fed together: one message for many reads."""
    monkeypatch.setattr(client, "GROWN_DELAY_SECS", 0.02)
    [live] = await opened(sessions, "one")
    process = process_of(sessions, live)
    before = len(process.sent(m.Grown))
    for _ in range(5):
        await sessions.print(b"x")
    await until(lambda: live.picture.fed == live.position)
    assert len(process.sent(m.Grown)) - before < 5


async def test_a_closed_picture_is_built_again(sessions: Sessions) -> None:
    """Closing frees the picture in its process, and fails what was asked; the next question builds it again."""
    [live] = await opened(sessions, "one")
    process = process_of(sessions, live)
    process.hold(m.Render)
    asked = asyncio.create_task(text(live))
    await process.receive(m.Render, 2)
    live.picture.close()
    with pytest.raises(NotRunning):
        await asked
    process.release(m.Render)
    assert await text(live) == b"one"
    assert (len(process.sent(m.Close)), len(process.sent(m.Open))) == (1, 2)
    assert len(sessions.template.processes) == 1


async def test_a_snapshot_that_cannot_be_read(sessions: Sessions) -> None:
    """What is asked fails with the store's own error; the next question reads it again."""
    live = await sessions.run()
    live._loaded = None
    sessions.store.errors["load_latest_screen"] = [MemoryError(), Busy("the store is busy")]
    for _ in range(2):
        with pytest.raises(Busy):
            await text(live)
        assert live.picture.state is PictureState.ABSENT
    assert await text(live) == b""


async def test_nothing_stays_open(sessions: Sessions) -> None:
    """Pictures that are built and freed leave no descriptor behind, on either side."""
    [live] = await opened(sessions, "one")
    live.picture.close()
    await process_after_close(sessions)
    before = open_files()
    for _ in range(3):
        assert await text(live) == b"one"
        live.picture.close()
        await process_after_close(sessions)
    assert open_files() <= before


async def process_after_close(sessions: Sessions) -> None:
    """Wait until the process has freed all pictures."""
    process = sessions.template.processes[-1]
    await until(lambda: len(process.sent(m.Close)) == len(process.sent(m.Open)))


# Whose fault it was


async def test_a_crash_is_the_fault_of_one(sessions: Sessions) -> None:
    """The offender is rebuilt in a process of its own, the others in a shared one; nobody misses anything."""
    one, two, three = await opened(sessions, "one", "two", "three")
    first = process_of(sessions, one)
    asked = asyncio.create_task(two.picture.render(two.position + 1, "text", scrollback=True))
    await first.receive(m.Render, 4)
    first.note.write("one", Kind.FEED, 0, 10)
    first.die()
    await until(lambda: two.picture.state is PictureState.OPEN)
    assert await text(one) == b"one"
    await sessions.print(b"!", "two")
    assert (await asked).data == b"two!"
    assert await text(three) == b"three"
    assert process_of(sessions, two) is process_of(sessions, three)
    assert process_of(sessions, one) is not process_of(sessions, two)
    assert kept_aside(sessions) == []
    assert [live.picture.status for live in (one, two, three)] == ["ok"] * 3


@pytest.mark.parametrize("dies", [True, False], ids=["crash", "refused"])
async def test_a_second_failure_at_the_same_place(sessions: Sessions, dies: bool) -> None:
    """The piece is skipped: kept aside byte for byte, a divider in its place, a save is scheduled, and it goes on."""
    [live] = await opened(sessions, "one")
    client_ = await sessions.attach()
    sessions.template.dies, sessions.template.poison = dies, [BOOM]
    start = live.position
    end = await sessions.print(BOOM)
    await sessions.print(b"after")
    shown = await text(live)
    assert (shown.startswith(b"<"), shown.endswith(b"could not be drawn>after")) == (True, True)
    [kept] = kept_aside(sessions)
    assert kept.endswith(sessions.journal().read_bytes()[-(live.position - start) :][: end - start])
    assert live.save.timer is not None
    assert any("could not be drawn" in warning for warning in sessions.programs.warnings())
    await until(lambda: "repaint" in client_.story and client_.shown == shown)
    assert await sessions.programs.save_all() == 1
    assert sessions.store.saved("one") == shown
    assert live.picture.status == "ok"


async def test_the_others_are_not_touched_by_it(sessions: Sessions) -> None:
    """While one session's output crashes its process twice, another's goes on in the shared one."""
    one, two = await opened(sessions, "one", "two")
    sessions.template.poison = [BOOM]
    await sessions.print(BOOM, "one")
    await sessions.print(b"!", "two")
    assert await text(two) == b"two!"
    await text(one)
    assert len([each for each in sessions.template.processes if "two" in each.pictures]) <= 2


async def damaged(sessions: Sessions) -> LiveSession:
    """Return a session whose output could not be drawn three times."""
    [live] = await opened(sessions, "one")
    sessions.template.poison = [BOOM]
    for _ in range(3):
        await sessions.print(BOOM)
    await until(lambda: live.picture.state is PictureState.DAMAGED)
    return live


async def test_three_such_pieces_damage_it(sessions: Sessions) -> None:
    """It is fed nothing more, and says so; its program goes on; what comes is kept in the journal."""
    live = await damaged(sessions)
    sessions.template.poison = []
    assert (live.picture.status, live.picture.lag) == ("damaged", 0)
    assert len(kept_aside(sessions)) == 3
    processes = len(sessions.template.processes)
    await sessions.print(b"and more")
    assert len(sessions.template.processes) == processes
    assert any("is damaged" in warning for warning in sessions.programs.warnings())
    assert sessions.methods.with_live_fields(sessions.store.sessions["one"]).screen == "damaged"
    live.picture._handle_quiet()


async def test_a_damaged_picture_goes_on_when_its_program_is_quiet(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while without output it begins again, blank; what came meanwhile is kept aside, unfed."""
    live = await damaged(sessions)
    monkeypatch.setattr(client, "QUIET_SECS", 0.001)
    await sessions.print(b"unseen")
    await until(lambda: live.picture.state is PictureState.OPEN)
    await sessions.print(b"seen")
    shown = await text(live)
    assert (b"unseen" in shown, shown.endswith(b"seen"), b"not drawn" in shown) == (False, True, True)
    assert b"unseen" in kept_aside(sessions)[-1]
    assert live.picture.status == "ok"


async def test_a_damaged_picture_whose_program_is_never_quiet(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its output is kept aside in pieces: the journal does not grow without end, and the picture stays damaged."""
    live = await damaged(sessions)
    monkeypatch.setattr(session, "MAX_UNREADABLE_BYTES", 100)
    await sessions.print(b"u" * 90)
    await sessions.print(b"v" * 90)
    assert live.picture.status == "damaged"
    assert live.journal_bytes < 100
    assert b"u" * 90 in kept_aside(sessions)[-1]
    live.picture._handle_quiet()
    await until(lambda: live.picture.state is PictureState.OPEN)


async def test_a_damaged_picture_is_not_waited_for(sessions: Sessions) -> None:
    """What is to be shown fails at once, for it may stay so; a save waits until it goes on."""
    live = await damaged(sessions)
    for ask in (live.picture.paint(live.position), live.picture.render(live.position, "text", scrollback=False)):
        with pytest.raises(Busy):
            async with asyncio.timeout(0.5):
                await ask
    saving = asyncio.create_task(sessions.saver.save(live))
    live.picture._handle_quiet()
    await saving
    assert b"could not be drawn" in sessions.store.saved("one")


async def test_a_failure_after_the_damage_damages_it_again(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that goes on, and fails at the next piece too, is not tried a third time."""
    live = await damaged(sessions)
    live.picture._handle_quiet()
    assert b"drawn" in await text(live)
    await sessions.print(BOOM)
    await until(lambda: live.picture.state is PictureState.DAMAGED)
    assert len(kept_aside(sessions)) == 4
    live.picture._handle_quiet()


async def test_a_save_forgets_the_failures(sessions: Sessions) -> None:
    """What was skipped before a save is history: a session that fails once an hour is never damaged."""
    [live] = await opened(sessions, "one")
    sessions.template.poison = [BOOM]
    for _ in range(4):
        await sessions.print(BOOM)
        await text(live)
        await sessions.saver.save(live)
    assert (live.picture.status, len(kept_aside(sessions))) == ("ok", 4)


async def test_a_kill_from_outside_is_no_fault(sessions: Sessions) -> None:
    """Whoever kills the process, no output is skipped for it, and the session keeps the shared process."""
    one, two = await opened(sessions, "one", "two")
    for number in range(1, client.MAX_KILLED):
        process = process_of(sessions, one)
        process.note.write("one", Kind.FEED, 0, 10)
        process.die(-signal.SIGKILL)
        await until(lambda known=number: len(sessions.template.processes) > known or one.picture.process is None)
        assert await text(one) == b"one"
    assert await text(two) == b"two"
    assert process_of(sessions, one) is process_of(sessions, two)
    assert kept_aside(sessions) == []


async def test_the_clients_colours_survive_the_process(sessions: Sessions) -> None:
    """They are sent when they change, and again with the `Open` that builds the picture elsewhere."""
    [live] = await opened(sessions, "one")
    process, light = process_of(sessions, live), Appearance(background=(255, 255, 255))
    live.picture.set_appearance(light)
    live.picture.set_appearance(light)
    assert (await process.receive(m.SetAppearance)).appearance == light
    process.die()
    assert await text(live) == b"one"
    assert len(process.sent(m.SetAppearance)) == 1
    assert process_of(sessions, live).sent(m.Open)[-1].appearance == light


async def test_no_answer_is_given_twice_or_lost_by_a_crash(sessions: Sessions) -> None:
    """A picture that is built again answers from where its answers were received; what was on its way is lost."""
    [live] = await opened(sessions, "one")
    process, answered = process_of(sessions, live), live.picture.fed
    process.hold(m.Grown)
    position = await sessions.print(b"asks")
    await process.receive(m.Grown, 2)
    process.die()
    await until(lambda: live.picture.fed == position)
    assert process_of(sessions, live).sent(m.Open)[-1].answer_from == answered
    process_of(sessions, live).die()
    answered = position
    position = await sessions.print(b"more")
    await until(lambda: live.picture.fed == position)
    assert process_of(sessions, live).sent(m.Open)[-1].answer_from == answered


async def test_too_many_kills_at_one_place(sessions: Sessions) -> None:
    """A process that is killed again and again at one place, by the kernel for its memory say, skips that place."""
    [live] = await opened(sessions, "one")

    sessions.template.on_fork = lambda process: process.hold(m.Open)
    process = process_of(sessions, live)
    process.hold(m.Render)
    asked = asyncio.create_task(text(live))
    await process.receive(m.Render, 2)
    for number in range(client.MAX_KILLED):
        process = sessions.template.processes[-1]
        process.note.write("one", Kind.FEED, 0, live.position)
        count = len(sessions.template.processes)
        if number == client.MAX_KILLED - 1:
            sessions.template.on_fork = lambda _: None
        process.die(-signal.SIGKILL)
        process = await sessions.template.forked(count + 1)
        await process.receive(m.Open)
    assert b"could not be drawn" in await asked
    assert len(kept_aside(sessions)) == 1


@pytest.mark.parametrize("dies", [True, False], ids=["crash", "refused"])
async def test_a_snapshot_that_breaks(sessions: Sessions, dies: bool) -> None:
    """It is opened by its native state twice, then by its portable bytes twice, then blank, under a divider."""
    [live] = await opened(sessions, "one")
    await sessions.saver.save(live)
    sessions.template.dies = dies
    tries: list[tuple[bool, bool]] = []

    def breaks(message: m.Open) -> bool:
        tries.append((bool(message.base.native), bool(message.base.portable)))
        return bool(message.base.portable)

    sessions.template.breaks_open = breaks
    live.close_files()
    await live.open_files()
    shown = await text(live)
    assert tries == [(True, True)] * 2 + [(False, True)] * 2 + [(False, False)]
    assert shown == b"<the saved screen could not be drawn>"
    await sessions.print(b"goes on")
    assert await text(live) == shown + b"goes on"


async def test_drawing_that_breaks(sessions: Sessions) -> None:
    """A picture that can be fed and not drawn begins again, blank, after the second try."""
    [live] = await opened(sessions, "one")
    sessions.template.breaks_draw = lambda _: b"one" in process_of(sessions, live).pictures["one"].content
    assert await text(live) == b"<the screen could not be drawn>"
    assert kept_aside(sessions) == []


async def test_drawing_that_breaks_while_output_comes(sessions: Sessions) -> None:
    """A program that prints between two tries, so that the place is another one each time, does not evade that."""
    [live] = await opened(sessions, "one")
    broken = 0

    def breaks(_: object) -> bool:
        nonlocal broken
        if b"one" not in process_of(sessions, live).pictures["one"].content:
            return False
        broken += 1
        sessions.write(b".")
        return broken < 20

    sessions.template.breaks_draw = breaks
    assert b"could not be drawn" in await text(live)
    assert broken == 2


async def test_a_request_that_is_refused(sessions: Sessions) -> None:
    """Where the library refuses to draw in two processes, that request fails, and the picture stays."""
    [live] = await opened(sessions, "one")
    process = process_of(sessions, live)
    process.hold(m.Render)
    sessions.template.on_fork = lambda forked: forked.hold(m.Render)
    asked = asyncio.create_task(text(live))
    request = await process.receive(m.Render, 2)
    process.send(m.Failed(request=request.request, session="one", reason="too long"))
    process = await sessions.template.forked(2)
    request = await process.receive(m.Render)
    process.send(m.Failed(request=request.request, session="one", reason="too long"))
    with pytest.raises(Busy):
        await asked
    assert live.picture.state is PictureState.OPEN


async def test_one_offender_that_cannot_be_handled(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong when a piece is kept aside, the others of its process are rebuilt."""
    one, two = await opened(sessions, "one", "two")

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(SessionFiles, "keep_unreadable", fail)
    process = process_of(sessions, one)
    one.picture._strike = (Kind.FEED, 0)
    process.hold(m.Render)
    asked = asyncio.create_task(text(two))
    await process.receive(m.Render, 3)
    process.note.write("one", Kind.FEED, 0, one.position)
    process.die()
    assert await asked == b"two"


# Slow, silent, gone


async def test_others_do_not_wait_for_a_slow_piece(quick: Sessions) -> None:
    """Those that somebody waits for are rebuilt in another process at once; the slow one, and the idle, stay."""
    one, two, three = await opened(quick, "one", "two", "three")
    slow = process_of(quick, one)
    slow.work_on("one")
    await quick.print(b"!", "one")
    await quick.print(b"!", "two")
    assert await text(two) == b"two!"
    assert process_of(quick, two) is not slow
    assert (process_of(quick, one), process_of(quick, three)) == (slow, slow)
    slow.note.clear()
    slow.go_on()
    assert await text(one) == b"one!"
    assert process_of(quick, one) is slow
    assert await text(three) == b"three"


async def test_a_new_session_beside_a_slow_piece(quick: Sessions) -> None:
    """It is not put behind it."""
    [one] = await opened(quick, "one")
    slow = process_of(quick, one)
    slow.work_on("one")
    await quick.print(b"!", "one")
    await quick.template.forked(1)
    [two] = await opened(quick, "two")
    assert process_of(quick, two) is not slow


async def test_a_piece_that_takes_for_ever(quick: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time the process is ended, and that is the session's own fault: the second time, it is skipped."""
    [live] = await opened(quick, "one")
    monkeypatch.setattr(client, "MAX_PIECE_SECS", 0.005)
    start = live.position

    def hang(process: ScriptedProcess) -> None:
        if len(quick.template.processes) < 3:
            process.hold(m.Grown)

    quick.template.on_fork = hang
    first = process_of(quick, live)
    first.hold(m.Grown)
    end = await quick.print(b"slow")
    for number in (1, 2):
        process = await quick.template.forked(number)
        await until(lambda process=process: [each for each in process.sent(m.Grown) if each.position >= end])
        process.work_on("one", Kind.FEED, start, end)
    assert b"could not be drawn" in await text(live)
    assert len(kept_aside(quick)) == 1
    assert [process.is_open for process in quick.template.processes[:2]] == [False, False]


async def test_a_silent_process(quick: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped, and works on nothing, is left by everybody who waits; nobody is at fault."""
    monkeypatch.setattr(client, "SILENT_SECS", 0.005)
    one, two = await opened(quick, "one", "two")
    stopped = process_of(quick, one)
    stopped.stop()
    await quick.print(b"!", "one")
    await quick.print(b"!", "two")
    assert (await text(one), await text(two)) == (b"one!", b"two!")
    assert process_of(quick, one) is process_of(quick, two) is not stopped
    assert kept_aside(quick) == []


async def test_a_template_that_dies(quick: Sessions) -> None:
    """It is started again, and the pictures of its processes are rebuilt when they are needed."""
    [live] = await opened(quick, "one")
    quick.template.end()
    await until(lambda: quick.template.starts == 2)
    await quick.print(b"!")
    assert await text(live) == b"one!"


async def test_a_process_that_dies_while_it_does_nothing(quick: Sessions) -> None:
    """Pictures that somebody waits for are rebuilt; of the others nothing is, until somebody does."""
    one, two = await opened(quick, "one", "two")
    process = process_of(quick, one)
    process.hold(m.Render)
    asked = asyncio.create_task(text(one))
    await process.receive(m.Render, 3)
    process.die(1)
    assert await asked == b"one"
    assert two.picture.state is PictureState.ABSENT
    assert await text(two) == b"two"


async def test_processes_that_die_at_once(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every new process ends before it has done anything, another one is tried after a while, not at once."""
    monkeypatch.setattr(client, "TEMPLATE_RETRY_SECS", 0.05)
    live = await sessions.run()
    sessions.template.on_fork = lambda process: process.die(1)
    await sessions.print(b"hello")
    asked = asyncio.create_task(text(live))
    await sessions.template.forked()
    for _ in range(200):  # as many turns as it likes: nothing in them is timed
        await asyncio.sleep(0)
    assert len(sessions.template.processes) <= 2
    sessions.template.on_fork = lambda _: None
    assert await asked == b"hello"


async def test_forks_that_fail(quick: Sessions) -> None:
    """A machine without memory for another process is asked again after a while."""
    live = await quick.run()
    quick.template.can_fork = False
    await quick.print(b"hello")
    asked = asyncio.create_task(text(live))
    await until(lambda: quick.template.starts == 1)
    quick.template.can_fork = True
    assert await asked == b"hello"


async def test_a_machine_without_the_library(sessions: Sessions) -> None:
    """Everything that is asked fails at once, also what was asked before that was known, and nothing is tried again."""
    live = await sessions.run()
    sessions.template.unavailable = "no pyghostty"
    asked = [asyncio.create_task(text(live)) for _ in range(2)]
    for failed in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(failed, SnapshotNotFound)
    forks = sessions.programs.screens._last_number
    for ask in (live.picture.paint(0), live.picture.save(0), text(live)):
        with pytest.raises(SnapshotNotFound):
            await ask
    await sessions.print(b"hello")
    assert (sessions.programs.screens._last_number, sessions.template.starts) == (forks, 1)


async def test_a_failure_does_not_hold_the_program_back(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that was paused, since its picture was too far behind, goes on while that is rebuilt."""
    monkeypatch.setattr("orbitd.screens.client.MAX_LAG_BYTES", 100)
    [live] = await opened(sessions, "one")
    process = process_of(sessions, live)
    process.hold(m.Grown)
    await sessions.print(b"x" * 200)
    position = live.position
    sessions.write(b"more")
    assert live.picture.lag > 100
    sessions.template.on_fork = lambda process: process.hold(m.Open)
    process.note.write("one", Kind.FEED, 0, 10)
    process.die()
    await until(lambda: live.position > position)
    assert live.picture.status == "rebuilding"


# A full disk


async def test_output_on_a_full_disk_is_drawn(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent itself, and never promised to be in the file; the next save, with room, ends that."""
    [live] = await opened(sessions, "one")
    process, filed = process_of(sessions, live), live.position
    disk = FullDisk(monkeypatch)
    await sessions.print(b"-two")
    await sessions.print(b"-three")
    assert await text(live) == b"one-two-three"
    assert max(each.position for each in process.sent(m.Grown)) == filed == live.filed_position
    assert len(process.sent(m.Data)) >= 2
    disk.is_full = False
    await sessions.saver.save(live)
    assert (sessions.store.saved("one"), live.degraded) == (b"one-two-three", None)
    count = len(process.sent(m.Data))
    await sessions.print(b"-four")
    assert await text(live) == b"one-two-three-four"
    assert len(process.sent(m.Data)) == count
    assert live.picture._unfiled_bytes == 0


@pytest.mark.parametrize("moment", ["open", "opening"])
async def test_a_picture_is_rebuilt_on_a_full_disk(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """What is in no file is sent to the next process too, also what comes while that builds the picture."""
    [live] = await opened(sessions, "one")
    FullDisk(monkeypatch)
    await sessions.print(b"-two")
    assert await text(live) == b"one-two"
    if moment == "opening":
        sessions.template.on_fork = lambda process: process.hold(m.Open)
    process = process_of(sessions, live)
    process.hold(m.Render)
    asked = asyncio.create_task(text(live))
    await process.receive(m.Render, 3)
    process.die(1)
    again = await sessions.template.forked(2)
    await again.receive(m.Open)
    await sessions.print(b"-three")
    again.release(m.Open)
    await asked
    async with asyncio.timeout(2):
        assert await text(live) == b"one-two-three"


async def test_a_picture_is_rebuilt_while_the_first_save_behind_a_full_disk_runs(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal goes on in a new file by then: the next process is given the old one too, and what is in neither."""
    [live] = await opened(sessions, "one")
    disk = FullDisk(monkeypatch)
    await sessions.print(b"-two")
    disk.is_full = False
    process = process_of(sessions, live)
    process.hold(m.Save)
    saving = asyncio.create_task(sessions.saver.save(live))
    await process.receive(m.Save)
    await sessions.print(b"-three")
    process.die(1)
    await saving
    assert sessions.store.saved("one") == await text(live) == b"one-two-three"
    assert kept_aside(sessions) == []


async def test_output_on_a_full_disk_has_a_bound(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a flood that nothing can record, the newest is kept for a picture that has to be rebuilt."""
    monkeypatch.setattr(client, "MAX_UNFILED_BYTES", 1000)
    [live] = await opened(sessions, "one")
    FullDisk(monkeypatch)
    for _ in range(20):
        await sessions.print(b"x" * 100)
    assert live.picture._unfiled_bytes <= 1000
    assert await text(live) == b"one" + b"x" * 2000


async def test_a_journal_that_cannot_be_opened_for_reading(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor for it, what is asked fails; no output is taken for broken, and the next question works."""
    live = await sessions.run()
    await sessions.print(b"hello")
    await text(live)
    live.picture.close()
    with monkeypatch.context() as patched:

        def fail(_: Journal) -> int:
            raise OSError(24, "Too many open files")

        patched.setattr(Journal, "reader", fail)
        with pytest.raises(OrbitError):
            async with asyncio.timeout(2):
                await text(live)
    assert await text(live) == b"hello"
    assert kept_aside(sessions) == []


# Memory


async def test_the_oldest_history_is_dropped_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the budget, sessions without clients lose history first, the longest detached at first."""
    with scripted(monkeypatch, home, total_scrollback_bytes=1000) as sessions:
        lives = await opened(sessions, "one", "two", "three")
        one, two, three = lives
        one.detached_since, two.detached_since, three.detached_since = 3.0, 1.0, 2.0
        process = process_of(sessions, one)
        await sessions.attach("two")
        process.send(m.Fed(session="one", position=one.position, held=300))
        process.send(m.Fed(session="two", position=two.position, held=300))
        process.send(m.Fed(session="three", position=three.position, held=300))
        await until(lambda: sessions.registry.held_bytes == 900)
        assert process.sent(m.Trim) == []
        process.send(m.Fed(session="two", position=two.position, held=600))
        await until(lambda: process.sent(m.Trim))
        assert [(each.session, each.size) for each in process.sent(m.Trim)] == [("three", 38)]
        assert sessions.registry.held_bytes <= 1000
        process.send(m.Fed(session="two", position=two.position, held=1500))
        await until(lambda: len(process.sent(m.Trim)) >= 4)
        trims = [(each.session, each.size) for each in process.sent(m.Trim)]
        assert trims == [("three", 38), ("three", 0), ("one", 0), ("two", 938)]
        await sessions.close()


async def test_the_newest_session_keeps_its_history(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody has been attached to yet counts as detached since its start, and not for the longest."""
    with scripted(monkeypatch, home, total_scrollback_bytes=1000) as sessions:
        one, two = await opened(sessions, "one", "two")
        process = process_of(sessions, one)
        one.detached_since -= 1
        two.detached_since -= 2
        [three] = await opened(sessions, "three")
        process.send(m.Fed(session="one", position=one.position, held=600))
        process.send(m.Fed(session="two", position=two.position, held=200))
        process.send(m.Fed(session="three", position=three.position, held=600))
        await until(lambda: process.sent(m.Trim))
        assert [(each.session, each.size) for each in process.sent(m.Trim)] == [("two", 0), ("one", 338)]
        await sessions.close()


async def test_what_is_being_dropped_does_not_count(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a picture has answered, it is as large as it was asked to be: no other loses history for it."""
    with scripted(monkeypatch, home, total_scrollback_bytes=1000) as sessions:
        one, two = await opened(sessions, "one", "two")
        process = process_of(sessions, one)
        process.send(m.Fed(session="one", position=one.position, held=600))
        process.send(m.Fed(session="two", position=two.position, held=600))
        await until(lambda: process.sent(m.Trim))
        [trim] = process.sent(m.Trim)
        assert (trim.session, trim.size) == ("one", 338)
        process.send(m.Fed(session="one", position=one.position, held=650))  # sent before it had come
        process.send(m.Fed(session="two", position=two.position, held=601))
        await until(lambda: sessions.registry.held_bytes == 338 + 601)
        process.send(m.Fed(session="one", position=one.position, held=330, trimmed=trim.number))
        await until(lambda: sessions.registry.held_bytes == 330 + 601)
        assert len(process.sent(m.Trim)) == 1
        await sessions.close()


async def test_a_picture_that_cannot_be_smaller(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its screen alone is over the budget: it is asked once for its history, and again when it has printed more."""
    with scripted(monkeypatch, home, total_scrollback_bytes=10) as sessions:
        [live] = await opened(sessions, "one")
        process = process_of(sessions, live)
        for count in (1, 2):
            position = await sessions.print(b"more output")
            for _ in range(5):  # the first is after the output, the others are what it answers
                trimmed = max((each.number for each in process.sent(m.Trim)), default=0)
                process.send(m.Fed(session="one", position=position, held=1000, trimmed=trimmed))
                assert (await text(live)).startswith(b"one")
            assert len(process.sent(m.Trim)) == count
        await sessions.close()


async def test_without_a_descriptor_for_a_process(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that cannot be built since no socket is left is built at the next occasion."""
    live = await sessions.run()

    def fail() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("orbitd.screens.client.socket.socketpair", fail)
        with pytest.raises(Busy):
            await text(live)
    assert (live.picture.state, live.picture.lag) == (PictureState.ABSENT, 0)
    await sessions.print(b"hello")
    assert await text(live) == b"hello"


async def test_closed_before_it_was_built(sessions: Sessions) -> None:
    """Nothing of a picture is kept that was closed while its process was building it."""
    sessions.template.on_fork = lambda process: process.hold(m.Open)
    live = await sessions.run()
    await sessions.print(b"hello")
    process = await sessions.template.forked()
    await process.receive(m.Open)
    live.close_files()
    assert sessions.programs.screens.asked == {}


async def test_a_template_of_another_release(sessions: Sessions) -> None:
    """Nothing is drawn with it, and that says why: the daemon runs an older release than the one on disk."""
    sessions.template.unavailable = ""
    live = await sessions.run()
    sessions.programs.screens.start()
    sessions.template.send(m.Hello(pid=1, version=m.VERSION + 1))
    await until(lambda: sessions.programs.screens.unavailable_reason)
    assert "another version" in str(sessions.programs.screens.unavailable_reason)
    live.close_files()
    with pytest.raises(SnapshotNotFound, match="another version"):
        await live.picture.paint(0)


async def test_a_template_whose_installation_is_gone(quick: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it cannot be started twice is put down to the replaced installation; one that is back is started again."""
    screens, changes = quick.programs.screens, ["The installation has been moved or removed"]

    def gone(_socket: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "python")

    monkeypatch.setattr(client.this_installation, "change", lambda: changes[-1] if changes else None)
    with monkeypatch.context() as patch:
        patch.setattr(screens, "_start_template", gone)
        screens.start()
        assert screens.unavailable_reason is None
        await until(lambda: screens.unavailable_reason == changes[0])
    changes.clear()
    await until(lambda: quick.template.starts)
    await until(lambda: screens.unavailable_reason is None)


async def test_a_template_without_a_descriptor(quick: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none for its socket nothing is raised, which would end the daemon, and it is started later."""

    def used_up() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(client.socket, "socketpair", used_up)
        quick.programs.screens.start()
    await until(lambda: quick.template.starts)


async def test_a_template_that_hangs(quick: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """No further forks are asked of it, and no program is held back; after a while another one takes its place."""
    monkeypatch.setattr(client, "SILENT_SECS", 0.002)
    live = await quick.run()
    quick.programs.screens.start()
    quick.template.stop()
    hanging = quick.template._sock
    await quick.print(b"hello")
    await until(lambda: live.picture.is_failed)
    await quick.print(b" again")
    assert (live.picture.lag, quick.programs.screens._last_number) == (0, 1)
    monkeypatch.setattr(client, "MAX_PIECE_SECS", 0.002)
    await until(lambda: quick.template.starts == 2)
    hanging.close()  # it was killed
    monkeypatch.setattr(client, "MAX_PIECE_SECS", 30.0)
    assert await text(live) == b"hello again"
    assert live.picture.status == "ok"
