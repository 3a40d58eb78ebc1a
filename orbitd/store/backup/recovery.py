"""What to do with a database that may be damaged: look without touching, set aside, find a backup.

A leftover WAL that is not empty is the mark of an unclean stop (the last connection to
close empties and removes it, sqlite.org/wal.html#the_wal_file); then the file is checked
before anything writes to it. A damaged database is renamed, never deleted, and while it
lies there no empty store takes its place unasked.
"""

from __future__ import annotations

import contextlib
import glob
import math
import os
import sqlite3
import stat
from collections.abc import Iterator

from msgspec import Struct

from orbit_os.files import sync
from orbit_protocol.errors import StorageCorrupt
from orbitd.store.clock import file_stamp, now
from orbitd.store.files import APPLICATION_ID, SIDE_FILES, file_uri, size

_SET_ASIDE = ".corrupt-"
_CHUNK_BYTES = 1 << 20
_DISK = "The disk fails: see the system's log (dmesg). Nothing was changed; start again when it can be read."
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\x00"
_MOST_CANDIDATES = 32
"""How many files are tried as backups, newest first."""


class Inspection(Struct, frozen=True, kw_only=True):
    """What a database says about itself."""

    application_id: int
    user_version: int
    is_empty: bool


def is_absent(path: str) -> bool:
    """Tell whether there is no database yet: no file, or an empty one without a WAL."""
    return size(path) == 0 and size(path + "-wal") == 0


def inspect(path: str) -> Inspection:
    """Read a database's marks without changing a byte, and check it after an unclean stop."""
    unclean = size(path + "-wal") > 0
    with contextlib.closing(_open_untouched(path, unclean=unclean)) as connection:
        if unclean:
            _quick_check(connection)
        return _marks(connection)


@contextlib.contextmanager
def setting_aside(path: str) -> Iterator[None]:
    """Set the database aside if the body finds it damaged; the body closes what it opened.

    Raises:
        StorageCorrupt: It was.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _DAMAGE:
            raise
        if _is_sound(path):
            raise StorageCorrupt(f"The database {path} could not be read: {error}", hint=_DISK) from error
        raise set_aside(path, str(error)) from error


def _is_sound(path: str) -> bool:
    """Look again, without SQLite first: it reports an I/O error as damage (SQLITE_IOERR_CORRUPTFS).

    Raises:
        StorageCorrupt: The disk cannot be read; whether the database is damaged, nobody knows.
    """
    for each in (path, path + "-wal"):
        try:
            _read_through(each)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageCorrupt(f"{each} cannot be read: {error.strerror}", hint=_DISK) from error
    try:
        with contextlib.closing(_open_untouched(path, unclean=size(path + "-wal") > 0)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            return bool(verdict == "ok")
    except sqlite3.DatabaseError:
        return False


def _read_through(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        place = 0
        while chunk := os.pread(descriptor, _CHUNK_BYTES, place):
            place += len(chunk)
    finally:
        os.close(descriptor)


def set_aside(path: str, reason: str) -> StorageCorrupt:
    """Rename a damaged database with its WAL, and return the error that tells where it is and what can be done.

    The WAL comes second: left alone for a moment it is found again (`is_absent`), but a
    database without its WAL would pass for an older, whole one.
    """
    target = f"{path}{_SET_ASIDE}{file_stamp(now())}"
    while os.path.exists(target):
        target += "+"
    for suffix in ("", *SIDE_FILES):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, target + suffix)
    sync(os.path.dirname(path))
    return _error(path, _main_part(target), reason)


def found_aside(path: str) -> list[str]:
    """Return the damaged databases that were set aside here, the newest last; the WAL where only that was left."""
    found = glob.glob(glob.escape(path + _SET_ASIDE) + "*")
    return sorted((name for name in found if name == _main_part(name)), key=os.path.getmtime)


def _main_part(name: str) -> str:
    """Return the file that stands for all that was set aside with it."""
    target = name.removesuffix("-wal").removesuffix("-shm")
    return target if os.path.exists(target) else target + "-wal"


def refuse_after_set_aside(path: str) -> None:
    """Raise StorageCorrupt if the database that belongs here was set aside and nothing has taken its place."""
    if found := found_aside(path):
        raise _error(path, found[-1], "it was set aside at an earlier start")


def newest_good_backup(path: str, *, made_before: float = math.inf) -> str | None:
    """Return the newest intact copy of an Orbit database beside `path` or in `backups`, if there is one.

    Args:
        path: The database.
        made_before: Only what was written before this moment (seconds since the epoch) counts.
    """
    folder = os.path.dirname(path)
    own = {path, *(path + suffix for suffix in SIDE_FILES)}
    names = [name for each in (folder, os.path.join(folder, "backups")) for name in glob.glob(f"{glob.escape(each)}/*")]
    candidates = [name for name in names if name not in own and _SET_ASIDE not in name and _has_header(name)]
    candidates = [name for name in candidates if os.path.getmtime(name) <= made_before]
    candidates.sort(key=os.path.getmtime, reverse=True)
    for candidate in candidates[:_MOST_CANDIDATES]:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_open_untouched(candidate)) as connection:
            _quick_check(connection)
            if _marks(connection).application_id == APPLICATION_ID:
                return candidate
    return None


def _error(path: str, aside: str, reason: str) -> StorageCorrupt:
    good = newest_good_backup(path)
    if good is None:
        hint = f"There is no backup. To begin with an empty store, move {aside}* elsewhere."
    else:
        hint = f"To go back to the newest good backup: `orbitctl maintenance restore {good}`."
    message = f"The database {path} is damaged ({reason}); it lies in {aside}, unchanged"
    return StorageCorrupt(message, hint=hint, data={"set_aside": aside, "backup": good})


def _open_untouched(path: str, *, unclean: bool = False) -> sqlite3.Connection:
    """Open to look only. `immutable` makes no WAL or shm file; a WAL that is there must be read, though."""
    return sqlite3.connect(file_uri(path, "mode=ro" if unclean else "mode=ro&immutable=1"), uri=True)


def _quick_check(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError unless the database is sound."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _marks(connection: sqlite3.Connection) -> Inspection:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (user_version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return Inspection(application_id=application_id, user_version=user_version, is_empty=tables == 0)


def _has_header(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return file.read(_HEADER_BYTES).startswith(_MAGIC)
    except OSError:
        return False
