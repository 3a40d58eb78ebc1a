"""The append-only journal of one session: everything its screen has seen since the last saved snapshot.

**Positions.** A session's records form one stream for as long as the session lives, and a position counts its bytes
from the very first. The file holds the newest part of the stream; its header says at which position it begins. A
snapshot is stored together with the position that it covers, and a restore replays only what comes after that:

1. `mark` gives the position, in the same breath as the screen is encoded;
2. the snapshot is committed with it;
3. `covered(position)` puts a file in place, by a rename, that begins there and holds only what came since.

A crash before 3 leaves the older, longer file, whose covered records are skipped; a crash before 2 leaves the older
snapshot and all that it needs. So nothing is replayed twice and nothing is lost. Where an older snapshot must be used
than the one that the file follows, `gap` says how many bytes of the stream are missing between them.

**Reading into the file.** Output that is read, and then written to a file, is lost if the daemon is killed in between.
So `capture` reads it straight into a shared mapping of the file, and the record's header follows, its first byte at
the very end. After a kill, what stands behind the last record may be the output of a read whose header is missing;
opening the journal finds it, for the file is preallocated with zeros (and a NUL does nothing on a terminal), and
completes the record.

**A full disk** stops the recording, not the session: `degraded` says why. The next `mark` starts a file of its own
beside the old one, if there is room again, and `covered` puts it in place.

Nothing is synced: the journal survives the daemon's death, not a power cut. One thread uses a journal at a time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from orbitd.terminal.records import (
    FILE_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    Event,
    Kind,
    file_header,
    read_base,
    read_records,
    record_header,
    records_of,
    write_all,
)
from orbitd.terminal.reserve import Reserve

CAPTURE_MAX_BYTES = 64 << 10
"""The most that one `capture` reads."""

MAX_BYTES = 1 << 30
"""The longest file: a program that goes on writing while nothing can be saved must not fill the disk."""


class Journal:
    """The journal of one session, opened for reading and appending.

    Args:
        path: The file, mode 0600; it is created where there is none. Its folder exists.
        covered: The position that the newest good snapshot covers. A journal that ends before it (after a power cut,
            or because it is damaged) begins anew there.
        max_bytes: About how long the file may become; then it is as if the disk were full.

    Attributes:
        degraded: Why nothing is recorded any more, or None.

    Raises:
        OSError: The file can neither be opened nor made.
    """

    def __init__(self, path: str | os.PathLike[str], *, covered: int = 0, max_bytes: int = MAX_BYTES) -> None:
        self._path = os.fspath(path)
        self._side_path = f"{self._path}.new"
        self.degraded: OSError | None = None
        self._aside = False  # the open file is the one beside, until it is put in place
        self._skipped = 0
        self._max_bytes = max_bytes
        self._fd, self._base, self._tail = -1, 0, 0
        try:
            self._settle(covered)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file, and of the space that was set aside in it. Closing again does nothing."""
        if self._fd < 0:
            return
        with suppress(OSError):  # on a failing disk the zeros simply stay
            self._reserve.drop(self._tail)
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
        """Bytes of records in the file: what a save would let go of."""
        return self._tail - FILE_HEADER_BYTES

    def gap(self, since: int) -> int:
        """Return how many bytes of the stream are missing between a position and the file's beginning."""
        return max(0, self._base - since)

    def events(self, since: int) -> Iterator[Event]:
        """Yield what happened from a position on, the oldest first."""
        position = self._base
        for length, event in read_records(self._fd):
            if position >= since:
                yield event
            position += length

    # Opening

    def _settle(self, covered: int) -> None:
        """Open the file, or the one beside it if a crash left that as the one that follows the snapshot."""
        self._open(self._path, os.O_CREAT)
        if self.position >= covered or not os.path.exists(self._side_path):
            with suppress(FileNotFoundError):
                os.unlink(self._side_path)
        else:
            self.close()
            os.replace(self._side_path, self._path)
            self._open(self._path, 0)
        if self.position < covered:
            self._start(covered)

    def _open(self, path: str, flags: int) -> None:
        """Open a file, find its last whole record, and complete one whose header was never written."""
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        self._reserve = Reserve(self._fd)
        base = read_base(self._fd)
        if base is None:
            self._start(0)
            return
        self._base = base
        self._tail = FILE_HEADER_BYTES + sum(length for length, _ in read_records(self._fd))
        lost = self._headless()
        if lost:
            write_all(self._fd, record_header(Kind.OUTPUT, lost), self._tail)
            self._tail += RECORD_HEADER_BYTES + len(lost)
        self._reserve.drop(self._tail)  # a torn record must not look like a lost read later

    def _headless(self) -> bytes:
        """Return output that was read into the file but has no header; b"" if what stands there is no such thing."""
        rest = os.pread(self._fd, RECORD_HEADER_BYTES + CAPTURE_MAX_BYTES + 1, self._tail)
        data = rest[RECORD_HEADER_BYTES:].rstrip(b"\0")
        return data if rest[:1] == b"\0" and len(data) <= CAPTURE_MAX_BYTES else b""

    def _start(self, base: int) -> None:
        """Make the open file an empty journal that begins at a position; on a full disk it begins degraded."""
        self._base, self._tail = base, FILE_HEADER_BYTES
        self._reserve.drop(0)
        try:
            write_all(self._fd, file_header(base), 0)
        except OSError as exc:
            self._degrade(exc)

    # Appending

    def append(self, event: Event) -> None:
        """Record an event. A full disk does not raise; see `degraded`."""
        for record in records_of(event):
            self._append(record)

    def _append(self, record: bytes) -> None:
        if self.degraded is None:
            try:
                write_all(self._fd, record, self._tail)
            except OSError as exc:
                self._degrade(exc)
            else:
                self._tail += len(record)
                return
        self._skipped += len(record)

    def capture(self, fd: int, limit: int = CAPTURE_MAX_BYTES) -> bytes:
        """Read from a terminal into the journal, and return what was read. A kill at any moment loses nothing of it.

        Args:
            fd: What to read from.
            limit: Read at most this many bytes; more than CAPTURE_MAX_BYTES is not done.

        Returns:
            The bytes; b"" at the end of the file.

        Raises:
            OSError: As `os.read` does: BlockingIOError where there is nothing, EIO where the program hung up.
        """
        limit = min(limit, CAPTURE_MAX_BYTES)
        place = self._place(RECORD_HEADER_BYTES + limit)
        if place is None:
            data = os.read(fd, limit)
            self._skipped += RECORD_HEADER_BYTES + len(data) if data else 0
            return data
        with place, place[RECORD_HEADER_BYTES:] as target:
            data = bytes(target[: os.readv(fd, [target])])
            if data:
                header = record_header(Kind.OUTPUT, data)
                place[1:RECORD_HEADER_BYTES] = header[1:]
                place[0] = header[0]  # the kind comes last: so long as it is 0, there is no header
                self._tail += len(header) + len(data)
        return data

    def _place(self, length: int) -> memoryview | None:
        """Return room behind the last record, or None if there is no disk for it."""
        if self.degraded is None:
            try:
                if self._tail > self._max_bytes:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self._path)
                return self._reserve.at(self._tail, length)
            except OSError as exc:
                self._degrade(exc)
        return None

    def _degrade(self, error: OSError) -> None:
        """Stop recording; what is in the file stays readable."""
        self.degraded = error
        with suppress(OSError):
            self._reserve.drop(self._tail)

    # Saving

    def mark(self) -> int:
        """Return the position for a snapshot whose screen is encoded right now; a degraded journal tries to go on."""
        position = self.position
        if self.degraded is not None:
            with suppress(OSError):
                self._turn_aside(position, b"")
        return position

    def covered(self, position: int) -> None:
        """Forget what a committed snapshot has.

        Args:
            position: What `mark` gave when that snapshot's screen was encoded.

        Raises:
            OSError: The new file cannot be written; the old one stays, and stays right.
        """
        if self._aside and self._base <= position:
            os.replace(self._side_path, self._path)
            self._aside = False
        if position <= self._base or self.degraded is not None:
            return
        start = FILE_HEADER_BYTES + position - self._base
        self._turn_aside(position, os.pread(self._fd, self._tail - start, start))
        os.replace(self._side_path, self._path)
        self._aside = False

    def _turn_aside(self, base: int, records: bytes) -> None:
        """Go on in a new file beside the old one, which stays as it is."""
        fd = os.open(self._side_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, file_header(base) + records, 0)
        except OSError:
            os.close(fd)
            os.unlink(self._side_path)
            raise
        self.close()
        self._fd, self._reserve, self._base, self._tail = fd, Reserve(fd), base, FILE_HEADER_BYTES + len(records)
        self._skipped, self.degraded, self._aside = 0, None, True


def delete(path: str | os.PathLike[str]) -> None:
    """Remove a session's journal; that there is none is fine."""
    for name in (os.fspath(path), f"{os.fspath(path)}.new"):
        with suppress(FileNotFoundError):
            os.unlink(name)
