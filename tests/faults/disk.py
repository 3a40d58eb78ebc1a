"""A disk that loses its power: from the log of changes, what may be left of files at any point.

What a file held when it was last synced stays. What was written since may be there, or not,
or be torn at the borders of sectors, whichever the disk pleases. A name (a new file, a
rename, a removal) stays once its folder was synced; those since are there in order up to
some point, as a journalling file system keeps them.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from faults.shim import Record

SECTOR = 512


@dataclass
class File:
    """One file, whatever it is called: what is safe, and what is on its way."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.safe, change)
        self.pending.clear()

    def left(self, luck: random.Random | None) -> bytes:
        """Return what may be left: nothing unsynced without `luck`, else some of it."""
        content = bytearray(self.safe)
        if luck is not None:
            for change in self.pending:
                if luck.random() < 0.5:
                    _apply(content, change)
                elif change.kind == "w" and luck.random() < 0.5:
                    _apply_torn(content, change, luck)
        return bytes(content)


def _apply(content: bytearray, change: Record) -> None:
    if change.kind == "t":
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
    else:
        _put(content, change.offset, change.data)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _apply_torn(content: bytearray, change: Record, luck: random.Random) -> None:
    start = 0
    while start < len(change.data):
        length = SECTOR - (change.offset + start) % SECTOR
        if luck.random() < 0.5:
            _put(content, change.offset + start, change.data[start : start + length])
        start += length


class Disk:
    """Files and names below a folder that was empty at first."""

    def __init__(self) -> None:
        self._names: dict[str, File | None] = {}  # None is a folder
        self._safe_names: dict[str, File | None] = {}
        self._pending_names: list[Record] = []
        self._born: dict[int, File] = {}

    def apply(self, record: Record) -> bool:
        """Take a change; return whether it was one that makes others safe."""
        if record.kind in "wt":
            file = self._names.get(record.path)
            if file is not None:
                file.pending.append(record)
            return False
        if record.kind == "s":
            self._sync(record.path)
            return True
        if record.kind == "c":
            self._born[record.end] = File()
        self._rename(self._names, record)
        self._pending_names.append(record)
        return False

    def _sync(self, path: str) -> None:
        file = self._names.get(path)
        if file is not None:
            file.sync()
            return
        rest = []
        for record in self._pending_names:
            if os.path.dirname(record.path) == path:
                self._rename(self._safe_names, record)
            else:
                rest.append(record)
        self._pending_names = rest

    def _rename(self, names: dict[str, File | None], record: Record) -> None:
        match record.kind:
            case "c":
                names[record.path] = self._born[record.end]
            case "m":
                names[record.path] = None
            case "u":
                names.pop(record.path, None)
            case "r" if record.path in names:
                names[record.other] = names.pop(record.path)
            case "l" if record.path in names:
                names[record.other] = names[record.path]

    def write_left(self, root: str, target: Path, luck: random.Random | None) -> None:
        """Write what may be left of everything below `root` into the folder `target`."""
        names = dict(self._safe_names)
        if luck is not None:
            for record in self._pending_names[: luck.randint(0, len(self._pending_names))]:
                self._rename(names, record)
        for path in sorted(names):
            place = target / os.path.relpath(path, root)
            if not place.parent.is_dir():
                continue  # the folder itself did not last
            file = names[path]
            if file is None:
                place.mkdir(mode=0o700)
            else:
                place.write_bytes(file.left(luck))
