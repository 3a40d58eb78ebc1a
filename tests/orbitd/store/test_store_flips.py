"""Bits and bytes that change in a database or its log: no start is refused, what is served is right, a loss is named.

ORBIT_FLIPS says how many are tried (half as many of the log, where each costs more), and ORBIT_FIRST_FLIP which is
the first: each number is another one.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from orbit_protocol.errors import OrbitError, StorageCorrupt
from orbit_protocol.types import Session, SessionConfig, Snapshot, Workspace, WorkspaceLayout
from orbitd.manager import SessionManager
from orbitd.store.backup import salvage
from orbitd.store.database import open_reader
from store_support import exists

FIRST = int(os.environ.get("ORBIT_FIRST_FLIP", "0"))
FLIPS = int(os.environ.get("ORBIT_FLIPS", "100"))
EVERY = ["active", "detached", "terminated", "archived"]
PAGE = 4096


class World(Struct):
    """What a store holds, as its methods return it."""

    sessions: dict[str, Session]
    workspaces: dict[str, Workspace]
    snapshots: dict[str, Snapshot]


async def build(path: Path) -> SessionManager:
    """Make a store with everything that there is to damage; return it open."""
    dice = random.Random(11)
    manager = await SessionManager.open(str(path))
    places = [
        await manager.create_workspace(f"place {number}", WorkspaceLayout(layout_type="grid", config={"n": [number]}))
        for number in range(3)
    ]
    for number in range(12):
        config = SessionConfig(
            session_type="local",
            command=f"command {number}",
            cwd="/srv/é",
            env={"A": "b" * dice.randrange(600)},
            workspace_id=places[number % 3].id if number % 2 else None,
        )
        session = await manager.create_session(config, name=f"session {number}")
        if number % 3 == 0:
            await manager.start_program(session.id, 80, 24)
        screen = dice.randbytes(dice.choice([300, 3_000, 9_000]))
        for save in range(36 if number == 1 else 3):
            screen = screen[10:] + b"line %d\r\n" % save
            await manager.save_snapshot(
                session.id, screen, b"above" * save if number % 4 == 0 else None, cols=80, rows=24
            )
        if number % 3 == 0 and number != 9:
            await manager.end_program(session.id, "detached" if number == 3 else "terminated", exit_code=number)
        if number == 5:
            await manager.set_active_session(session.workspace_id or "", session.id)
    old = (await manager.find_session("session 6")).last_active
    await manager.archive_sessions(old)
    gone = await manager.create_session(SessionConfig(session_type="local"), name="gone")
    await manager.save_snapshot(gone.id, dice.randbytes(20_000))
    await manager.delete_session(gone.id)  # leaves free pages
    return manager


async def read(manager: SessionManager) -> World:
    """Read everything; what cannot be read is left out."""
    world = World({}, {}, {})
    cursor = None
    while True:
        page = await manager.list_sessions(status=EVERY, limit=5, cursor=cursor)
        world.sessions |= {session.id: session for session in page.sessions}
        cursor = page.next_cursor
        if cursor is None:
            break
    world.workspaces = {each.id: each for each in (await manager.list_workspaces()).workspaces}
    for session in list(world.sessions.values()):
        try:
            if session.status == "archived":
                await manager.restore_archived_session(session.id)
            infos = (await manager.list_snapshots(session.id)).snapshots
        except OrbitError:
            continue
        for info in infos:
            try:
                world.snapshots[info.id] = await manager.get_snapshot(info.id)
            except OrbitError:
                continue
    return world


def without_lost(item: Any, found: World) -> Any:
    """Return a session or workspace as it is when what it refers to is lost."""
    if isinstance(item, Workspace) and item.active_session_id not in found.sessions:
        return replace(item, active_session_id=None)
    if isinstance(item, Session) and item.workspace_id not in found.workspaces:
        return replace(item, workspace_id=None, config=replace(item.config, workspace_id=None))
    return item


def flip(data: bytearray, dice: random.Random) -> str:
    """Change a bit or a byte, often where it matters most: in a page's head, or in the first page."""
    page = 0 if dice.random() < 0.1 else dice.randrange(len(data) // PAGE)
    place = page * PAGE + (dice.randrange(120) if dice.random() < 0.4 else dice.randrange(PAGE))
    return change(data, place, dice)


def flip_log(data: bytearray, dice: random.Random) -> str:
    """Flip a bit of a WAL: in its head, in the head of a frame, or in a page.

    One bit only: more of the last transaction looks as if a power cut had torn it.
    """
    frame = dice.randrange((len(data) - 32) // (24 + PAGE))
    start = 32 + frame * (24 + PAGE)
    place = dice.choice([dice.randrange(32), start + dice.randrange(24), start + dice.randrange(24 + PAGE)])
    return f"frame {frame} + {place - start}: {change(data, place, dice, flips=1.0)}"


def change(data: bytearray, place: int, dice: random.Random, *, flips: float = 0.7) -> str:
    before = data[place]
    data[place] = before ^ 1 << dice.randrange(8) if dice.random() < flips else dice.randrange(256)
    return f"page {place // PAGE + 1} offset {place % PAGE}: {before:02x} -> {data[place]:02x}"


async def reopen(path: Path) -> tuple[SessionManager, str | None]:
    """Open a store as the daemon does; return the database that was set aside too."""
    try:
        return await SessionManager.open(str(path)), None
    except StorageCorrupt as error:
        return await SessionManager.open(str(path), start_empty=True), error.extra["set_aside"]


async def judge(path: Path, before: World, *, may_be_older: bool = False) -> None:
    """Open a damaged store and compare what it has with what it had.

    Args:
        path: The database.
        before: What it had.
        may_be_older: Whether what is named as damaged may be there as it was before its last change.
    """
    manager, aside = await reopen(path)
    try:
        await manager.verify_rows() if manager.read_only is None else None
        report = await manager.check()
        found = await read(manager)
        named = [
            *report.integrity,
            *report.foreign_keys,
            *report.snapshots,
            *manager.repairs,
            *manager.damage_warnings(),
        ]
        lost = salvage.Salvaged(source="")
        if aside is not None:
            connection = open_reader(str(path))
            lost = salvage.salvaged_into(connection) or lost
            connection.close()
            assert exists(aside), "the damaged file is gone"
            named.append(aside)
        if manager.read_only is not None:
            named.append(manager.read_only)
        kinds: list[tuple[str, int]] = [
            ("sessions", lost.lost_sessions),
            ("workspaces", lost.lost_workspaces),
            ("snapshots", lost.lost_snapshots),
        ]
        for kind, known in kinds:
            old: dict[str, Any] = getattr(before, kind)
            new: dict[str, Any] = getattr(found, kind)
            wrong = [
                each for item, each in new.items() if each not in (old.get(item), without_lost(old.get(item), found))
            ]
            assert not wrong or (may_be_older and lost.lost_pages), f"wrong {kind}: {wrong}"
            missing = [item for item in old if item not in new]
            assert not missing or named, f"{kind} missing without a word: {missing}"
            assert not missing or aside is None or known >= len(missing), f"{kind}: {len(missing)} lost, {known} named"
        if manager.read_only is None:
            await manager.create_session(SessionConfig(session_type="local"), name="afterwards")
    finally:
        await manager.close()


async def try_all(
    folder: Path,
    count: int,
    files: dict[str, bytes],
    damaged: str,
    damage: Callable[[bytearray, random.Random], str],
    judged: Callable[[Path], Awaitable[None]],
) -> None:
    """Damage one of the files of a store again and again; each time a new copy.

    Args:
        folder: Where the copies are made.
        count: How many.
        files: The store, by name.
        damaged: The name of the file.
        damage: Damages its bytes; returns what it did.
        judged: Looks at the store.
    """
    failures = []
    for number in range(FIRST, FIRST + count):
        changed = bytearray(files[damaged])
        what = damage(changed, random.Random(number))
        place = folder / str(number)
        place.mkdir(mode=0o700)
        for name, data in {**files, damaged: bytes(changed)}.items():
            (place / name).write_bytes(data)
        try:
            await judged(place / "sessions.db")
        except Exception as error:  # noqa: BLE001  # all are tried, so that one failure shows its kind
            failures.append(f"{number}: {what}: {type(error).__name__}: {str(error)[:600]}")
        shutil.rmtree(place)
    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:20])


