"""Events on their way: published after their commit, recorded where no change has them, dropped when they are old.

Used on the event loop. What programs say is written with whatever is written at that time, by the same group commit
(`writer`); nobody waits for it. Of changes the newest are kept, by count and by bytes; of what programs say, and of
saved snapshots, the newest of each session. What is too old is deleted in the background, a few milliseconds at a time.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from asyncio import Future, get_running_loop
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import islice

from msgspec import Struct
from msgspec.structs import asdict, replace

from orbit_protocol.errors import OrbitError, StorageError
from orbit_protocol.types import Event, Session
from orbitd.background_tasks import BackgroundTasks
from orbitd.logs import event
from orbitd.store.events import FLOOR_KEY, SAID, SAVED, EventLog, NewEvent, retention_of
from orbitd.store.rows import Marks, Row, Stored, execute_mending, find_session, update_session
from orbitd.store.writer import Writer

log = logging.getLogger("orbitd.store")

RETENTION_COUNT = 100_000
"""Changes that are kept, where the settings say nothing else."""

SAID_A_SESSION = 1_000
"""What is kept of what a session's programs say, and of its saved snapshots."""

MIN_BYTES = 128 * 1024 * 1024
BYTES_A_CHANGE = 1_024
"""Changes may take so many bytes in all, or so many each of those that are kept on an average; layouts may be large."""

SAID_BYTES = 64 * 1024 * 1024
"""What programs say may take so much, and saved snapshots as much again."""

MAX_PENDING = 4_096
"""What programs say that waits for the writer; what comes beyond it is dropped, and counted in the log."""

_AT_ONCE = 100
"""Events that are recorded by one job, and that are deleted by one statement."""

_PRUNED_AFTER, _PRUNED_AFTER_BYTES = 1_000, 4 * 1024 * 1024
"""How many changes, and bytes, come until it is looked for what is too old; of what a session says, a tenth."""

_SLICE_SECS = 0.008
CLOSE_SECS = 5.0

_MAX_MARKED = _AT_ONCE
"""Sessions whose rows are written by one job: no fewer than its events may have."""

_IS_THERE = "SELECT 1 FROM sessions WHERE id = ?"
_TOTALS = "SELECT count(*), total(size) FROM events WHERE retention IS ?"
_OLDEST = "SELECT seq, size FROM events WHERE retention IS ? ORDER BY seq LIMIT ?"
_DELETE = "DELETE FROM events WHERE seq >= :first AND seq <= :last AND retention IS :retention"
_DELETE_OF_SESSION = """
    DELETE FROM events WHERE seq IN (
        SELECT seq FROM events WHERE session_id = :id AND retention = :retention AND seq <= (
            SELECT seq FROM events WHERE session_id = :id AND retention = :retention
            ORDER BY seq DESC LIMIT 1 OFFSET :keep
        ) ORDER BY seq LIMIT :most
    )
"""

FetchOne = Callable[[str, tuple[object, ...]], Awaitable[Row | None]]


class _Dropped(Struct, frozen=True):
    """What a slice has deleted: events, their bytes, and the newest of them."""

    count: int = 0
    size: int = 0
    newest: int = 0


