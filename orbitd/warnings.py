"""Warnings about problems that last (the store's files, a limit): sentences for a person, each with its remedy.

`daemon.info` returns them, and `orbitctl status` and `doctor` print them. The store's files
are inspected once, when the store has been opened; a warning about a file ends when that
file is gone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

from msgspec import Struct

from orbit_os.shell import typed
from orbitd.descriptors import RAISE_IT
from orbitd.store.backup import recovery, salvage
from orbitd.store.database import open_reader

_MAX_IDS = 10
"""How many lost rows are named in a warning; the log names more."""


class StoreWarning(Struct, frozen=True, kw_only=True):
    """One sentence, and the file that it is about; without a file it lasts as long as the daemon runs."""

    sentence: str
    file: str | None = None

    @property
    def lasts(self) -> bool:
        """Whether the problem still exists."""
        return self.file is None or os.path.exists(self.file)


def store_warnings(path: str, *, is_new: bool) -> list[StoreWarning]:
    """Return warnings about the files of a database; slow, as backups are checked.

    Args:
        path: The database.
        is_new: Whether there was none before this start.
    """
    damaged = recovery.list_set_aside(path)
    salvaged = None
    if damaged:  # every other start is spared the connection
        with contextlib.suppress(sqlite3.Error), contextlib.closing(open_reader(path)) as connection:
            salvaged = salvage.salvaged_into(connection)
    warnings = []
    for aside in damaged:
        # Only backups from before: later ones are of the database that took its place. The time is
        # ctime, which the rename set; mtime is still that of the last write.
        good = recovery.newest_good_backup(path, made_before=os.stat(aside).st_ctime)
        if good is None:
            remedy = "There is no backup of it"
        else:
            remedy = f"`{typed('orbitctl maintenance restore', good)}` brings a backup back"
        brought = ""
        if salvaged is not None and aside in (salvaged.source, salvaged.source + "-wal"):
            brought = f" {_salvage_in_words(salvaged)}"
        sentence = (
            f"A damaged database lies in {aside}, unchanged.{brought} {remedy}; move it away when you need it no more."
        )
        warnings.append(StoreWarning(sentence=sentence, file=aside))
    if is_new and not damaged and (good := recovery.newest_good_backup(path)) is not None:
        sentence = (
            f"There was no database at {path}; a new one was begun. The newest backup comes back with "
            f"`{typed('orbitctl maintenance restore', good)}`."
        )
        warnings.append(StoreWarning(sentence=sentence))
    return warnings


def new_database_warnings(path: str, programs: int) -> list[str]:
    """Return a sentence if programs of another database run under a new one.

    Args:
        path: The new database.
        programs: How many.
    """
    if not programs:
        return []
    # Not by a move back: what the programs printed before the new database's newest snapshots is in that alone.
    restore = typed("orbitctl maintenance restore", os.path.join("FOLDER", os.path.basename(path)))
    return [
        f"The database {path} is new, while programs of another one run ({programs}). If that one was moved, "
        f"`{restore}` brings it back from the folder where it lies, with what the programs have printed since."
    ]


def opening_warnings(repairs: list[str], read_only: str | None) -> list[StoreWarning]:
    """Return warnings about how the database was opened."""
    sentences = list(repairs)
    if read_only is not None:
        sentences.append(
            f"The store is read-only, and live sessions cannot be started: the database could not be opened as usual "
            f"({read_only}). `orbitctl daemon logs` has the details, and `orbitctl maintenance backup` makes a copy."
        )
    return [StoreWarning(sentence=sentence) for sentence in sentences]


def _salvage_in_words(found: salvage.Salvaged) -> str:
    def counted(sessions: int, snapshots: int, workspaces: int) -> str:
        return f"sessions {sessions}, snapshots {snapshots}, workspaces {workspaces}"

    words = f"What is whole in it was brought over ({counted(found.sessions, found.snapshots, found.workspaces)})"
    if found.lost_sessions or found.lost_snapshots or found.lost_workspaces:
        lost = counted(found.lost_sessions, found.lost_snapshots, found.lost_workspaces)
        words += f"; not brought over are {lost}"
        if found.lost:
            words += f": {', '.join(found.lost[:_MAX_IDS])}{' ...' if len(found.lost) > _MAX_IDS else ''}"
    if found.lost_pages:
        words += (
            f"; pages of its log are lost ({found.lost_pages}), so some of it may be as it was before its last change"
        )
    return words + "."


def connection_warnings(served: int, wanted: int, *, is_full: bool) -> list[str]:
    """Return a sentence if all connections are used.

    Args:
        served: How many clients are served at once.
        wanted: How many are configured.
        is_full: Whether so many are connected.
    """
    if not is_full:
        return []
    more = RAISE_IT if served < wanted else "raise max_connections in the daemon's configuration"
    return [f"All {served} connections are used: `orbitctl daemon connections` shows by whom. Close some, or {more}."]


def limit_warnings(served: int, wanted: int) -> list[StoreWarning]:
    """Return a warning if fewer clients can be served at once than are configured."""
    if served >= wanted:
        return []
    sentence = f"Only {served} of max_connections = {wanted} clients can be served: {RAISE_IT}."
    return [StoreWarning(sentence=sentence)]
