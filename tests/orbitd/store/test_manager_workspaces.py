"""Workspaces through the manager."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from orbit_protocol.errors import AmbiguousReference, InvalidParams, NameTaken, SessionNotFound, WorkspaceNotFound
from orbit_protocol.params import WorkspaceLayoutInput
from orbit_protocol.types import SessionConfig, WorkspaceLayout
from orbitd.manager import SessionManager
from store_support import GRID, LOCAL, UNKNOWN, rows


async def test_created_workspace(path: Path, manager: SessionManager) -> None:
    """A new workspace has nothing in front, and is the same when read from disk."""
    workspace = await manager.create_workspace("main", GRID)
    assert workspace.name == "main"
    assert workspace.layout == GRID
    assert workspace.active_session_id is None
    assert await manager.get_workspace(workspace.id) == workspace
    await manager.close()
    async with SessionManager.open(str(path)) as again:
        assert await again.get_workspace(workspace.id) == workspace


@pytest.mark.parametrize(
    "config",
    [b'{"b": 1,  "a": 1.0e3, "b": 2}', b'"\\u00e9\xc3\xa9"', b"null", b"[1e300, -0.0]", b"12345678901234567890123"],
)
async def test_layout_is_kept_to_the_letter(path: Path, manager: SessionManager, config: bytes) -> None:
    """The layout's JSON comes back as it was written: order, spaces, doubled keys and great numbers."""
    layout = WorkspaceLayoutInput(layout_type="x", config=msgspec.Raw(config))
    workspace = await manager.create_workspace("w", layout)
    assert type(workspace.layout) is WorkspaceLayout
    assert bytes(workspace.layout.config) == config
    await manager.close()
    async with SessionManager.open(str(path)) as again:
        assert bytes((await again.get_workspace(workspace.id)).layout.config) == config


async def test_layout_stays_on_one_line(manager: SessionManager) -> None:
    """Line ends between tokens become spaces: on the wire they would end the message."""
    layout = WorkspaceLayout(layout_type="x", config=msgspec.Raw(b'{\r\n  "a": "\\n"\n}'))
    workspace = await manager.create_workspace("w", layout)
    assert bytes(workspace.layout.config) == b'{    "a": "\\n" }'


async def test_names_are_unique(manager: SessionManager) -> None:
    """A name belongs to one workspace."""
    first = await manager.create_workspace("one", GRID)
    other = await manager.create_workspace("two", GRID)
    with pytest.raises(NameTaken):
        await manager.create_workspace("one", GRID)
    with pytest.raises(NameTaken):
        await manager.rename_workspace(other.id, "one")
    assert (await manager.rename_workspace(first.id, "one")).name == "one"
    assert (await manager.rename_workspace(first.id, "three")).name == "three"
    assert (await manager.rename_workspace(other.id, "one")).id == other.id


async def test_update_layout(path: Path, manager: SessionManager) -> None:
    """A layout is replaced as a whole."""
    workspace = await manager.create_workspace("w", GRID)
    layout = WorkspaceLayout(layout_type="tabs", config=[1])
    changed = await manager.update_workspace_layout(workspace.id, layout)
    assert changed.layout == layout
    assert await manager.get_workspace(workspace.id) == changed
    found = rows(path, "SELECT layout ->> 'layout_type', layout ->> 'config' FROM workspaces")
    assert found == [("tabs", "[1]")]


async def test_active_session(manager: SessionManager) -> None:
    """Only a session of the workspace can be in front; null takes it away."""
    workspace = await manager.create_workspace("w", GRID)
    inside = await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id))
    outside = await manager.create_session(LOCAL)
    assert (await manager.set_active_session(workspace.id, inside.id)).active_session_id == inside.id
    for session_id in (outside.id, UNKNOWN):
        with pytest.raises(SessionNotFound):
            await manager.set_active_session(workspace.id, session_id)
    assert (await manager.get_workspace(workspace.id)).active_session_id == inside.id
    assert (await manager.set_active_session(workspace.id, None)).active_session_id is None


async def test_deleted_session_is_in_front_no_more(path: Path, manager: SessionManager) -> None:
    """Deleting the session in front clears it, in memory and on disk."""
    workspace = await manager.create_workspace("w", GRID)
    session = await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id))
    await manager.set_active_session(workspace.id, session.id)
    await manager.delete_session(session.id)
    assert (await manager.get_workspace(workspace.id)).active_session_id is None
    assert rows(path, "SELECT active_session_id FROM workspaces") == [(None,)]


async def test_delete_keeps_sessions(path: Path, manager: SessionManager) -> None:
    """The sessions of a deleted workspace stay, with no workspace in column and config; terminated ones too."""
    workspace = await manager.create_workspace("w", GRID)
    config = SessionConfig(session_type="local", workspace_id=workspace.id)
    alive, ended = [await manager.create_session(config) for _ in range(2)]
    await manager.terminate_session(ended.id)
    await manager.delete_workspace(workspace.id)
    for session_id in (alive.id, ended.id):
        session = await manager.get_session(session_id)
        assert (session.workspace_id, session.config.workspace_id) == (None, None)
    assert rows(path, "SELECT DISTINCT config ->> 'workspace_id', workspace_id FROM sessions") == [(None, None)]
    with pytest.raises(WorkspaceNotFound):
        await manager.get_workspace(workspace.id)


