"""Snapshots: the SessionManager's methods for them.

A save or a deletion reads the rows that it depends on (`readers`), compresses in the pool of
threads (`delta_chain`, `screen_codec`), and has the result written in one transaction (`writer`)
that first compares the rows with what was read. If they have changed, it raises `StalePlan`
and all three steps are done again.
"""

from __future__ import annotations

import collections
import contextlib
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import asdict, replace

from orbit_protocol.errors import Busy, InvalidParams, SnapshotCorrupt, SnapshotNotFound, StorageCorrupt
from orbit_protocol.text import text_and_bytes, to_text
from orbit_protocol.types import Snapshot, SnapshotFormat, SnapshotInfo, SnapshotPage
from orbitd.store import events, pages
from orbitd.store.cache import Change
from orbitd.store.delta_chain import (
    SNAPSHOT_COLUMNS,
    DeletePlan,
    Rewrite,
    SavePlan,
    SnapshotRow,
    Unpacked,
    plan_delete,
    plan_save,
    snapshot_from_row,
    unpack_chain,
)
from orbitd.store.rows import (
    DIGEST_BYTES,
    SNAPSHOT_HEAD_COLUMNS,
    DamagedRow,
    Row,
    SnapshotHead,
    Stored,
    delete_row,
    find_session,
    is_corrupt,
    next_seq,
    now,
    session_is_archived,
    session_not_found,
    shown,
    snapshot_checksum,
    snapshot_head_from_row,
    time_to_text,
    update_session,
    verify_snapshot,
)
from orbitd.store.screen_codec import MAX_SCREEN_BYTES, Packed, Screen
from orbitd.store.store import Store

R = TypeVar("R")

_MAX_TRIES = 16
"""`chain_lock` keeps callers apart; only calls that were cancelled while they wrote can make a plan stale."""

_END = (1 << 60) - 1
"""Larger than every sequence number: where a list that runs backwards starts."""

# Rows are found through an index and read by their number: where a query uses an index, SQLite takes the columns that
# are in it from there (`sqlite3WhereEnd`), and a row whose own column is damaged would look sound.
_NEWEST_SEQ = "SELECT max(seq) FROM session_snapshots WHERE session_id = ?"
_NOT_IN_TRASH = "NOT EXISTS (SELECT 1 FROM sessions WHERE id = :id AND deleted_at IS NOT NULL)"
_NEWEST_LISTED = f"SELECT max(seq) FROM session_snapshots WHERE session_id = :id AND {_NOT_IN_TRASH}"  # noqa: S608  # ours
_IN_TRASH = """
    SELECT 1 FROM session_snapshots AS one
    WHERE seq = ? AND EXISTS (SELECT 1 FROM sessions WHERE id = one.session_id AND deleted_at IS NOT NULL)
"""
# Of the indexes alone, as above; this goes through all of the trash.
_IN_TRASH_BY_INDEX = """
    SELECT 1 FROM session_snapshots INDEXED BY idx_snapshots_session_id
    WHERE session_id IN (SELECT id FROM sessions WHERE deleted_at IS NOT NULL) AND seq = ?
"""
_BY_SEQ = f"SELECT {SNAPSHOT_COLUMNS} FROM session_snapshots WHERE seq = :seq"  # noqa: S608  # ours
_PAGE = f"""
    SELECT {SNAPSHOT_HEAD_COLUMNS} FROM session_snapshots WHERE {{sound}} AND seq IN (
        SELECT seq FROM session_snapshots WHERE session_id = :id AND seq < :before ORDER BY seq DESC LIMIT :most
    ) AND {_NOT_IN_TRASH} ORDER BY seq DESC
"""  # noqa: S608  # ours
# Of the indexes alone, as the record is damaged; they are read from end to end.
_ID_IN_INDEX = "SELECT id FROM session_snapshots INDEXED BY sqlite_autoindex_session_snapshots_1 WHERE +seq = ?"
_SESSION_IN_INDEX = "SELECT session_id FROM session_snapshots INDEXED BY idx_snapshots_session_id WHERE +seq = ?"
_IS_ARCHIVED = (
    "SELECT 0 FROM sessions WHERE id = :id AND deleted_at IS NULL"
    " UNION ALL SELECT 1 FROM archived_sessions WHERE id = :id AND deleted_at IS NULL"
)

