"""Stored events: the SessionManager's methods for them.

A cursor is checked where it comes in (`parse_cursor`); what is read after it may be dropped meanwhile, so that
`list_events` looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from orbit_protocol.types import MAX_PAGE_SIZE, Event
from orbitd.store.events import FLOOR_KEY, LISTED_COLUMNS, SAID, SAVED, NewEvent, event_from_row, json_from_row
from orbitd.store.pages import MAX_PAGE_BYTES
from orbitd.store.rows import Marks, Row
from orbitd.store.store import Store

T = TypeVar("T")

# The numbers first where the data of some is large: no more is read than is returned. It takes as long again.
_TOTAL = "SELECT total(size) FROM (SELECT size FROM events WHERE {{sound}} AND {conditions} ORDER BY seq LIMIT :limit)"
_LIST = f"""
    SELECT {LISTED_COLUMNS} FROM events WHERE {{{{sound}}}} AND {{conditions}} ORDER BY seq LIMIT :limit
"""  # noqa: S608  # ours
_LIST_LARGE = f"""
    SELECT {LISTED_COLUMNS} FROM events WHERE {{{{sound}}}} AND seq IN (
        SELECT seq FROM (
            SELECT seq, total(size) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - size AS before
            FROM (SELECT seq, size FROM events WHERE {{{{sound}}}} AND {{conditions}} ORDER BY seq LIMIT :limit)
        ) WHERE before < :bytes
    ) ORDER BY seq
