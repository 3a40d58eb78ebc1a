"""The SessionManager's methods for snapshots.

A save or a deletion reads the rows that it depends on, packs in a pool of threads, and has
the result written only if those rows are still the same; else it begins again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from msgspec import Struct

from orbit_protocol.errors import Busy, SnapshotCorrupt
from orbit_protocol.types import Snapshot, SnapshotFormat, SnapshotInfo, SnapshotPage
from orbitd.store import delta_chain, lookup, pages, snapshots, validation
from orbitd.store.codec import Screen
from orbitd.store.delta_chain import Entry, Opened
from orbitd.store.rows import Stored
from orbitd.store.snapshots import NewSnapshot, Row, Stale
from orbitd.store.store import Store

R = TypeVar("R")

_MOST_TRIES = 16
"""Plans made anew before giving up; only calls that were cancelled half-way can make more than one needed."""

_NEWEST_FIRST = (1 << 60) - 1
"""Behind every sequence number: where a list that runs backwards begins."""

_PAGE = f"""
    SELECT {snapshots.INFO_COLUMNS} FROM session_snapshots
    WHERE session_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?
"""  # noqa: S608  # constants of ours
_SESSION = """
    SELECT 0 FROM sessions WHERE id = :id UNION ALL SELECT 1 FROM archived_sessions WHERE id = :id
"""


class SavedScreen(Struct, frozen=True, kw_only=True):
    """A snapshot with what only orbitd itself reads: the emulator's own state, and the folder."""

    snapshot: Snapshot
    native_state: bytes | None
    cwd: str | None


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
        cwd: str | None = None,
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
            cwd: The program's folder.

        Raises:
            SessionNotFound: No session has the id.
            InvalidParams: It is larger than can be saved.
        """
        screen = validation.screen(
            Screen(terminal_buffer=terminal_buffer, scrollback=scrollback, native_state=native_state)
        )
        new = NewSnapshot(
            session_id=session_id, screen=screen, format=format, cols=cols, rows=rows, title=title, cwd=cwd
        )
        async with self._store.chain_lock(session_id):
            return await _until_fresh(lambda: self._try_save(new))

    async def load_latest_snapshot(self, session_id: str) -> Snapshot | None:
        """Return a session's newest snapshot, or None. Raises: SessionNotFound, SnapshotCorrupt."""
        saved = await self.load_latest_screen(session_id)
        return None if saved is None else saved.snapshot

    async def load_latest_screen(self, session_id: str) -> SavedScreen | None:
        """Return a session's newest snapshot with its native state. Raises: SessionNotFound, SnapshotCorrupt."""
        rows = await self._store.readers.fetch_all(snapshots.NEWEST, (session_id,))
        if not rows:
            await self._require_session(session_id)
            return None
        return await self._open(rows)

    async def get_snapshot(self, snapshot_id: str) -> Snapshot:
        """Return one snapshot. Raises: SnapshotNotFound, SnapshotCorrupt."""
        return (await self.get_screen(snapshot_id)).snapshot

    async def get_screen(self, snapshot_id: str) -> SavedScreen:
        """Return one snapshot with its native state. Raises: SnapshotNotFound, SnapshotCorrupt."""
        rows = await self._store.readers.fetch_all(snapshots.DOWN_TO, {"id": snapshot_id})
        if not rows:
            raise snapshots.no_snapshot(snapshot_id)
        return await self._open(rows)

    async def list_snapshots(
        self, session_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> SnapshotPage:
        """Return a page of a session's snapshots, newest first. Raises: SessionNotFound, InvalidParams."""
        start, most = pages.after(cursor, _NEWEST_FIRST), pages.page_size(limit)
        rows = await self._store.readers.fetch_all(_PAGE, (session_id, start, most + 1))
        if not rows:
            await self._require_session(session_id)
        found = [Stored(row[0], snapshots.info_of(row)) for row in rows]
        page, next_cursor = pages.cut(found, limit, pages.fixed_bytes)
        return SnapshotPage(snapshots=page, next_cursor=next_cursor)

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete one snapshot; every other stays readable. Raises: SnapshotNotFound."""
        row = await self._store.readers.fetch_one(
            "SELECT session_id FROM session_snapshots WHERE id = ?", (snapshot_id,)
        )
        if row is None:
            raise snapshots.no_snapshot(snapshot_id)
        async with self._store.chain_lock(row[0]):
            await _until_fresh(lambda: self._try_delete(snapshot_id))

    async def _try_save(self, new: NewSnapshot) -> SnapshotInfo:
        rows = await self._store.readers.fetch_all(snapshots.NEWEST, (new.session_id,))
        if not rows:
            await self._require_session(new.session_id)
        plan = await self._store.in_pool(_plan_save, rows, new.screen)
        return await self._store.write(partial(snapshots.save, new=new, plan=plan))

    async def _try_delete(self, snapshot_id: str) -> None:
        rows = await self._store.readers.fetch_all(snapshots.SEGMENT, {"id": snapshot_id})
        if not rows:
            raise snapshots.no_snapshot(snapshot_id)
        plan = await self._store.in_pool(_plan_delete, rows, snapshot_id)
        await self._store.write(partial(snapshots.delete, snapshot_id=snapshot_id, plan=plan))

    async def _open(self, rows: list[Row]) -> SavedScreen:
        """Unpack the last of some rows that begin with a keyframe."""
        opened = await self._store.in_pool(_unpack_last, rows)
        screen = opened.good()
        if screen is None:
            raise await self._corrupt(opened.entry)
        return _saved(opened.entry, screen)

    async def _corrupt(self, entry: Entry) -> SnapshotCorrupt:
        good = await self._store.readers.in_thread(partial(snapshots.newest_good_before, snapshot_id=entry.id))
        return SnapshotCorrupt(
            f"Snapshot {entry.id} of session {entry.session_id} is damaged", data={"good_snapshot_id": good}
        )

    async def _require_session(self, session_id: str) -> None:
        if self._store.cache.sessions.get(session_id) is not None:
            return
        row = await self._store.readers.fetch_one(_SESSION, {"id": session_id})
        if row is None:
            raise lookup.no_session(session_id)
        if row[0]:
            raise lookup.is_archived(session_id)


async def _until_fresh(attempt: Callable[[], Awaitable[R]]) -> R:
    for _ in range(_MOST_TRIES):
        try:
            return await attempt()
        except Stale:
            continue
    raise Busy("The session's snapshots keep changing")


def _plan_save(rows: list[Row], screen: Screen) -> delta_chain.SavePlan:
    return delta_chain.plan_save(snapshots.entry_of(rows[0]) if rows else None, screen)


def _plan_delete(rows: list[Row], snapshot_id: str) -> delta_chain.DeletePlan:
    return delta_chain.plan_delete([snapshots.entry_of(row) for row in rows], snapshot_id)


def _unpack_last(rows: list[Row]) -> Opened:
    *_, last = delta_chain.unroll(map(snapshots.entry_of, rows))
    return last


def _saved(entry: Entry, screen: Screen) -> SavedScreen:
    snapshot = Snapshot(
        id=entry.id,
        session_id=entry.session_id,
        snapshot_at=entry.snapshot_at,
        format=entry.format,
        cols=entry.cols,
        rows=entry.rows,
        buffer_bytes=len(screen.terminal_buffer),
        scrollback_bytes=len(screen.scrollback or b""),
        stored_bytes=entry.stored_bytes,
        terminal_buffer=screen.terminal_buffer,
        scrollback=screen.scrollback,
    )
    return SavedScreen(snapshot=snapshot, native_state=screen.native_state, cwd=entry.cwd)
