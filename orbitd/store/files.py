"""Small facts about database files: how they are named, made and brought to disk."""

from __future__ import annotations

import os
import urllib.parse

APPLICATION_ID = 0x4F524254
"""`ORBT`: what file(1) and we know an Orbit database by (sqlite.org/pragma.html#pragma_application_id)."""

SIDE_FILES = ("-wal", "-shm")
"""What SQLite keeps beside a database in WAL mode (sqlite.org/wal.html)."""


def file_uri(path: str, mode: str) -> str:
    """Return the URI that opens `path` with `mode`, such as `mode=ro` (sqlite.org/uri.html)."""
    return f"file:{urllib.parse.quote(path)}?{mode}"


def size(path: str) -> int:
    """Return a file's size in bytes, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0
