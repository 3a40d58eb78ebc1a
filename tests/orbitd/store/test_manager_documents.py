"""Workspaces as documents, through the manager."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from orbit_protocol.errors import InvalidParams, NameTaken, StorageFull, WorkspaceNotFound
from orbit_protocol.types import (
    Session,
    SessionConfig,
    SessionDocument,
    Workspace,
    WorkspaceDocument,
    WorkspaceDocumentInput,
    WorkspaceLayout,
)
from orbitd.manager import SessionManager
from store_support import LOCAL, UNKNOWN

FIRST, SECOND = "0b8a1a4e-6f0f-4a57-9a53-2f2d0a1b3c4d", "7d0d1c52-94a6-4ad6-8a0e-0c5b7a6e9f10"


def document(*sessions: SessionDocument, config: str = "{}", **fields: Any) -> WorkspaceDocument:
    """Return a document."""
    layout = WorkspaceLayout(layout_type="splits", config=msgspec.Raw(config.encode()))
    known: dict[str, Any] = {"orbit_workspace": 1, "name": "shop", "layout": layout, "sessions": list(sessions)}
    return WorkspaceDocument(**{**known, **fields})


def member(session_id: str, name: str | None = None, **fields: Any) -> SessionDocument:
    """Return a session of a document."""
    return SessionDocument(id=session_id, name=name, **{"config": LOCAL, **fields})


async def members(manager: SessionManager, workspace: Workspace) -> list[Session]:
    """Return the sessions of a workspace."""
    return await manager.list_members(workspace.id)


async def test_a_document_has_the_layout_and_the_configurations(manager: SessionManager) -> None:
    """An export has every session that is not archived, ended ones too, with its size, and no other workspace's."""
    raw = b'{"b": 1.0,  "a": "\\u00e9"}'
    layout = WorkspaceLayout(layout_type="grid", config=msgspec.Raw(raw))
    workspace = await manager.create_workspace("shop", layout)
    config = SessionConfig(session_type="ssh", host="db.example", workspace_id=workspace.id, env={"A": "b"})
    web = await manager.create_session(config, "web")
    await manager.set_labels(web.id, {"env": "prod"})
    await manager.start_program(web.id, 100, 40)
    ended = await manager.create_session(replace(LOCAL, workspace_id=workspace.id))
    await manager.terminate_session(ended.id)
    await manager.create_session(LOCAL, "elsewhere")
    await manager.set_active_session(workspace.id, web.id)
    exported = await manager.export_workspace(workspace.id)
    assert bytes(exported.layout.config) == raw
    assert exported == WorkspaceDocument(
        orbit_workspace=1,
        name="shop",
        layout=layout,
        active_session_id=web.id,
        sessions=[
            SessionDocument(
                id=web.id,
                name="web",
                config=replace(config, workspace_id=None),
                labels={"env": "prod"},
                cols=100,
                rows=40,
            ),
            SessionDocument(id=ended.id, name=None, config=LOCAL),
        ],
    )
    with pytest.raises(WorkspaceNotFound):
        await manager.export_workspace(UNKNOWN)


async def test_a_workspace_comes_back_from_its_document(path: Path, manager: SessionManager) -> None:
    """Ids, names, sizes and labels are those of the document where they are free, also when read from disk."""
    given = document(
        member(FIRST, "web", labels={"b": "1", "a": "2"}, cols=100, rows=40),
        member(SECOND, config=SessionConfig(session_type="local", workspace_id=UNKNOWN)),
        config=f'["{FIRST}"]',
        active_session_id=FIRST,
    )
    workspace = await manager.import_workspace(given)
    assert (workspace.name, workspace.layout, workspace.active_session_id) == ("shop", given.layout, FIRST)
    web, other = await members(manager, workspace)
    assert (web.id, web.name, web.labels, web.cols, web.rows) == (FIRST, "web", {"a": "2", "b": "1"}, 100, 40)
    assert (other.id, other.name, other.config.workspace_id) == (SECOND, None, workspace.id)
    assert (web.status, web.live) == ("active", False)
    again = await manager.export_workspace(workspace.id)
    await manager.close()
    async with SessionManager.open(str(path)) as reopened:
        assert await reopened.get_workspace(workspace.id) == workspace
        assert await reopened.get_session(FIRST) == web
        assert await reopened.export_workspace(workspace.id) == again


