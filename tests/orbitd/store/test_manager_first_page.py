"""The first page of sessions is kept between changes: no caller may see an old one, or spoil another's."""

from __future__ import annotations

from orbit_protocol.types import SessionConfig
from orbitd.manager import SessionManager

LOCAL = SessionConfig(session_type="local")


async def test_every_change_shows_on_the_next_page(manager: SessionManager) -> None:
    """Creating, renaming, touching and ending a session each show at once."""
    assert (await manager.list_sessions()).sessions == []
    made = await manager.create_session(LOCAL)
    assert (await manager.list_sessions()).sessions == [made]
    renamed = await manager.rename_session(made.id, "web")
    assert (await manager.list_sessions()).sessions == [renamed]
    touched = await manager.touch_session(made.id)
    assert (await manager.list_sessions()).sessions == [touched]
    await manager.terminate_session(made.id)
    assert (await manager.list_sessions()).sessions == []


async def test_limits_are_kept_apart(manager: SessionManager) -> None:
    """A page of one and a page of all are different pages, though nothing changed between them."""
    one, two = [await manager.create_session(LOCAL) for _ in range(2)]
    assert (await manager.list_sessions(limit=1)).sessions == [one]
    assert (await manager.list_sessions()).sessions == [one, two]
    assert (await manager.list_sessions(limit=1)).next_cursor is not None


async def test_a_page_belongs_to_its_caller(manager: SessionManager) -> None:
    """What a caller does to the list that it was given changes nobody else's."""
    made = await manager.create_session(LOCAL)
    (await manager.list_sessions()).sessions.clear()
    assert (await manager.list_sessions()).sessions == [made]
