"""`history.forget`: erase what a session has shown, on the disk too.

    1. what stands on its screen becomes a blank snapshot, or one without the older history; the journal goes
    2. the film and its text are deleted, then the snapshots and the events in sessions.db
    3. both databases are written again, and their logs emptied: a deleted row is still in free pages before

A call that is cancelled, or killed, leaves what was not deleted by then, and a session that goes on; calling again
does the rest. What lies in files that Orbit does not change, backups above all, is named in the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

import zstandard

from orbit_protocol.errors import OrbitError, SnapshotNotFound
from orbit_protocol.params import HistoryForget
from orbit_protocol.paths import backups_folder
from orbit_protocol.results import Forgotten
from orbit_protocol.text import to_text
from orbitd.history import recorder, text_blocks
from orbitd.history.database import TEXT_COLUMNS, DamagedHistory, history_path, milliseconds, text_from_row, text_values
from orbitd.history.history import History, Recording
from orbitd.history.text_blocks import NO_NUMBER
from orbitd.manager import SessionManager
from orbitd.screens.emulator import KEY_FRAME_ROWS
from orbitd.sessions.programs import Programs
from orbitd.sessions.saved_state import SavedState
from orbitd.sessions.session import LiveSession
from orbitd.store.files import SIDE_FILES, open_untouched
from orbitd.store.progress import Progress
from orbitd.store.rows import now

PICTURE_SECS = 20.0
"""How long a picture may take to be drawn without its older history; then it is forgotten as a whole."""

_ROWS_AT_ONCE = 64
_MOST = (1 << 63) - 1

_TABLES = (
    ("session_snapshots", "session_id"),
    ("archived_snapshots", "session_id"),
    ("events", "session_id"),
    ("groups", "session_id"),
    ("chunks", "session_id"),
    ("texts", "session_id"),
)


class Forgetting:
    """Erases what sessions have shown.

    Args:
        manager: The store.
        history: The films.
        programs: What runs.
    """

    def __init__(self, manager: SessionManager, history: History, programs: Programs) -> None:
        self._manager = manager
        self._history = history
        self._programs = programs
        self._turn = asyncio.Lock()

    async def forget(self, q: HistoryForget, progress: Progress) -> Forgotten:
        """Erase what a session has shown before a moment, or all of it; one call at a time.

        Raises:
            SessionNotFound: There is no such session.
            SnapshotNotFound: It is private.
            Cancelled: The caller has gone.
            StorageError, StorageFull: It could not all be erased.
        """
        async with self._turn:
            return await self._forget(q, progress)

    async def _forget(self, q: HistoryForget, progress: Progress) -> Forgotten:
        moment = now()
        before = moment if q.before is None else min(q.before, moment)
        await self._history.mend()
        await self._programs.require_restored(q.session_id)
        session = await self._manager.get_session(q.session_id)
        if session.config.record == "none":
            raise SnapshotNotFound(
                f"Session {session.id} is private: nothing of what it shows is kept, so nothing can be erased",
                hint="Its screen is in memory only.",
            )
        progress.report("session")
        async with self._programs.registry.locked(q.session_id) as live, live.save_lock:
            is_all = q.before is None
            keep_newest = False
            if session.status != "archived":
                await live.open_files(create=False)
                is_all = await self._forget_screen(live, before, is_all=is_all)
                keep_newest = live.position > 0
            left = self._programs.files.remove_kept_aside(q.session_id)
            erased = await self._forget_film(q.session_id, live.position, None if is_all else before, progress)
            erased += await self._manager.forget_shown(
                q.session_id,
                moment if is_all else before,
                keep_newest=keep_newest,
                marks=q.before is None,
                progress=progress,
            )
        if not await self._manager.rewrite(progress):
            left.append(f"{self._manager.path}-wal")
        if not await self._history.rewrite(progress):
            left.append(f"{self._history.path}-wal")
        holders = partial(_holders, self._manager.path, self._history.path, await self._manager.backups(), q.session_id)
        left += await self._history.in_pool(holders)
        return Forgotten(bytes=erased, backups=[to_text(os.fsencode(each)) for each in left])

    # The screen

    async def _forget_screen(self, live: LiveSession, before: datetime, *, is_all: bool) -> bool:
        """Save the screen without what is to be forgotten; return whether all that was there before is."""
        await self._forget_said(live, before, is_all=is_all)
        if not is_all:
            with contextlib.suppress(OrbitError, TimeoutError, OSError):
                async with asyncio.timeout(PICTURE_SECS):
                    return not await self._trim(live, before)
        position = live.mark_if_open()
        if position:
            await self._manager.save_snapshot(
                live.id,
                b"",
                cols=live.size[0],
                rows=live.size[1],
                format="vt",
                native_state=SavedState(native=b"", position=position).to_bytes(),
                cwd=live.cwd_to_save,
            )
            live.forget_screen(position)
        return True

    async def _forget_said(self, live: LiveSession, before: datetime, *, is_all: bool) -> None:
        said = self._manager.has_said_since
        live.news.forget(
            command=is_all or not await said(live.id, "command.finished", before),
            notification=is_all or not await said(live.id, "terminal.notification", before),
        )
        await self._programs.outlet.settle()

    async def _trim(self, live: LiveSession, before: datetime) -> bool:
        """Save the picture without the history that is older than a moment; return whether that was done.

        Raises: OrbitError, OSError, TimeoutError.
        """
        at = milliseconds(before)
        recording = await self._history.recording(live.id)
        # What was printed since the last save has its times in the text that a save brings.
        await self._programs.saver.save_now(live)
        line = await self._history.read(partial(_first_line, session_id=live.id, at=at), None)
        count = await live.picture.count(live.position)
        line = count if line is None else line  # of all lines that left the screen none is known to be younger
        if not live.picture.trim_before(line):
            return False
        recording.group = 0  # the film begins again with a key frame of this picture
        await self._programs.saver.save_now(live)
        return True

    # The film

    async def _forget_film(self, session_id: str, position: int, before: datetime | None, progress: Progress) -> int:
        if not await self._history.exists():
            return 0
        at = None if before is None else milliseconds(before)
        line = (
            None if at is None else await self._history.read(partial(_first_line, session_id=session_id, at=at), None)
        )
        erased = 0
        is_done = False
        while not is_done:
            work = partial(_drop_groups, session_id=session_id, at=at, line=line)
            gone, is_done = await self._history.write(work)
            erased += gone
            progress.report("film", erased)
        seq, is_done = -_MOST, False
        while not is_done:
            dropping = partial(_drop_texts, session_id=session_id, at=at, after=seq)
            gone, seq, is_done = await self._history.write(dropping)
            erased += gone
            progress.report("text", erased)
        await self._history.write(partial(_set_end, session_id=session_id, position=position))
        recording = await self._history.recording(session_id)
        if not await self._history.read(partial(_has_group, session_id=session_id, seq=recording.group), default=False):
            _begin_again(recording, position)
        return erased


def _begin_again(recording: Recording, position: int) -> None:
    recording.recorded_to = max(recording.recorded_to, position)
    recording.group = recording.group_bytes = recording.group_at = 0
    recording.before = b""


def _has_group(connection: sqlite3.Connection, session_id: str, seq: int) -> bool:
    query = "SELECT 1 FROM groups WHERE seq = ? AND session_id = ?"
    return connection.execute(query, (seq, session_id)).fetchone() is not None


def _drop_groups(connection: sqlite3.Connection, session_id: str, at: int | None, line: int | None) -> tuple[int, bool]:
    """Drop some groups that began before a moment, or whose key frames hold lines of before it.

    A key frame has some of the history, which its screen gets back when it grows.

    Returns:
        How many bytes went, and whether those were all.
    """
    rows = connection.execute(
        "SELECT seq, session_id, stored_bytes FROM groups WHERE session_id = :id"
        " AND (:at IS NULL OR at < :at OR (line > 0 AND max(0, line - :kept) < :line)) ORDER BY seq LIMIT :most",
        {
            "id": session_id,
            "at": at,
            "line": _MOST if line is None else line,
            "kept": KEY_FRAME_ROWS,
            "most": _ROWS_AT_ONCE,
        },
    ).fetchall()
    erased = recorder.drop_groups(connection, recorder.oldest_of(rows))
    if not rows:  # chunks whose group is gone are of no use to anybody
        connection.execute(
            "DELETE FROM chunks WHERE session_id = ? AND group_seq NOT IN (SELECT seq FROM groups)", (session_id,)
        )
    return erased, not rows


def _drop_texts(connection: sqlite3.Connection, session_id: str, at: int | None, after: int) -> tuple[int, int, bool]:
    """Delete or shorten some of the text; return how many bytes went, the last row, and whether that was all."""
    rows = connection.execute(
        f"SELECT {TEXT_COLUMNS} FROM texts WHERE session_id = ? AND seq > ? ORDER BY seq LIMIT ?",  # noqa: S608  # ours
        (session_id, after, _ROWS_AT_ONCE),
    ).fetchall()
    erased = 0
    for row in rows:
        seq, from_at, stored = row[0], row[5], row[8]
        if at is not None and from_at >= at:
            continue
        kept = None if at is None else _younger(row, at)
        connection.execute("DELETE FROM texts WHERE seq = ?", (seq,))
        left = 0
        if kept is not None:
            values = text_values(session_id, kept, is_tail=bool(row[2]))
            marks = ", ".join("?" * (len(values) + 1))
            connection.execute(f"INSERT INTO texts ({TEXT_COLUMNS}) VALUES ({marks})", (seq, *values))  # noqa: S608  # ours
            left = values[7]
        erased += stored - left
    connection.execute(
        "UPDATE films SET text_bytes = max(0, text_bytes - ?) WHERE session_id = ?", (erased, session_id)
    )
    return erased, rows[-1][0] if rows else after, len(rows) < _ROWS_AT_ONCE


def _younger(row: tuple[object, ...], at: int) -> text_blocks.TextBlock | None:
    """Return the lines of a row that are not older than a moment; None where there are none, or it is damaged."""
    try:
        block = text_from_row(row).block
        lines = [each for each in text_blocks.unpack(block.text, block.runs) if each.at >= at]
    except (DamagedHistory, zstandard.ZstdError, ValueError):
        return None
    return text_blocks.pack(lines, block.next_line)


def _first_line(connection: sqlite3.Connection, session_id: str, at: int) -> int | None:
    """Return the number of the first line that is not older than a moment; None where none is known."""
    rows = connection.execute(
        f"SELECT {TEXT_COLUMNS} FROM texts WHERE session_id = ? AND is_tail = 0 AND to_at >= ? ORDER BY seq",  # noqa: S608  # ours
        (session_id, at),
    )
    for row in rows:
        with contextlib.suppress(DamagedHistory, zstandard.ZstdError, ValueError):
            runs = text_blocks.unpack_runs(text_from_row(row).block.runs)
            for number, when in text_blocks.numbers_and_times(runs):
                if number != NO_NUMBER and when >= at:
                    return number
    return None


def _set_end(connection: sqlite3.Connection, session_id: str, position: int) -> None:
    """Keep where the film ends: no position is used twice."""
    connection.execute(
        "UPDATE films SET recorded_to = max(recorded_to, ?) WHERE session_id = ?", (position, session_id)
    )


# What is left


def _holders(database: str, history: str, backups: list[str], session_id: str) -> list[str]:
    """Return the files that Orbit does not change and that hold something of a session."""
    return [path for path in dict.fromkeys(_candidates(database, history, backups)) if _holds(path, session_id)]


def _candidates(database: str, history: str, backups: list[str]) -> Iterator[str]:
    folder = backups_folder(database)
    with contextlib.suppress(OSError):
        yield from sorted(os.path.join(folder, name) for name in os.listdir(folder))
    for path in backups:
        yield path
        yield history_path(path)
    for path in (database, history):
        for suffix in ("corrupt", "before-restore", "before-reindex", "rescued", "backup-v*", "damaged", "restoring"):
            yield from sorted(glob.glob(f"{glob.escape(path)}.{suffix}*"))
        yield from sorted(glob.glob(f"{glob.escape(path)}*.aside-*"))


def _holds(path: str, session_id: str) -> bool:
    """Return whether a database, or what was one, has rows of a session; True where that cannot be found out."""
    if path.endswith(SIDE_FILES) or not os.path.isfile(path):
        return False
    try:
        with contextlib.closing(open_untouched(path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            has_rows: Callable[[str, str], bool] = lambda table, column: bool(  # noqa: E731
                connection.execute(f"SELECT 1 FROM {table} WHERE {column} = ? LIMIT 1", (session_id,)).fetchone()  # noqa: S608  # ours
            )
            return any(has_rows(table, column) for table, column in _TABLES if table in tables)
    except sqlite3.Error:
        return True
