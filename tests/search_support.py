"""A history that a test fills with lines."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from orbit_protocol.types import SessionConfig
from orbitd.history import database
from orbitd.history.text_blocks import Line, pack
from orbitd.manager import SessionManager


class Filled:
    """Two databases: of sessions, and of what they have shown.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "sessions.db")
        self.history = str(folder / "history.db")
        self.connection = database.open_writer(self.history)

    def session(self, name: str, *, in_trash: bool = False, **more: object) -> str:
        """Add a session; return its id."""

        async def create() -> str:
            async with SessionManager.open(self.path) as manager:
                session = await manager.create_session(SessionConfig(session_type="local"), name=name)
                if labels := more.get("labels"):
                    await manager.set_labels(session.id, labels)  # type: ignore[arg-type]
                if in_trash:
                    await manager.delete_session(session.id)
                return session.id

        return asyncio.run(create())

    def row(self, session_id: str, lines: list[Line], *, is_tail: bool = False, next_line: int = 0) -> int:
        """Add a row of text; return its number."""
        block = pack(lines, next_line)
        assert block is not None
        values = database.text_values(session_id, block, is_tail=is_tail)
        marks = ", ".join("?" * len(values))
        columns = database.TEXT_COLUMNS.removeprefix("seq, ")
        with contextlib.closing(
            self.connection.execute(f"INSERT INTO texts ({columns}) VALUES ({marks})", values)
        ) as c:
            assert c.lastrowid is not None
            return c.lastrowid

    def drop(self, seq: int) -> None:
        """Drop a row."""
        self.connection.execute("DELETE FROM texts WHERE seq = ?", (seq,))
