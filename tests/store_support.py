"""What the tests of the store share: short names for common values, and a look behind the manager."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

from orbit_protocol.types import SessionConfig, WorkspaceLayout
from orbitd.store.backup.wal import read_log

LOCAL = SessionConfig(session_type="local")
GRID = WorkspaceLayout(layout_type="grid", config={"panes": [1, 2]})
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def rows(path: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Return what is on disk, as another program sees it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, parameters).fetchall()


def logged_pages(path: Path) -> list[int]:
    """Return the number of the page in each frame of a database's log, while it is open and not checkpointed."""
    log = read_log(f"{path}-wal")
    return [] if log is None else [frame.number for frame in log.frames]


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return when each file of a folder was written, and its bytes; but for shared memory, which readers mark."""
    entries = (entry for entry in folder.iterdir() if not entry.name.endswith("-shm"))
    return {entry.name: (entry.stat().st_mtime_ns, entry.read_bytes()) for entry in entries}


def names(*folders: Path) -> list[str]:
    """Return the names of what is in some folders."""
    return sorted(entry.name for folder in folders for entry in folder.iterdir())


def size(path: Path) -> int:
    """Return the size of a file in bytes."""
    return path.stat().st_size


def mode(path: Path) -> int:
    """Return the permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


def read(path: str | Path) -> bytes:
    """Return the bytes of a file."""
    return Path(path).read_bytes()


def exists(path: str | Path) -> bool:
    """Tell whether there is a file or folder."""
    return Path(path).exists()
