"""Whether the files that SQLite has open are still those at their paths.

SQLite goes on writing into files that were deleted, moved or replaced: every answer would
promise what no later start can find. So the writer looks before and after each commit (two
stat(2) calls beside an fsync), and nobody opens another file under the same name.
"""

from __future__ import annotations

import os

from orbit_protocol.errors import StorageCorrupt, StorageReadOnly

_Mark = tuple[int, int]


class FileWatch:
    """The database and its WAL as they were when they were opened; may be used from any thread.

    Args:
        path: The database; it is open, and its WAL is there.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.rescued: str | None = None
        self._marks = {each: _mark(each) for each in (path, path + "-wal")}

    @property
    def is_rescued(self) -> bool:
        """Whether what is still open has been copied to where it can be found."""
        return self.rescued is not None and os.path.exists(self.rescued)

    def check(self) -> None:
        """Look at the paths again.

        Raises:
            StorageCorrupt: A file was deleted, moved or replaced.
            StorageReadOnly: That cannot be found out.
        """
        for path, mark in self._marks.items():
            found = _mark(path)
            if found != mark:
                raise self._error(path, found)

    def _error(self, path: str, found: _Mark | None) -> StorageCorrupt:
        what = "deleted or moved away" if found is None else "replaced by another file"
        hint = "Put the file back, and all goes on."
        if self.is_rescued:
            hint += f" All that was answered is in {self.rescued}: `orbitctl maintenance restore {self.rescued}`."
        return StorageCorrupt(f"{path} was {what} while it is in use; nothing can be saved", hint=hint)


def _mark(path: str) -> _Mark | None:
    """Return what tells a file from every other; None where there is none. Raises: StorageReadOnly."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        hint = "Give the daemon's user access to it again."
        raise StorageReadOnly(f"{path} cannot be reached: {error.strerror}", hint=hint) from error
    return found.st_dev, found.st_ino
