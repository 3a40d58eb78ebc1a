"""Copies of a database: making one while the database is in use, checking one, comparing rows.

The functions run in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Sequence

from msgspec import Struct

from orbit_os.files import PRIVATE_FILE, make_private_folders, set_mode, sync
from orbit_protocol.errors import InvalidParams, OrbitError, StorageCorrupt
from orbit_protocol.paths import backups_folder
from orbitd.store.errors import translate_os, translated
from orbitd.store.events import EPOCH_KEY
from orbitd.store.files import (
    APPLICATION_ID,
    AUTOMATIC_BACKUP,
    FULL_SYNC,
    HEADER_MAGIC,
    SIDE_FILES,
    TEMPORARY_PREFIX,
    open_untouched,
    read_header,
    size,
)
from orbitd.store.rows import is_corrupt, lenient_text

NO_ROWS = b""
"""The fingerprint of a store without a row."""

_STEP_PAGES = 4_096
"""Pages (16 MiB) that are copied in one step; sqlite3 releases the GIL during each."""

_STEPS_BETWEEN_LOOKS = 100_000
"""Instructions of SQLite's virtual machine, some milliseconds, between two looks at whether a copy is still wanted."""

_ROWS_AT_ONCE = 1_000

_MAX_FINDINGS = 10_000

# What SQLite's checks say of one row and of one index entry (pragma.c, "integrity_check"); all else concerns the
# structure. A row whose values do not fit the schema is left out when rows are read, and a copy with such a row is as
# good as the database is, and the only one that there will be until the row is repaired.
_ROW_FINDING = re.compile(r"CHECK constraint failed in |\S+ value in ")
_INDEX_FINDING = re.compile(
    r"row \d+ missing from index |wrong # of entries in index |non-unique entry in index |"
    r"rowid not at end-of-record for row \d+ of index |row \d+ values differ from index "
)
CANNOT_DECODE = "database disk image is malformed"
"""Where this is the only finding, the trees can be walked, as they are checked first, and a record is meant."""

_IGNORED_TABLES = frozenset({"meta", "events"})
"""Tables whose rows do not count for a fingerprint: times of maintenance, and what is told of other rows."""


def make_own_folder(path: str, database: str) -> None:
    """Make the folder of backups beside a database, if `path` is in it and it is missing. Raises: StorageError."""
    folder, own = os.path.dirname(path), backups_folder(database)
    if os.path.basename(folder) == os.path.basename(own) and _is_same(os.path.dirname(folder), os.path.dirname(own)):
        try:
            make_private_folders(folder)
        except OSError as error:
            raise translate_os(error, f"The folder {folder} cannot be made") from error


def check_target(path: str, database: str, reserved: Sequence[str], *, automatic: bool) -> str:
    """Refuse a path where no backup may be written, whatever way leads there.

    Only an earlier backup, or an empty file, is replaced; and no file of Orbit's own is, nor is its name taken.

    Args:
        path: As a client sent it.
        database: The database, without a link in its path.
        reserved: More files of Orbit's own, and folders that only have such files; they need not exist.
        automatic: It is the daemon's own backup.

    Returns:
        The path without links.

    Raises:
        InvalidParams: It is refused.
    """
    target = _place_of(path, database, reserved, refuses_ours=not automatic)
    if size(target) > 0 and not _is_backup(target):
        raise InvalidParams(f"`path` is a file that is no backup of Orbit's, and is not replaced: {path}", hint=_CHOOSE)
    return target


def check_new_file(path: str, database: str, reserved: Sequence[str]) -> str:
    """Refuse a path where no new file may be written: one that is Orbit's own, or a file that has something.

    Args and result are as those of `check_target`. Raises: InvalidParams.
    """
    target = _place_of(path, database, reserved, refuses_ours=True)
    if size(target) > 0:
        raise InvalidParams(f"`path` is a file that is not empty, and is not replaced: {path}", hint=_CHOOSE)
    return target


def _place_of(path: str, database: str, reserved: Sequence[str], *, refuses_ours: bool) -> str:
    """Return a path without links. Raises: InvalidParams, where it names no file, or one of Orbit's own."""
    # Symbolic links are followed first: the copy is renamed onto the file that they lead to.
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isabs(path) or path.endswith("/") or os.path.isdir(target) or not os.path.isdir(folder):
        raise InvalidParams(f"`path` must name a file in a folder that exists, from the root on; {path} does not")
    # A link of ours, to an agent, is none to follow.
    named = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    if refuses_ours and any(_is_ours(each, database, reserved) for each in (target, named)):
        raise InvalidParams(f"`path` is a file of Orbit's own, and is not replaced: {path}", hint=_CHOOSE)
    if os.path.exists(target) and not os.path.isfile(target):
        raise InvalidParams(f"`path` is no file, and is not replaced: {path}", hint=_CHOOSE)
    return target


_CHOOSE = "Choose another name, or move the file away."