async def test_delete_with_sessions(path: Path, manager: SessionManager) -> None:
    """If told so, its sessions and their snapshots go with it, and no other."""
    workspace = await manager.create_workspace("w", GRID)
    inside = await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id), name="in")
    outside = await manager.create_session(LOCAL, name="out")
    await manager.save_snapshot(inside.id, b"x")
    await manager.save_snapshot(outside.id, b"y")
    await manager.delete_workspace(workspace.id, delete_sessions=True)
    with pytest.raises(SessionNotFound):
        await manager.get_session(inside.id)
    assert [session.name for session in await manager.list_active_sessions()] == ["out"]
    assert rows(path, "SELECT session_id FROM session_snapshots") == [(outside.id,)]


async def test_unknown_workspace(manager: SessionManager) -> None:
    """Every method answers 1200 for an id that no workspace has."""
    calls = (
        manager.get_workspace(UNKNOWN),
        manager.find_workspace(UNKNOWN),
        manager.update_workspace_layout(UNKNOWN, GRID),
        manager.rename_workspace(UNKNOWN, "x"),
        manager.set_active_session(UNKNOWN, None),
        manager.delete_workspace(UNKNOWN),
    )
    for call in calls:
        with pytest.raises(WorkspaceNotFound):
            await call


async def test_find(manager: SessionManager) -> None:
    """A workspace is found by id, name and a prefix of four characters."""
    workspace = await manager.create_workspace("my space", GRID)
    for ref in (workspace.id, "my space", workspace.id[:4], workspace.id[:13].upper()):
        assert await manager.find_workspace(ref) == workspace
    with pytest.raises(WorkspaceNotFound):
        await manager.find_workspace(workspace.id[:3])


async def test_ambiguous_prefix(path: Path, manager: SessionManager) -> None:
    """A prefix of two ids is 1003 with both."""
    for name in "ab":
        await manager.create_workspace(name, GRID)
    await manager.close()
    rows(path, "UPDATE workspaces SET id = 'abcd' || substr(id, 5), checksum = NULL")
    async with SessionManager.open(str(path)) as again:
        with pytest.raises(AmbiguousReference) as caught:
            await again.find_workspace("abcd")
        assert len(caught.value.extra["candidates"]) == 2


async def test_pages(manager: SessionManager) -> None:
    """Workspaces are listed oldest first, in pages of the wanted size."""
    for name in "abc":
        await manager.create_workspace(name, GRID)
    first = await manager.list_workspaces(limit=2)
    second = await manager.list_workspaces(limit=2, cursor=first.next_cursor)
    assert [workspace.name for workspace in first.workspaces] == ["a", "b"]
    assert [workspace.name for workspace in second.workspaces] == ["c"]
    assert second.next_cursor is None


async def test_page_is_bounded_in_bytes(manager: SessionManager) -> None:
    """Large layouts fill a page before its limit does; one larger than a page is a page by itself."""
    for name, size in (("small", 10), ("huge", 9 << 20), ("big", 5 << 20), ("big too", 5 << 20)):
        await manager.create_workspace(name, WorkspaceLayout(layout_type="x", config="y" * size))
    pages, cursor = [], None
    while not pages or cursor:
        page = await manager.list_workspaces(cursor=cursor)
        pages.append([workspace.name for workspace in page.workspaces])
        cursor = page.next_cursor
    assert pages == [["small"], ["huge"], ["big"], ["big too"]]


async def test_layout_of_wrong_type(manager: SessionManager) -> None:
    """A layout that a wire would have refused is refused from Python too."""
    with pytest.raises(InvalidParams):
        await manager.create_workspace("w", WorkspaceLayout(layout_type="", config=1))


async def test_the_spellings_of_a_name_are_one_name(path: Path, manager: SessionManager) -> None:
    """A name is kept in NFC, found and taken in either spelling; so is one that an older version kept decomposed."""
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    workspace = await manager.create_workspace(nfd, GRID)
    assert workspace.name == nfc
    other = await manager.create_workspace("other", GRID)
    await manager.close()
    for spelling in (nfc, nfd):
        rows(path, "UPDATE workspaces SET name = ?, checksum = NULL WHERE id = ?", spelling, workspace.id)
        async with SessionManager.open(str(path)) as again:
            assert [(await again.find_workspace(one)).id for one in (nfc, nfd)] == [workspace.id] * 2
            for taken in (nfc, nfd):
                with pytest.raises(NameTaken):
                    await again.create_workspace(taken, GRID)
                with pytest.raises(NameTaken):
                    await again.rename_workspace(other.id, taken)
