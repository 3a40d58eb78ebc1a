"""A database that may be damaged: inspect it without a change, set it aside, find a good backup.

A WAL that is not empty is the mark of an unclean stop: the last connection to close
checkpoints the WAL and deletes it (sqlite.org/wal.html#the_wal_file). The database is then
checked before anything writes to it; a small one at every start. A damaged one is renamed,
never deleted, and while it lies there no database is made in its place unless the caller asks
for one.
"""

from __future__ import annotations

import contextlib
import glob
import math
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator

from orbit_os.files import sync
from orbit_os.shell import typed
from orbit_protocol.errors import StorageCorrupt
from orbit_protocol.paths import backups_folder
from orbitd.store import schema
from orbitd.store.backup import copy, wal
from orbitd.store.damage import verify_rows
from orbitd.store.files import (
    APPLICATION_ID,
    FULL_SYNC,
    HEADER_MAGIC,
    SIDE_FILES,
    file_uri,
    free_name,
    open_untouched,
    read_header,
    size,
)
from orbitd.store.rows import now
from orbitd.store.schema import Damage

FULL_CHECK_BYTES = 8 * 1024 * 1024
"""Up to this size a database is checked at every start, indexes included (measured: 1.2 ms a MiB of screens)."""

_SET_ASIDE = ".corrupt-"
_BEFORE_REINDEX = ".before-reindex-"
_CHUNK_BYTES = 1 << 20
_DISK_HINT = "The disk fails: see the system's log (dmesg). Nothing was changed; start again when it can be read."
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_ENVIRONMENT = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT),
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_NOLFS),
        *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
    }
)
"""Primary codes of errors that no content of a database causes."""

_VERSION_BYTES = frozenset({1, 2})
"""Of the header, 18 and 19: a rollback journal or a WAL (sqlite.org/fileformat.html, 1.3.3)."""

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_MAX_CANDIDATES = 32
"""How many files are checked as backups, newest first."""


class Unexpected(Exception):
    """The database is sound, and could not be opened nevertheless."""


def is_absent(path: str) -> bool:
    """Return whether there is no database: no file, or an empty one (of one byte, to SQLite) without a WAL."""
    return size(path) <= 1 and size(path + "-wal") == 0


@contextlib.contextmanager
def opened_untouched(path: str) -> Iterator[sqlite3.Connection]:
    """Open an existing database to read, without changing a byte; the body reads its header and schema.

    Raises:
        Damage: SQLite cannot read them.
    """
    unclean = size(path + "-wal") > 0
    if not unclean:
        _check_header(path)
    # Not `immutable` beside a journal: another program may be writing, and is waited for.
    in_use = unclean or has_journal(path)
    with contextlib.closing(open_untouched(path, read_wal=in_use)) as connection:
        try:
            yield connection
        except sqlite3.Error as error:
            if is_environment(error) or _primary_code(error) in _DAMAGE:
                raise
            raise Damage(str(error)) from error
        except UnicodeDecodeError as error:  # of an error's text, which quotes the schema
            raise Damage("its schema is not UTF-8") from error


def roll_back(path: str) -> None:
    """Have SQLite roll back what another program, killed without WAL mode, has left half written.

    Until then the database looks damaged to a reader that ignores its journal
    (sqlite.org/lockingv3.html#dealing_with_hot_journals).
    """
    if has_journal(path):
        uri = file_uri(path, "mode=rw")
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.executescript(FULL_SYNC)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def has_journal(path: str) -> bool:
    """Return whether a rollback journal lies beside a database (sqlite.org/fileformat.html#the_rollback_journal)."""
    try:
        with open(path + "-journal", "rb") as file:
            return file.read(len(_JOURNAL_MAGIC)) == _JOURNAL_MAGIC
    except OSError:
        return False