# The queries around one snapshot (`target`). Its keyframe is the nearest one that is not older:
# itself, or newer. Its segment goes from there to before the next older keyframe.
_FROM_KEYFRAME = """
    FROM session_snapshots AS target JOIN session_snapshots AS near ON near.session_id = target.session_id
    WHERE target.seq = :seq AND near.seq <= coalesce((
        SELECT min(upper.seq) FROM session_snapshots AS upper
        WHERE upper.session_id = target.session_id AND upper.seq >= target.seq AND upper.keyframe = 1
    ), near.seq)
"""
_SEGMENT = f"""
    {_FROM_KEYFRAME} AND near.seq > coalesce((
        SELECT max(lower.seq) FROM session_snapshots AS lower
        WHERE lower.session_id = target.session_id AND lower.seq < target.seq AND lower.keyframe = 1
    ), 0)
"""  # noqa: S608  # constants of ours
_SELECT_SEGMENT = f"""
    SELECT {SNAPSHOT_COLUMNS} FROM session_snapshots WHERE seq IN (SELECT near.seq {_SEGMENT}) ORDER BY seq DESC
"""  # noqa: S608  # ours
_SEGMENT_NOW = f"SELECT near.seq, near.keyframe {_SEGMENT} ORDER BY near.seq DESC"
_FROM_KEYFRAME_TO_TARGET = f"""
    SELECT {SNAPSHOT_COLUMNS} FROM session_snapshots
    WHERE seq IN (SELECT near.seq {_FROM_KEYFRAME} AND near.seq >= target.seq) ORDER BY seq DESC
"""  # noqa: S608  # ours