"""  # noqa: S608  # ours
_FLOOR = "SELECT value FROM meta WHERE key = ?"
_NEWEST_POSITION = "SELECT max(position) FROM events WHERE session_id = ? AND retention = ?"


class EventMethods:
    """Record and list events."""

    _store: Store

    live_fields: Callable[[str], Mapping[str, object]] = staticmethod(lambda _: {})
    """Returns the fields of a session's running program, by the names of `Session`; set by the daemon. It is called on
    the event loop when a change is submitted."""

    @property
    def epoch(self) -> str:
        """What cursors of this store begin with: another one after a backup was restored."""
        return self._store.events.epoch

    @property
    def newest_seq(self) -> int:
        """The number of the newest event that was published, in the order of commits.

        After a start some numbers are left out, so that there may be no event with this one.
        """
        return self._store.events.newest_seq

    @property
    def oldest_seq(self) -> int:
        """The lowest number that events can be listed after: all that are kept come after it."""
        return self._store.events.floor

    @property
    def on_events(self) -> Callable[[Sequence[Event]], None] | None:
        """Called on the event loop after each commit with its events, in order; may raise nothing."""
        return self._store.events.on_events

    @on_events.setter
    def on_events(self, callback: Callable[[Sequence[Event]], None] | None) -> None:
        self._store.events.on_events = callback

    @property
    def event_retention_count(self) -> int:
        """How many events of changes are kept."""
        return self._store.recorder.retention_count

    @event_retention_count.setter
    def event_retention_count(self, count: int) -> None:
        self._store.recorder.retention_count = count

    def cursor(self, seq: int) -> str:
        """Return the cursor behind an event."""
        return self._store.events.cursor(seq)

    def parse_cursor(self, text: str) -> int:
        """Return the number of the event that a cursor stands behind.

        Raises:
            InvalidParams: It is no cursor.
            CursorExpired: It is of another store, or changes after it have been dropped; `data.oldest` is a cursor.
        """
        return self._store.events.parse_cursor(text)

    async def list_events(
        self,
        *,
        after: int | None,
        until: int | None = None,
        kinds: Sequence[str] | None = None,
        session_id: str | None = None,
        workspace_id: str | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Return stored events, oldest first; those that cannot be read are left out.

        There may be fewer than `limit` although more follow, where they are large. None means that there are no more.

        Args:
            after: The number that they come after; None for all that are kept.
            until: The number of the last one, or None.
            kinds: Names, or groups (`session.*`); None for all but `snapshot.saved`.
            session_id: Of the session that they concern, or None.
            workspace_id: Of the workspace that they concern, or None.
            limit: The most events.

        Raises:
            CursorExpired: Changes after `after` have been dropped, perhaps just now.
        """
        decode = partial(event_from_row, epoch=self.epoch)
        found = await self._list(decode, after, until, kinds, session_id, workspace_id, limit)
        return [each.item for each in found]

    async def list_events_json(
        self,
        *,
        after: int | None,
        until: int | None = None,
        kinds: Sequence[str] | None = None,
        session_id: str | None = None,
        workspace_id: str | None = None,
        limit: int | None = None,
    ) -> list[tuple[int, bytes]]:
        """Do as `list_events` does; return the number and the JSON of each event."""
        decode = partial(json_from_row, epoch=self.epoch)
        return await self._list(decode, after, until, kinds, session_id, workspace_id, limit)

    async def _list(
        self,
        decode: Callable[[Row], T],
        after: int | None,
        until: int | None,
        kinds: Sequence[str] | None,
        session_id: str | None,
        workspace_id: str | None,
        limit: int | None,
    ) -> list[T]:
        store = self._store
        most = MAX_PAGE_SIZE if limit is None else limit
        if after is not None:
            store.events.require_kept(after)
        parameters: dict[str, object] = {
            "after": store.events.floor if after is None else after,
            # What another transaction has just committed is published first: who reads on hears nothing twice.
            "until": store.events.newest_seq if until is None else min(until, store.events.newest_seq),
            "bytes": MAX_PAGE_BYTES,
        }
        conditions = "seq > :after AND seq <= :until"
        for name, value in (("session_id", session_id), ("workspace_id", workspace_id)):
            if value is not None:
                conditions += f" AND {name} = :{name}"
                parameters[name] = value
        of_kind, values = _of_kinds(kinds)
        parameters.update(values)
        parameters["limit"] = most
        conditions = f"{conditions} AND {of_kind}"
        found: list[T] = []
        while not found:
            rows = await store.fetch(("events",), _TOTAL.format(conditions=conditions), parameters)
            query = _LIST if rows[0][0] <= MAX_PAGE_BYTES else _LIST_LARGE
            rows = await store.fetch(("events",), query.format(conditions=conditions), parameters)
            if after is not None:
                await self._require_still_kept(after)
            found = await store.damage.readable_in_turns(rows, decode)
            if not rows:
                break
            parameters["after"] = rows[-1][0]  # all of these are damaged, where none was found
        return found

    async def _require_still_kept(self, after: int) -> None:
        """Raise CursorExpired where changes after this number were dropped before what was read last."""
        known = self._store.events
        if known.is_dropping:  # the drop may be on disk, and not told of here: the writer's thread has to come to it
            row = await self._store.readers.fetch_one(_FLOOR, (FLOOR_KEY,))
            if row is not None and row[0].isdecimal():
                known.floor = max(known.floor, int(row[0]))
        known.require_kept(after)

    async def record_events(self, events: Sequence[NewEvent]) -> None:
        """Record what programs say, and what else is no change: with the next commit.

        This does not wait for it. Events of a session that is gone are left out, and so is what cannot be stored.
        """
        self._store.recorder.record(events)

    def record_said(self, events: Sequence[NewEvent], marks: Mapping[str, Marks]) -> None:
        """Record what programs say as `record_events` does, with the marks of their sessions in the same transaction.

        Args:
            events: The events.
            marks: What is written into the rows of sessions, by their ids.
        """
        self._store.recorder.record(events, marks)

    async def said_settled(self) -> None:
        """Return once what was recorded so far is committed, or lost since it could not be stored."""
        await self._store.recorder.settle()

    async def newest_position(self, session_id: str) -> int | None:
        """Return the `position` of the newest event that a session's programs have said, if one is kept."""
        row = await self._store.readers.fetch_one(_NEWEST_POSITION, (session_id, SAID))
        return None if row is None else row[0]


def _of_kinds(kinds: Sequence[str] | None) -> tuple[str, dict[str, object]]:
    """Return the condition for kinds, and its parameters."""
    if kinds is None:
        return f"retention IS NOT {SAVED:d}", {}
    parts: list[str] = []
    values: dict[str, object] = {}
    for number, kind in enumerate(kinds):
        if kind == "*":
            return "TRUE", {}
        if kind.endswith(".*"):
            values[f"kind_{number}"] = kind[:-1]
            parts.append(f"substr(kind, 1, length(:kind_{number})) = :kind_{number}")
        else:
            values[f"kind_{number}"] = kind
            parts.append(f"kind = :kind_{number}")
    return f"({' OR '.join(parts) or 'FALSE'})", values
