"""Memory and disk under random changes: whatever happens, a new start reads what the old one told."""

from __future__ import annotations

import asyncio
import random
import zlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from orbit_protocol.errors import OrbitError
from orbit_protocol.types import SessionConfig, SessionStatus, WorkspaceLayout
from orbitd.manager import SessionManager
from store_support import GRID, LOCAL, rows

EVERYTHING: list[SessionStatus] = ["active", "detached", "terminated", "archived"]


class Player:
    """Makes random calls, most of them possible."""

    def __init__(self, manager: SessionManager, seed: int) -> None:
        self.manager = manager
        self.chance = random.Random(seed)
        self.sessions: list[str] = []
        self.workspaces: list[str] = []
        self.refused = 0
        self.calls = [
            (5, self.create),
            (2, self.create_workspace),
            (4, self.set_status),
            (3, self.rename),
            (3, self.move),
            (3, self.front),
            (3, self.touch),
            (2, self.save),
            (1, self.delete),
            (1, self.delete_workspace),
            (1, self.layout),
            (1, self.archive),
            (1, self.restore),
            (1, manager.auto_save_sessions),
        ]

    async def step(self) -> None:
        call = self.chance.choices([call for _, call in self.calls], [weight for weight, _ in self.calls])[0]
        try:
            await call()
        except (OrbitError, IndexError):
            self.refused += 1

    def session(self) -> str:
        return self.chance.choice(self.sessions)

    def workspace(self) -> str:
        return self.chance.choice(self.workspaces)

    async def create(self) -> None:
        where = self.workspace() if self.workspaces and self.chance.random() < 0.5 else None
        config = SessionConfig(session_type="local", workspace_id=where)
        name = self.chance.choice([None, "a", "b", "c", str(self.chance.random())])
        self.sessions.append((await self.manager.create_session(config, name=name)).id)

    async def create_workspace(self) -> None:
        name = self.chance.choice(["one", "two", str(self.chance.random())])
        self.workspaces.append((await self.manager.create_workspace(name, GRID)).id)

    async def set_status(self) -> None:
        status: SessionStatus = self.chance.choice(["active", "detached", "terminated"])
        await self.manager.update_session_status(self.session(), status)

    async def rename(self) -> None:
        await self.manager.rename_session(self.session(), self.chance.choice([None, "a", "b", "d"]))

    async def move(self) -> None:
        await self.manager.move_session(self.session(), self.chance.choice([None, *self.workspaces]))

    async def front(self) -> None:
        session = await self.manager.get_session(self.session())
        await self.manager.set_active_session(session.workspace_id or self.workspace(), session.id)

    async def touch(self) -> None:
        await self.manager.touch_session(self.session())

    async def save(self) -> None:
        await self.manager.save_snapshot(self.session(), self.chance.randbytes(100))

    async def delete(self) -> None:
        await self.manager.delete_session(self.session())

    async def delete_workspace(self) -> None:
        await self.manager.delete_workspace(self.workspace(), delete_sessions=self.chance.random() < 0.3)

    async def layout(self) -> None:
        layout = WorkspaceLayout(layout_type="x", config=self.chance.random())
        await self.manager.update_workspace_layout(self.workspace(), layout)

    async def archive(self) -> None:
        await self.manager.archive_sessions(datetime.now(UTC))

    async def restore(self) -> None:
        await self.manager.restore_archived_session(self.session())


@pytest.mark.parametrize("seed", range(12))
async def test_memory_and_disk_tell_the_same(path: Path, seed: int) -> None:
    """After random changes, several at once, every list is what a second opening reads, and all rules hold."""
    async with SessionManager.open(path) as manager:
        player = Player(manager, seed)
        for _ in range(60):
            await asyncio.gather(*(player.step() for _ in range(seed % 4 + 1)))
            assert wrong_checksums(path) == []
        assert player.refused < 50 * (seed % 4 + 1)
        await manager.auto_save_sessions()
        async with SessionManager.open(path) as second:
            for status in (None, EVERYTHING):
                assert await manager.list_sessions(status=status) == await second.list_sessions(status=status)
            assert await manager.list_workspaces() == await second.list_workspaces()
            assert (await second.check()).ok
        for session in (await manager.list_sessions(status=EVERYTHING)).sessions:
            assert session.config.workspace_id == session.workspace_id
    assert rows(path, _BROKEN_RULES) == []


def wrong_checksums(path: Path) -> list[tuple[str, int]]:
    """Return the rows whose checksum is not that of their other columns, as it is computed here."""
    wrong = []
    for table in ("sessions", "archived_sessions", "workspaces"):
        for *values, checksum, labels, deleted_at in rows(path, _AS_COVERED[table]):
            later = [labels, deleted_at] if deleted_at is not None else [labels] if labels is not None else []
            if checksum != zlib.crc32(msgspec.msgpack.encode([*values, *later])):
                wrong.append((table, values[0]))
    for table in ("session_snapshots", "archived_snapshots"):
        for *values, checksum, _, _, _ in rows(path, f"SELECT * FROM {table}"):
            if checksum[16:] != zlib.crc32(msgspec.msgpack.encode([*values, checksum[:16]])).to_bytes(4, "big"):
                wrong.append((table, values[0]))
    return wrong


_AS_COVERED = {
    "sessions": "SELECT * FROM sessions",
    "archived_sessions": "SELECT * FROM archived_sessions",
    "workspaces": "SELECT *, NULL, NULL FROM workspaces",
}

_BROKEN_RULES = """
    SELECT 'a session in front is not in its workspace', workspaces.id FROM workspaces
        JOIN sessions ON sessions.id = active_session_id WHERE sessions.workspace_id IS NOT workspaces.id
    UNION ALL SELECT 'config says another workspace', id FROM sessions
        WHERE config ->> 'workspace_id' IS NOT workspace_id
    UNION ALL SELECT 'a name is used twice', name FROM sessions
        WHERE status != 'terminated' AND deleted_at IS NULL AND name IS NOT NULL GROUP BY name HAVING count(*) > 1
"""


async def test_limits_of_the_model(manager: SessionManager) -> None:
    """The player does make changes: with one seed, there are sessions of every status at the end."""
    player = Player(manager, 3)
    for _ in range(200):
        await player.step()
    stats = await manager.get_stats()
    assert min(stats.active_sessions, stats.detached_sessions, stats.archived_sessions, stats.total_workspaces) > 0
    assert await manager.create_session(LOCAL)
