"""Films: recorded out of journals, save by save, and read again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from film_support import fail, film_of, output_of
from orbit_protocol.errors import StorageError, StorageFull
from orbit_protocol.settings import HistorySettings
from orbit_protocol.types import SessionConfig
from orbitd.descriptors import FOR_HISTORY, count_open
from orbitd.history import database, film, recorder, salvage
from orbitd.history import history as history_module
from orbitd.history.database import DamagedHistory, open_reader
from orbitd.history.history import History
from orbitd.history.text_blocks import NO_NUMBER, Line, pack, unpack
from orbitd.manager import SessionManager
from orbitd.screens.messages import Saved, TakenText
from orbitd.sessions.files import SessionFiles
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import FILE_HEADER_BYTES, RECORD, Cwd, Kind, Resize, payload_length, records_of
from orbitd.store.progress import Progress
from support import WAIT_SECS

START = 1_800_000_000.0


class Session:
    """A session's journal, and the saves of it."""

    def __init__(self, folder: Path, history: History, name: str = "one") -> None:
        self.history = history
        self.id = name
        self.path = folder / "journal"
        self.now = START
        self.printed = b""
        self.journal = Journal(self.path, clock=lambda: self.now)
        self.journal.append(Resize(cols=80, rows=24))

    def print(self, data: bytes, *, later: float = 1.0) -> None:
        """Print something, so many seconds later than the last."""
        self.now += later
        self.printed += data
        self.journal.append_output(data)

    def readers(self) -> list[tuple[int, int]]:
        """Return the journal's files."""
        return self.journal.readers()

    async def save(self, *, discard: bool = True, at: int | None = None, **fields: object) -> None:
        """Save, as far as the journal goes or to a position, and discard what is saved unless it dies before that."""
        position = self.journal.position if at is None else at
        recording = await self.history.recording(self.id)
        wants = recording.wants_key_frame or self.journal.gap(recording.recorded_to) > 0  # as the saver
        fields.setdefault("key_frame", b"frame %d" % position if wants else b"")
        fields.setdefault("at", int(self.now * 1000))
        await self.history.record(self.id, "full", self.readers, saved(position, **fields))
        if discard:
            self.journal.discard_before(position)


def saved(position: int, **fields: object) -> Saved:
    """Return what a picture returns for a save."""
    values = {"native": b"n", "portable": b"p", "cols": 80, "rows": 24, "title": "", "history_line": 0, **fields}
    return Saved(request=1, position=position, **values)  # type: ignore[arg-type]


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    async with History(str(tmp_path / "history.db"), HistorySettings(), clock=lambda: START) as history:
        yield history


@pytest.fixture
def session(tmp_path: Path, history: History) -> Session:
    return Session(tmp_path, history)


async def filmed(history: History) -> bytes:
    """Return what the film has of what was printed, without a gap."""
    return output_of(await asyncio.to_thread(lambda: film_of(Path(history.path), "one")[1]))


def test_each_database_of_a_folder_has_a_history_of_its_own() -> None:
    """However two are called, their daemons do not write to the same file."""
    names = ["sessions.db", "a.db", "a.sqlite", "a", "history.db"]
    paths = [database.history_path(f"/data/{name}") for name in names]
    assert paths[0] == "/data/history.db"
    assert len({*paths, *(f"/data/{name}" for name in names[:4])}) == 9


async def test_each_save_goes_on_where_the_last_one_ended(session: Session, history: History) -> None:
    """The film is what was printed, whatever of it each save has discarded from the journal."""
    for number in range(20):
        session.print(b"line %d\r\n" % number)
        await session.save()
    assert await filmed(history) == session.printed
    assert session.journal.size == 0


async def test_a_kill_between_chunk_and_snapshot(session: Session, history: History) -> None:
    """A journal that was not discarded is not recorded twice, also where the next save goes further."""
    session.print(b"one ")
    await session.save(discard=False)
    history.release("one")  # a new daemon knows what is on the disk
    session.print(b"two ")
    await session.save(discard=False)
    await session.save()
    session.print(b"three")
    await session.save()
    assert await filmed(history) == b"one two three"