_INSERT = f"""
    INSERT INTO session_snapshots ({SNAPSHOT_COLUMNS})
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608  # constants of ours
_SELECT_HEAD = f"SELECT {SNAPSHOT_HEAD_COLUMNS} FROM session_snapshots WHERE seq = ?"  # noqa: S608  # constants of ours


class StalePlan(Exception):
    """The rows that a plan was made for have changed."""


class SavedScreen(Struct, frozen=True, kw_only=True):
    """A snapshot with what is not sent to clients: the emulator's own state, and the program's folder."""

    snapshot: Snapshot
    native_state: bytes | None
    cwd: str | None


class NewSnapshot(Struct, frozen=True, kw_only=True):
    """The arguments of `save_snapshot`."""

    session_id: str
    screen: Screen
    format: SnapshotFormat
    cols: int | None
    rows: int | None
    title: str | None
    cwd: bytes | None


class SnapshotMethods:
    """Save, load, list and delete snapshots."""

    _store: Store

    async def save_snapshot(
        self,
        session_id: str,
        terminal_buffer: bytes,
        scrollback: bytes | None = None,
        *,
        cols: int | None = None,
        rows: int | None = None,
        format: SnapshotFormat = "opaque",  # noqa: A002  # the field's own name
        native_state: bytes | None = None,
        title: str | None = None,
        cwd: bytes | None = None,
    ) -> SnapshotInfo:
        """Save a session's screen.

        Args:
            session_id: Of a session that is not archived.
            terminal_buffer: Bytes that the store does not look into.
            scrollback: Likewise.
            cols: The screen's width in cells.
            rows: Its height.
            format: `vt` for what orbitd made itself.
            native_state: The emulator's own state.
            title: The terminal's title.
            cwd: The program's folder; bytes, as the operating system has it.

        Raises:
            SessionNotFound: No session has the id.
            InvalidParams: It is larger than can be saved, or the session is private.
        """
        screen = Screen(terminal_buffer=terminal_buffer, scrollback=scrollback, native_state=native_state)
        if screen.size > MAX_SCREEN_BYTES:
            raise InvalidParams(f"The snapshot has {screen.size} bytes; at most {MAX_SCREEN_BYTES} can be saved")
        new = NewSnapshot(
            session_id=session_id, screen=screen, format=format, cols=cols, rows=rows, title=title, cwd=cwd
        )
        # Without the lock, two saves at once would both plan to rewrite the same snapshot, and one of
        # them would have compressed in vain. Saves of different sessions run side by side.
        async with self._store.chain_lock(session_id):
            return await _retry_while_stale(lambda: self._try_save(new))

    async def load_latest_snapshot(self, session_id: str) -> Snapshot | None:
        """Return a session's newest snapshot, or None. Raises: SessionNotFound, SnapshotCorrupt."""
        saved = await self.load_latest_screen(session_id)
        return None if saved is None else saved.snapshot

    async def load_latest_screen(self, session_id: str) -> SavedScreen | None:
        """Return a session's newest snapshot with its native state. Raises: SessionNotFound, SnapshotCorrupt."""
        newest = await self._store.readers.fetch_one(_NEWEST_LISTED, {"id": session_id})
        if newest is None or newest[0] is None:
            await self._require_session(session_id)
            return None
        return await self._load(_BY_SEQ, newest[0])

    async def get_snapshot(self, snapshot_id: str) -> Snapshot:
        """Return one snapshot. Raises: SnapshotNotFound, SnapshotCorrupt."""
        return (await self.get_screen(snapshot_id)).snapshot

    async def get_screen(self, snapshot_id: str) -> SavedScreen:
        """Return one snapshot with its native state. Raises: SnapshotNotFound, SnapshotCorrupt."""
        saved = await self._load(_FROM_KEYFRAME_TO_TARGET, await self._seq_of(snapshot_id))
        if saved.snapshot.id != snapshot_id:
            raise SnapshotCorrupt(f"Snapshot {snapshot_id} is damaged: its index entry has another id")
        return saved

    async def list_snapshots(
        self, session_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> SnapshotPage:
        """Return a page of a session's snapshots, newest first. Raises: SessionNotFound, InvalidParams."""

        async def fetch(before: int, most: int) -> list[Row]:
            parameters = {"id": session_id, "before": before, "most": most}
            return await self._store.fetch(("session_snapshots",), _PAGE, parameters)

        start = pages.start_of(cursor, _END)
        heads = await self._store.damage.fetch_readable(fetch, snapshot_head_from_row, start, limit)
        if not heads:
            await self._require_session(session_id)
        found = [Stored(each.seq, _info(each.item)) for each in heads]
        page, next_cursor = pages.cut(found, limit, pages.fixed_bytes)
        return SnapshotPage(snapshots=page, next_cursor=next_cursor)

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete one snapshot; every other one stays readable. Raises: SnapshotNotFound."""
        # A snapshot never changes its session, so what was read before the lock still holds under it.
        seq = await self._seq_of(snapshot_id)
        row = await self._store.readers.fetch_one("SELECT session_id FROM session_snapshots WHERE seq = ?", (seq,))
        async with self._store.chain_lock("" if row is None else shown(row[0])):
            await _retry_while_stale(lambda: self._try_delete(snapshot_id, seq))
        await self._store.recheck_damaged()

    async def _try_save(self, new: NewSnapshot) -> SnapshotInfo:
        """Add a snapshot, and rewrite the one before it as a delta. Raises: SessionNotFound, StalePlan."""
        newest = await self._store.readers.fetch_one(_NEWEST_SEQ, (new.session_id,))
        previous_seq = None if newest is None else newest[0]
        rows: list[Row] = []
        if previous_seq is None:
            await self._require_session(new.session_id)
        else:
            with contextlib.suppress(StorageCorrupt):  # one whose record cannot be decoded stays as it is
                rows = await self._store.readers.fetch_all(_BY_SEQ, {"seq": previous_seq})

        def make_plan() -> SavePlan:  # in the pool
            plan = plan_save(snapshot_from_row(rows[0]) if rows else None, new.screen)
            return replace(plan, previous_seq=previous_seq)

        plan = await self._store.in_pool(make_plan)

        def work(connection: sqlite3.Connection) -> Change[SnapshotInfo]:  # in the writer's thread
            moment = now()
            stored = find_session(connection, new.session_id)
            if stored.item.config.record == "none":
                raise InvalidParams(f"Session {new.session_id} is private: no screen of it is saved")
            seen = {"cols": new.cols, "rows": new.rows, "title": new.title}
            given: dict[str, object] = {field: value for field, value in seen.items() if value is not None}
            if new.cwd is not None:
                given["cwd"], given["cwd_bytes"] = text_and_bytes(new.cwd)
            session = replace(stored.item, last_active=moment, last_saved_at=moment, **given)
            update_session(connection, Stored(stored.seq, session))
            (newest_seq,) = connection.execute(_NEWEST_SEQ, (new.session_id,)).fetchone()
            if newest_seq != plan.previous_seq:
                raise StalePlan  # the savepoint takes back what was written above
            info = SnapshotInfo(
                id=str(uuid.uuid4()),
                session_id=new.session_id,
                snapshot_at=moment,
                format=new.format,
                cols=new.cols,
                rows=new.rows,
                buffer_bytes=len(new.screen.terminal_buffer),
                scrollback_bytes=len(new.screen.scrollback or b""),
                stored_bytes=plan.packed.size,
            )
            if plan.rewrite is not None:
                _rewrite(connection, plan.rewrite)
            screen = new.screen
            head = (
                next_seq(connection, "session_snapshots"),
                *(info.id, info.session_id, time_to_text(moment), info.format, info.cols, info.rows),
                None if new.cwd is None else to_text(new.cwd),  # to be looked at; the session has the bytes
                *(plan.ordinal, 1, len(screen.terminal_buffer)),
                None if screen.scrollback is None else len(screen.scrollback),
                None if screen.native_state is None else len(screen.native_state),
                *(screen.size, plan.packed.size),
            )
            _insert(connection, head, plan.checksum, plan.packed)
            recorded = events.of_snapshot(info, session.workspace_id)
            return Change(result=info, sessions=(Stored(stored.seq, session),), events=(recorded,))

        return await self._store.write(work)

    async def _seq_of(self, snapshot_id: str) -> int:
        """Return a snapshot's sequence number, that of a damaged one too. Raises: SnapshotNotFound."""
        row = await self._store.readers.fetch_one("SELECT seq FROM session_snapshots WHERE id = ?", (snapshot_id,))
        if row is not None:
            try:
                found = await self._store.readers.fetch_one(_IN_TRASH, row)
            except StorageCorrupt:  # the record cannot be decoded
                found = await self._store.readers.fetch_one(_IN_TRASH_BY_INDEX, row)
            if found is not None:
                raise _snapshot_not_found(snapshot_id)
            return int(row[0])
        damaged = self._store.damage.named("session_snapshots", snapshot_id)
        if damaged is None or damaged.table != "session_snapshots":
            raise _snapshot_not_found(snapshot_id)
        return damaged.seq

    async def _try_delete(self, snapshot_id: str, seq: int) -> None:
        """Delete a snapshot, and rewrite the one that depended on it. Raises: SnapshotNotFound, StalePlan."""
        rows = await self._store.readers.fetch_all(_SELECT_SEGMENT, {"seq": seq})

        def make_plan() -> DeletePlan:  # in the pool
            if not any(row[0] == seq for row in rows):  # not even in its own session: nothing can depend on it
                return DeletePlan(segment=tuple((row[0], bool(row[9])) for row in rows), rewrite=None)
            return plan_delete([snapshot_from_row(row) for row in rows], seq)

        plan = await self._store.in_pool(make_plan)

        # The whole segment is compared, with its keyframe flags: if a newer one was deleted or became
        # a delta meanwhile, the new frames would be compressed against a base that no longer applies.
        def work(connection: sqlite3.Connection) -> Change[None]:  # in the writer's thread
            if connection.execute("SELECT 1 FROM session_snapshots WHERE seq = ?", (seq,)).fetchone() is None:
                raise _snapshot_not_found(snapshot_id)
            segment = connection.execute(_SEGMENT_NOW, {"seq": seq})
            if tuple((row[0], bool(row[1])) for row in segment) != plan.segment:
                raise StalePlan
            delete_row(connection, "session_snapshots", seq)
            if plan.rewrite is not None:
                _rewrite(connection, plan.rewrite)
            return Change(result=None)

        await self._store.write(work)

    async def _load(self, query: str, seq: int) -> SavedScreen:
        """Decompress a snapshot.

        Args:
            query: Returns rows of SNAPSHOT_COLUMNS, from a keyframe on to the snapshot.
            seq: The snapshot.

        Raises:
            SnapshotNotFound: It was deleted meanwhile.
            SnapshotCorrupt: It is damaged.
        """
        try:
            rows = await self._store.readers.fetch_all(query, {"seq": seq})
        except StorageCorrupt:
            rows = []

        def unpack_last() -> Unpacked | None:  # in the pool
            return next(iter(collections.deque(unpack_chain(map(snapshot_from_row, rows)), maxlen=1)), None)

        unpacked = await self._store.in_pool(unpack_last)
        screen = None if unpacked is None else unpacked.verified()
        if unpacked is None or screen is None:
            unpacked, screen = await self._load_past_damage(seq)
        head = unpacked.row.head
        snapshot = Snapshot(**asdict(_info(head)), terminal_buffer=screen.terminal_buffer, scrollback=screen.scrollback)
        return SavedScreen(snapshot=snapshot, native_state=screen.native_state, cwd=head.cwd)

    async def _load_past_damage(self, seq: int) -> tuple[Unpacked, Screen]:
        """Load a snapshot whose chain is damaged.

        Raises:
            SnapshotNotFound: It was deleted meanwhile.
            SnapshotCorrupt: Its own bytes or columns are damaged, or those that its bytes need.
        """

        def look(connection: sqlite3.Connection) -> tuple[Unpacked | None, str | None, str, str]:  # slow
            snapshot_id = connection.execute(_ID_IN_INDEX, (seq,)).fetchone() or (None,)
            session_id = connection.execute(_SESSION_IN_INDEX, (seq,)).fetchone() or (None,)
            if snapshot_id[0] is None and session_id[0] is None:
                raise _snapshot_not_found(str(seq))
            names = shown(snapshot_id[0]), shown(session_id[0])
            # From the session's newest on: where a flag says keyframe that is none, the query began too late.
            for each in unpack_chain(rows_of_session(connection, "session_snapshots", session_id[0])):
                if each.row.head.seq == seq and each.verified() is not None:
                    return each, None, *names
                if each.row.head.seq < seq and each.verified() is not None:
                    return None, each.row.head.id, *names
            return None, None, *names

        found, good, snapshot_id, session_id = await self._store.readers.run_in_thread(look)
        screen = None if found is None else found.screen
        if found is not None and screen is not None:
            return found, screen
        with contextlib.suppress(StorageCorrupt), self._store.damage.noted():
            query = f"SELECT {SNAPSHOT_HEAD_COLUMNS} FROM session_snapshots WHERE seq = ?"  # noqa: S608  # ours
            head = await self._store.readers.fetch_one(query, (seq,))
            if head is not None:
                snapshot_head_from_row(head)
        raise SnapshotCorrupt(
            f"Snapshot {snapshot_id} of session {session_id} is damaged", data={"good_snapshot_id": good}
        )

    async def _require_session(self, session_id: str) -> None:
        """Raise SessionNotFound unless the session exists and is not archived."""
        if self._store.cache.sessions.get(session_id) is not None:
            return
        row = await self._store.readers.fetch_one(_IS_ARCHIVED, {"id": session_id})
        if row is None:
            raise session_not_found(session_id)
        if row[0]:
            raise session_is_archived(session_id)


def _info(head: SnapshotHead) -> SnapshotInfo:
    return SnapshotInfo(
        id=head.id,
        session_id=head.session_id,
        snapshot_at=head.snapshot_at,
        format=head.format,
        cols=head.cols,
        rows=head.rows,
        buffer_bytes=head.buffer_bytes,
        scrollback_bytes=head.scrollback_bytes or 0,
        stored_bytes=head.stored_bytes,
    )


def rows_of_session(connection: sqlite3.Connection, table: str, session_id: object) -> Iterator[SnapshotRow]:
    """Iterate over a session's snapshots, newest first, one at a time, without those that cannot be decoded."""
    of_session = f"SELECT seq FROM {table} WHERE session_id = ?"  # noqa: S608  # ours
    query = f"SELECT {SNAPSHOT_COLUMNS} FROM {table} WHERE seq"  # noqa: S608  # ours
    last = _END
    try:
        for row in connection.execute(f"{query} IN ({of_session}) ORDER BY seq DESC", (session_id,)):
            last = row[0]
            yield snapshot_from_row(row)
        return
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
    # One by one, which takes twice as long, so that only what cannot be decoded is left out.
    for (seq,) in connection.execute(f"{of_session} AND seq < ? ORDER BY seq DESC", (session_id, last)).fetchall():
        try:
            row = connection.execute(f"{query} = ?", (seq,)).fetchone()
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            continue
        if row is not None:
            yield snapshot_from_row(row)


def add_newest(connection: sqlite3.Connection, head: SnapshotHead, screen: Screen) -> None:
    """Add a snapshot out of another database as its session's newest, in a transaction of the caller's.

    Args:
        connection: To a database that no daemon has.
        head: Of the snapshot as the other database has it; number and ordinal are given anew.
        screen: Its bytes.
    """
    plan = plan_save(next(rows_of_session(connection, "session_snapshots", head.session_id), None), screen)
    if plan.rewrite is not None:
        _rewrite(connection, plan.rewrite)
    values = (
        next_seq(connection, "session_snapshots"),
        *(head.id, head.session_id, time_to_text(head.snapshot_at), head.format, head.cols, head.rows, head.cwd),
        *(plan.ordinal, 1, head.buffer_bytes, head.scrollback_bytes, head.native_bytes),
        *(head.raw_bytes, plan.packed.size),
    )
    _insert(connection, values, plan.checksum, plan.packed)


async def _retry_while_stale(attempt: Callable[[], Awaitable[R]]) -> R:
    for _ in range(_MAX_TRIES):
        try:
            return await attempt()
        except StalePlan:
            continue
    raise Busy("The session's snapshots keep changing")


def _rewrite(connection: sqlite3.Connection, new: Rewrite) -> None:
    """Replace the frames of a snapshot; its sequence number and all else stay."""
    # DELETE and INSERT instead of UPDATE: SQLite merges pages that a deletion leaves nearly empty,
    # but not those that an update does, and every delta would keep the page of the keyframe that
    # it replaces (measured on a thousand snapshots: 1.3 MB, and 3.6 MB with UPDATE).
    head = connection.execute(_SELECT_HEAD, (new.seq,)).fetchone()
    try:
        verify_snapshot(head, "session_snapshots")
    except DamagedRow as error:  # since the plan was made; a new checksum would make it look sound
        raise StalePlan from error
    *kept, _, buffer_bytes, scrollback_bytes, native_bytes, raw_bytes, _, checksum = head
    delete_row(connection, "session_snapshots", new.seq)
    head = (*kept, int(new.keyframe), buffer_bytes, scrollback_bytes, native_bytes, raw_bytes, new.packed.size)
    _insert(connection, head, checksum[:DIGEST_BYTES], new.packed)


def _insert(connection: sqlite3.Connection, head: Row, digest: bytes, packed: Packed) -> None:
    """Insert a snapshot.

    Args:
        connection: The writer's.
        head: The values of SNAPSHOT_HEAD_COLUMNS without the checksum.
        digest: Of the screen.
        packed: Its frames.
    """
    checksum = snapshot_checksum(head, digest)
    connection.execute(_INSERT, (*head, checksum, packed.terminal_buffer, packed.scrollback, packed.native_state))


def _snapshot_not_found(snapshot_id: str) -> SnapshotNotFound:
    return SnapshotNotFound(f"No snapshot has the id {snapshot_id}")