def has_damaged_indexes(connection: sqlite3.Connection, path: str) -> bool:
    """Check a database: after an unclean stop, and a small one always. Return whether indexes need to be rebuilt.

    Raises:
        Damage: Its WAL is damaged.
        sqlite3.DatabaseError: Its structure is.
    """
    unclean = size(path + "-wal") > 0
    small = size(path) <= FULL_CHECK_BYTES
    if not unclean and not small:
        return False
    findings = _check(connection, "integrity_check" if small else "quick_check")
    log = wal.read_log(path + "-wal", trusted=wal.frames_in_use(path)) if unclean else None
    if log is not None and (reason := log.damage()) is not None:
        raise Damage(reason)
    if not findings.indexes:
        return False
    # An index that does not fit a damaged row is the better one of the two: it has the value that the row had.
    return not verify_rows(connection).damaged


def reindex(connection: sqlite3.Connection, path: str) -> str:
    """Build the indexes of a database again, which hold nothing that its tables do not; return the copy made before.

    Raises:
        Damage: They cannot be built.
        OSError: The copy cannot be written.
    """
    kept = free_name(path + _BEFORE_REINDEX, now())
    for suffix in ("", "-wal"):
        if size(path + suffix) > 0:
            shutil.copyfile(path + suffix, kept + suffix)
            sync(kept + suffix)
    try:
        connection.execute("REINDEX")
    except sqlite3.IntegrityError as error:
        raise Damage(f"its indexes cannot be built again: {error}") from error
    if _check(connection, "integrity_check").indexes:
        raise Damage("its indexes are damaged still after they were built again")
    return kept


def is_environment(error: sqlite3.Error) -> bool:
    """Return whether an error comes from the disk, from permissions or from other processes."""
    return _primary_code(error) in _ENVIRONMENT


def _primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary code; None for an error of the sqlite3 module itself, as for text that is not UTF-8."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


@contextlib.contextmanager
def set_aside_if_damaged(path: str) -> Iterator[None]:
    """Set the database aside if the body finds that it is damaged; the body closes its connections.

    Raises:
        StorageCorrupt: It was damaged, or the disk cannot be read.
        Unexpected: SQLite's error means neither.
    """
    try:
        yield
    except Damage as error:
        _read_whole(path)
        raise set_aside(path, str(error)) from error
    except sqlite3.Error as error:
        if is_environment(error):
            raise
        # A failing disk can look like damage: SQLITE_IOERR_CORRUPTFS, SQLite's code for a read(2) that
        # fails with EIO, comes out of a statement as SQLITE_CORRUPT (vdbe.c). Renaming the database
        # would not help then, and it may be sound.
        _read_whole(path)
        if not _is_sound(path):
            raise set_aside(path, str(error)) from error
        if _primary_code(error) not in _DAMAGE:
            # The text of an error of the sqlite3 module itself may quote a row, and this one is logged.
            raise Unexpected(type(error).__name__ if _primary_code(error) is None else str(error)) from error
        raise StorageCorrupt(f"The database {path} could not be read: {error}", hint=_DISK_HINT) from error


def _read_whole(path: str) -> None:
    """Read a database and its WAL without SQLite. Raises: StorageCorrupt, if the disk cannot be read."""
    for each in (path, path + "-wal"):
        try:
            descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            try:
                offset = 0
                while chunk := os.pread(descriptor, _CHUNK_BYTES, offset):
                    offset += len(chunk)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageCorrupt(f"{each} cannot be read: {error.strerror}", hint=_DISK_HINT) from error


def _is_sound(path: str) -> bool:
    try:
        with contextlib.closing(open_untouched(path)) as connection:
            _check(connection, "integrity_check")
    except sqlite3.Error:
        return False
    return True


def set_aside(path: str, reason: str) -> StorageCorrupt:
    """Rename a damaged database with its WAL, and return the error that names its new path and the next step."""
    target = _set_aside_without_wal(path) or free_name(path + _SET_ASIDE, now())
    # The database first, then its WAL, as one of the two can be cut off by a kill. A WAL that is
    # left alone is found by the next start (`open_writer`, "its file is gone"). In the other order
    # the next start would find a database without its WAL, which is valid, but without every commit
    # since the last checkpoint.
    for suffix in ("", *SIDE_FILES):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, target + suffix)
    sync(os.path.dirname(path))
    return _damaged(path, _main_file(target), reason)