async def test_a_save_that_ends_in_the_middle_of_the_journal(session: Session, history: History) -> None:
    """What comes behind the position of a save is left to the next one."""
    session.print(b"one ")
    position = session.journal.position
    session.print(b"two")
    await session.save(at=position)
    assert await filmed(history) == b"one "
    await session.save()
    assert await filmed(history) == b"one two"


async def test_a_long_journal_is_recorded_in_slices(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it is, it is read and compressed a few megabytes at a time, at the borders of records."""
    monkeypatch.setattr(recorder, "SLICE_BYTES", 5000)
    dice = random.Random(1)
    for _ in range(50):
        session.print(dice.randbytes(dice.randrange(1, 2000)), later=0.01)
    await session.save()
    assert await filmed(history) == session.printed
    with contextlib.closing(open_reader(history.path)) as connection:
        assert connection.execute("SELECT count(*) FROM chunks").fetchone()[0] > 5


async def test_groups_begin_with_key_frames(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so much film, or so much time, the next save begins a group, whose key frame is at its position."""
    monkeypatch.setattr(recorder, "GROUP_BYTES", 3000)
    for number in range(8):
        session.print(b"%d" % number * 1000)
        await session.save()
    session.print(b"later", later=recorder.GROUP_MS / 1000)
    await session.save()
    with contextlib.closing(open_reader(history.path)) as connection:
        positions = [(group.position, group.native) for group in film.groups_from(connection, "one", 0, fail)]
    assert len(positions) > 2
    assert positions[0] == (0, b"")
    assert all(native == b"frame %d" % position for position, native in positions[1:])
    assert await filmed(history) == session.printed


async def test_the_film_of_a_moment(session: Session, history: History) -> None:
    """Of a moment there is what was printed until then, and nothing of what came later."""
    for number in range(6):
        session.print(b"%d" % number)
        await session.save()
    with contextlib.closing(open_reader(history.path)) as connection:
        for number in range(6):
            at = int((START + 1 + number) * 1000)
            group = film.group_at(connection, "one", at + 500, fail)
            assert group is not None
            parts = film.until(film.parts_of(connection, group, fail), at + 500)
            assert output_of(b"".join(part.data for part in parts)) == session.printed[: number + 1]
        assert film.group_at(connection, "one", int(START * 1000), fail) is None


async def test_a_save_that_was_given_up_while_it_was_written(session: Session, history: History) -> None:
    """Whether its part was committed or not, the next save records each byte once."""
    session.print(b"one ")
    await session.save()
    for turns in range(12):
        session.print(b"%d " % turns)
        saving = asyncio.ensure_future(session.save(discard=False))
        for _ in range(turns):
            await asyncio.sleep(0.001 * turns)
        saving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saving
        session.print(b"and ")
        await session.save(discard=turns % 2 == 0)
    assert await filmed(history) == session.printed


async def test_what_could_not_be_recorded_at_first(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the screen could not be saved either, on a full disk, the journal has all of it for the next save."""
    session.print(b"one ")
    await session.save()
    with monkeypatch.context() as patched:
        patched.setattr(recorder, "insert_chunk", raiser(StorageFull("no room")))
        session.print(b"two ")
        await session.save(discard=False)
    session.print(b"three ")
    await session.save()
    assert await filmed(history) == b"one two three "


async def test_what_cannot_be_recorded_is_missing_and_nothing_else(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk is full, say, the save goes on; the film goes on with the next key frame."""
    session.print(b"one ")
    await session.save()
    with monkeypatch.context() as patched:
        patched.setattr(recorder, "insert_chunk", raiser(StorageFull("no room")))
        session.print(b"two ")
        await session.save()
    session.print(b"three ")
    await session.save()
    session.print(b"four")
    await session.save()
    assert groups_of(history, fail) == [b"one ", b"four"]
    assert await filmed_between(history, 0, session.journal.position) is None


def groups_of(history: History, note_damage: Callable[[DamagedHistory], None]) -> list[bytes]:
    """Return what each group has of what was printed."""
    with contextlib.closing(open_reader(history.path)) as connection:
        return [
            output_of(b"".join(part.data for part in film.parts_of(connection, group, note_damage)))
            for group in film.groups_from(connection, "one", 0, note_damage)
        ]


async def filmed_between(history: History, start: int, end: int) -> bytes | None:
    """Return the records between two positions."""
    return await history.records("one", start, end)


def raiser(error: Exception) -> Callable[..., None]:
    """Return a function that raises."""

    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it


async def test_records_are_given_back(session: Session, history: History) -> None:
    """What a journal has lost at its end comes out of the film, byte by byte, wherever the saves were."""
    records = b"".join(b"".join(records_of(each)) for each in (Resize(cols=80, rows=24), Cwd(path=b"/caf\xe9")))
    session.journal.append(Cwd(path=b"/caf\xe9"))
    await session.save(discard=False)
    session.print(b"two")
    await session.save(discard=False)
    whole = session.path.read_bytes()[FILE_HEADER_BYTES:]
    assert whole.startswith(records)
    for start in (0, len(records)):
        assert await filmed_between(history, start, len(whole)) == whole[start:]
    assert await filmed_between(history, 0, len(whole) + 1) is None


@pytest.mark.parametrize(
    ("table", "left"), [("chunks", [b"0", b"23", b"45"]), ("groups", [b"01", b"45"])], ids=["chunk", "key frame"]
)
async def test_damage_costs_what_is_damaged(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch, table: str, left: list[bytes]
) -> None:
    """A chunk that does not fit its checksum ends its group; other groups are whole, and the damage is named."""
    monkeypatch.setattr(recorder, "GROUP_BYTES", 1)
    for number in range(6):
        session.print(b"%d" % number)
        await session.save()
    query = f"UPDATE {table} SET checksum = checksum + 1 WHERE seq = 2"
    await history.write(lambda connection: connection.execute(query) and None)
    damage: list[DamagedHistory] = []
    assert [each for each in groups_of(history, damage.append) if each] == left
    assert [str(each) for each in damage] == [f"row 2 of {table}: its checksum is another"]


async def test_a_session_whose_newest_group_was_dropped(session: Session, history: History) -> None:
    """The limits drop it as other sessions are saved, or as it is old: the next save begins with a key frame."""
    session.print(b"one ")
    await session.save()
    await history.write(lambda connection: recorder.limit_total(connection, 1))
    await history.note_dropped()
    session.print(b"two ")
    await session.save()
    session.print(b"three")
    await session.save()
    assert groups_of(history, fail) == [b"three"]


async def test_a_group_that_is_dropped_while_a_save_runs(session: Session, history: History) -> None:
    """What belongs to no group is not stored: no limit would ever drop it, and nobody could see it."""
    session.print(b"one ")
    await session.save()
    await history.write(lambda connection: recorder.limit_total(connection, 1))
    session.print(b"two ")
    await session.save()
    session.print(b"three ")
    await session.save()
    session.print(b"four")
    await session.save()
    assert groups_of(history, fail) == [b"four"]
    with contextlib.closing(open_reader(history.path)) as connection:
        query = "SELECT count(*) FROM chunks WHERE group_seq NOT IN (SELECT seq FROM groups)"
        assert connection.execute(query).fetchone() == (0,)
        sums = "SELECT film_bytes = (SELECT sum(stored_bytes) FROM groups) FROM films"
        assert connection.execute(sums).fetchone() == (1,)


async def test_a_journal_that_is_damaged_in_the_middle(session: Session, history: History) -> None:
    """The film goes on with a key frame at the next save, as behind each gap."""
    session.print(b"one ")
    await session.save()
    start = session.journal.position
    session.print(b"two ")
    [(fd, base)] = session.readers()
    with closing_fd(fd), session.path.open("r+b") as file:
        file.seek(FILE_HEADER_BYTES + start - base)
        file.write(b"\xff" * 8)
    await session.save()
    session.print(b"three ")
    await session.save()
    session.print(b"four")
    await session.save()
    assert groups_of(history, fail) == [b"one ", b"four"]


async def test_long_reads_keep_no_save_waiting(session: Session, history: History) -> None:
    """Backups and checks of a large history take threads for long; a save has others."""
    session.print(b"x")
    await session.save()
    ends = threading.Event()
    reads = [asyncio.ensure_future(history.read(lambda _: ends.wait(WAIT_SECS), default=True)) for _ in range(8)]
    try:
        session.print(b"y")
        async with asyncio.timeout(WAIT_SECS / 2):
            await session.save()
            history.release("one")
            assert (await history.recording("one")).recorded_to == session.journal.position
    finally:
        ends.set()
        await asyncio.gather(*reads)


async def test_a_time_that_no_clock_has_keeps_no_save_from_being_made(session: Session, history: History) -> None:
    """A record that was damaged on the disk is missing from the film, with what follows until the next key frame."""
    session.print(b"one")
    [(fd, base)] = session.readers()
    with closing_fd(fd), session.path.open("r+b") as file:
        data = bytearray(file.read())
        place = FILE_HEADER_BYTES - base
        while (length := payload_length(bytes(data[place : place + RECORD.size]))) is not None:
            if data[place] == Kind.TIME:
                data[place + RECORD.size] = 0xFF
            place += RECORD.size + length
        file.seek(0)
        file.write(data)
    await session.save()
    session.print(b"two")
    await session.save()
    session.print(b"three")
    await session.save()
    assert groups_of(history, fail) == [b"", b"three"]


@contextlib.contextmanager
def closing_fd(fd: int) -> Iterator[None]:
    """Close a descriptor at the end."""
    try:
        yield
    finally:
        os.close(fd)


async def test_a_check_that_was_given_up_ends(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread too: the stop of a daemon does not wait until all of a large history was looked at."""
    begun = threading.Event()

    def look_for_ever(_: object, look: Callable[[], None]) -> Iterator[DamagedHistory]:
        begun.set()
        while True:
            look()
            yield from ()

    monkeypatch.setattr(salvage, "damaged_rows", look_for_ever)
    session.print(b"x")
    await session.save()
    checking = asyncio.ensure_future(history.check(WAIT_SECS, Progress()))
    assert await asyncio.to_thread(begun.wait, WAIT_SECS)
    checking.cancel()
    async with asyncio.timeout(WAIT_SECS / 2):
        await history.close()


async def test_text_is_recorded_with_its_save(session: Session, history: History) -> None:
    """Small blocks are joined; the tail is replaced by each save that knows it, and kept by one that does not."""
    for number in range(3):
        session.print(b"x")
        block = pack([Line(number=number, at=1000 + number, text=f"line {number}")], number)
        tail = pack([Line(number=number + 1, at=2000, text=f"on the screen {number}")], number + 1)
        assert block is not None
        text = (TakenText(position=session.journal.position, block=block),)
        await session.save(text=text, tail=tail, has_tail=number < 2)
    with contextlib.closing(open_reader(history.path)) as connection:
        rows = connection.execute("SELECT is_tail, text, runs FROM texts ORDER BY is_tail").fetchall()
        (stored,) = connection.execute("SELECT text_bytes FROM films").fetchone()
    lines = [(is_tail, [line.text for line in unpack(text, runs)]) for is_tail, text, runs in rows]
    assert lines == [(0, ["line 0", "line 1", "line 2"]), (1, ["on the screen 1"])]
    assert stored == sum(len(text) + len(runs) for _, text, runs in rows)
    assert (await history.recording("one")).next_line == 3


def taken(position: int, *lines: tuple[int, str]) -> TakenText:
    """Return lines with their numbers that a picture has taken up to a position."""
    block = pack([Line(number=number, at=1000, text=text) for number, text in lines], lines[0][0])
    assert block is not None
    return TakenText(position=position, block=block)


def text_of(history: History) -> list[str]:
    """Return the stored text of the session."""
    with contextlib.closing(open_reader(history.path)) as connection:
        rows = connection.execute("SELECT text, runs FROM texts WHERE is_tail = 0 ORDER BY seq").fetchall()
    return [line.text for text, runs in rows for line in unpack(text, runs)]


async def test_text_that_a_save_had_recorded_that_was_given_up(session: Session, history: History) -> None:
    """A picture is asked for its text before it is known up to where that is recorded: each line is stored once."""
    session.print(b"x")
    first = taken(session.journal.position, (0, "one"), (NO_NUMBER, "drawn"))
    await session.save(text=(first,), discard=False)
    session.print(b"y")
    await session.save(text=(first, taken(session.journal.position, (1, "two"))))
    assert text_of(history) == ["one", "drawn", "two"]


async def test_text_of_a_picture_that_was_opened_while_the_history_could_not_be_read(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes all lines that there are: those that are stored already are not stored again."""
    session.print(b"x")
    await session.save(text=(taken(session.journal.position, (0, "one"), (1, "two")),))
    history.release("one")
    with monkeypatch.context() as patched:
        patched.setattr(History, "read", raiser(StorageError("unable to open the file")))
        assert (await history.recording("one")).recorded_to == 0
    session.print(b"y")
    await session.save(text=(taken(session.journal.position, (0, "one"), (1, "another"), (2, "three")),))
    assert text_of(history) == ["one", "two", "another", "three"]
    assert (await history.recording("one")).next_line == 3


async def test_text_of_a_save_in_several_parts(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between two parts leaves the text of those that are recorded; the next daemon takes what is left."""
    monkeypatch.setattr(recorder, "SLICE_BYTES", 3000)
    texts = []
    for number in range(6):
        session.print(b"x" * 1000)
        texts.append(taken(session.journal.position, (NO_NUMBER, f"drawn {number}")))
    insert, calls = recorder.insert_chunk, 0

    def insert_two(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise StorageFull("no room")
        return insert(*args)

    with monkeypatch.context() as patched:
        patched.setattr(recorder, "insert_chunk", insert_two)
        await session.save(text=tuple(texts), discard=False)
    recorded_to = (await history.recording("one")).recorded_to
    assert 0 < recorded_to < session.journal.position
    assert text_of(history) == [f"drawn {at}" for at, each in enumerate(texts) if each.position <= recorded_to]
    await session.save(text=tuple(each for each in texts if each.position > recorded_to))
    assert text_of(history) == [f"drawn {at}" for at in range(6)]


async def test_a_session_that_is_deleted_leaves_nothing(session: Session, history: History) -> None:
    """Of a session that is deleted for good all rows go, and others' stay."""
    session.print(b"x")
    block = pack([Line(number=0, at=1, text="line")], 0)
    assert block is not None
    await session.save(text=(TakenText(position=0, block=block),))
    await history.record("two", "screen", session.readers, saved(9, text=(TakenText(position=0, block=block),)))
    await history.remove("one")
    with contextlib.closing(open_reader(history.path)) as connection:
        for table in ("films", "groups", "chunks", "texts"):
            query = f"SELECT DISTINCT session_id FROM {table}"
            assert connection.execute(query).fetchall() == ([("two",)] if table in ("films", "texts") else [])


async def test_a_session_that_is_deleted_while_it_is_saved(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the save would have recorded behind the removal is not recorded: nobody would remove it any more."""
    session.print(b"x")
    await session.save()
    compress, begun, ends = recorder.compress, threading.Event(), threading.Event()

    def wait(*args: Any) -> recorder.Chunk:
        begun.set()
        ends.wait(WAIT_SECS)
        return compress(*args)

    monkeypatch.setattr(recorder, "compress", wait)
    session.print(b"y")
    saving = asyncio.ensure_future(session.save())
    assert await asyncio.to_thread(begun.wait, WAIT_SECS)
    await history.remove("one")
    ends.set()
    await saving
    with contextlib.closing(open_reader(history.path)) as connection:
        for table in ("films", "groups", "chunks", "texts"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


async def test_a_session_that_was_deleted_and_is_imported_again(tmp_path: Path) -> None:
    """It has its old id, and is recorded as any other."""
    history = History(str(tmp_path / "history.db"), HistorySettings())
    async with history, SessionManager.open(tmp_path / "sessions.db") as manager:
        record = await manager.create_session(SessionConfig(session_type="local"))
        await history.remove(record.id)
        files = SessionFiles(manager, history, str(tmp_path / "journals"))
        opened = (await files.open(record.id, create=True)).journal
        assert opened is not None
        opened.append_output(b"again")
        await history.record(record.id, "full", opened.readers, saved(opened.position))
        opened.close()
        assert output_of(film_of(tmp_path / "history.db", record.id)[1]) == b"again"


async def test_whose_group_goes_to_the_limit_begins_another_at_once(tmp_path: Path) -> None:
    """A session whose newest group was dropped, as another one printed, has its next save bring a key frame."""
    settings = HistorySettings(total_recording_bytes=100_000)
    async with History(str(tmp_path / "history.db"), settings) as history:
        sessions = []
        for name in ("quiet", "loud"):
            (tmp_path / name).mkdir()
            sessions.append(Session(tmp_path / name, history, name))
        quiet, loud = sessions
        quiet.print(b"first")
        await quiet.save()
        loud.print(random.Random(1).randbytes(150_000))
        await loud.save()
        assert (await history.recording("quiet")).wants_key_frame
        quiet.print(b"lost")
        await quiet.save()
        quiet.print(b"there")
        await quiet.save()
        records = (await asyncio.to_thread(film_of, tmp_path / "history.db", "quiet"))[1]
        assert output_of(records) == b"there"


async def test_a_moment_has_what_came_at_it(session: Session, history: History) -> None:
    """What came in the same millisecond is there, and nothing that came later."""
    for letter in b"abc":
        session.print(bytes([letter]))
    await session.save()

    def shown(connection: sqlite3.Connection, at: int) -> bytes:
        group = film.group_at(connection, "one", at, fail)
        assert group is not None
        return output_of(b"".join(part.data for part in film.until(film.parts_of(connection, group, fail), at)))

    second = int((START + 2) * 1000)
    for at, expected in ((second - 1, b"a"), (second, b"ab"), (second + 999, b"ab"), (second + 1000, b"abc")):
        assert await history.read(partial(shown, at=at), b"") == expected


async def test_many_saves_at_once_take_few_descriptors(tmp_path: Path, history: History) -> None:
    """However many sessions are saved together, as at a stop, a few have their journals read: the others wait."""
    sessions = []
    for number in range(100):
        folder = tmp_path / str(number)
        folder.mkdir()
        sessions.append(Session(folder, history, str(number)))
        sessions[-1].print(b"of %d" % number)
    await history.write(lambda _: None)
    most, before = 0, count_open()

    def counted(readers: Callable[[], list[tuple[int, int]]]) -> list[tuple[int, int]]:
        nonlocal most
        found = readers()
        most = max(most, count_open() - before)
        return found

    for each in sessions:
        each.readers = partial(counted, each.journal.readers)  # type: ignore[method-assign]
    await asyncio.gather(*(each.save() for each in sessions))
    assert most <= FOR_HISTORY
    for number, each in enumerate(sessions):
        records = (await asyncio.to_thread(film_of, Path(history.path), each.id))[1]
        assert output_of(records) == b"of %d" % number


async def test_nothing_comes_back_of_what_was_removed(
    session: Session, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a damaged database has is brought over before: where that cannot be done, nothing counts as removed."""
    session.print(b"x")
    await session.save()
    await history.close()
    os.rename(history.path, f"{history.path}.damaged-20260101T000000Z")
    async with History(history.path, HistorySettings()) as again:
        with monkeypatch.context() as patched:
            patched.setattr(salvage.Inserting, "insert", raiser(StorageFull("no room")))
            with pytest.raises(StorageFull):
                await again.remove("one")
        await again.remove("one")
        assert database.pending(history.path) == []
    with contextlib.closing(open_reader(history.path)) as connection:
        assert connection.execute("SELECT count(*) FROM chunks").fetchone() == (0,)


async def test_saves_do_not_wait_while_the_database_is_written_again(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They leave their part to the next one, and one that has begun is finished before: nothing is lost."""
    monkeypatch.setattr(history_module, "REWRITE_WAIT_SECS", 0.001)
    rewrite, begun, ends = history_module.rewrite_database, threading.Event(), threading.Event()

    def wait(*args: Any, **more: Any) -> None:
        begun.set()
        ends.wait(WAIT_SECS)
        rewrite(*args, **more)

    monkeypatch.setattr(history_module, "rewrite_database", wait)
    session.print(b"one ")
    await session.save()
    session.print(b"two ")
    saving, rewriting = (asyncio.ensure_future(each) for each in (session.save(), history.rewrite(Progress())))
    await saving
    assert await asyncio.to_thread(begun.wait, WAIT_SECS)
    session.print(b"three")
    assert not await history.record("one", "full", session.readers, saved(session.journal.position))
    assert await filmed(history) == b"one two "
    ends.set()
    assert await rewriting
    await session.save()
    assert await filmed(history) == b"one two three"


async def test_a_kill_between_the_renames_of_a_database_and_its_log(
    session: Session, history: History, tmp_path: Path
) -> None:
    """What is in the log only is brought over with the rest, and what names a database that was deleted goes."""
    session.print(b"x")
    await session.save()
    folder = tmp_path / "killed"
    folder.mkdir()
    shutil.copyfile(history.path, folder / "history.db.damaged-20260101T000000Z")
    shutil.copyfile(f"{history.path}-wal", folder / "history.db-wal")
    (folder / "history.db.damaged-20250101T000000Z.brought-over").touch()
    async with History(str(folder / "history.db"), HistorySettings()) as again:
        await again.mend()
        assert await filmed(again) == b"x"
    assert {path.name for path in folder.iterdir()} == {
        "history.db",
        "history.db.damaged-20260101T000000Z",
        "history.db.damaged-20260101T000000Z-wal",
        "history.db.damaged-20260101T000000Z.brought-over",
    }


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_damaged_history_gives_no_line_twice(session: Session, history: History, is_first: bool) -> None:
    """A daemon that is started with it records anew what the scrollback still has, and the rest is brought over."""
    session.print(b"x")
    lines = [(number, f"line {number}") for number in range(5)]
    await session.save(text=(taken(session.journal.position, *lines[:4]),))
    await history.close()
    os.rename(history.path, f"{history.path}.damaged-20260101T000000Z")
    async with History(history.path, HistorySettings()) as again:
        session.history = again
        session.print(b"y")
        if is_first:
            await again.mend()
        await session.save(text=(taken(session.journal.position, *lines[2:]),))
        await again.mend()
        assert text_of(again) == [text for _, text in lines]
        assert (await again.recording("one")).next_line == 5


async def test_nothing_is_made_before_there_is_something_to_record(history: History) -> None:
    """Reading a history that was never written makes no file."""
    assert (await history.recording("one")).recorded_to == 0
    assert await history.totals() is None
    assert await history.drop_expired() == 0
    assert not await asyncio.to_thread(Path(history.path).exists)


async def test_a_flood_that_is_more_than_a_session_may_have(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a save's own film goes over the limit, what follows is not drawn on a blank screen: it has no key frame."""
    monkeypatch.setattr(recorder, "SLICE_BYTES", 5000)
    history._limits = recorder.Limits(session_bytes=12_000, total_bytes=1 << 30, text_bytes=1 << 30)
    session.print(b"beginning")
    await session.save()
    dice = random.Random(1)
    for _ in range(10):
        session.print(dice.randbytes(2000))
    await session.save()
    for word in (b"one", b"two"):
        session.print(word)
        await session.save()
    with contextlib.closing(open_reader(history.path)) as connection:
        groups = list(film.groups_from(connection, "one", 0, fail))
        sums = "SELECT film_bytes = (SELECT total(stored_bytes) FROM groups) FROM films"
        assert connection.execute(sums).fetchone() == (1,)
    assert [group.native[:5] for group in groups] == [b"frame"]
    assert groups_of(history, fail) == [b"two"]


async def test_a_key_frame_where_one_is(session: Session, history: History) -> None:
    """It takes the place of the one before, in what the session takes too."""
    session.print(b"x")
    for size in (10, 1000, 100):
        await session.save(key_frame=os.urandom(size))
    with contextlib.closing(open_reader(history.path)) as connection:
        sums = "SELECT film_bytes = (SELECT total(stored_bytes) FROM groups) FROM films"
        assert connection.execute(sums).fetchone() == (1,)


async def test_a_clock_that_was_set_back_makes_no_more_key_frames(
    session: Session, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group is old by its own times: else each save would make a key frame, until the clock is where it was."""
    monkeypatch.setattr(recorder, "GROUP_BYTES", 500)
    session.print(b"x" * 600)
    await session.save()
    session.now -= 86_400
    session.print(b"y" * 600)
    await session.save()
    monkeypatch.setattr(recorder, "GROUP_BYTES", 1 << 20)
    with contextlib.closing(open_reader(history.path)) as connection:
        before = connection.execute("SELECT count(*) FROM groups").fetchone()[0]
    for number in range(20):
        session.print(b"%d " % number)
        await session.save()
    with contextlib.closing(open_reader(history.path)) as connection:
        assert connection.execute("SELECT count(*) FROM groups").fetchone()[0] <= before + 1