class EventRecorder:
    """Publishes, records and drops events.

    Args:
        writer: The writing thread.
        events: What is known of the stored events.
        fetch_one: Reads one row.
        apply_sessions: Called with sessions whose rows were written, before their events are published.

    Attributes:
        retention_count: How many changes are kept.
    """

    def __init__(
        self,
        writer: Writer,
        events: EventLog,
        fetch_one: FetchOne,
        apply_sessions: Callable[[Sequence[Stored[Session]]], None] = lambda _: None,
    ) -> None:
        self._writer = writer
        writer.on_group = self._publish
        self._events = events
        self._fetch_one = fetch_one
        self._apply_sessions = apply_sessions
        self._tasks = BackgroundTasks(log, "event task failed")
        self._committed: list[Event] = []
        self._pending: list[NewEvent] = []
        # Of sessions whose rows are to be written with them; with the call that they wait since, oldest first.
        self._marks: dict[str, tuple[int, Marks]] = {}
        self._accepted = self._settled = 0  # calls of `record`, and those whose events are committed or lost
        self._waiting: list[tuple[int, Future[None]]] = []
        self._is_recording = self._is_pruning = self._is_closing = False
        self._lost = 0
        self._unrecorded = 0  # what the store has refused since it last took something
        self.retention_count = RETENTION_COUNT
        # How much has come since it was looked for what is too old: after a start, anything may have.
        self._changes = self._bytes = 1 << 60
        self._said_bytes = {SAID: 1 << 60, SAVED: 1 << 60}
        self._said: Counter[tuple[str, int]] = Counter()
        self._too_many: set[tuple[str, int]] = set()

    def committed(self, events: Sequence[Event]) -> None:
        """Note events that were committed, which are published with all others of their transaction."""
        self._committed += events

    def _publish(self) -> None:
        """Pass on events that were committed, and see to it that what is too old by now is dropped."""
        if not self._committed:
            return
        events, self._committed = self._committed, []
        for one in events:
            self._count(one)
        self._events.publish(events)
        if self._is_time() and not self._is_pruning and not self._is_closing:
            self._is_pruning = True
            self._tasks.start(self._prune())

    def record(self, events: Sequence[NewEvent], marks: Mapping[str, Marks] | None = None) -> None:
        """Record events that nobody waits for; those of sessions that are gone are left out.

        Args:
            events: The events.
            marks: What is written into the rows of sessions, by their ids, in the transaction of their events.
        """
        self._accepted += 1
        for session_id, each in (marks or {}).items():
            since, _ = self._marks.get(session_id, (self._accepted, each))
            self._marks[session_id] = since, each
        room = MAX_PENDING - len(self._pending)
        self._pending += events[:room]
        if len(events) > room:
            self._lost += len(events) - room
            if self._lost == len(events) - room:
                event(log, logging.WARNING, "events dropped, the writer is behind")
        if (self._pending or self._marks) and not self._is_recording and not self._is_closing:
            self._is_recording = True
            self._tasks.start(self._write_pending())

    async def settle(self) -> None:
        """Return once what was recorded so far is committed, or lost since it could not be stored."""
        if self._settled < self._accepted and self._is_recording:
            waiting: Future[None] = get_running_loop().create_future()
            self._waiting.append((self._accepted, waiting))
            await waiting

    def forget_session(self, session_id: str) -> None:
        """Forget what was counted, and is to be written, of a session that is gone."""
        self._marks.pop(session_id, None)
        self._forget_counts(session_id)

    def _forget_counts(self, session_id: str) -> None:
        for retention in (SAID, SAVED):
            self._said.pop((session_id, retention), None)
            self._too_many.discard((session_id, retention))

    async def close(self) -> None:
        """Record what waits, and end what runs; what is too old is dropped after the next start."""
        self._is_closing = True
        await self._tasks.finish(CLOSE_SECS)
        await self._tasks.cancel()

    async def _write_pending(self) -> None:
        try:
            has_failed = False
            while self._pending or (self._marks and not has_failed):
                accepted = self._accepted
                batch, self._pending = self._pending[:_AT_ONCE], self._pending[_AT_ONCE:]
                # Those of the batch first: marks are never older than the events beside them.
                own = [one.session_id for one in batch if one.session_id is not None and one.session_id in self._marks]
                ids = list(dict.fromkeys([*own, *islice(self._marks, _MAX_MARKED)]))[:_MAX_MARKED]
                taken = {each: self._marks.pop(each) for each in ids}
                marks = {session_id: each for session_id, (_, each) in taken.items()}
                work = partial(self._insert, batch=tuple(batch), marks=marks)
                try:
                    await self._writer.run(work, self._publish_marked)
                except OrbitError as error:  # no room, say: the events are lost, as all that could not be stored
                    has_failed = True
                    self._note_failure(len(batch), error.message)
                    if isinstance(error, StorageError):  # the marks stand in no other place: the next call tries again
                        self._marks = {**taken, **self._marks}
                except Exception as exc:  # noqa: BLE001  # of one batch: what comes behind it is recorded
                    event(log, logging.ERROR, "events not recorded", events=len(batch), exc=exc)
                else:
                    has_failed = False
                    self._note_success()
                if not self._pending:
                    waits_since, _ = next(iter(self._marks.values()), (accepted + 1, None))
                    self._settle(min(accepted, waits_since - 1))
        finally:
            self._is_recording = False
            self._settle(self._accepted)
            if self._lost:
                event(log, logging.WARNING, "events were dropped", events=self._lost)
                self._lost = 0

    def _note_failure(self, count: int, error: str) -> None:
        if not self._unrecorded:  # each batch of a disk that stays full would be a line of the log
            event(log, logging.WARNING, "events not recorded", error=error)
        self._unrecorded += max(1, count)

    def _note_success(self) -> None:
        if self._unrecorded:
            event(log, logging.WARNING, "events are recorded again", lost=self._unrecorded)
            self._unrecorded = 0

    def _insert(
        self, connection: sqlite3.Connection, batch: Sequence[NewEvent], marks: Mapping[str, Marks]
    ) -> tuple[list[Event], list[Stored[Session]]]:
        """Insert events and write marks; in the writer's thread."""
        changed = []
        for session_id, each in marks.items():
            try:
                stored = find_session(connection, session_id)
            except OrbitError:  # deleted meanwhile, or damaged
                continue
            marked = Stored(stored.seq, replace(stored.item, **asdict(each)))
            if marked != stored:
                update_session(connection, marked)
                changed.append(marked)
        ids = {one.session_id for one in batch if one.session_id is not None}
        gone = {each for each in ids if connection.execute(_IS_THERE, (each,)).fetchone() is None}
        return self._events.insert(connection, [one for one in batch if one.session_id not in gone]), changed

    def _publish_marked(self, written: tuple[list[Event], list[Stored[Session]]]) -> None:
        recorded, changed = written
        self._apply_sessions(changed)
        self.committed(recorded)

    def _settle(self, accepted: int) -> None:
        self._settled = accepted
        for target, waiting in self._waiting:
            if target <= accepted and not waiting.done():
                waiting.set_result(None)
        self._waiting = [each for each in self._waiting if each[0] > accepted]

    # Retention

    def _count(self, one: Event) -> None:
        size, retention = len(memoryview(one.data)), retention_of(one.kind)
        if retention is None:
            self._changes, self._bytes = self._changes + 1, self._bytes + size
            if one.kind == "session.deleted" and one.session_id is not None:  # it says nothing more
                self._forget_counts(one.session_id)
            return
        self._said_bytes[retention] += size
        if one.session_id is not None:
            key = (one.session_id, retention)
            if key not in self._said:
                self._too_many.add(key)  # nobody knows how many there are
            self._said[key] += 1
            if self._said[key] >= SAID_A_SESSION // 10:
                self._too_many.add(key)

    def _is_time(self) -> bool:
        return bool(
            self._changes >= max(1, min(_PRUNED_AFTER, self.retention_count // 10))
            or self._bytes >= _PRUNED_AFTER_BYTES
            or max(self._said_bytes.values()) >= _PRUNED_AFTER_BYTES
            or self._too_many
        )

    async def _prune(self) -> None:
        try:
            while self._is_time() and not self._is_closing:
                await self._prune_once()
        except OrbitError as error:  # no room, say: the next event tries again
            event(log, logging.WARNING, "old events not dropped", error=error.message)
        finally:
            self._is_pruning = False

    async def _prune_once(self) -> None:
        while self._too_many and not self._is_closing:
            key = self._too_many.pop()
            self._said[key] = 0
            work = partial(_drop_of_session, session_id=key[0], retention=key[1])
            while await self._writer.run(work, lambda dropped: dropped) == _AT_ONCE:
                pass
        changes = self._changes >= max(1, min(_PRUNED_AFTER, self.retention_count // 10))
        if changes or self._bytes >= _PRUNED_AFTER_BYTES:
            self._changes = self._bytes = 0
            await self._drop_oldest(None, self.retention_count, max(MIN_BYTES, self.retention_count * BYTES_A_CHANGE))
        for retention, size in self._said_bytes.items():
            if size >= _PRUNED_AFTER_BYTES:
                self._said_bytes[retention] = 0
                await self._drop_oldest(retention, None, SAID_BYTES)

    async def _drop_oldest(self, retention: int | None, most: int | None, most_bytes: int) -> None:
        """Drop the oldest of some events until no more, and no more bytes of them, are there."""
        row = await self._fetch_one(_TOTALS, (retention,))
        assert row is not None
        count, size = int(row[0]), int(row[1])
        while not self._is_closing:
            surplus = count - most if most is not None else 0
            if surplus <= 0 and size <= most_bytes:
                return
            work = partial(_drop_slice, retention=retention, surplus=surplus, surplus_bytes=size - most_bytes)
            self._events.is_dropping = retention is None
            try:
                dropped = await self._writer.run(work, partial(self._note_dropped, retention=retention))
            finally:
                self._events.is_dropping = False
            if not dropped.count:
                return
            count, size = count - dropped.count, size - dropped.size

    def _note_dropped(self, dropped: _Dropped, retention: int | None) -> _Dropped:
        if retention is None:
            self._events.floor = max(self._events.floor, dropped.newest)
        return dropped


def _drop_of_session(connection: sqlite3.Connection, session_id: str, retention: int) -> int:
    parameters = {"id": session_id, "retention": retention, "keep": SAID_A_SESSION, "most": _AT_ONCE}
    return execute_mending(connection, "events", _DELETE_OF_SESSION, parameters)


def _drop_slice(connection: sqlite3.Connection, retention: int | None, surplus: int, surplus_bytes: int) -> _Dropped:
    """Delete the oldest of some events, as many or as many bytes as there are too many, for the time of a slice."""
    end = time.monotonic() + _SLICE_SECS
    count = size = newest = 0
    while (count < surplus or size < surplus_bytes) and time.monotonic() < end:
        rows: list[tuple[int, int]] = []
        for row in connection.execute(_OLDEST, (retention, _AT_ONCE)).fetchall():
            if count >= surplus and size >= surplus_bytes:
                break
            rows.append(row)
            count, size = count + 1, size + row[1]
        if not rows:
            break
        newest = rows[-1][0]
        parameters = {"first": rows[0][0], "last": newest, "retention": retention}
        execute_mending(connection, "events", _DELETE, parameters)
    if retention is None and newest:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (FLOOR_KEY, str(newest)))
    return _Dropped(count, size, newest)
