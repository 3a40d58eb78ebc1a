"""What the tests of the store share: short names for common values, and a look behind the manager."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from protocol.types import SessionConfig, WorkspaceLayout

LOCAL = SessionConfig(session_type="local")
GRID = WorkspaceLayout(layout_type="grid", config={"panes": [1, 2]})
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def rows(path: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Return what is on disk, as another program sees it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, parameters).fetchall()


def files(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder with its bytes."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
