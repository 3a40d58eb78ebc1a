"""The journal and the saved screens of a private session: in memory, whole after any kill, and bounded."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from keeper_support import open_files
from killed_anywhere import KilledAnywhere
from needs import needs
from orbit_protocol.errors import LiveUnavailable
from orbit_protocol.types import Session, SessionConfig
from orbitd.history.history import History
from orbitd.keeper.client import UnsupportedRequest
from orbitd.manager import SessionManager
from orbitd.screens.messages import Saved
from orbitd.sessions import files as files_module
from orbitd.sessions import journal as journal_module
from orbitd.sessions import private_memory
from orbitd.sessions.files import SessionFiles
from orbitd.sessions.journal_file import FILE_HEADER_BYTES, Cwd, Event, Output, Resize
from orbitd.sessions.private_memory import MIN_JOURNAL_BYTES, SCREENS, PrivateJournal, read_screen, write_screen
from orbitd.sessions.terminal import Pending
from orbitd.store.rows import now
from support import WAIT_SECS

pytestmark = needs(linux=True)

ONE, TWO, THREE = Output(data=b"one"), Resize(cols=100, rows=40), Output(data=b"three")


def saved(position: int, text: bytes = b"screen") -> Saved:
    return Saved(
        request=1, position=position, native=text * 2, portable=text, cols=80, rows=24, title="", history_line=0
    )


@pytest.fixture
def memories() -> Iterator[list[int]]:
    """A journal's memory, and two for screens, as the keeper holds them."""
    found = [os.memfd_create(name) for name in ("journal", "screen-1", "screen-2")]
    yield found
    for fd in found:
        os.close(fd)


def opened(fd: int, covered: int = 0) -> PrivateJournal:
    return PrivateJournal(os.dup(fd), covered=covered, clock=lambda: 0.05)


def events(journal: PrivateJournal, since: int = 0) -> list[Event]:
    return list(journal.events(since))


def test_a_private_journal_is_whole_after_a_kill(memories: list[int]) -> None:
    """Who opens it again finds its records behind what the saved screen covers, and goes on behind them."""
    with opened(memories[0]) as journal:
        journal.append(ONE)
        covered = journal.position
        journal.append(TWO)
        journal.append(Cwd(path=b"/caf\xe9"))
        end = journal.position
    with opened(memories[0], covered) as again:
        assert (again.base, again.position, again.gap(0), again.gap(covered)) == (covered, end, covered, 0)
        assert events(again) == [TWO, Cwd(path=b"/caf\xe9")]
        assert again.last_cwd() == b"/caf\xe9"
        again.append(THREE)
        assert events(again, end) == [THREE]
        [(reader, base)] = again.readers()
        assert os.pread(reader, 5, FILE_HEADER_BYTES + end - base + 9) == b"three"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(reader, b"x")
        os.close(reader)


def test_a_torn_record_is_cut_off_and_the_landing_buffer_completes_it(memories: list[int]) -> None:
    """A kill in the middle of a write leaves a part of a record, whose output is in the landing buffer."""
    with opened(memories[0]) as journal:
        journal.append(ONE)
        before = journal.position
        journal.append(THREE)
    os.ftruncate(memories[0], os.fstat(memories[0]).st_size - 2)
    with opened(memories[0]) as journal:
        assert (events(journal), journal.position) == ([ONE], before)
        pending = Pending(session="one", position=before, data=b"three")
        assert journal.complete_landing(pending) == []
        assert journal.complete_landing(pending) == []  # it is there now
        assert events(journal) == [ONE, THREE]


def test_what_is_covered_takes_no_memory_and_moves_no_record(memories: list[int]) -> None:
    """A reader from before a save reads on at the same offsets; the pages before it are given back."""
    text = b"x" * 100_000
    with opened(memories[0]) as journal:
        [(reader, base)] = journal.readers()
        number = journal.file_number
        for _ in range(30):
            journal.append_output(text)
            covered = journal.position
            journal.append_output(b"behind")
            journal.discard_before(covered)
            assert os.pread(reader, 6, FILE_HEADER_BYTES + covered - base + 9) == b"behind"
            assert os.fstat(reader).st_blocks * 512 < 2 * len(text)
        assert (journal.file_number, journal.base) == (number, covered)
        position = journal.position
        os.close(reader)
    with opened(memories[0], covered) as journal:
        assert (journal.position, events(journal)) == (position, [Output(data=b"behind")])