def list_set_aside(path: str) -> list[str]:
    """Return the damaged databases that were set aside here, the newest last; a WAL where only that was left."""
    found = [name for name in glob.glob(glob.escape(path + _SET_ASIDE) + "*") if stat.S_ISREG(os.lstat(name).st_mode)]
    # By ctime, which the rename has set; mtime is still that of the last write.
    return sorted((name for name in found if name == _main_file(name)), key=os.path.getctime)


def _set_aside_without_wal(path: str) -> str | None:
    """Return the database that the WAL at this path belongs to, if a kill came between the two renames, else None."""
    if os.path.lexists(path) or not (found := list_set_aside(path)):
        return None
    newest = found[-1]
    if newest.endswith("-wal") or os.path.lexists(newest + "-wal"):
        return None
    # A WAL that was written after the rename is of a later database, which somebody deleted.
    return newest if os.stat(path + "-wal").st_mtime <= os.stat(newest).st_ctime else None


def _main_file(name: str) -> str:
    """Return the database of a set of files that were set aside together; its WAL, where only that was left."""
    target = name
    for suffix in SIDE_FILES:
        target = target.removesuffix(suffix)
    return target if os.path.exists(target) else target + "-wal"


def refuse_after_set_aside(path: str) -> None:
    """Raise StorageCorrupt if a damaged database was set aside at this path."""
    if found := list_set_aside(path):
        raise _damaged(path, found[-1], "it was set aside at an earlier start")


def newest_good_backup(path: str, *, made_before: float = math.inf) -> str | None:
    """Return the newest intact copy of an Orbit database beside `path` or in `backups`, or None.

    Args:
        path: The database.
        made_before: Only files that were written before this time (seconds since the epoch) are considered.
    """
    folder = os.path.dirname(path)
    own = {path, *(path + suffix for suffix in SIDE_FILES)}
    names = [name for each in (folder, backups_folder(path)) for name in glob.glob(f"{glob.escape(each)}/*")]
    ours = (_SET_ASIDE, _BEFORE_REINDEX)
    candidates = [name for name in names if name not in own and not any(one in name for one in ours)]
    candidates = [name for name in candidates if read_header(name).startswith(HEADER_MAGIC)]
    candidates = [name for name in candidates if os.path.getmtime(name) <= made_before]
    candidates.sort(key=os.path.getmtime, reverse=True)
    checked = 0
    for candidate in candidates:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(open_untouched(candidate, read_wal=False)) as connection,
        ):
            # Histories lie beside the database and beside its backups: they may be many, and a check of one is slow.
            if not schema.has_sessions(connection) or schema.inspect(connection).application_id != APPLICATION_ID:
                continue
            checked += 1
            if connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                return candidate
        if checked == _MAX_CANDIDATES:
            break
    return None


def _damaged(path: str, aside: str, reason: str) -> StorageCorrupt:
    good = newest_good_backup(path)
    if good is None:
        hint = f"There is no backup. To begin with an empty store, move {aside}* elsewhere."
    else:
        hint = f"To go back to the newest good backup: `{typed('orbitctl maintenance restore', good)}`."
    message = f"The database {path} is damaged ({reason}); it lies in {aside}, unchanged"
    return StorageCorrupt(message, hint=hint, data={"set_aside": aside, "backup": good})


def _check(connection: sqlite3.Connection, pragma: str) -> copy.Findings:
    """Check a database. Raises: sqlite3.DatabaseError if more is damaged than rows and indexes."""
    findings = copy.check(connection, pragma)
    structure = findings.structure
    # A record that cannot be decoded is left out by itself when rows are read.
    if structure and not (structure == [copy.CANNOT_DECODE] and verify_rows(connection).damaged):
        # The PRAGMA returns what it finds as rows; raised, it is handled as damage that a query meets.
        error = sqlite3.DatabaseError(structure[0])
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    return findings


def _check_header(path: str) -> None:
    """Raise Damage if the header of a database without a WAL would have SQLite open it read-only."""
    header = read_header(path)
    if header.startswith(HEADER_MAGIC) and not _VERSION_BYTES.issuperset(header[18:20]):
        raise Damage("its header is damaged")
