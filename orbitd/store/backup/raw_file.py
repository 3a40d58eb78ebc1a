"""Read the rows of a damaged database from the pages of its file and its WAL, without SQLite.

SQLite stops at the first thing that does not fit; here whatever does not fit costs the row
that it belongs to. Nothing is written. What is returned may be anything at all: the caller
verifies each row. Section numbers are those of sqlite.org/fileformat.html.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

from orbitd.store.backup import wal

Values = tuple[Any, ...]

_HEADER_BYTES = 100
_DEFAULT_PAGE_BYTES = 4096
_MAX_DEPTH = 40
_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13

# The kinds of entries of a pointer map (1.8). Every page but the first has one.
_ROOT, _FREE, _BTREE = 1, 2, 5


class Unreadable(Exception):
    """These bytes are no record, or a page that the record needs is not there."""


class RawFile:
    """A database file that nobody changes.

    Args:
        path: The file; an empty or missing one has the pages of its WAL only.
        default_roots: The root page of each table and index, used where the schema's own entry is damaged.

    Attributes:
        lost_pages: How many pages of the log are lost: what is read may be older.

    Raises:
        OSError: A file cannot be read.
    """

    def __init__(self, path: str, default_roots: dict[str, int]) -> None:
        self._descriptor: int | None = None
        with contextlib.suppress(FileNotFoundError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            log = wal.read_log(path + "-wal")
            self._newer = {} if log is None else log.pages()
            self.lost_pages = 0 if log is None else log.lost_pages()
            header = self._newer.get(1) or self._read(0, _HEADER_BYTES)
            self._page_bytes = _page_size(header) if log is None else log.page_bytes
            length = 0 if self._descriptor is None else os.fstat(self._descriptor).st_size
            present = length // self._page_bytes
            # Every page behind the end of the file is in the log, so a number beyond both together is damage.
            most = present + len(self._newer)
            self._newer = {number: page for number, page in self._newer.items() if 1 <= number <= most}
            self.count = max(present, max(self._newer, default=0))
            # Pages that a vacuum has cut off may still be in the log and the file, with rows deleted since.
            if log is not None and 0 < log.database_pages() < self.count:
                self.count = log.database_pages()
            self._page = functools.lru_cache(maxsize=64)(self._read_page)
            self._map = self._pointer_map()
            self.roots = self._find_roots(default_roots)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def tree(self, root: int) -> list[int]:
        """Return the pages of a b-tree in no order: those that its pages lead to, and those that the pointer map has.

        The two usually agree. Where an interior page is damaged, the map has its children; where the map is, the tree.
        """
        found: dict[int, None] = {}
        waiting = [root]
        while waiting:
            number = waiting.pop()
            if number in found or not 1 <= number <= self.count or self._map.get(number, (0, 0))[0] == _FREE:
                continue
            found[number] = None
            waiting += self._children(number)
        for number, (kind, _) in self._map.items():
            if kind == _BTREE and self._root_of(number) == root:
                found[number] = None
        return list(found)

    def locate(self, root: int) -> Iterator[tuple[int, int, bool]]:
        """Yield the place of each cell of a table or index: its page, its offset, and whether it counts.

        One that may not count stands behind the number of cells that the page has, or the page says that it is an
        interior one of a table, or its head is none: all of that may be damage.
        """
        for number in self.tree(root):
            page = self._page(number)
            start = _HEADER_BYTES if number == 1 else 0
            first = start + (12 if page[start] == _INTERIOR_INDEX else 8)
            count = int.from_bytes(page[start + 3 : start + 5], "big")
            if page[start] not in (_INTERIOR_INDEX, _LEAF_INDEX, _LEAF_TABLE) or first + 2 * count > len(page):
                count = 0  # a head that is none: what looks like places may be anything
            lowest = len(page)
            for place in range(first, len(page) - 2, 2):
                if place >= lowest:  # the cells begin here (1.6)
                    break
                offset = int.from_bytes(page[place : place + 2], "big")
                if place + 2 <= offset <= len(page) - 4:
                    lowest = min(lowest, offset)
                    yield number, offset, place < first + 2 * count

    def row(self, number: int, offset: int, *, columns: int | None = None) -> Values:
        """Return the values of a table's row, the rowid first in place of the first column.

        Args:
            number: The page.
            offset: The cell's place in it.
            columns: How many are wanted, if not all; those that are not are not read from overflow pages.

        Raises:
            Unreadable: There is none.
        """
        page = self._page(number)
        length, at = _varint(page, offset)
        rowid, at = _varint(page, at)
        values = self._record(page, at, length, len(page) - 35, columns)
        return (rowid - (1 << 64) if rowid >> 63 else rowid, *values[1:])

    def entry(self, number: int, offset: int) -> Values:
        """Return the values of an index's entry. Raises: Unreadable."""
        page = self._page(number)
        interior = page[0] == _INTERIOR_INDEX  # the number of a child page stands in front (1.6)
        length, at = _varint(page, offset + 4 if interior else offset)
        return self._record(page, at, length, (len(page) - 12) * 64 // 255 - 23, None)

    def _record(self, page: bytes, at: int, length: int, most: int, columns: int | None) -> Values:
        """Decode a record (2.1), of which at most `most` bytes lie in this page (1.6)."""
        if length > self.count * len(page):
            raise Unreadable
        least = (len(page) - 12) * 32 // 255 - 23
        local = length
        if length > most:
            local = least + (length - least) % (len(page) - 4)
            local = local if local <= most else least
        if at + local > len(page):
            raise Unreadable
        head = page[at : at + local]
        types: list[int] = []
        end, place = _varint(head, 0)
        if not 1 <= end <= local:  # ours are short: a header never reaches the overflow pages
            raise Unreadable
        while place < end:
            serial, place = _varint(head, place)
            types.append(serial)
        if place != end or end + sum(map(_width, types)) != length:
            raise Unreadable
        wanted = types[:columns]
        needed = end + sum(map(_width, wanted))
        if needed > local:
            after = int.from_bytes(page[at + local : at + local + 4], "big")
            head = b"".join((head, *self._overflow(after, length - local)))
        values = []
        for serial in wanted:
            width = _width(serial)
            values.append(_value(serial, head[end : end + width]))
            end += width
        return tuple(values)

    def _overflow(self, number: int, length: int) -> Iterator[bytes]:
        """Yield the payload of a chain of overflow pages (1.7)."""
        while length > 0:
            if not 2 <= number <= self.count:
                raise Unreadable
            page = self._page(number)
            yield page[4 : 4 + length]
            length -= len(page) - 4
            number = int.from_bytes(page[:4], "big")

    def _children(self, number: int) -> list[int]:
        """Return the pages that an interior page of a table or an index leads to (1.6)."""
        page = self._page(number)
        start = _HEADER_BYTES if number == 1 else 0
        if page[start] not in (_INTERIOR_INDEX, _INTERIOR_TABLE):
            return []
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        places = [start + 8]
        for index in range(min(count, (len(page) - start - 12) // 2)):
            at = start + 12 + 2 * index
            places.append(int.from_bytes(page[at : at + 2], "big"))
        return [int.from_bytes(page[at : at + 4], "big") for at in places]

    def _root_of(self, number: int) -> int | None:
        """Return the root of the b-tree that a page belongs to by the pointer map."""
        for _ in range(_MAX_DEPTH):
            kind, parent = self._map.get(number, (0, 0))
            if kind == _ROOT:
                return number
            if kind != _BTREE:
                return None
            number = parent
        return None

    def _pointer_map(self) -> dict[int, tuple[int, int]]:
        """Return the kind and the parent of each page (1.8); none where VACUUM left out the map."""
        found: dict[int, tuple[int, int]] = {}
        each = self._page_bytes // 5
        for first in range(2, self.count + 1, each + 1):
            page = self._page(first)
            present = min(each, self.count - first)
            if 2 * sum(_ROOT <= kind <= _BTREE for kind in page[: 5 * present : 5]) < present:
                continue  # a page of something else, or one of which most is damaged
            for index in range(present):
                entry = page[5 * index : 5 * index + 5]
                found[first + 1 + index] = entry[0], int.from_bytes(entry[1:], "big")
        return found

    def _find_roots(self, default_roots: dict[str, int]) -> dict[str, int]:
        """Return the root page of each table and index: what the schema has for it, where that is plausible."""
        found: dict[str, int] = {}
        for number, offset, sure in self.locate(1) if self.count else ():
            with contextlib.suppress(Unreadable, ValueError):  # ValueError: it has not five values
                # sqlite_schema (2.6): type, name, tbl_name, rootpage, sql. Its rowid replaces the first.
                _, name, _, root, _ = self.row(number, offset)
                if not (sure and name in default_roots and isinstance(root, int) and 1 < root <= self.count):
                    continue
                if self._map.get(root, (_ROOT, 0))[0] == _ROOT:
                    found[name] = root
        taken = list(found.values())
        found = {name: root for name, root in found.items() if taken.count(root) == 1 or default_roots[name] == root}
        return {**default_roots, **found}

    def _read_page(self, number: int) -> bytes:
        page = self._newer.get(number)
        if page is None:
            page = self._read((number - 1) * self._page_bytes, self._page_bytes)
        return page.ljust(self._page_bytes, b"\0")

    def _read(self, offset: int, length: int) -> bytes:
        return b"" if self._descriptor is None else os.pread(self._descriptor, length, offset)


def _page_size(header: bytes) -> int:
    """Return the page size that a header has (1.3.2), or the usual one if that is none."""
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    return size if 512 <= size <= 65536 and size & (size - 1) == 0 else _DEFAULT_PAGE_BYTES


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable-length integer (1.6) and the place behind it."""
    value = 0
    for index in range(9):
        if at >= len(data):
            raise Unreadable
        byte = data[at]
        at += 1
        if index == 8:
            return value << 8 | byte, at
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value, at


def _width(serial: int) -> int:
    """Return the bytes of a value of a serial type (2.1)."""
    if serial >= 12:
        return (serial - 12) // 2
    if serial in (10, 11):  # reserved
        raise Unreadable
    return (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[serial]


def _value(serial: int, data: bytes) -> object:
    """Decode a value of a serial type (2.1); Orbit stores no floating point numbers."""
    if serial == 0:
        return None
    if serial == 7 or len(data) != _width(serial):
        raise Unreadable
    if serial in (8, 9):
        return serial - 8
    if serial < 7:
        return int.from_bytes(data, "big", signed=True)
    if serial % 2 == 0:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unreadable from error