async def test_ids_that_are_taken_are_replaced_in_the_layout(manager: SessionManager) -> None:
    """Where an id is taken, the strings of the layout that equal it are replaced, and not one other letter."""
    web = await manager.create_session(LOCAL, "web")
    escaped = web.id.replace("-", "\\u002d")
    template = (
        '{"%(id)s": 1.0,  "panes":["%(id)s", "%(id)s ", "x%(id)s", "\\"%(id)s\\"", "\\u00e9", 1e3, "a%(id)sb"],'
        ' "z": "%(escaped)s", "other": "%(other)s", "n": 12345678901234567890}'
    )
    config = template % {"id": web.id, "escaped": escaped, "other": FIRST}
    given = document(member(web.id, "web"), member(FIRST), config=config, active_session_id=web.id)
    workspace = await manager.import_workspace(given)
    new, other = await members(manager, workspace)
    assert new.id not in (web.id, FIRST)
    assert other.id == FIRST
    assert workspace.active_session_id == new.id
    expected = (
        config.replace(f'"{web.id}":', f'"{new.id}":')
        .replace(f'["{web.id}"', f'["{new.id}"')
        .replace(f'"{escaped}"', f'"{new.id}"')
    )
    assert bytes(workspace.layout.config).decode() == expected


@pytest.mark.parametrize("where", ["ended", "trash", "archive", "purged"])
async def test_an_id_is_taken_wherever_its_session_is(manager: SessionManager, where: str) -> None:
    """The id of a session that has ended, is archived, in the trash, or was just deleted for good is not used again."""
    before = await manager.create_session(LOCAL)
    await manager.terminate_session(before.id)
    if where == "trash":
        await manager.trash_session(before.id)
    elif where == "purged":
        await manager.delete_session(before.id)
    elif where == "archive":
        later = replace(before, last_active=before.last_active.replace(year=2999)).last_active
        await manager.archive_sessions(later)
    workspace = await manager.import_workspace(document(member(before.id)))
    (new,) = await members(manager, workspace)
    assert new.id != before.id


@pytest.mark.parametrize("session_id", ["web", "../../x", FIRST.upper(), "{" + FIRST + "}", "x" * 256])
async def test_an_id_that_is_none_of_ours_is_replaced(manager: SessionManager, session_id: str) -> None:
    """Files have the names of ids: what is no UUID as orbitd writes it stands in the document only."""
    config = msgspec.json.encode([session_id]).decode()
    workspace = await manager.import_workspace(document(member(session_id), config=config))
    (new,) = await members(manager, workspace)
    assert str(uuid.UUID(new.id)) == new.id != session_id
    assert msgspec.json.decode(workspace.layout.config) == [new.id]


async def test_names_that_are_taken(manager: SessionManager) -> None:
    """A session whose name another one has that has not ended is named NAME-2 and so on, within the longest name."""
    longest = "x" * 256
    for name in ("web", "web-3", longest):
        await manager.create_session(LOCAL, name)
    ended = await manager.create_session(LOCAL, "api")
    await manager.terminate_session(ended.id)
    names = ["web", "web", "api", "api", None, longest, "web-2"]
    given = document(*(member(str(uuid.uuid4()), name) for name in names))
    workspace = await manager.import_workspace(given)
    found = [each.name for each in await members(manager, workspace)]
    assert found == ["web-4", "web-5", "api", "api-2", None, f"{'x' * 254}-2", "web-2"]


async def test_many_of_one_name(manager: SessionManager) -> None:
    """As many sessions as there are may all have one name: each is numbered from where the last search has ended."""
    given = document(*(member(str(uuid.uuid4()), "web") for _ in range(1_000)))
    workspace = await manager.import_workspace(given)
    assert [each.name for each in await members(manager, workspace)] == ["web", *(f"web-{n}" for n in range(2, 1_001))]


