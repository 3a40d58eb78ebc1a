"""Sessions: the SessionManager's methods for them and for their programs.

A method that changes something passes a function `work` to the writer. `work` runs in the
writer's thread, in a savepoint, on the writer's connection, perhaps twice (`writer`); it
reads what it decides on (does the session exist, is the name free, may the status change)
from there and not from the cache, which may be behind by the transactions that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from orbit_protocol.errors import (
    AmbiguousReference,
    InvalidParams,
    InvalidTransition,
    NameTaken,
    SessionNotFound,
    StorageCorrupt,
    StorageFull,
)
from orbit_protocol.text import encodable, text_and_bytes
from orbit_protocol.types import (
    MAX_LABELS,
    Record,
    Session,
    SessionConfig,
    SessionPage,
    SessionStatus,
    SessionType,
    Workspace,
)
from orbitd.store import events, pages, validation
from orbitd.store.cache import Change
from orbitd.store.damage import fetch_rows
from orbitd.store.events import NewEvent
from orbitd.store.files import free_reserve, hold_reserve
from orbitd.store.rows import (
    SESSION_COLUMNS,
    SNAPSHOTS_OF,
    WORKSPACE_COLUMNS,
    DamagedRow,
    Row,
    Stored,
    as_asked,
    delete_oldest_snapshots,
    delete_row,
    delete_session_row,
    execute_mending,
    find_deleted,
    find_session,
    find_workspace,
    in_workspace,
    insert_session,
    is_corrupt,
    next_seq,
    now,
    readable,
    session_from_row,
    session_not_found,
    time_to_text,
    update_session,
    update_workspace,
    workspace_from_row,
)
from orbitd.store.store import Store

TRANSITIONS: frozenset[tuple[str, str]] = frozenset(
    {
        ("active", "detached"),
        ("detached", "active"),
        ("active", "terminated"),
        ("detached", "terminated"),
        ("terminated", "active"),
    }
)
"""The changes of status that `session.update_status` makes, beside none; every other pair is refused."""

EndReason = Literal["connection_lost", "program_lost", "not_started", "terminated"]
"""Why a program has ended, where it did not end by itself: ssh has lost its connection; the program went with the
machine or its keeper; it could not be started again; by a request."""

CLIENT_KINDS = ("session.attached", "session.detached")
_KIND_OF_STATUS = {
    "active": "session.attached",
    "detached": "session.detached",
    "terminated": "session.terminated",
}

_IN_MEMORY = frozenset({"active", "detached"})
_STATUSES = frozenset({"active", "detached", "terminated", "archived"})
_MAX_CANDIDATES = 20

_LOOKED_AT_ONCE = 100
"""Sessions in memory that a list looks at, and decodes if it is the first, between two looks at the clock."""

_TURN_SECS = 0.002
"""How long a list looks at sessions in memory before others are served."""

_DELETED_AT_ONCE = 200
"""Snapshots, and events, of one session that are deleted in one transaction."""

_BOTH = ("sessions", "archived_sessions")

_PURGED = "purged "
"""What the keys in `meta` begin with that name sessions whose files may be left."""

_BY_ID = " UNION ALL ".join(
    f"SELECT {SESSION_COLUMNS} FROM {table}"  # noqa: S608  # constants of ours
    f" WHERE {{sound}} AND seq = (SELECT seq FROM {table} WHERE id = :id) AND deleted_at IS NULL"
    for table in _BOTH
)

_PAGE = """
    SELECT {columns} FROM {table}
    WHERE {{sound}} AND seq > :after AND +status IN ({statuses}) AND deleted_at IS NULL
      AND (:session_type IS NULL OR session_type = :session_type)
      AND (:workspace_id IS NULL OR workspace_id = :workspace_id)
"""

_NEWEST = "seq DESC"
_BY_REFERENCE = [
    (
        f"SELECT {SESSION_COLUMNS} FROM {table} WHERE {{sound}} AND deleted_at IS NULL AND"  # noqa: S608
        f" seq IN (SELECT seq FROM {table} WHERE {{sound}} AND {condition}) ORDER BY {order} LIMIT {_MAX_CANDIDATES}",
        order == _NEWEST,
    )
    for table, condition, order in (
        ("sessions", "id = :nfc", "seq"),
        ("sessions", "name IN (:nfc, :nfd) AND status != 'terminated' AND deleted_at IS NULL", "seq"),
        ("sessions", "id >= :low AND id < :high", "seq"),
        ("sessions", "name IN (:nfc, :nfd) AND status = 'terminated' AND deleted_at IS NULL", _NEWEST),
        ("archived_sessions", "id = :nfc", "seq"),
        ("archived_sessions", "id >= :low AND id < :high", "seq"),
        ("archived_sessions", "name IN (:nfc, :nfd) AND deleted_at IS NULL", _NEWEST),
    )
]
"""Queries for a reference, tried in this order until one returns rows; and whether the first row is meant then."""

# By the letters that `rows.to_json` writes: SQLite's JSON functions fail the whole query at one text that is no JSON.
_INTERRUPTED = """
    SELECT id FROM sessions
    WHERE {sound} AND status != 'terminated' AND deleted_at IS NULL
      AND (instr(program, '"live":true') OR instr(program, '"exit_code":'))
    ORDER BY seq
