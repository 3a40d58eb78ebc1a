"""The sessions that are not terminated and the workspaces, in memory.

Used on the event loop only, so it needs no lock. Only `apply` changes it, with what a
transaction changed, after the commit and in commit order: a reader never sees what could
still be rolled back. The one exception is when a session was last touched, which is in
memory only until the next auto-save.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from orbit_protocol.types import Session, Workspace
from orbitd.store.events import NewEvent
from orbitd.store.rows import DamagedRow, Row, Stored, session_from_row, verify_row, workspace_from_row
from orbitd.store.validation import is_normalized, normalized

T = TypeVar("T", Session, Workspace)
R = TypeVar("R")


class Change(Struct, Generic[R], frozen=True, kw_only=True):
    """The outcome of one piece of work: the caller's result, and what the cache has to change.

    Args:
        result: For the caller.
        sessions: Sessions as they are now; terminated ones, and those in the trash, leave the cache.
        gone_sessions: Ids of sessions that were deleted, put into the trash or archived.
        workspaces: Workspaces as they are now.
        gone_workspaces: Ids of deleted workspaces.
        events: What is recorded of it, in its transaction; none for what changes nothing.
    """

    result: R
    sessions: tuple[Stored[Session], ...] = ()
    gone_sessions: tuple[str, ...] = ()
    workspaces: tuple[Stored[Workspace], ...] = ()
    gone_workspaces: tuple[str, ...] = ()
    events: tuple[NewEvent, ...] = ()


class Index(Generic[T]):
    """Items by id, by name, and in the order of their sequence numbers.

    Attributes:
        changes: How often an item was put or removed; a result that was computed at the same count is current.

    Args:
        table: Where the rows are from.
        rows: Of the database, in order; each begins with seq, id and name.
        decode: Makes an item of a row. Raises: DamagedRow.
        on_damage: Called with each row that cannot be read; such a row is not in the index.
    """

    def __init__(
        self,
        table: str,
        rows: Sequence[Row],
        decode: Callable[[Row], Stored[T]],
        on_damage: Callable[[DamagedRow], None],
    ) -> None:
        self._decode: Callable[[Row], Stored[T]] = decode
        self._on_damage = on_damage
        rows = list(self._undamaged(table, rows))
        # Rows are kept as they are and decoded at their first use: a daemon with ten thousand
        # sessions is ready as soon as one without any. Their checksums are compared before, which costs
        # a fifth of that (measured: 0.4 us a row), as what is damaged could have the id of another one.
        self._by_id: dict[str, Stored[T] | Row] = {row[1]: row for row in rows}
        self._by_name: dict[str, str] = {row[2]: row[1] for row in rows if row[2] is not None}
        # Names that an older version kept in another form than NFC, by their NFC. Only an item whose name is that
        # very text, and the first of several, is found by it.
        self._by_nfc: dict[str, str] = {}
        for name, item_id in self._by_name.items():
            if isinstance(name, str):  # a row that is not decoded yet may have anything there
                self._add_nfc(name, item_id)
        self._by_seq: dict[int, str] = {row[0]: row[1] for row in rows}
        self._order: list[int] = list(self._by_seq)
        self.changes = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def stored(self, item_id: str) -> Stored[T] | None:
        """Return the item with this id and its sequence number, or None."""
        found = self._by_id.get(item_id)
        return self._decode_row(found) if isinstance(found, tuple) else found

    def get(self, item_id: str) -> T | None:
        """Return the item with this id, or None."""
        found = self.stored(item_id)
        return None if found is None else found.item

    def named(self, name: str) -> T | None:
        """Return the item with this name, which is in NFC, or None."""
        item_id = self._by_name.get(name) or self._by_nfc.get(name)
        return None if item_id is None else self.get(item_id)

    def with_prefix(self, prefix: str) -> list[T]:
        """Return the items whose ids start with `prefix`."""
        ids = [item_id for item_id in self._by_id if item_id.startswith(prefix)]  # a list: `get` may remove one
        found = (self.get(item_id) for item_id in ids)
        return [item for item in found if item is not None]

    def after(self, seq: int) -> Iterator[Stored[T]]:
        """Iterate over the items after a sequence number, oldest first; without an await meanwhile."""
        by_seq, by_id, order = self._by_seq, self._by_id, self._order
        for place in range(bisect.bisect_right(order, seq), len(order)):  # islice would step over all that is before
            item_id = by_seq.get(order[place])
            if item_id is None:
                continue  # it could not be read
            found = by_id[item_id]
            stored = self._decode_row(found) if isinstance(found, tuple) else found
            if stored is not None:
                yield stored

    def put(self, stored: Stored[T]) -> None:
        """Add an item, or replace the one with its id."""
        self.changes += 1
        item_id = stored.item.id
        old = self.stored(item_id)
        if old is None:
            # Not always at the end: a terminated session that is started again has its old number. It is there
            # already where the item could not be read before, and was repaired.
            place = bisect.bisect_left(self._order, stored.seq)
            if self._order[place : place + 1] != [stored.seq]:
                self._order.insert(place, stored.seq)
            self._by_seq[stored.seq] = item_id
        else:
            self._remove_name(old.item)
        self._by_id[item_id] = stored
        if stored.item.name is not None:
            self._by_name[stored.item.name] = item_id
            self._add_nfc(stored.item.name, item_id)

    def remove(self, item_id: str) -> None:
        """Remove an item if it is there."""
        old = self.stored(item_id)
        if old is None:
            return
        self.changes += 1
        del self._by_id[item_id]
        self._remove_name(old.item)
        del self._by_seq[old.seq]
        del self._order[bisect.bisect_left(self._order, old.seq)]

    def _undamaged(self, table: str, rows: Sequence[Row]) -> Iterator[Row]:
        seen: set[str] = set()
        for row in rows:
            try:
                verify_row(row, table)
                if not isinstance(row[1], str):
                    self._decode(row)  # which raises
                if row[1] in seen:
                    raise DamagedRow(table, row[0], row[1], "another row has its id", row[2])
            except DamagedRow as error:
                self._on_damage(error)
            else:
                seen.add(row[1])
                yield row

    def _decode_row(self, row: Row) -> Stored[T] | None:
        """Decode a row at its first use; None, and remove it, if that is not possible."""
        try:
            stored = self._by_id[row[1]] = self._decode(row)
        except DamagedRow as error:
            # Its number stays in `_order`, which `after` may be iterating over.
            seq, item_id, name = row[:3]
            del self._by_id[item_id], self._by_seq[seq]
            if self._by_name.get(name) == item_id:
                del self._by_name[name]
            self.changes += 1
            self._on_damage(error)
            return None
        return stored

    def _remove_name(self, item: T) -> None:
        # Only where the name is still this item's: another one may have been put with it before.
        if item.name is not None and self._by_name.get(item.name) == item.id:
            del self._by_name[item.name]
        if item.name is not None and self._by_nfc and self._by_nfc.get(nfc := normalized(item.name)) == item.id:
            del self._by_nfc[nfc]

    def _add_nfc(self, name: str, item_id: str) -> None:
        if not is_normalized(name):
            self._by_nfc.setdefault(normalized(name), item_id)


class Cache:
    """Both indexes, and the touches that are not in the database yet.

    Args:
        sessions: Rows of SESSION_COLUMNS that are neither terminated nor in the trash, in order.
        workspaces: Rows of WORKSPACE_COLUMNS, in order.
        on_damage: Called with each row that cannot be read.
    """

    def __init__(
        self, sessions: Sequence[Row], workspaces: Sequence[Row], on_damage: Callable[[DamagedRow], None]
    ) -> None:
        self.sessions: Index[Session] = Index("sessions", sessions, session_from_row, on_damage)
        self.workspaces: Index[Workspace] = Index("workspaces", workspaces, workspace_from_row, on_damage)
        self.touched: dict[str, datetime] = {}

    def apply(self, change: Change[R]) -> R:
        """Apply what was committed; return the caller's result."""
        # Without an await, so that nobody sees a part of it: a deleted workspace beside sessions
        # that still name it, for example.
        for session_id in change.gone_sessions:
            self._remove_session(session_id)
        for stored in change.sessions:
            session = self.as_touched(stored.item)
            if session.status == "terminated" or session.deleted_at is not None:
                self._remove_session(session.id)
                continue
            if session is stored.item:  # what was committed is as late as the touch, or later
                self.touched.pop(session.id, None)
            self.sessions.put(Stored(stored.seq, session))
        for workspace_id in change.gone_workspaces:
            self.workspaces.remove(workspace_id)
        for workspace in change.workspaces:
            self.workspaces.put(workspace)
        return change.result

    def touch(self, session_id: str, moment: datetime) -> Session | None:
        """Set last_active in memory only; return None for a session that is not in the cache."""
        stored = self.sessions.stored(session_id)
        if stored is None:
            return None
        self.touched[session_id] = moment
        session = self.as_touched(stored.item)
        self.sessions.put(Stored(stored.seq, session))
        return session

    def as_touched(self, session: Session) -> Session:
        """Return a session that was read from the database with its last touch, if that is later."""
        # Compared, and not replaced always: the wall clock may have been set back between the two.
        moment = self.touched.get(session.id)
        if moment is None or session.status == "terminated" or moment <= session.last_active:
            return session
        return replace(session, last_active=moment)

    def forget_touches(self, touches: dict[str, datetime]) -> None:
        """Forget touches that are in the database now, unless a session was touched again since."""
        for session_id, moment in touches.items():
            if self.touched.get(session_id) == moment:
                del self.touched[session_id]

    def _remove_session(self, session_id: str) -> None:
        self.sessions.remove(session_id)
        self.touched.pop(session_id, None)