@pytest.mark.slow
async def test_flips_in_the_database(tmp_path: Path) -> None:
    """Whatever changes in a database that was closed, it is served, and what is lost of it is named."""
    path = tmp_path / "orbit" / "sessions.db"
    await (await build(path)).close()
    files = {path.name: path.read_bytes()}
    manager, _ = await reopen(path)
    world = await read(manager)
    await manager.close()
    await try_all(tmp_path, FLIPS, files, path.name, flip, lambda copy: judge(copy, world))


@pytest.mark.slow
async def test_flips_in_the_log(tmp_path: Path) -> None:
    """Whatever changes in the log of a database that was not closed, what was answered is there, or named as lost."""
    files, world = await crashed(tmp_path / "orbit" / "sessions.db")
    await try_all(
        tmp_path, FLIPS // 2, files, "sessions.db-wal", flip_log, lambda copy: judge(copy, world, may_be_older=True)
    )


async def crashed(path: Path) -> tuple[dict[str, bytes], World]:
    """Make a store of which the newest is in the WAL only; return its files, as a kill leaves them, and what it has."""
    await (await build(path)).close()
    manager, _ = await reopen(path)
    for number in range(6):
        session = await manager.create_session(SessionConfig(session_type="local"), name=f"newer {number}")
        await manager.save_snapshot(session.id, random.Random(number).randbytes(5_000))
    await manager.rename_session(session.id, "renamed")
    await manager.delete_snapshot((await manager.list_snapshots(session.id)).snapshots[0].id)
    files = {name: path.with_name(name).read_bytes() for name in ("sessions.db", "sessions.db-wal")}
    world = await read(manager)
    await manager.close()
    return files, world
