"""The append-only journal of one session: all output and resizes since the last saved snapshot.

**Positions.** A session's records form one stream for as long as the session lives, and a position counts its bytes
from the very first. The file holds the newest part of the stream; its header has the position at which it begins. A
snapshot is stored together with the position that it covers, and a restore replays only what comes after that:

1. `mark` returns the position, with no output between that and the encoding of the screen;
2. the snapshot is committed with it;
3. `discard_before(position)` renames a file into place that begins there and holds only what came since.

A crash before 3 leaves the older, longer file, whose covered records are skipped; a crash before 2 leaves the older
snapshot and all that it needs. So nothing is replayed twice and nothing is lost. Where an older snapshot must be used
than the one that the file follows, `gap` returns how many bytes of the stream are missing between them.

**Reading into the file.** Output that is read, and then written to a file, is lost if the daemon is killed in between.
So `capture` reads it straight into a shared mapping of the file, and the record's header follows, its first byte at
the very end. After a kill, the output of a read whose header is missing may stand behind the last record. Opening the
journal finds it and completes the record: the file is preallocated with zeros, and a NUL does nothing on a terminal.

**A full disk** stops the recording, not the session; `degraded` has the error. The next `mark` starts a file of its own
beside the old one, the side file, if there is room again, and `discard_before` renames it into place.

Nothing is synced: the journal survives the death of the daemon, whose pages stay in the kernel's cache, and not a power
cut. One thread uses a journal at a time.

**Damage** is looked for when a journal is opened, and never ends a session: see `journal_repair`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from orbit_os.files import open_private
from orbitd.sessions.journal_file import (
    CAPTURE_MAX_BYTES,
    FILE_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    Event,
    Kind,
    ReservedSpace,
    file_header,
    read_records,
    record_header,
    records_of,
    write_all,
)
from orbitd.sessions.journal_repair import Damage, Opened, base_of, open_journal, remove, remove_damaged

MAX_BYTES = 1 << 30
"""The longest file: a program that goes on writing while nothing can be saved must not fill the disk."""


class Journal:
    """The journal of one session, open for reading and appending.

    Args:
        path: The file, mode 0600; it is created where there is none. Its folder exists.
        covered: The position that the newest good snapshot covers. A journal that ends before it (after a power cut,
            or a full disk) has nothing that the snapshot has not: it is emptied, and begins there.
        max_bytes: About how long the file may become; beyond, it is handled as a full disk.

    Attributes:
        degraded: Why nothing is recorded any more, or None.
        damage: What was wrong with the file that was found, if anything; see `journal_repair`.

    Raises:
        OSError: The file can neither be opened nor created.
        UnsafeFile: Something that is no journal of ours is in its place, and cannot be moved away.
    """

    def __init__(self, path: str | os.PathLike[str], *, covered: int = 0, max_bytes: int = MAX_BYTES) -> None:
        self._path = os.fspath(path)
        self._side_path = f"{self._path}.new"
        self.degraded: OSError | None = None
        self.damage: Damage | None = None
        self._using_side_file = False  # the open file still has the side file's name
        self._skipped = 0  # bytes of records that were not written since the journal is degraded
        self._max_bytes = max_bytes
        self._fd, self._base, self._tail = -1, 0, 0
        try:
            self._open_newest(covered)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, without the space reserved in it. Closing again does nothing."""
        if self._fd < 0:
            return
        with suppress(OSError):  # on a failing disk the zeros stay, and the next `_open` removes them
            self._reserved.drop(self._tail)
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def base(self) -> int:
        """The position at which the file begins."""
        return self._base

    @property
    def position(self) -> int:
        """The position at which the next record begins."""
        return self._base + self.size + self._skipped

    @property
    def size(self) -> int:
        """Bytes of records in the file; a save discards them."""
        return self._tail - FILE_HEADER_BYTES

    def gap(self, since: int) -> int:
        """Return how many bytes of the stream are missing between a position and the file's beginning."""
        return max(0, self._base - since)

    def events(self, since: int) -> Iterator[Event]:
        """Yield the events from a position on, the oldest first."""
        position = self._base
        for length, event in read_records(self._fd):
            if position >= since:
                yield event
            position += length

    # Opening

    def _open_newest(self, covered: int) -> None:
        """Open the file, or the side file if a crash left that as the one that follows the snapshot."""
        opened = self._open(self._path, covered)
        if os.path.lexists(self._side_path):
            # A side file is needed only if the daemon died between the snapshot's commit and the rename: then the
            # old file, degraded at that time, ends before the position that the snapshot covers.
            is_needed = base_of(self._side_path) == covered if opened.end is None else opened.end < covered
            if is_needed and not os.path.isdir(self._side_path):
                self.close()
                os.replace(self._side_path, self._path)
                opened = self._open(self._path, covered)
            else:
                remove(self._side_path)
        if opened.base is None or self.position < covered:
            self._start(covered)

    def _open(self, path: str, covered: int) -> Opened:
        """Open a file, and complete a record whose header was not written."""
        opened = open_journal(path, covered)
        self.damage = opened.damage or self.damage
        self._fd, self._base, self._tail = opened.fd, opened.base or 0, opened.tail
        self._reserved = ReservedSpace(self._fd)
        if opened.unfinished:
            record = record_header(Kind.OUTPUT, opened.unfinished) + opened.unfinished
            write_all(self._fd, record, self._tail)
            self._tail += len(record)
        # Also removes a torn record: its bytes must not be taken for the output of an unfinished read later.
        self._reserved.drop(self._tail)
        return opened

    def _start(self, base: int) -> None:
        """Make the open file an empty journal that begins at a position; on a full disk it is degraded at once."""
        self._base, self._tail = base, FILE_HEADER_BYTES
        self._reserved.drop(0)
        try:
            write_all(self._fd, file_header(base), 0)
        except OSError as exc:
            self._degrade(exc)

    # Appending

    def append(self, event: Event) -> None:
        """Record an event. A full disk does not raise, but sets `degraded`."""
        for record in records_of(event):
            if self.degraded is None:
                try:
                    write_all(self._fd, record, self._tail)
                except OSError as exc:
                    self._degrade(exc)
                else:
                    self._tail += len(record)
                    continue
            # Counted all the same: positions are of the stream, and must agree with later snapshots.
            self._skipped += len(record)

    def capture(self, fd: int, limit: int = CAPTURE_MAX_BYTES) -> bytes:
        """Read from a terminal into the journal, and return what was read. A kill at any moment loses none of it.

        Args:
            fd: The terminal's master, non-blocking.
            limit: Read at most this many bytes, and at most CAPTURE_MAX_BYTES.

        Returns:
            The bytes; b"" at the end of the file.

        Raises:
            OSError: As `os.read` does: BlockingIOError where there is nothing, EIO where the program hung up.
        """
        limit = min(limit, CAPTURE_MAX_BYTES)
        space = self._reserved_space(RECORD_HEADER_BYTES + limit)
        if space is None:
            data = os.read(fd, limit)
            self._skipped += RECORD_HEADER_BYTES + len(data) if data else 0
            return data
        with space, space[RECORD_HEADER_BYTES:] as target:
            # The kernel copies from the terminal into the page cache of the file: once the bytes have left the
            # terminal they are in the file, whatever happens to this process.
            data = bytes(target[: os.readv(fd, [target])])
            if data:
                header = record_header(Kind.OUTPUT, data)
                space[1:RECORD_HEADER_BYTES] = header[1:]
                # The kind comes last: while it is 0, the record counts as one without a header. A kill stops this
                # process between two stores, and the earlier ones are in the file: no barrier is needed.
                space[0] = header[0]
                self._tail += len(header) + len(data)
        return data

    def _reserved_space(self, length: int) -> memoryview | None:
        """Return space behind the last record, or None if there is none on the disk."""
        if self.degraded is None:
            try:
                if self._tail > self._max_bytes:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self._path)
                return self._reserved.at(self._tail, length)
            except OSError as exc:
                self._degrade(exc)
        return None

    def _degrade(self, error: OSError) -> None:
        """Stop recording; what is in the file stays readable.

        Nothing is recorded after a gap, even if there is room again: a replay would feed the emulator output that
        follows on something it has never seen. The next snapshot ends the gap.
        """
        self.degraded = error
        with suppress(OSError):
            self._reserved.drop(self._tail)

    # Saving

    def mark(self) -> int:
        """Return the position for a snapshot whose screen is encoded now.

        A degraded journal starts a side file here, if it can: what is missing before this position is in the snapshot.
        """
        position = self.position
        if self.degraded is not None:
            with suppress(OSError):
                self._switch_to_side_file(position, b"")
        return position

    def discard_before(self, position: int) -> None:
        """Discard the records that a committed snapshot covers.

        Args:
            position: What `mark` returned when that snapshot's screen was encoded.

        Raises:
            OSError: The new file cannot be written; the old one stays, and stays correct.
        """
        # rename(2) is atomic: a kill leaves the old name on the old file or on the new one. Both are correct, since
        # the snapshot is committed: records before the position are skipped by a replay.
        if self._using_side_file and self._base <= position:
            os.replace(self._side_path, self._path)
            self._using_side_file = False
        if position <= self._base or self.degraded is not None:
            return
        start = FILE_HEADER_BYTES + position - self._base
        self._switch_to_side_file(position, os.pread(self._fd, self._tail - start, start))
        os.replace(self._side_path, self._path)
        self._using_side_file = False

    def _switch_to_side_file(self, base: int, records: bytes) -> None:
        """Continue in a new file, which holds these records and begins at `base`; the old one stays as it is."""
        remove(self._side_path)
        fd = open_private(self._side_path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            write_all(fd, file_header(base) + records, 0)
        except OSError:
            os.close(fd)
            os.unlink(self._side_path)
            raise
        self.close()
        self._fd, self._reserved, self._base, self._tail = fd, ReservedSpace(fd), base, FILE_HEADER_BYTES + len(records)
        self._skipped, self.degraded, self._using_side_file = 0, None, True


def delete(path: str | os.PathLike[str], *, kept_aside: bool = False) -> None:
    """Remove a session's journal with its other files; do nothing where there is none.

    Args:
        path: The journal.
        kept_aside: Remove damaged ones that were kept aside too.

    Raises:
        OSError: One cannot be removed.
    """
    for suffix in ("", ".new", ".repair"):
        remove(os.fspath(path) + suffix)
    if kept_aside:
        remove_damaged(os.fspath(path))
