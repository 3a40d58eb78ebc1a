"""When a screen is saved, and again when that has failed. Real timers, of a millisecond; a store that says no."""

from __future__ import annotations

import asyncio
import errno
from unittest.mock import Mock

import pytest

from orbit_os.files import UnsafeFolder
from orbit_protocol.errors import SessionNotFound, SpawnFailed, StorageFull
from orbitd.screens import messages as m
from orbitd.sessions import files, saver, session
from sessions_support import Sessions, until


@pytest.fixture
def quick(sessions: Sessions) -> Sessions:
    """Sessions that are saved at once."""
    sessions.saver._interval = sessions.saver.retry_secs = 0.001
    return sessions


@pytest.mark.parametrize("failures", [0, 1, 3])
async def test_what_could_not_be_saved_is_tried_again(quick: Sessions, failures: int) -> None:
    """A changed screen is saved by itself, after as many failures as it takes, and nothing warns then any more."""
    quick.store.errors["save_snapshot"] = [StorageFull("no room") for _ in range(failures)]
    live = await quick.run()
    await quick.print(b"hello")
    await until(lambda: live.is_saved)
    assert quick.store.errors["save_snapshot"] == []
    assert quick.store.saved("one") == b"hello"
    assert (live.save.failure, live.save.timer) == ("", None)
    assert quick.programs.warnings() == []


async def test_a_failure_is_told(sessions: Sessions) -> None:
    """While a screen cannot be saved a warning says why, the journal keeps it, and the next try is scheduled."""
    live = await sessions.run()
    await sessions.print(b"hello")
    sessions.store.errors["save_snapshot"] = [StorageFull("no room")]
    assert await sessions.programs.save_all() == 0
    assert ["no room" in warning for warning in sessions.programs.warnings()] == [True]
    assert b"hello" in sessions.journal().read_bytes()
    assert live.save.timer is not None
    assert await sessions.programs.save_all() == 1
    assert sessions.programs.warnings() == []


async def test_what_is_unchanged_is_not_written(sessions: Sessions) -> None:
    """A silent session is saved once."""
    await sessions.run()
    await sessions.print(b"hello")
    assert [await sessions.programs.save_all() for _ in range(3)] == [1, 0, 0]
    assert len(sessions.store.snapshots) == 1


async def test_a_burst_is_saved_earlier(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Much output is not in the journal alone for a whole interval."""
    monkeypatch.setattr(session, "SAVE_SOON_BYTES", 100)
    monkeypatch.setattr(saver, "BURST_SECS", 0.001)
    live = await sessions.run()
    await sessions.print(b"hello")
    assert not live.save.is_soon
    await sessions.print(b"x" * 200)
    await until(lambda: live.is_saved)
    assert sessions.store.saved("one") == b"hello" + b"x" * 200


async def test_one_session_that_cannot_be_saved(sessions: Sessions) -> None:
    """The others are saved all the same, whatever is raised."""
    for name in ("one", "two", "three"):
        await sessions.run(name)
        await sessions.print(b"hello", name)
    sessions.store.errors["save_snapshot"] = [MemoryError()]
    assert await sessions.programs.save_all() == 2
    assert await sessions.programs.save_all() == 1
    assert {session_id for session_id, _, _ in sessions.store.snapshots} == {"one", "two", "three"}


async def test_a_deleted_session_is_not_tried_again(sessions: Sessions) -> None:
    """The save of a session that was deleted meanwhile fails, and is no failure to be told."""
    live = await sessions.run()
    await sessions.print(b"hello")
    del sessions.store.sessions["one"]
    with pytest.raises(SessionNotFound):
        await sessions.saver.save(live)
    assert (live.save.timer, live.save.failure) == (None, "")


async def test_a_save_that_takes_too_long(sessions: Sessions) -> None:
    """A picture that is never drawn ends the save, not the session: it is tried again, and saved then."""
    live = await sessions.run()
    await sessions.print(b"hello")
    process = await sessions.template.forked()
    process.hold(m.Save)
    with pytest.raises(TimeoutError):
        await sessions.saver.save(live, limit_secs=0.001)
    assert (live.save.failure != "", live.save.timer is not None) == (True, True)
    process.release(m.Save)
    await sessions.saver.save(live)
    assert live.is_saved


async def test_a_history_that_is_written_again_meanwhile(sessions: Sessions) -> None:
    """The screen is saved at once; the journal keeps what the history has not, and the next save brings it there."""
    live = await sessions.run()
    await sessions.print(b"hello")
    sessions.history.is_rewritten = True
    assert not await sessions.saver.save(live)
    assert sessions.store.saved("one") == b"hello"
    assert b"hello" in sessions.journal().read_bytes()
    assert (sessions.history.recorded, live.is_saved, live.save.timer is not None) == ([], False, True)
    sessions.history.is_rewritten = False
    assert await sessions.saver.save(live)
    assert (sessions.history.recorded, live.is_saved) == ([("one", live.position)], True)


async def test_the_last_screen_while_a_history_is_written_again(quick: Sessions) -> None:
    """An exit is stored at once, and the journal goes once the history has its end."""
    await quick.run()
    await quick.print(b"hello")
    quick.history.is_rewritten = True
    await quick.exit()
    assert quick.journal().exists()
    assert quick.store.saved("one") == b"hello"
    quick.history.is_rewritten = False
    await until(lambda: not quick.journal().exists())
    assert quick.history.recorded != []


async def test_a_save_that_the_system_refuses_has_its_reason(sessions: Sessions) -> None:
    """`status` shows what the system said, not the name of an exception."""
    live = await sessions.run()
    await sessions.print(b"hello")
    sessions.store.errors["save_snapshot"] = [OSError(errno.ENOSPC, "No space left on device")]
    with pytest.raises(OSError, match="No space"):
        await sessions.saver.save(live)
    assert live.save.failure == "No space left on device"


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), UnsafeFolder("it is a link")])
async def test_a_journal_that_cannot_be_made_is_no_fault_of_the_command(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """Where a disk has no free inode, say, the start is refused with the reason, and the command is not suspected."""
    monkeypatch.setattr(files, "private_folder", Mock(side_effect=failure))
    sessions.store.add("one")
    with pytest.raises(SpawnFailed) as caught:
        await sessions.files("/journal").open("one", create=True)
    assert str(getattr(failure, "strerror", failure)) in caught.value.message
    assert "command" not in caught.value.hint


async def test_saves_after_the_close(quick: Sessions) -> None:
    """No save is started after the daemon's last ones, whether its timer was set before them or not."""
    await quick.run()
    await quick.print(b"one")
    await quick.saver.close()
    saved = list(quick.store.snapshots)
    await quick.print(b"hello")
    await asyncio.sleep(0.02)
    assert quick.store.snapshots == saved


async def test_the_line_between_two_programs_is_saved(quick: Sessions) -> None:
    """Also where the second one prints nothing."""
    live = await quick.run()
    await quick.print(b"hello")
    await quick.saver.save(live)
    live.print_divider("started again")
    assert not live.is_saved
    await until(lambda: live.is_saved)


async def test_a_store_that_is_slow_delays_no_other(sessions: Sessions) -> None:
    """A second save of a session waits for the first, and finds nothing left to do."""
    live = await sessions.run()
    await sessions.print(b"hello")
    gate = sessions.store.gates["save_snapshot"] = asyncio.Event()
    saves = [asyncio.create_task(sessions.saver.save(live)) for _ in range(3)]
    await until(lambda: "save_snapshot" in sessions.store.entered)
    gate.set()
    await asyncio.gather(*saves)
    assert len(sessions.store.snapshots) == 1
