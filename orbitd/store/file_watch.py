"""Whether the files that SQLite has open are still those at their paths.

A file that was deleted, moved or replaced stays open and writable: SQLite would go on
acknowledging writes that no later start can find (sqlite.org/howtocorrupt.html, "Unlinking or
renaming a database file while in use"). So the writer checks before and after each commit,
which costs two stat(2) beside an fsync(2), and every new connection checks first.
"""

from __future__ import annotations

import os

from orbit_os.shell import typed
from orbit_protocol.errors import StorageCorrupt, StorageReadOnly

_FileId = tuple[int, int]


class FileWatch:
    """The database and its WAL as they were when they were opened; may be used from any thread.

    Args:
        path: The database; it is open, and its WAL exists.

    Attributes:
        rescued: The copy of a database that lost its path, once there is one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.rescued: str | None = None
        self._ids = {each: _file_id(each) for each in (path, path + "-wal")}

    @property
    def is_rescued(self) -> bool:
        """Whether what is still open has been copied, and the copy is still there."""
        return self.rescued is not None and os.path.exists(self.rescued)

    def check(self) -> None:
        """Compare the files at the paths with those that were opened.

        Raises:
            StorageCorrupt: A file was deleted, moved or replaced.
            StorageReadOnly: The path cannot be reached, so it is unknown.
        """
        for path, opened in self._ids.items():
            found = _file_id(path)
            if found == opened:
                continue
            what = "deleted or moved away" if found is None else "replaced by another file"
            hint = "Move the file back: the daemon then goes on by itself."
            if self.is_rescued:
                command = typed("orbitctl maintenance restore", self.rescued or "")
                hint += f" All that was answered is in {self.rescued}: `{command}`."
            raise StorageCorrupt(f"{path} was {what} while it is in use; nothing can be saved", hint=hint)


def _file_id(path: str) -> _FileId | None:
    """Return the device and inode of a file, None if there is none. Raises: StorageReadOnly."""
    # An inode's number is not used again while the file is open, so equal numbers mean the same file.
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        hint = "Give the daemon's user access to it again."
        raise StorageReadOnly(f"{path} cannot be reached: {error.strerror}", hint=hint) from error
    return found.st_dev, found.st_ino
