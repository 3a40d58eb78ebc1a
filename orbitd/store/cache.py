"""What is alive, in memory: every session that is not terminated, and every workspace.

Used on the event loop only. `apply` is called with what a transaction changed, after its
commit and in commit order, and by nothing else; the one thing that changes without the
database is when a session was last touched, kept in `touched` until the next auto-save.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from orbit_protocol.types import Session, Workspace
from orbitd.store.rows import Row, Stored, session_of, workspace_of

T = TypeVar("T", Session, Workspace)
R = TypeVar("R")


class Change(Struct, Generic[R], frozen=True, kw_only=True):
    """What one piece of work did: its result, and what the cache must know of it.

    Args:
        result: For the caller.
        sessions: Sessions as they are now.
        gone_sessions: Ids of sessions that are no longer in the hot table.
        workspaces: Workspaces as they are now.
        gone_workspaces: Ids of deleted workspaces.
    """

    result: R
    sessions: tuple[Stored[Session], ...] = ()
    gone_sessions: tuple[str, ...] = ()
    workspaces: tuple[Stored[Workspace], ...] = ()
    gone_workspaces: tuple[str, ...] = ()


class Index(Generic[T]):
    """Items by id and by name, and in the order of their sequence numbers.

    Rows are put in as they are and read when they are first asked for: a daemon that
    starts with ten thousand sessions is ready as soon as one that starts with none.

    `changes` counts what was put in or taken out: what was made at another count is outdated.

    Args:
        rows: From the database, in order; each begins with seq, id and name.
        read: Makes an item of a row.
    """

    def __init__(self, rows: Sequence[Row], read: Callable[[Row], Stored[T]]) -> None:
        self._read: Callable[[Row], Stored[T]] = read
        self._by_id: dict[str, Stored[T] | Row] = {row[1]: row for row in rows}
        self._by_name: dict[str, str] = {row[2]: row[1] for row in rows if row[2] is not None}
        self._by_seq: dict[int, str] = {row[0]: row[1] for row in rows}
        self._order: list[int] = list(self._by_seq)
        self.changes = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def stored(self, item_id: str) -> Stored[T] | None:
        """Return the item with this id and its number, or None."""
        found = self._by_id.get(item_id)
        return self._read_in(found) if isinstance(found, tuple) else found

    def get(self, item_id: str) -> T | None:
        """Return the item with this id, or None."""
        found = self.stored(item_id)
        return None if found is None else found.item

    def named(self, name: str) -> T | None:
        """Return the item with this name, or None."""
        item_id = self._by_name.get(name)
        return None if item_id is None else self.get(item_id)

    def with_prefix(self, prefix: str) -> list[T]:
        """Return the items whose ids begin so."""
        found = (self.get(item_id) for item_id in self._by_id if item_id.startswith(prefix))
        return [item for item in found if item is not None]

    def after(self, seq: int) -> Iterator[Stored[T]]:
        """Go through the items that come after a sequence number, oldest first."""
        by_seq, by_id = self._by_seq, self._by_id
        for each in itertools.islice(self._order, bisect.bisect_right(self._order, seq), None):
            found = by_id[by_seq[each]]
            yield self._read_in(found) if isinstance(found, tuple) else found

    def put(self, stored: Stored[T]) -> None:
        """Add an item, or replace the one with its id."""
        self.changes += 1
        item_id = stored.item.id
        old = self.stored(item_id)
        if old is None:
            bisect.insort(self._order, stored.seq)
            self._by_seq[stored.seq] = item_id
        else:
            self._forget_name(old.item)
        self._by_id[item_id] = stored
        if stored.item.name is not None:
            self._by_name[stored.item.name] = item_id

    def remove(self, item_id: str) -> None:
        """Take an item out, if it is there."""
        old = self.stored(item_id)
        if old is None:
            return
        self.changes += 1
        del self._by_id[item_id]
        self._forget_name(old.item)
        del self._by_seq[old.seq]
        del self._order[bisect.bisect_left(self._order, old.seq)]

    def _read_in(self, row: Row) -> Stored[T]:
        stored = self._by_id[row[1]] = self._read(row)
        return stored

    def _forget_name(self, item: T) -> None:
        if item.name is not None and self._by_name.get(item.name) == item.id:
            del self._by_name[item.name]


class Cache:
    """Both shelves, and the touches that no disk knows of yet.

    Args:
        sessions: Rows of SESSION_COLUMNS that are not terminated, in order.
        workspaces: Rows of WORKSPACE_COLUMNS, in order.
    """

    def __init__(self, sessions: Sequence[Row], workspaces: Sequence[Row]) -> None:
        self.sessions: Index[Session] = Index(sessions, session_of)
        self.workspaces: Index[Workspace] = Index(workspaces, workspace_of)
        self.touched: dict[str, datetime] = {}

    def apply(self, change: Change[R]) -> R:
        """Take over what was committed; return the caller's result."""
        for session_id in change.gone_sessions:
            self._drop(session_id)
        for stored in change.sessions:
            self._keep(stored)
        for workspace_id in change.gone_workspaces:
            self.workspaces.remove(workspace_id)
        for workspace in change.workspaces:
            self.workspaces.put(workspace)
        return change.result

    def touch(self, session_id: str, moment: datetime) -> Session | None:
        """Set last_active in memory only; return None for a session that is not here."""
        stored = self.sessions.stored(session_id)
        if stored is None:
            return None
        self.touched[session_id] = moment
        session = self.as_touched(stored.item)
        self.sessions.put(Stored(stored.seq, session))
        return session

    def as_touched(self, session: Session) -> Session:
        """Return a session with its last touch on it, where the database does not have that yet."""
        moment = self.touched.get(session.id)
        if moment is None or session.status == "terminated" or moment <= session.last_active:
            return session
        return replace(session, last_active=moment)

    def saved(self, touches: dict[str, datetime]) -> None:
        """Forget touches that are on disk now, unless a newer one came."""
        for session_id, moment in touches.items():
            if self.touched.get(session_id) == moment:
                del self.touched[session_id]

    def _keep(self, stored: Stored[Session]) -> None:
        if stored.item.status == "terminated":
            self._drop(stored.item.id)
            return
        touched = self.as_touched(stored.item)
        if touched is stored.item:
            self.touched.pop(touched.id, None)
        self.sessions.put(Stored(stored.seq, touched))

    def _drop(self, session_id: str) -> None:
        self.sessions.remove(session_id)
        self.touched.pop(session_id, None)