"""

_DELETED = " UNION ALL ".join(
    f"SELECT {SESSION_COLUMNS} FROM {table} WHERE {{sound}} AND seq IN ("  # noqa: S608  # constants of ours
    f" SELECT seq FROM {table} WHERE {{sound}} AND deleted_at IS NOT NULL AND (deleted_at, seq) < (:moment, :seq)"
    " ORDER BY deleted_at DESC, seq DESC LIMIT :most)"
    for table in _BOTH
)
_DELETED = f"{_DELETED} ORDER BY deleted_at DESC, seq DESC LIMIT :most"

# The program of one that was never started has no size, or is active as it was recorded. By its letters, as above.
_TO_REMOVE = """
    SELECT id FROM sessions
    WHERE {sound} AND deleted_at IS NULL AND instr(config, '"auto_remove":true')
      AND (status = 'terminated' OR (status = 'detached' AND instr(program, '"cols":'))) ORDER BY seq
"""

_HAS_MANY_ROWS = " UNION ALL ".join(
    f"SELECT 1 FROM (SELECT 1 FROM {snapshots} WHERE session_id = :id LIMIT 1 OFFSET :most)"  # noqa: S608  # ours
    for snapshots in (*SNAPSHOTS_OF.values(), "events")
)

_DELETE_ORPHANS = "DELETE FROM session_snapshots WHERE session_id NOT IN (SELECT id FROM sessions NOT INDEXED)"

_IN_FRONT = f"""
    SELECT {WORKSPACE_COLUMNS} FROM workspaces
    WHERE {{sound}} AND seq IN (SELECT seq FROM workspaces WHERE active_session_id = ?)