Report = Callable[[str, int, int], None]

_BESIDE = re.compile(
    r"((-wal|-shm|-journal)(\.aside-.*)?|\.lock|\.keeper.*|\.restoring"
    r"|\.(corrupt|before-restore|before-reindex|rescued|backup-v\d+)-.*)?"
)
"""What follows the database's name in the names of the files beside it."""


def _is_ours(path: str, database: str, reserved: Sequence[str]) -> bool:
    """Return whether a path, its folder without links, is one of Orbit's own, which need not exist."""
    folder, name = os.path.split(path)
    beside = [database + suffix for suffix in ("", ".lock", ".keeper", ".keeper.lock", ".keeper.pid", *SIDE_FILES)]
    return (
        name.startswith(TEMPORARY_PREFIX)
        or (_is_same(folder, os.path.dirname(database)) and _is_name_beside(name, os.path.basename(database)))
        or (_is_same(folder, backups_folder(database)) and AUTOMATIC_BACKUP.fullmatch(name) is not None)
        or any(_is_at_or_in(path, each) for each in (*beside, *reserved))
    )


def _is_name_beside(name: str, database: str) -> bool:
    """Return whether a name is of the database or one beside it, on file systems that ignore case too."""
    name, database = name.casefold(), database.casefold()
    return name.startswith(database) and _BESIDE.fullmatch(name[len(database) :]) is not None


def _is_same(one: str, other: str) -> bool:
    """Return whether two paths lead to one file or folder, by hard links and mounts too; False if one is missing."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _is_at_or_in(target: str, own: str) -> bool:
    """Return whether a path without links is a file of ours, has its name, or lies in a folder of ours."""
    folder, name = os.path.split(own)
    if _is_same(target, own):
        return True
    if os.path.basename(target).casefold() == name.casefold() and _is_same(os.path.dirname(target), folder):
        return True
    while target != (target := os.path.dirname(target)):
        if _is_same(target, own):
            return True
    return False


def _is_backup(path: str) -> bool:
    """Return whether a file is an Orbit database that no daemon has."""
    if any(os.path.lexists(path + suffix) for suffix in (".lock", *SIDE_FILES)):
        return False
    header = read_header(path)
    return header.startswith(HEADER_MAGIC) and header[68:72] == APPLICATION_ID.to_bytes(4, "big")


def write(source: sqlite3.Connection, path: str, report: Report | None = None) -> int:
    """Copy what `source` sees into the file `path`, replacing it.

    Args:
        source: A connection without an open transaction.
        path: The copy, mode 0600. It appears or is replaced when it is complete, checked and on disk.
        report: Called with "pages", how many are copied, and of how many; now and then until the copy is put in place.
            What it raises ends the copy.

    Returns:
        The size of the copy in bytes.

    Raises:
        StorageFull: There is no room for it.
        StorageReadOnly: The folder cannot be written.
        StorageCorrupt: The copy is damaged; nothing was replaced.
    """
    temporary = os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + secrets.token_hex(8))
    pages = (0, 0)

    def look(done: int, total: int) -> None:
        nonlocal pages
        pages = (done, total)
        if report is not None:
            report("pages", done, total)

    try:
        # Made with its mode before SQLite opens it: SQLite would make it with 0644 and the umask.
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
        try:
            set_mode(temporary, PRIVATE_FILE)
            with translated(temporary):
                _copy(source, temporary, look)
            # rename(2) is atomic, but only for names: the contents have to be on disk before, and the
            # folder has to be synced after, or a power cut could leave the name without the contents.
            sync(temporary)
            length = os.stat(temporary).st_size
            look(*pages)
            os.replace(temporary, path)
            sync(os.path.dirname(path))
        except BaseException:
            for suffix in ("", "-journal", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary + suffix)
            raise
    except OSError as error:
        raise translate_os(error, f"The backup {path} cannot be written") from error
    return length


def _copy(source: sqlite3.Connection, temporary: str, look: Callable[[int, int], None]) -> None:
    pages = 0

    def on_step(_: int, remaining: int, total: int) -> None:
        nonlocal pages
        pages = total
        look(total - remaining, total)

    def is_over() -> bool:
        try:
            look(pages, pages)
        except OrbitError as error:
            raised.append(error)
        return bool(raised)

    raised: list[OrbitError] = []

    with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as target:
        target.executescript(FULL_SYNC)
        # The backup API starts over when another connection commits between two steps
        # (sqlite.org/backup.html), on a busy store without end. In a read transaction of its own the
        # source sees one moment throughout, and the writer goes on: WAL readers do not block it, they
        # only keep a checkpoint from resetting the WAL, which grows meanwhile.
        source.execute("BEGIN")
        try:
            # BEGIN is deferred: the transaction starts with the first read (sqlite.org/lang_transaction.html).
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            source.backup(target, pages=_STEP_PAGES, progress=on_step)
        finally:
            source.execute("ROLLBACK")
        # The copy took over WAL mode with the header; without it, it is one file, which can be read
        # where no -shm file can be made beside it.
        target.execute("PRAGMA journal_mode = DELETE")
        # Whatever way it comes into the database's place: what has happened since is no part of it, and the numbers of
        # those events will be given again.
        target.execute("PRAGMA journal_mode = MEMORY")  # not on disk, and not of the file
        with contextlib.suppress(sqlite3.Error):  # of a database in any state
            target.execute("DELETE FROM meta WHERE key = ?", (EPOCH_KEY,))
        target.set_progress_handler(is_over, _STEPS_BETWEEN_LOOKS)
        try:
            verdict = structural_damage(target, "quick_check")
        except sqlite3.OperationalError:
            if raised:
                raise raised[0] from None
            raise
    if verdict is not None:
        raise StorageCorrupt(f"The backup is not sound: {verdict}")


class Findings(Struct, frozen=True, kw_only=True):
    """What SQLite's check says of a database beside single rows: of its indexes, and of its structure."""

    indexes: list[str]
    structure: list[str]


