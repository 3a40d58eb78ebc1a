"""history.db: what a kill leaves while it is made, and what a row may have a reader do."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
import zstandard

from orbitd.history import database, text_blocks
from orbitd.history.text_blocks import Run
from orbitd.store.files import APPLICATION_ID


def marks(path: Path) -> tuple[int, int, int]:
    """Return what a database says of itself: whose it is, its version, and how it gives pages back."""
    with contextlib.closing(database.open_writer(str(path))) as connection:
        names = ("application_id", "user_version", "auto_vacuum")
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
    return found[0], found[1], found[2]


def test_a_database_that_was_killed_while_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far it came, the next start makes it what it would have been: a restore knows it as ours."""
    whole = marks(tmp_path / "history.db")
    assert whole == (APPLICATION_ID, database.VERSION, 2)

    class Killed(Exception):
        pass

    class Connection(sqlite3.Connection):
        left = 0

        def executescript(self, script: str, /) -> sqlite3.Cursor:
            if Connection.left == 0:
                raise Killed
            Connection.left -= 1
            return super().executescript(script)

    connect = sqlite3.connect
    for count in range(6):
        path = tmp_path / f"{count}.db"
        Connection.left = count
        with monkeypatch.context() as patched:
            patched.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, factory=Connection, **more))
            with contextlib.suppress(Killed):
                database.open_writer(str(path)).close()
        assert marks(path) == whole, count


@pytest.mark.parametrize("length", [1 << 20, 1 << 33])
def test_what_says_that_it_is_long_takes_no_memory(length: int) -> None:
    """A frame says how long it is: one that is longer than may be is refused before there is room for it."""
    frame = b"\x28\xb5\x2f\xfd\xe0" + length.to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(zstandard.ZstdError):
        text_blocks.decompressed(frame, (1 << 20) - 1)


def test_runs_that_count_more_lines_than_there_are() -> None:
    """They are found to be damaged before a list of them is made."""
    block = text_blocks.pack_text(b"one\n", [Run(1 << 50, 0, 1)], 0)
    assert block is not None
    with pytest.raises(ValueError, match="a block of 1 lines"):
        text_blocks.unpack(block.text, block.runs)
