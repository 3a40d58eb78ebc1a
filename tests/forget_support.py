"""A secret in all places where a program can put it, and the looking for it in what is on the disk."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import zstandard

from film_support import history_of
from history_sessions import Printing
from support import DaemonProcess

SECRET = b"Vogelbeere-9f27"
OTHER = b"Hagebutte-31c8"


def secrets(word: bytes) -> bytes:
    """Return a word in all places where a program can put it: screen, title, folder, commands, notifications."""
    return b"".join(
        [
            word + b" printed\r\n",
            b"\x1b]2;" + word + b" title\x07",
            b"\x1b]133;A\x07$ \x1b]133;B\x07" + word + b" typed\r\n\x1b]133;C\x07" + word + b"\r\n\x1b]133;D;1\x07",
            b"\x1b]633;E;" + word + b" command\x07\x1b]633;C\x07\x1b]633;D;0\x07",
            b"\x1b]9;" + word + b" notified\x07",
            b"\x1b[?1049h\x1b[H" + word + b" alternate\x1b[?1049l",
        ]
    )


def holders(home: Path, word: bytes) -> set[str]:
    """Return the files below a folder that hold a word, plain or inside of what is compressed."""
    found = set()
    for folder, _, names in os.walk(home):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and word in path.read_bytes():
                found.add(str(path))
    return found


def stored(daemon: DaemonProcess, word: bytes) -> set[str]:
    """Return the places where a word is found once databases are unpacked: rows of them, decompressed."""
    found = set()
    for path in (daemon.database_path, history_of(daemon.database_path)):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in connection.execute(f"SELECT * FROM {table.decode()}"):
                    for value in row:
                        data = value if isinstance(value, bytes) else str(value).encode()
                        with contextlib.suppress(zstandard.ZstdError):
                            data += zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 26)
                        if word in data:
                            found.add(f"{path.name}: {table.decode()}")
    return found


def fill(session: Printing, word: bytes) -> None:
    """Have a word in the history, in snapshots, rewrites of them, events, and the pieces kept aside."""
    for number in range(3):
        session.print(secrets(word) + b"".join(b"line %d of %s\r\n" % (each, word) for each in range(60)))
        session.print(b"save %d" % number)
        session.save()


def assert_forgotten(daemon: DaemonProcess, word: bytes, named: list[str]) -> None:
    """Fail unless a word is in the named files only, while the daemon runs, stopped, and after a kill."""
    for end in (lambda: None, daemon.stop, daemon.start, daemon.kill):
        end()
        assert holders(daemon.home, word) <= set(named)
        assert stored(daemon, word) == set()