def test_a_private_journal_says_when_its_program_has_to_wait(memories: list[int]) -> None:
    """It is full long before it may grow no more, and no longer once it is saved; beyond, nothing is recorded."""
    with opened(memories[0]) as journal:
        while not journal.is_full:
            assert journal.append_output(b"x" * 100_000) == []
        assert journal.save_soon_bytes < journal.size < MIN_JOURNAL_BYTES
        journal.discard_before(journal.position)
        assert not journal.is_full
        while journal.degraded is None:
            journal.append_output(b"x" * 100_000)
        assert journal.size < MIN_JOURNAL_BYTES + 200_000
        journal.append_output(b"not recorded")
        position = journal.mark()
        assert position == journal.position > journal.base + journal.size
        journal.discard_before(position)
        assert (journal.degraded, journal.base, journal.position) == (None, position, position)
        assert journal.append(THREE) == []
    with opened(memories[0], position) as journal:
        assert events(journal) == [THREE]


def test_a_private_journal_that_could_not_be_drawn_begins_again(memories: list[int]) -> None:
    """Without a screen that covers it what cannot be drawn is discarded; positions go on, and the gap is known."""
    with opened(memories[0]) as journal:
        journal.append(ONE)
        end, number = journal.position, journal.file_number
        journal.discard_all()
        assert (journal.base, journal.position, journal.file_number) == (end, end, number + 1)
        journal.append(THREE)
    with opened(memories[0]) as journal:
        assert (journal.gap(0), events(journal)) == (end, [THREE])


@pytest.mark.parametrize("cut", [0, 3, FILE_HEADER_BYTES, FILE_HEADER_BYTES + 5])
def test_a_private_journal_that_somebody_has_cut_short(memories: list[int], cut: int) -> None:
    """While it is open, nothing is recorded until the next save; opened again, it begins behind the saved screen."""
    with opened(memories[0]) as journal:
        journal.append(ONE)
        os.ftruncate(memories[0], cut)
        assert journal.append(THREE) != []
        assert journal.degraded is not None
        covered = journal.mark()
        journal.discard_before(covered)
        assert journal.append(THREE) == []
        assert events(journal) == [THREE]
    os.ftruncate(memories[0], cut)
    with opened(memories[0], covered) as journal:
        assert (journal.base, journal.position) == (covered, covered)


def test_a_kill_between_any_two_lines_of_a_save(memories: list[int], tmp_path: Path) -> None:
    """Every moment leaves a whole screen, and every record behind the position that it covers."""
    with opened(memories[0]) as journal:
        journal.append(ONE)
        write_screen(memories[1:], saved(journal.position, b"first"))
        journal.discard_before(journal.position)
        journal.append(TWO)
        covered, everything = journal.position, [TWO, THREE]
        journal.append(THREE)

        def steps() -> None:
            write_screen(memories[1:], saved(covered, b"second"))
            journal.discard_before(covered)

        files = [Path(f"/proc/self/fd/{fd}") for fd in memories]
        killed = KilledAnywhere(files, [journal_module, private_memory], lambda: None)
        killed.run(steps)
    assert len(killed.states) > 4
    shown = set()
    for state, _ in killed.states:
        killed.restore(state, tmp_path)
        journal_fd, *screens = (os.open(tmp_path / str(fd), os.O_RDWR) for fd in memories)
        loaded = read_screen(screens)
        assert loaded is not None
        assert (loaded.base.cols, loaded.base.rows, loaded.base.native) == (80, 24, loaded.base.portable * 2)
        with PrivateJournal(journal_fd, covered=loaded.position) as journal:
            assert events(journal) == (everything if loaded.base.portable == b"first" else [THREE])
        shown.add(loaded.base.portable)
        for fd in screens:
            os.close(fd)
    assert shown == {b"first", b"second"}