"""  # noqa: S608  # a constant of ours


class ClientChange(Struct, frozen=True, kw_only=True):
    """A client that has come to a session, or left it.

    Args:
        attached: Whether it has come.
        pid: Of its process, if that is known.
        read_only: Whether it only watches.
    """

    attached: bool
    pid: int | None
    read_only: bool

    def event(self, session: Session, live: Mapping[str, object]) -> NewEvent:
        """Return the event of it."""
        kind = "session.attached" if self.attached else "session.detached"
        return events.of_session(kind, session, live, client_pid=self.pid, read_only=self.read_only)


MAX_PRIVATE_CONFIGS = 1_000
"""Private sessions that were recorded and not started yet: of more the newest can be started."""


class PrivateConfigs:
    """What private sessions run that were not started yet, in memory only."""

    def __init__(self) -> None:
        self._configs: dict[str, SessionConfig] = {}

    def add(self, session_id: str, config: SessionConfig) -> None:
        """Keep what a session runs."""
        self._configs[session_id] = config
        while len(self._configs) > MAX_PRIVATE_CONFIGS:
            del self._configs[next(iter(self._configs))]

    def get(self, session_id: str) -> SessionConfig | None:
        """Return what a session runs, None where that is not known."""
        return self._configs.get(session_id)

    def forget(self, session_id: str) -> None:
        """Forget what a session runs."""
        self._configs.pop(session_id, None)


def stored_config(config: SessionConfig) -> SessionConfig:
    """Return what is stored of a configuration: of a private session nothing that it runs, or where."""
    if config.record != "none":
        return config
    unset = {"command_bytes": UNSET, "cwd_bytes": UNSET, "env_bytes": UNSET}
    return replace(config, command=None, cwd=None, env=None, **unset)


class SessionMethods:
    """Create, find, list, change and delete sessions, and record what their programs do."""

    _store: Store
    _private: PrivateConfigs
    live_fields: Callable[[str], Mapping[str, object]]

    def private_config(self, session_id: str) -> SessionConfig | None:
        """Return what a private session runs; None where it was started already, or by an earlier daemon recorded."""
        return self._private.get(session_id)

    def forget_private_config(self, session_id: str) -> None:
        """Forget what a private session runs: it was started."""
        self._private.forget(session_id)

    async def create_session(self, config: SessionConfig, name: str | None = None) -> Session:
        """Record a new session, which is active.

        Raises:
            NameTaken: A session that is not terminated has the name.
            WorkspaceNotFound: `config.workspace_id` is unknown.
            InvalidParams: Name or configuration cannot be recorded.
        """
        moment, config = now(), validation.config(config)
        session = Session(
            id=str(uuid.uuid4()),
            name=None if name is None else validation.name(name),
            session_type=config.session_type,
            created_at=moment,
            last_active=moment,
            status="active",
            config=stored_config(config),
            workspace_id=config.workspace_id,
        )

        def work(connection: sqlite3.Connection) -> Change[Session]:
            refuse_taken_name(connection, session.name, session.id)
            if session.workspace_id is not None:
                find_workspace(connection, session.workspace_id)
            return _insert(connection, session, events.of_session("session.created", session))

        created = await self._store.change_session(work)
        if config.record == "none":
            self._private.add(session.id, config)
        return created

    async def record_lost_session(self, session_id: str, created_at: datetime, *, record: Record = "full") -> Session:
        """Record a session whose program runs and whose row is gone. Raises: StorageError."""
        session = Session(
            id=session_id,
            name=None,
            session_type="local",
            created_at=created_at,
            last_active=now(),
            status="detached",
            config=SessionConfig(session_type="local", record=record),
            workspace_id=None,
            live=True,
        )

        def work(connection: sqlite3.Connection) -> Change[Session]:
            connection.execute("DELETE FROM meta WHERE key = ?", (f"{_PURGED}{session_id}",))
            found = find_deleted(connection, session_id)
            if found is None:
                return _insert(connection, session, events.of_session("session.created", session))
            # In the trash of a backup that was restored, from which it was taken before it was started again.
            table, stored = found
            back = replace(stored.item, deleted_at=None, status="detached", live=True, last_active=now())
            try:
                refuse_taken_name(connection, back.name, session_id)
            except NameTaken:
                back = replace(back, name=None)
            undeleted = events.of_session("session.undeleted", back)
            if table == "sessions":
                return _update(connection, stored, back, undeleted)
            return move_from_archive(connection, Stored(stored.seq, back), undeleted)

        return await self._store.change_session(work)

    async def get_session(self, session_id: str) -> Session:
        """Return a session, archived ones too. Raises: SessionNotFound, DamagedRow."""
        cached = self.cached_session(session_id)
        if cached is not None:
            return cached
        rows = await self._store.fetch(_BOTH, _BY_ID, {"id": session_id})
        if not rows:
            raise self._store.damage.named("sessions", session_id) or session_not_found(session_id)
        with self._store.damage.noted():
            return as_asked(_from_either(rows[0]), session_id, "sessions").item

    def has_damaged_sessions(self) -> bool:
        """Return whether a row is known that may be any session's, as it cannot be read."""
        return bool(self._store.damage.seqs("sessions"))

    def cached_session(self, session_id: str) -> Session | None:
        """Return a session that is active or detached, from memory; None for any other."""
        return self._store.cache.sessions.get(session_id)

    async def find_session(self, ref: str) -> Session:
        """Find a session by id, by its name if it is not terminated, by a unique id prefix (4+), or by an old name.

        A name that only ended sessions have means the newest of them.

        Raises:
            SessionNotFound: Nothing fits.
            AmbiguousReference: More than one fits; `data.candidates` has ids, `data.sessions` more about each.
            InvalidParams: Nothing can be named so.
        """
        ref = validation.reference(ref)
        cached = self._store.cache.sessions.get(ref) or self._store.cache.sessions.named(ref)
        if cached is not None:
            return cached
        # A range instead of LIKE, which would not use the index on id: ids are lower-case
        # hexadecimal and "-", and "g" sorts after all of them.
        prefix = validation.id_prefix(ref)
        nfc, nfd = validation.spellings(ref)
        parameters = {"nfc": nfc, "nfd": nfd, "low": prefix, "high": prefix and prefix + "g"}
        for query, is_first_meant in _BY_REFERENCE:
            rows = await self._store.fetch(_BOTH, query, parameters)
            found = list(self._store.damage.readable(rows, _from_either))
            if len(found) == 1 or (found and is_first_meant):
                return self._store.cache.as_touched(found[0].item)
            if found:
                candidates = [each.item.id for each in found]
                shown = [_candidate(self._store.cache.as_touched(each.item)) for each in found]
                raise AmbiguousReference(
                    f"{ref!r} fits {len(rows)} sessions or more", data={"candidates": candidates, "sessions": shown}
                )
            if rows:
                with self._store.damage.noted():
                    _from_either(rows[0])
        raise self._store.damage.named("sessions", ref) or SessionNotFound(f"No session answers to {ref!r}")

    async def list_sessions(
        self,
        *,
        status: Sequence[SessionStatus] | None = None,
        session_type: SessionType | None = None,
        workspace_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> SessionPage:
        """Return a page of sessions, oldest first; without `status`, of those that are active or detached.

        All of the `labels` must be a session's.

        Raises:
            WorkspaceNotFound: `workspace_id` is unknown.
            InvalidParams: The status, the cursor or the limit is not valid.
        """
        wanted = _IN_MEMORY if status is None else frozenset(status)
        if not wanted <= _STATUSES:
            raise InvalidParams(f"`status` knows {', '.join(sorted(_STATUSES))}")
        if workspace_id is not None and self._store.cache.workspaces.get(workspace_id) is None:
            raise self._store.damage.workspace_missing(workspace_id)
        pairs = validation.labels(labels or {}).items()
        if wanted == _IN_MEMORY and session_type is None and workspace_id is None and cursor is None and not pairs:
            return self.first_page(limit)

        def fits(session: Session) -> bool:
            return (
                (session_type is None or session.session_type == session_type)
                and (workspace_id is None or session.workspace_id == workspace_id)
                and (not pairs or pairs <= session.labels.items())
            )

        start = pages.start_of(cursor)
        if wanted <= _IN_MEMORY:
            found = await self._find_in_memory(lambda one: one.status in wanted and fits(one), start, limit)
        else:
            # The archive alone where nothing else is wanted: a page would read every row of the other table.
            tables = ["archived_sessions"] if "archived" in wanted else []
            tables += ["sessions"] if wanted != {"archived"} else []
            statuses = ", ".join(f"'{each}'" for each in sorted(wanted))  # only words of _STATUSES
            with_labels = "".join(f" AND instr(labels, :{name})" for name in _label_texts(pairs))
            parts = [
                f"{_PAGE}{with_labels}".format(columns=SESSION_COLUMNS, table=table, statuses=statuses)
                for table in tables
            ]
            query = f"{' UNION ALL '.join(parts)} ORDER BY seq LIMIT :most"
            filters = {"session_type": session_type, "workspace_id": workspace_id, **_label_texts(pairs)}

            async def fetch(after: int, most: int) -> list[Row]:
                return await self._store.fetch(tables, query, {**filters, "after": after, "most": most})

            stored_rows = await self._store.damage.fetch_readable(fetch, _from_either, start, limit, fits)
            found = [Stored(each.seq, self._store.cache.as_touched(each.item)) for each in stored_rows]
        page, next_cursor = pages.cut(found, limit, pages.session_bytes)
        return SessionPage(sessions=page, next_cursor=next_cursor)

    async def _find_in_memory(
        self, fits: Callable[[Session], bool], start: int, limit: int | None
    ) -> list[Stored[Session]]:
        """Return one session more than a page may have, if there are as many that are wanted."""
        found: list[Stored[Session]] = []
        most, index = pages.page_size(limit) + 1, self._store.cache.sessions
        end = time.monotonic() + _TURN_SECS
        while True:
            # Where few are wanted, all are looked at, and the first list after a start decodes them (measured with
            # 24,000 sessions: 185 ms, and 7 ms from then on).
            chunk = list(itertools.islice(index.after(start), _LOOKED_AT_ONCE))
            found += [stored for stored in chunk if fits(stored.item)]
            if len(chunk) < _LOOKED_AT_ONCE or len(found) >= most:
                return found[:most]
            start = chunk[-1].seq
            if time.monotonic() >= end:
                await asyncio.sleep(0)
                end = time.monotonic() + _TURN_SECS

    def first_page(self, limit: int | None) -> SessionPage:
        """Return the first page of active and detached sessions, from memory. Raises: InvalidParams.

        Clients ask for it often, so the page is reused until a session changes.
        """
        # A copy of the list: the page itself is reused, and callers may change theirs. The sessions
        # in it are frozen.
        index, cached = self._store.cache.sessions, self._store.first_page
        key = (index.changes, limit)
        if cached is None or cached[0] != key:
            cached = self._store.first_page = (key, *pages.cut(index.after(0), limit, pages.session_bytes))
        return SessionPage(sessions=cached[1].copy(), next_cursor=cached[2])

    async def list_active_sessions(self) -> list[Session]:
        """Return every session that is active or detached, oldest first."""
        return [stored.item for stored in self._store.cache.sessions.after(0)]

    async def list_interrupted(self) -> list[Session]:
        """Return the sessions, not terminated, whose program is recorded as running or with an exit code."""
        rows = await self._store.fetch(("sessions",), _INTERRUPTED)
        # From the cache, as a session may have ended since the query read it; then it is left out.
        found = (self._store.cache.sessions.get(session_id) for (session_id,) in rows)
        return [session for session in found if session is not None]

    async def update_session_status(
        self,
        session_id: str,
        status: SessionStatus,
        *,
        clients: Sequence[ClientChange] = (),
        reason: str | None = None,
    ) -> Session:
        """Change a session's status; one that it has already changes nothing, and nothing is written.

        Args:
            session_id: Of a session that is not archived.
            status: The status.
            clients: The clients that have come or left, where that is the reason: each is an event of its own.
            reason: Why it was detached, for the event.

        Raises:
            SessionNotFound: There is none with the id.
            InvalidTransition: A session of its status cannot get this one.
            NameTaken: It has ended and would be active again, and another session has its name by now.
        """
        live = self.live_fields(session_id)

        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_session(connection, session_id)
            before = stored.item
            if before.status == status:
                return Change(result=before)
            if (before.status, status) not in TRANSITIONS:
                raise InvalidTransition(f"Session {session_id} is {before.status} and cannot become {status}")
            if before.status == "terminated":  # its name was free for others meanwhile
                refuse_taken_name(connection, before.name, session_id)
            after = replace(before, status=status, last_active=now())
            recorded = [client.event(after, live) for client in clients]
            if not recorded:
                kind = "session.started" if before.status == "terminated" else _KIND_OF_STATUS[status]
                more: dict[str, Any] = {} if reason is None else {"reason": reason}
                if kind in CLIENT_KINDS:
                    more = {"client_pid": None, "read_only": False, **more}
                recorded = [events.of_session(kind, after, live, **more)]
            return _update(connection, stored, after, *recorded)

        return await self._store.change_session(work)

    async def record_clients(self, session_id: str, clients: Sequence[ClientChange]) -> None:
        """Record clients that have come or left, which has changed no status. Raises: SessionNotFound."""
        if not clients:
            return
        live = self.live_fields(session_id)

        def work(connection: sqlite3.Connection) -> Change[None]:
            # As it is here: who takes the newest event for the session may not be told what it was before a change.
            session = find_session(connection, session_id).item
            return Change(result=None, events=tuple(client.event(session, live) for client in clients))

        await self._store.write(work)

    async def detach_session(self, session_id: str, *, reason: str | None = None) -> Session:
        """Set a session's status to detached. Raises: SessionNotFound, InvalidTransition."""
        return await self.update_session_status(session_id, "detached", reason=reason)

    async def terminate_session(self, session_id: str) -> Session:
        """End a session; its record and snapshots stay. Raises: SessionNotFound, InvalidTransition."""
        return await self.update_session_status(session_id, "terminated")

    async def delete_session(self, session_id: str) -> None:
        """Delete a session and its snapshots for good: an archived one too, one in the trash, and a damaged row.

        Raises:
            SessionNotFound: There is none with the id.
        """
        await self._delete_many_rows(session_id)
        await self._delete(session_id, purge=True)
        self._private.forget(session_id)
        self._store.recorder.forget_session(session_id)

    async def _delete_many_rows(self, session_id: str) -> None:
        """Delete snapshots and events of a session that is about to go, if they are many; others write in between."""

        def work(connection: sqlite3.Connection) -> Change[bool]:
            for table in _BOTH:
                if find_seq(connection, table, session_id, None) is not None:
                    deleted = delete_oldest_snapshots(connection, session_id, table, _DELETED_AT_ONCE)
                    dropped = events.drop_of_session(connection, session_id, _DELETED_AT_ONCE)
                    return Change(result=_DELETED_AT_ONCE in (deleted, dropped))
            return Change(result=False)

        parameters = {"id": session_id, "most": _DELETED_AT_ONCE}
        # A count that fails, as the database is damaged, is no reason to keep what is to be deleted.
        with contextlib.suppress(StorageCorrupt):
            if await self._store.readers.fetch_one(_HAS_MANY_ROWS, parameters) is not None:
                while await self._store.write(work):
                    pass

    async def trash_session(self, session_id: str) -> bool:
        """Put a session and its snapshots into the trash, an archived one too.

        Returns:
            Whether it is in the trash: a row that cannot be read cannot be written either, and is deleted for good.

        Raises:
            SessionNotFound: There is none with the id, or it is in the trash.
        """
        return await self._delete(session_id, purge=False)

    async def _delete(self, session_id: str, *, purge: bool) -> bool:
        damaged = self._store.damage.named("sessions", session_id)
        is_last_damaged = damaged is not None and self._store.damage.seqs("sessions") == [damaged.seq]
        touched_at = self._store.cache.touched.get(session_id)

        def work(connection: sqlite3.Connection) -> Change[bool]:
            for table in _BOTH:
                seq = find_seq(connection, table, session_id, damaged)
                if seq is not None:
                    break
            else:
                raise session_not_found(session_id)
            stored = _read_sound(connection, table, seq, session_id)
            if stored is not None and stored.item.deleted_at is not None and not purge:
                raise session_not_found(session_id)
            # The foreign keys would clear active_session_id and delete the snapshots by themselves
            # (0001_initial.sql); the cache has to be sent the workspace, so it is read and changed here.
            workspaces = leave_front(connection, session_id)
            workspace_events = [events.of_workspace("workspace.updated", each.item) for each in workspaces]
            if stored is None or purge:
                delete_session_row(connection, seq, session_id, table)
                note_purged(connection, session_id)
                purged = events.purge_session(connection, session_id, None if stored is None else stored.item)
                if is_last_damaged and table == "sessions":
                    # Whatever belongs to no session now was its own, under the id that it had.
                    execute_mending(connection, "session_snapshots", _DELETE_ORPHANS, ())
                recorded = (*purged, *workspace_events)
                return Change(result=False, gone_sessions=(session_id,), workspaces=workspaces, events=recorded)
            deleted = put_into_trash(connection, stored, table, now(), touched_at)
            recorded = (events.of_session("session.deleted", deleted), *workspace_events)
            return Change(result=True, gone_sessions=(session_id,), workspaces=workspaces, events=recorded)

        is_in_trash = await self._store.write(work)
        if is_in_trash:
            await self._store.in_pool(partial(hold_reserve, self._store.path))
        await self._store.recheck_damaged()
        return is_in_trash

    async def undelete_session(self, session_id: str) -> Session:
        """Take a session out of the trash, with the status that it had; out of its workspace if that is gone.

        From here on it is not deleted when its program has ended: somebody wants it.

        Raises:
            SessionNotFound: It is not in the trash.
            NameTaken: A session that has not ended has its name now.
        """

        def work(connection: sqlite3.Connection) -> Change[Session]:
            found = find_deleted(connection, session_id)
            if found is None:
                find_session(connection, session_id)
                raise SessionNotFound(f"Session {session_id} is not in the trash", hint="It is where it should be.")
            table, stored = found
            refuse_taken_name(connection, stored.item.name, session_id)
            session = replace(stored.item, deleted_at=None, config=replace(stored.item.config, auto_remove=False))
            query = "SELECT 1 FROM workspaces WHERE id = ?"
            if connection.execute(query, (session.workspace_id,)).fetchone() is None:
                session = in_workspace(session, None)
            restored = Stored(stored.seq, session)
            update_session(connection, restored, table)
            recorded = events.of_session("session.undeleted", session)
            return Change(result=session, sessions=(restored,) if table == "sessions" else (), events=(recorded,))

        store = self._store
        try:
            session = await store.write_once(work)
        except StorageFull:  # the trash, which would be emptied for another write, has the session itself
            await store.in_pool(partial(free_reserve, store.path))
            session = await store.write_once(work)
        return store.cache.as_touched(session)

    async def list_deleted_sessions(self, *, limit: int | None = None, cursor: str | None = None) -> SessionPage:
        """Return a page of the sessions in the trash, the one that was deleted last first. Raises: InvalidParams."""
        (moment, seq), most = pages.start_of_deleted(cursor), pages.page_size(limit) + 1
        found: list[Stored[Session]] = []
        while True:
            parameters = {"moment": moment, "seq": seq, "most": most}
            rows = await self._store.fetch(_BOTH, _DELETED, parameters)
            found += await self._store.damage.readable_in_turns(rows, _from_either)
            # A page that was short by what is damaged would look like the last one.
            if len(rows) < most or len(found) >= most or not isinstance(rows[-1][-1], str):
                break
            moment, seq = encodable(rows[-1][-1]), rows[-1][0]
        page, next_cursor = pages.cut(found, limit, pages.session_bytes, pages.cursor_of_deleted)
        return SessionPage(sessions=page, next_cursor=next_cursor)

    async def list_deleted_ids(self) -> list[str]:
        """Return the ids of all sessions in the trash."""
        parts = (f"SELECT id FROM {table} WHERE {{sound}} AND deleted_at IS NOT NULL" for table in _BOTH)  # noqa: S608  # ours
        return [session_id for (session_id,) in await self._store.fetch(_BOTH, " UNION ALL ".join(parts))]

    async def list_ended_to_remove(self) -> list[str]:
        """Return the ids of the sessions that are to be deleted once their programs have ended, and seem to have."""
        return [session_id for (session_id,) in await self._store.fetch(("sessions",), _TO_REMOVE)]

    async def list_purged(self) -> list[str]:
        """Return the ids of the sessions that are gone for good, and whose files may be left (`note_purged`)."""
        query = (
            "SELECT substr(key, length(:mark) + 1) FROM meta WHERE substr(key, 1, length(:mark)) = :mark ORDER BY key"
        )
        return [session_id for (session_id,) in await self._store.readers.fetch_all(query, {"mark": _PURGED})]

    async def forget_purged(self, session_ids: Sequence[str]) -> None:
        """Record that no files of these sessions are left."""
        keys = [(f"{_PURGED}{session_id}",) for session_id in session_ids]

        def work(connection: sqlite3.Connection) -> Change[None]:
            connection.executemany("DELETE FROM meta WHERE key = ?", keys)
            return Change(result=None)

        await self._store.write(work)

    async def rename_session(self, session_id: str, name: str | None) -> Session:
        """Give a session a name, or remove it. Raises: SessionNotFound, NameTaken, InvalidParams."""
        checked = None if name is None else validation.name(name)
        live = self.live_fields(session_id)

        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_session(connection, session_id)
            if stored.item.name == checked:
                return Change(result=stored.item)
            if stored.item.status != "terminated":
                refuse_taken_name(connection, checked, session_id)
            return _updated(connection, stored, replace(stored.item, name=checked), live)

        return await self._store.change_session(work)

    async def set_labels(self, session_id: str, labels: Mapping[str, str | None]) -> Session:
        """Set labels of a session, and remove those that are None. Raises: SessionNotFound, InvalidParams."""
        given = validation.labels(labels)
        live = self.live_fields(session_id)

        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_session(connection, session_id)
            merged = {**stored.item.labels, **given}
            after = {key: value for key, value in sorted(merged.items()) if value is not None}
            if len(after) > MAX_LABELS:
                raise InvalidParams(f"A session has {MAX_LABELS} labels at most; this one would have {len(after)}")
            if after == stored.item.labels:
                return Change(result=stored.item)
            return _updated(connection, stored, replace(stored.item, labels=after), live)

        return await self._store.change_session(work)

    async def set_resume(self, session_id: str, command: str | None) -> Session:
        """Set the command that a session is started with after a reboot. Raises: SessionNotFound, InvalidParams."""
        live = self.live_fields(session_id)

        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_session(connection, session_id)
            try:
                config = validation.config(replace(stored.item.config, resume=command))
            except ValueError as error:
                raise InvalidParams(str(error)) from error
            if config == stored.item.config:
                return Change(result=stored.item)
            return _updated(connection, stored, replace(stored.item, config=config), live)

        return await self._store.change_session(work)

    async def move_session(self, session_id: str, workspace_id: str | None) -> Session:
        """Move a session to a workspace, or out of one. Raises: SessionNotFound, WorkspaceNotFound."""
        live = self.live_fields(session_id)

        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_session(connection, session_id)
            if workspace_id is not None:
                find_workspace(connection, workspace_id)
            if workspace_id == stored.item.workspace_id:
                return Change(result=stored.item)
            workspaces = leave_front(connection, session_id)
            change = _updated(connection, stored, in_workspace(stored.item, workspace_id), live)
            left = (events.of_workspace("workspace.updated", each.item) for each in workspaces)
            return replace(change, workspaces=workspaces, events=(*change.events, *left))

        return await self._store.change_session(work)

    async def touch_session(self, session_id: str) -> Session:
        """Set last_active to now; written at the next auto-save. Raises: SessionNotFound, StorageReadOnly."""
        self._store.writer.refuse_if_read_only()
        moment = now()
        touched = self._store.cache.touch(session_id, moment)
        if touched is not None:
            return touched

        # Not in memory, so there is no auto-save that would write it later.
        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_session(connection, session_id)
            return _update(connection, stored, replace(stored.item, last_active=moment))

        return await self._store.change_session(work)

    async def start_program(self, session_id: str, cols: int, rows: int, *, reconnects: bool = False) -> Session:
        """Record that a session's program runs; its status becomes detached.

        Args:
            session_id: Of a session that is not archived.
            cols: The terminal's width in cells.
            rows: Its height.
            reconnects: It is started by itself after it has lost its connection.

        Raises:
            SessionNotFound: No session has the id.
            NameTaken: It was terminated, and another one has its name now.
        """

        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_session(connection, session_id)
            if stored.item.status == "terminated":
                refuse_taken_name(connection, stored.item.name, session_id)
            started = replace(stored.item, status="detached", live=True, cols=cols, rows=rows, last_active=now())
            started = replace(started, exit_code=None, exit_signal=None, progress=None)
            kind = "session.reconnected" if reconnects else "session.started"
            return _update(connection, stored, started, events.of_session(kind, started))

        return await self._store.change_session(work)

    async def undo_start(self, before: Session, *, reconnects: bool = False) -> Session:
        """Record that no program of a session was started after all (`start_program`).

        Args:
            before: The session as it was; it is not archived. One that has never run must not seem to have.
            reconnects: As of the start.

        Raises:
            SessionNotFound: No session has its id.
        """

        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_session(connection, before.id)
            undone = replace(stored.item, status=before.status, live=False, cols=before.cols, rows=before.rows)
            ended = replace(undone, exit_code=before.exit_code, exit_signal=before.exit_signal, last_active=now())
            kind = "session.disconnected" if reconnects else "session.exited"
            return _update(connection, stored, ended, events.of_session(kind, ended, reason="not_started"))

        return await self._store.change_session(work)

    async def end_program(
        self,
        session_id: str,
        status: SessionStatus,
        exit_code: int | None = None,
        exit_signal: int | None = None,
        *,
        cwd: bytes | None = None,
        reason: EndReason | None = None,
    ) -> Session:
        """Record that a session's program has ended.

        Args:
            session_id: Of a session that is not archived.
            status: The session's status from now on.
            exit_code: The program's exit code, or
            exit_signal: the signal that ended it; neither if that is unknown.
            cwd: The folder that it was in last, if that is newer than the last snapshot's.
            reason: Why, for the event; with `terminated` the session was ended by a request, which is an event too.

        Raises:
            SessionNotFound: No session has the id.
        """

        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_session(connection, session_id)
            is_private = stored.item.config.record == "none"
            # A private one is never started again, so that it has ended for good, however its program was lost.
            ends_as: SessionStatus = "terminated" if is_private else status
            ended = replace(stored.item, status=ends_as, live=False, exit_code=exit_code, exit_signal=exit_signal)
            if cwd is not None and not is_private:
                text, companion = text_and_bytes(cwd)
                ended = replace(ended, cwd=text, cwd_bytes=companion)
            ended = replace(ended, last_active=now(), progress=None)
            more: dict[str, Any] = {} if reason is None else {"reason": reason}
            kind = "session.exited" if ends_as == "terminated" else "session.disconnected"
            recorded = [events.of_session(kind, ended, **more)]
            if status == "terminated" and reason == "terminated":
                recorded.append(events.of_session("session.terminated", ended))
            return _update(connection, stored, ended, *recorded)

        return await self._store.change_session(work)


def _label_texts(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return each of some labels as it stands in the `labels` column, by the names of a query's parameters.

    A row without that text has not the label; one that has it is compared once more when it is decoded.
    """
    return {
        f"label_{number}": msgspec.json.encode({key: value}).decode()[1:-1] for number, (key, value) in enumerate(pairs)
    }


def _from_either(row: Row) -> Stored[Session]:
    """Decode a row of `sessions` or of the archive, by its status. Raises: DamagedRow."""
    return session_from_row(row, "archived_sessions" if row[6] == "archived" else "sessions")


def find_seq(connection: sqlite3.Connection, table: str, row_id: str, damaged: DamagedRow | None) -> int | None:
    """Return the number of the row to delete: the one with this id, else the damaged one that is shown with it."""
    # Of the index alone, which has both: the row's own id may be what is damaged.
    row = connection.execute(f"SELECT seq FROM {table} WHERE id = ?", (row_id,)).fetchone()  # noqa: S608  # ours
    if row is None and damaged is not None and damaged.table == table:
        row = (damaged.seq,)
    return None if row is None else int(row[0])


def _read_sound(connection: sqlite3.Connection, table: str, seq: int, session_id: str) -> Stored[Session] | None:
    """Return the session of a row, or None where the row is damaged."""
    query = f"SELECT {SESSION_COLUMNS} FROM {table} WHERE seq = ?"  # noqa: S608  # constants of ours
    try:
        row = connection.execute(query, (seq,)).fetchone()
        return None if row is None else as_asked(session_from_row(row, table), session_id, table)
    except DamagedRow:
        return None
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
        return None


def put_into_trash(
    connection: sqlite3.Connection, stored: Stored[Session], table: str, moment: datetime, touched_at: datetime | None
) -> Session:
    """Mark a session as deleted, and return it so; all that belongs to it stays as it is.

    Args:
        connection: The writer's.
        stored: The session.
        table: Its table.
        moment: When it is deleted.
        touched_at: Its last touch, if that is in memory only.
    """
    session = stored.item
    if session.live:  # its program was ended before, or is not there any more
        session = replace(session, live=False, status="terminated")
    if touched_at is not None and touched_at > session.last_active:
        session = replace(session, last_active=touched_at)
    session = replace(session, deleted_at=moment)
    update_session(connection, Stored(stored.seq, session), table)
    return session


def move_from_archive(connection: sqlite3.Connection, stored: Stored[Session], recorded: NewEvent) -> Change[Session]:
    """Move an archived session, as it is to be from now on, and its snapshots back; record an event of it."""
    insert_session(connection, stored)
    connection.execute(
        "INSERT INTO session_snapshots SELECT * FROM archived_snapshots WHERE session_id = ?", (stored.item.id,)
    )
    delete_row(connection, "archived_sessions", stored.seq)
    return Change(result=stored.item, sessions=(stored,), events=(recorded,))


def note_purged(connection: sqlite3.Connection, session_id: str) -> None:
    """Keep in mind that files of a session that is gone may be left, in the transaction in which it goes.

    Without that, a daemon that is killed before it has removed them would leave them for ever: a journal without a
    session may also be one that an older database does not know.
    """
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '')", (f"{_PURGED}{session_id}",))


def _candidate(session: Session) -> dict[str, str | None]:
    """Return what a person knows a session by, for an error."""
    has_ended = session.status in ("terminated", "archived")
    return {
        "id": session.id,
        "name": session.name,
        "status": session.status,
        "since": time_to_text(session.last_active if has_ended else session.created_at),
        "command": session.config.command,
    }


def leave_front(connection: sqlite3.Connection, session_id: str) -> tuple[Stored[Workspace], ...]:
    """Clear the active session of the workspace where it is this one; return the workspaces that changed."""
    found = list(readable(fetch_rows(connection, ("workspaces",), _IN_FRONT, (session_id,)), workspace_from_row))
    changed = tuple(Stored(each.seq, replace(each.item, active_session_id=None)) for each in found)
    for each in changed:
        update_workspace(connection, each)
    return changed


def _insert(connection: sqlite3.Connection, session: Session, *recorded: NewEvent) -> Change[Session]:
    stored = Stored(next_seq(connection, "sessions"), session)
    insert_session(connection, stored)
    return Change(result=session, sessions=(stored,), events=recorded)


def _update(
    connection: sqlite3.Connection, stored: Stored[Session], session: Session, *recorded: NewEvent
) -> Change[Session]:
    changed = Stored(stored.seq, session)
    update_session(connection, changed)
    return Change(result=session, sessions=(changed,), events=recorded)


def _updated(
    connection: sqlite3.Connection, stored: Stored[Session], session: Session, live: Mapping[str, object]
) -> Change[Session]:
    return _update(connection, stored, session, events.of_session("session.updated", session, live))


def refuse_taken_name(connection: sqlite3.Connection, name: str | None, session_id: str) -> None:
    """Raise NameTaken if another session that is not terminated has the name."""
    row = _session_named(connection, name, session_id) if name is not None else None
    if row is not None:
        raise NameTaken(f"Session {row[0]} has the name {name!r}", data={"id": row[0]})


def is_name_free(connection: sqlite3.Connection, name: str) -> bool:
    """Return whether no session that is not terminated has the name."""
    return _session_named(connection, name, "") is None


def is_id_free(connection: sqlite3.Connection, session_id: str) -> bool:
    """Return whether a new session may have the id: no other one has it, and no files of one are left."""
    if connection.execute("SELECT 1 FROM meta WHERE key = ?", (f"{_PURGED}{session_id}",)).fetchone() is not None:
        return False
    return all(find_seq(connection, table, session_id, None) is None for table in _BOTH)


def _session_named(connection: sqlite3.Connection, name: str, session_id: str) -> Row | None:
    """Return the id of another session that is not terminated and has the name."""
    row: Row | None = connection.execute(
        "SELECT id FROM sessions WHERE name IN (?, ?) AND status != 'terminated' AND deleted_at IS NULL AND id != ?",
        (*validation.spellings(name), session_id),
    ).fetchone()
    return row
