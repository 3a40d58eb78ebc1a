"""One session's records, in order, out of the files that a screens process was given, and out of what is in no file.

    pos  0          1000            1200            2000
         [ file 0 .. )  disk is full  [ file 1200 ..  )
                     [Data)[Data )

A journal goes on in another file when its beginning is discarded, and after a full disk. The newest file that begins at
or before the picture's position is the one to read, and those before it are closed.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import deque

from msgspec import Struct

from orbitd.sessions.journal_file import (
    FILE_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    Event,
    Kind,
    parse_record,
    payload_length,
)

_KINDS = re.compile(b"[%s]" % bytes(Kind))

BLOCK_BYTES = 256 << 10
"""How much of a file is read at a time."""


class Damaged(Exception):
    """No whole record is where one must be."""


class Record(Struct, frozen=True, kw_only=True):
    """An event, and the positions at which its record begins and ends."""

    start: int
    end: int
    event: Event


class Follower:
    """Read a journal while it grows.

    Attributes:
        position: The end of the last record that was taken; the caller moves it, to the `end` of what `next` returned.
        end: The records before this position can be read.
        queued: Bytes of records that are in no file.
    """

    def __init__(self) -> None:
        self.position = self.end = self.queued = 0
        self._files: deque[tuple[int, int]] = deque()  # descriptor and base, the oldest first
        self._unfiled: deque[tuple[int, bytes]] = deque()  # where it begins, and the record
        self._block, self._block_start = b"", 0

    def follow(self, fd: int, base: int) -> None:
        """Add a file, whose first record is at `base`; its descriptor is closed here when it is no longer needed."""
        self._files.append((fd, base))

    def add(self, position: int, record: bytes) -> None:
        """Add a record that is in no file, and ends at `position`."""
        self._unfiled.append((position - len(record), record))
        self.queued += len(record)
        self.end = max(self.end, position)

    def close(self) -> None:
        """Close all files and drop all records."""
        while self._files:
            os.close(self._files.popleft()[0])
        self._unfiled.clear()
        self.queued = 0
        self.release()

    def release(self) -> None:
        """Drop what was read ahead."""
        self._block = b""

    def next(self) -> Record | None:
        """Return the record at the position, or the next one behind it where some are lost; None at the end.

        Raises:
            Damaged: What is there is no record, or ends behind `end`.
        """
        while True:
            self._drop_what_is_behind()
            if self.position >= self.end:
                return None
            if self._unfiled and self._unfiled[0][0] == self.position:
                return self._parse(self._unfiled[0][1])
            # What comes later bounds what this file can have.
            bases = [base for _, base in itertools.islice(self._files, 2) if base > self.position]
            limit = min([self.end, *bases, *(start for start, _ in itertools.islice(self._unfiled, 1))])
            record = self._read(limit)
            if record:
                return self._parse(record)
            if limit == self.end and limit not in bases:
                raise Damaged("the journal's file ends too early")
            # Lost: this process was started after a full disk, say, and got what follows on it. The snapshot from
            # which the file goes on is not known here. A file with nothing in it yet begins at the end.
            self.position = limit

    def behind_damage(self) -> int:
        """Return where the next whole record begins, after `next` has raised Damaged; `end` where there is none."""
        self._block = b""
        start = self.position + 1
        while self._files and start < self.end:
            # A header may lie across the border of two windows: the next one begins with what this one had no room for.
            window = self._window(start)
            for found in _KINDS.finditer(window):
                header = window[found.start() : found.start() + RECORD_HEADER_BYTES]
                length = payload_length(header) if len(header) == RECORD_HEADER_BYTES else None
                begin = start + found.start()
                if length is None or begin + RECORD_HEADER_BYTES + length > self.end:
                    continue
                record = self._window(begin, RECORD_HEADER_BYTES + length)
                if len(record) == RECORD_HEADER_BYTES + length and parse_record(record) is not None:
                    return begin
            start += max(1, len(window) - RECORD_HEADER_BYTES + 1)
            if len(window) < BLOCK_BYTES:
                break
        return self.end

    def _window(self, start: int, size: int = BLOCK_BYTES) -> bytes:
        """Return bytes of the oldest file, none of them behind the end; b"" where it cannot be read."""
        fd, base = self._files[0]
        try:
            return os.pread(fd, min(size, self.end - start), FILE_HEADER_BYTES + start - base)
        except (OSError, ValueError):  # not readable, or before its beginning
            return b""

    def _drop_what_is_behind(self) -> None:
        while self._unfiled and self._unfiled[0][0] < self.position:
            self.queued -= len(self._unfiled.popleft()[1])
        while len(self._files) > 1 and self._files[1][1] <= self.position:
            os.close(self._files.popleft()[0])
            self._block = b""  # positions of another file

    def _parse(self, record: bytes) -> Record:
        event = parse_record(record)
        if event is None:
            raise Damaged("a record's checksum is wrong")
        return Record(start=self.position, end=self.position + len(record), event=event)

    def _read(self, limit: int) -> bytes:
        """Return the record at the position from the oldest file; b"" where that has none there.

        Raises:
            Damaged: Something else is there, or a part of a record.
        """
        if not self._files or self._files[0][1] > self.position:
            return b""
        header = self._peek(RECORD_HEADER_BYTES, limit)
        if not any(header):
            return b""  # the end of the file, or the zeros of reserved space
        length = payload_length(header)
        if length is None:
            raise Damaged("no record begins here")
        record = self._peek(RECORD_HEADER_BYTES + length, limit)
        if len(record) < RECORD_HEADER_BYTES + length:
            raise Damaged("a record is not whole")
        return record

    def _peek(self, length: int, limit: int) -> bytes:
        """Return bytes at the position, fewer where the file or `limit` ends first."""
        offset = self.position - self._block_start
        if not 0 <= offset <= len(self._block) - length:
            fd, base = self._files[0]
            # Never behind the limit: orbitd may be writing there.
            size = max(0, min(max(BLOCK_BYTES, length), limit - self.position))
            try:
                self._block = os.pread(fd, size, FILE_HEADER_BYTES + self.position - base)
            except OSError as exc:
                raise Damaged(f"the journal's file cannot be read: {exc.strerror}") from exc
            self._block_start, offset = self.position, 0
        return self._block[offset : offset + length]
