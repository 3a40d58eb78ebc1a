"""What is wrong with the store's files and lasts, in sentences for a person, each with its remedy.

Looked for once, when the store has been opened; a sentence about a file is told as long as
that file is there.
"""

from __future__ import annotations

import os

from msgspec import Struct

from orbitd.store.backup import recovery


class StoreWarning(Struct, frozen=True, kw_only=True):
    """One sentence, and the file that it is about; None where it holds as long as the daemon runs."""

    sentence: str
    file: str | None = None

    @property
    def lasts(self) -> bool:
        """Whether it is still so."""
        return self.file is None or os.path.exists(self.file)


def look(path: str, *, is_new: bool) -> list[StoreWarning]:
    """Look for what a person should know about the database at `path`.

    Args:
        path: The database.
        is_new: Whether there was none before this start.
    """
    aside = recovery.found_aside(path)
    conditions = [_set_aside(path, each) for each in aside]
    if is_new and not aside and (good := recovery.newest_good_backup(path)) is not None:
        conditions.append(
            StoreWarning(
                sentence=f"There was no database at {path}; a new one was begun. The newest backup comes back with "
                f"`orbitctl maintenance restore {good}`."
            )
        )
    return conditions


def of_limits(served: int, wanted: int) -> list[StoreWarning]:
    """Say so where fewer clients can be served at once than were configured."""
    if served >= wanted:
        return []
    return [
        StoreWarning(
            sentence=f"Only {served} of max_connections = {wanted} clients can be served: raise the limit of "
            "open files (LimitNOFILE of the service, ulimit -n)."
        )
    ]


def _set_aside(path: str, aside: str) -> StoreWarning:
    good = recovery.newest_good_backup(path, made_before=os.stat(aside).st_ctime)
    remedy = (
        "There is no backup of it" if good is None else f"`orbitctl maintenance restore {good}` brings a backup back"
    )
    return StoreWarning(
        sentence=f"A damaged database lies in {aside}, unchanged. {remedy}; move it away when you need it no more.",
        file=aside,
    )
