"""How much a change writes: the pages that go into the log."""

from __future__ import annotations

from pathlib import Path

from orbitd.manager import SessionManager
from store_support import LOCAL, logged_pages, rows


async def test_a_save_writes_no_index_that_it_does_not_change(manager: SessionManager, path: Path) -> None:
    """Of its session's row a save changes what has no index: the page of that row alone is written."""
    session = await manager.create_session(LOCAL, name="one")
    await manager.save_snapshot(session.id, b"screen")
    roots = dict(rows(path, "SELECT name, rootpage FROM sqlite_schema WHERE tbl_name = 'sessions' AND rootpage"))
    before = len(logged_pages(path))
    await manager.save_snapshot(session.id, b"another screen")
    written = logged_pages(path)[before:]
    assert {name for name, root in roots.items() if root in written} == {"sessions"}


async def test_what_has_an_index_is_changed_with_it(manager: SessionManager, path: Path) -> None:
    """A new name is found by its index, and the old one is not."""
    session = await manager.create_session(LOCAL, name="one")
    await manager.rename_session(session.id, "two")
    query = "SELECT count(*) FROM sessions INDEXED BY idx_sessions_name WHERE name = ? AND status != 'terminated'"
    query += " AND deleted_at IS NULL"
    assert [rows(path, query, name) for name in ("one", "two")] == [[(0,)], [(1,)]]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