async def test_more_sessions_than_a_document_may_have(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace is exported whole or not at all, with how many it has and what can be done."""
    monkeypatch.setattr("orbitd.store.documents.MAX_PAGE_SIZE", 2)
    workspace = await manager.import_workspace(document(member(FIRST), member(SECOND)))
    assert len((await manager.export_workspace(workspace.id)).sessions) == 2
    await manager.create_session(replace(LOCAL, workspace_id=workspace.id))
    with pytest.raises(InvalidParams, match="3 sessions, and a document 2 at most"):
        await manager.export_workspace(workspace.id)


SSH = SessionConfig(session_type="ssh", host="-oProxyCommand=x")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (document(member(FIRST), member(SECOND), member(FIRST)), r"sessions\[2\].id.*sessions\[0\]"),
        (document(active_session_id=FIRST), "active_session_id"),
        (document(member(FIRST), member(SECOND, config=SSH)), r"`host` may not begin.*sessions\[1\]"),
        (document(member(FIRST, "a\nb")), r"`name`.*sessions\[0\]"),
        (document(member(FIRST, labels={"a=b": ""})), r"`labels`.*sessions\[0\]"),
        (document(member(FIRST, cols=4096, rows=4096)), r"`rows` is more.*sessions\[0\]"),
        (document(orbit_workspace=2), "orbit_workspace"),
        (document(name=""), "`name`"),
    ],
)
async def test_a_document_that_is_refused(manager: SessionManager, given: WorkspaceDocument, words: str) -> None:
    """What is wrong is named with its place, and nothing of the document is recorded."""
    with pytest.raises(InvalidParams, match=words):
        await manager.import_workspace(given)
    assert (await manager.list_workspaces()).workspaces == []
    assert manager.first_page(None).sessions == []


async def test_the_name_of_the_workspace(manager: SessionManager) -> None:
    """A workspace whose name is taken is imported under the name that is given, and not under another one."""
    given = document(member(FIRST, "web"))
    await manager.import_workspace(given)
    with pytest.raises(NameTaken):
        await manager.import_workspace(given)
    assert [each.id for each in manager.first_page(None).sessions] == [FIRST]
    again = await manager.import_workspace(given, "shop two")
    assert again.name == "shop two"
    (new,) = await members(manager, again)
    assert new.name == "web-2"


async def test_all_or_nothing(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that fails with its last row leaves nothing."""
    from orbitd.store import documents

    insert, rows = documents.insert_session, []

    def fail(*arguments: Any) -> None:
        rows.append(arguments)
        if len(rows) % 2 == 0:
            raise StorageFull("no room")
        insert(*arguments)

    monkeypatch.setattr(documents, "insert_session", fail)
    with pytest.raises(StorageFull):
        await manager.import_workspace(document(member(FIRST), member(SECOND), active_session_id=FIRST))
    monkeypatch.undo()
    assert (await manager.list_workspaces()).workspaces == []
    assert (await manager.get_stats()).total_sessions == 0
    await manager.import_workspace(document(member(FIRST), member(SECOND), active_session_id=FIRST))


async def test_bytes_that_are_not_utf8(manager: SessionManager) -> None:
    """A folder, a command and a variable that are not UTF-8 come back byte for byte, over the wire too."""
    config = SessionConfig(
        session_type="local", command_bytes=b"cat \xff", cwd_bytes=b"/tmp/\xfe", env_bytes=[(b"A", b"\xfd")]
    )
    workspace = await manager.create_workspace("shop", WorkspaceLayout(layout_type="x", config=msgspec.Raw(b"1")))
    await manager.create_session(replace(config, workspace_id=workspace.id))
    sent = msgspec.json.encode(await manager.export_workspace(workspace.id))
    received = msgspec.json.decode(sent, type=WorkspaceDocumentInput)
    again = await manager.import_workspace(received, "again")
    (new,) = await members(manager, again)
    assert type(new.config) is SessionConfig
    assert new.config == replace(config, workspace_id=again.id)


async def test_what_was_imported_and_never_started_is_not_removed(manager: SessionManager) -> None:
    """A session that goes when its program has ended stays as long as it has had none."""
    config = SessionConfig(session_type="local", auto_remove=True)
    workspace = await manager.import_workspace(document(member(FIRST, config=config, cols=80, rows=24)))
    assert await manager.list_ended_to_remove() == []
    await manager.end_program(FIRST, "detached")
    assert await manager.list_ended_to_remove() == [FIRST]
    kept = await manager.keep_ended(FIRST)
    assert not kept.config.auto_remove
    assert await manager.list_ended_to_remove() == []
    assert await manager.keep_ended(FIRST) == kept
    assert workspace.id == kept.workspace_id


async def test_two_imports_at_once(manager: SessionManager) -> None:
    """Of two imports of one document at the same time, one keeps the ids."""
    import asyncio

    given = document(member(FIRST, "web"), config=f'"{FIRST}"')
    first, second = await asyncio.gather(manager.import_workspace(given, "a"), manager.import_workspace(given, "b"))
    ids = [(await members(manager, each))[0].id for each in (first, second)]
    assert [bytes(each.layout.config).decode() for each in (first, second)] == [f'"{each}"' for each in ids]
    assert ids.count(FIRST) == 1


async def test_an_import_is_told_with_its_change(manager: SessionManager) -> None:
    """The workspace and each session are events of the transaction that records them; a refusal is none."""
    given = document(member(FIRST, "web"), member(SECOND, "web"))
    workspace = await manager.import_workspace(given)
    with pytest.raises(NameTaken):
        await manager.import_workspace(given)
    await manager.record_opened(workspace.id, "workspace.opened")
    found = await manager.list_events(after=None)
    assert [(each.kind, each.session_id, each.workspace_id) for each in found] == [
        ("workspace.created", None, workspace.id),
        ("session.created", FIRST, workspace.id),
        ("session.created", SECOND, workspace.id),
        ("workspace.opened", None, workspace.id),
    ]
    assert [msgspec.json.decode(each.data)["name"] for each in found] == ["shop", "web", "web-2", "shop"]
    with pytest.raises(WorkspaceNotFound):
        await manager.record_opened(UNKNOWN, "workspace.parked")