def check(connection: sqlite3.Connection, pragma: str) -> Findings:
    """Check a database with `quick_check` or `integrity_check`."""
    connection.text_factory = lenient_text
    rows = connection.execute(f"PRAGMA {pragma}({_MAX_FINDINGS})").fetchall()
    # The findings of one database follow a heading, in one text with it.
    lines = [line for (text,) in rows for line in str(text).split("\n") if line != "ok" and not line.startswith("***")]
    indexes = [line for line in lines if _INDEX_FINDING.match(line)]
    structure = [line for line in lines if not _ROW_FINDING.match(line) and not _INDEX_FINDING.match(line)]
    return Findings(indexes=indexes, structure=structure)


def structural_damage(connection: sqlite3.Connection, pragma: str) -> str | None:
    """Return the first finding of `check` that is more than one bad row or index entry; None if there is none."""
    return next((line for line in check(connection, pragma).structure if line != CANNOT_DECODE), None)


def verify(path: str, *, with_damage: bool = False) -> None:
    """Read a backup from its beginning to its end. Raises: StorageCorrupt.

    Args:
        path: The backup.
        with_damage: Pass over single rows that are damaged, as those of the database are known to be.
    """
    with translated(), contextlib.closing(open_untouched(path, read_wal=False)) as connection:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        if with_damage:
            verdict, dangling = structural_damage(connection, "integrity_check"), None
        else:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            verdict = None if found == "ok" else found
            dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
    if application_id != APPLICATION_ID or verdict is not None or dangling is not None:
        raise StorageCorrupt(f"The backup {path} is not sound: {verdict or 'rows are missing'}")


def fingerprint(connection: sqlite3.Connection) -> bytes:
    """Return a digest of every row without its blobs, or NO_ROWS."""
    # Of the rows and not of the file: SQLite need not increment the header's change counter in WAL
    # mode (sqlite.org/fileformat.html#file_change_counter), and the file's times move without a change.
    # Blobs are left out as they are large: a snapshot's bytes never change under its id.
    digest = hashlib.blake2b()
    rows = 0
    tables = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
    queries = {}
    for (name,) in tables:
        if name in _IGNORED_TABLES:
            continue
        names = connection.execute("SELECT name FROM pragma_table_info(?) WHERE type != 'BLOB'", (name,))
        columns = ", ".join(f'"{column}"' for (column,) in names)
        queries[name] = f'SELECT {columns} FROM "{name}" ORDER BY 1'  # noqa: S608  # names from the schema
    connection.text_factory = bytes  # nothing in a text has to be UTF-8 for a comparison
    for name, query in queries.items():
        try:
            rows += _digest_rows(digest, name, connection.execute(query))
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            # A record that cannot be decoded fails the whole query; so one row after the other, as in a copy.
            numbers = f'SELECT rowid FROM "{name}" NOT INDEXED ORDER BY 1'  # noqa: S608  # as above
            for (rowid,) in connection.execute(numbers).fetchall():
                with contextlib.suppress(sqlite3.DatabaseError):
                    one = connection.execute(query.removesuffix(" ORDER BY 1") + " WHERE rowid = ?", (rowid,))
                    rows += _digest_rows(digest, name, one)
    return digest.digest() if rows else NO_ROWS


def _digest_rows(digest: hashlib.blake2b, name: str, cursor: sqlite3.Cursor) -> int:
    rows = 0
    while chunk := cursor.fetchmany(_ROWS_AT_ONCE):
        rows += len(chunk)
        digest.update(repr((f'"{name}"', chunk)).encode())
    return rows


def fingerprint_of(path: str) -> bytes | None:
    """Return the fingerprint of a backup; None if it cannot be read."""
    try:
        with contextlib.closing(open_untouched(path, read_wal=False)) as connection:
            return fingerprint(connection)
    except sqlite3.Error:
        return None