def test_a_screen_for_which_there_is_no_memory(memories: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before stays."""
    write_screen(memories[1:], saved(10, b"first"))
    write_all = private_memory.write_all

    def fail(fd: int, data: bytes, offset: int) -> None:
        write_all(fd, data[:3], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(private_memory, "write_all", fail)
        with pytest.raises(OSError, match="No space"):
            write_screen(memories[1:], saved(20, b"second"))
    loaded = read_screen(memories[1:])
    assert loaded is not None
    assert (loaded.position, loaded.base.portable) == (10, b"first")
    write_screen(memories[1:], saved(20, b"second"))
    assert sorted(os.fstat(fd).st_size > 0 for fd in memories[1:]) == [False, True]


def test_screens_that_are_damaged(memories: list[int]) -> None:
    """Not one byte may be another one, and none missing: else it is as if there were none."""
    write_screen(memories[1:], saved(10, b"text"))
    fd = max(memories[1:], key=lambda each: os.fstat(each).st_size)
    good = os.pread(fd, 1000, 0)
    for place in range(len(good)):
        os.pwrite(fd, bytes([good[place] ^ 1]), place)
        assert read_screen(memories[1:]) is None
        os.pwrite(fd, good[place : place + 1], place)
        os.ftruncate(fd, place)
        assert read_screen(memories[1:]) is None
        os.pwrite(fd, good, 0)
    assert read_screen(memories[1:]) is not None


class _Store:
    """A store that has one private session."""

    async def get_session(self, session_id: str) -> Session:
        moment = now()
        return Session(
            id=session_id,
            name=None,
            session_type="local",
            created_at=moment,
            last_active=moment,
            status="detached",
            config=SessionConfig(session_type="local", record="none"),
            workspace_id=None,
        )


@pytest.mark.parametrize(
    ("said", "reason"),
    [("no request memory", "the keeper that runs is of an earlier Orbit"), ("memory: no", "memfd_create")],
)
async def test_a_private_session_without_memory_is_refused(tmp_path: Path, said: str, reason: str) -> None:
    """Where the keeper has none, the session is refused with the reason, and nothing is written in its place."""

    async def refuse(session_id: str, name: str) -> int:
        raise UnsupportedRequest(said)

    store = cast(SessionManager, _Store())
    before = open_files()
    for memory in (refuse, None):
        files = SessionFiles(store, cast(History, None), str(tmp_path / "journal"), memory)
        with pytest.raises(LiveUnavailable) as refused:
            await files.open("one", create=True)
        assert not refused.value.retryable
        if memory is not None:
            assert reason in refused.value.message
    await files.keep_landing(Pending(session="one", position=0, data=b"secret"))
    assert os.listdir(tmp_path) == []
    assert open_files() == before


async def test_a_save_that_is_given_up_writes_to_no_other_file(
    tmp_path: Path, memories: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on: its descriptors are not closed before it ends, when they would be those of other files."""
    begun, ends = threading.Event(), threading.Event()
    written_to = []

    def write(fds: list[int], _: Saved) -> None:
        begun.set()
        ends.wait(WAIT_SECS)
        written_to.extend(os.readlink(f"/proc/self/fd/{fd}") for fd in fds)

    async def memory(session_id: str, name: str) -> int:
        return os.dup(memories[1 + SCREENS.index(name)])

    monkeypatch.setattr(files_module, "write_screen", write)
    files = SessionFiles(cast(SessionManager, _Store()), cast(History, None), str(tmp_path / "journal"), memory)
    before = open_files()
    saving = asyncio.ensure_future(files.save_private("one", saved(10)))
    assert await asyncio.to_thread(begun.wait, WAIT_SECS)
    saving.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ends.set()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert [name.split(" ")[0] for name in written_to] == ["/memfd:screen-1", "/memfd:screen-2"]
    assert open_files() == before
