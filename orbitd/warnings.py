"""Warnings about problems that last (the store's files, a limit): sentences for a person, each with its remedy.

`daemon.info` returns them, and `orbitctl status` and `doctor` print them. The store's files
are inspected once, when the store has been opened; a warning about a file ends when that
file is gone.
"""

from __future__ import annotations

import os

from msgspec import Struct

from orbitd.store.backup import recovery


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
    warnings = []
    for aside in damaged:
        # Only backups from before: later ones are of the database that took its place. The time is
        # ctime, which the rename set; mtime is still that of the last write.
        good = recovery.newest_good_backup(path, made_before=os.stat(aside).st_ctime)
        if good is None:
            remedy = "There is no backup of it"
        else:
            remedy = f"`orbitctl maintenance restore {good}` brings a backup back"
        sentence = f"A damaged database lies in {aside}, unchanged. {remedy}; move it away when you need it no more."
        warnings.append(StoreWarning(sentence=sentence, file=aside))
    if is_new and not damaged and (good := recovery.newest_good_backup(path)) is not None:
        sentence = (
            f"There was no database at {path}; a new one was begun. The newest backup comes back with "
            f"`orbitctl maintenance restore {good}`."
        )
        warnings.append(StoreWarning(sentence=sentence))
    return warnings


def limit_warnings(served: int, wanted: int) -> list[StoreWarning]:
    """Return a warning if fewer clients can be served at once than are configured."""
    if served >= wanted:
        return []
    sentence = (
        f"Only {served} of max_connections = {wanted} clients can be served: raise the limit of "
        "open files (LimitNOFILE of the service, ulimit -n)."
    )
    return [StoreWarning(sentence=sentence)]
