"""The append-only journal of one session: output, resizes, dividers, folders and times since the last saved snapshot.

**Positions.** A session's records form one stream for as long as the session lives, and a position counts its bytes
from the very first. The file holds the newest part of the stream; its header has the position at which it begins. A
snapshot is stored together with the position that it covers, and a restore replays only what comes after that:

1. the screen is encoded when it has been fed everything up to a position: that which `mark` returned, or a later one;
2. the snapshot is committed with that position;
3. `discard_before(position)` renames a file into place that begins there and holds only what came since.

A crash before 3 leaves the older, longer file, whose covered records are skipped; a crash before 2 leaves the older
snapshot and all that it needs. So nothing is replayed twice and nothing is lost. Where an older snapshot must be used
than the one that the file follows, `gap` returns how many bytes of the stream are missing between them.

**Reading.** Output is in the landing buffer (`landing`) before it is here, and is there until it is here:
`landing.read`, `append_output`, `landing.clear`. After a kill in between, `complete_landing` records what the buffer
has and the file has not.

**A full disk** stops the recording, not the session; `degraded` has the error, and what cannot be recorded is returned
to the caller. The next `mark` starts a file of its own beside the old one, the side file, if there is room again, and
`discard_before` renames it into place.

Nothing is synced: the journal survives the death of the daemon, whose pages stay in the kernel's cache, and not a power
cut. One thread uses a journal at a time.

**Damage** is looked for when a journal is opened, and never ends a session: see `journal_repair`. A file that somebody
cuts short while it is open is filled up to its old length, before anything is appended: those who follow it by its
offsets go on, and find a line that says how much is missing.
"""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Self

from orbit_os.files import UnsafeFile, open_private
from orbitd.sessions.journal_file import (
    CRC_START,
    FILE_HEADER_BYTES,
    PAYLOAD_MAX_BYTES,
    RECORD,
    RECORD_HEADER_BYTES,
    TIME,
    TIME_INTERVAL_MS,
    Cwd,
    Event,
    Kind,
    Output,
    Resize,
    Time,
    close_apart,
    file_header,
    read_records,
    record_header,
    records_of,
    write_all,
)
from orbitd.sessions.journal_repair import (
    Damage,
    Opened,
    base_of,
    lost_marker,
    open_journal,
    remove,
    remove_damaged,
)
from orbitd.sessions.terminal import Pending

NotWritten = list[tuple[int, bytes]]
"""Records that are in no file, each with the position at which it ends."""

MAX_BYTES = 1 << 30
"""The longest file: a program that goes on writing while nothing can be saved must not fill the disk."""

COPY_MAX_BYTES = 16 << 20
"""The most that a save copies into a new file, on the event loop; 0.2 ms a MiB. With more, the old file stays."""

_COPY_STEP_BYTES = 256 << 10

_OUTPUT, _TIME = int(Kind.OUTPUT), int(Kind.TIME)
_OUTPUT_START, _TIME_START = CRC_START[Kind.OUTPUT], CRC_START[Kind.TIME]

KEPT_RECORDS = 10_000
"""How many records are looked at in a file that was cut short while it was open; some tens of milliseconds."""


class Journal:
    """The journal of one session, open for reading and appending.

    Args:
        path: The file, mode 0600; it is created where there is none. Its folder exists.
        covered: The position that the newest good snapshot covers. A journal that ends before it (after a power cut,
            or a full disk) has nothing that the snapshot has not: it is emptied, and begins there.
        max_bytes: About how long the file may become; beyond, it is handled as a full disk.
        clock: The time in seconds since the epoch.

    Attributes:
        degraded: Why nothing is recorded any more, or None.
        damage: What was last found to be wrong with the file, if anything; see `journal_repair`. It may also be set
            while the journal is open, where somebody has cut the file short.
        file_number: Raised whenever the journal goes on in another file: readers need a new `reader`.

    Raises:
        OSError: The file can neither be opened nor created.
        UnsafeFile: Something that is no journal of ours is in its place, and cannot be moved away.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        covered: int = 0,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = os.fspath(path)
        self._side_path = f"{self._path}.new"
        self.degraded: OSError | None = None
        self.damage: Damage | None = None
        self._using_side_file = False  # the open file still has the side file's name
        self._skipped = 0  # bytes of records that were not written since the journal is degraded
        self._max_bytes = max_bytes
        self._clock = clock
        self._last_time = 0  # of the last `Time`, in milliseconds
        self._latest: dict[type[Event], Event] = {}  # the last folder and size, by their classes
        self.file_number = 0
        self._older: list[tuple[int, int]] = []  # files before a side file: a descriptor for reading, and the base
        # The position at which the file begins; the offsets at which its records begin and end.
        self._fd, self._base, self._first, self._tail = -1, 0, FILE_HEADER_BYTES, 0
        try:
            self._open_newest(covered)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. Closing again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._close_older()

    def _close_older(self) -> None:
        while self._older:
            close_apart(self._older.pop()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def base(self) -> int:
        """The position of the file's first record."""
        return self._base + self._first - FILE_HEADER_BYTES

    @property
    def position(self) -> int:
        """The position at which the next record begins."""
        return self._base + self._tail - FILE_HEADER_BYTES + self._skipped

    @property
    def size(self) -> int:
        """Bytes of records in the file; a save discards them."""
        return self._tail - self._first

    def gap(self, since: int) -> int:
        """Return how many bytes of the stream are missing between a position and the oldest file's beginning."""
        return max(0, (self._older[0][1] if self._older else self.base) - since)

    def events(self, since: int) -> Iterator[Event]:
        """Yield the events from a position on, the oldest first."""
        position = self.base
        for length, event in read_records(self._fd, self._first):
            if position >= since:
                yield event
            position += length

    def last_cwd(self) -> bytes | None:
        """Return the newest folder that was recorded, also if a save has discarded its record since; None if none was.

        It is not copied into the file that a save begins: the save stores the folder itself.
        """
        cwd = self._latest.get(Cwd)
        return cwd.path if isinstance(cwd, Cwd) else None

    def reader(self) -> int:
        """Return a new descriptor of the file, for reading only, which the caller closes.

        A file that was cut short is filled up first, as by an append.

        Raises:
            OSError: It cannot be opened: somebody has moved it away, on a system without /proc.
        """
        if self.degraded is None:
            try:
                self._check_size()
            except OSError as exc:
                self._degrade(exc)
        own = os.fstat(self._fd)
        with suppress(OSError, UnsafeFile):
            fd = open_private(self._side_path if self._using_side_file else self._path, os.O_RDONLY)
            if os.path.samestat(own, os.fstat(fd)):
                return fd
            os.close(fd)
        # Linux opens the file itself here, whatever has become of its name (proc(5)). Elsewhere /dev/fd would give a
        # duplicate, which can write.
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    def readers(self, *, newest: bool = False) -> list[tuple[int, int]]:
        """Return a new `reader` of each file that has what is not saved, or of the newest; the oldest first.

        With each comes the position that the offset behind its header stands for.

        Raises:
            OSError: As `reader`.
        """
        found: list[tuple[int, int]] = []
        try:
            for fd, base in () if newest else self._older:
                found.append((os.dup(fd), base))
            found.append((self.reader(), self._base))
        except OSError:
            for fd, _ in found:
                os.close(fd)
            raise
        return found

    def read_raw(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes between two positions in pieces, as far as the file has them."""
        position = max(start, self._base)
        while position < end:
            size = min(_COPY_STEP_BYTES, end - position)
            piece = os.pread(self._fd, size, FILE_HEADER_BYTES + position - self._base)
            if not piece:
                return
            yield piece
            position += len(piece)

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
        self._latest = dict(opened.latest)
        self.file_number += 1
        if opened.unfinished:
            record = b"".join(records_of(Output(data=opened.unfinished)))
            write_all(self._fd, record, self._tail)
            self._tail += len(record)
        os.ftruncate(self._fd, self._tail)  # without a torn record
        return opened

    def _start(self, base: int) -> None:
        """Make the open file an empty journal that begins at a position; on a full disk it is degraded at once."""
        self._base, self._tail = base, FILE_HEADER_BYTES
        self._latest.clear()  # older than the snapshot
        os.ftruncate(self._fd, 0)
        try:
            write_all(self._fd, file_header(base), 0)
        except OSError as exc:
            self._degrade(exc)

    # Appending

    def append(self, event: Event, *, timed: bool = False) -> NotWritten:
        """Record an event. A full disk does not raise, but sets `degraded`.

        Args:
            event: The event.
            timed: Record the time before it if the last one is too old, as before output: without it a resize would
                count to the output before it, however long ago that was, where a film is shown up to a moment.

        Returns:
            Its records where they are not in the file; empty where they are.

        Raises:
            ValueError: There is no record of such an event; see `records_of`.
        """
        records = list(records_of(event))
        now = int(self._clock() * 1000) if timed else self._last_time
        if not 0 <= now - self._last_time < TIME_INTERVAL_MS:
            self._last_time = now
            records = [*records_of(Time(milliseconds=now)), *records]
        not_written = self._write(records)
        if isinstance(event, Cwd | Resize):
            self._latest[type(event)] = event
        return not_written

    def append_output(self, data: bytes) -> NotWritten:
        """Record what was read from the program, and the time before it if the last one is too old; as `append`."""
        if not 0 < len(data) <= PAYLOAD_MAX_BYTES:
            return self.append(Output(data=data))
        # Each key's echo and each read of a flood come by here: what `records_of` does is written out.
        record = RECORD.pack(_OUTPUT, len(data), zlib.crc32(data, _OUTPUT_START)) + data
        now = int(self._clock() * 1000)
        if 0 <= now - self._last_time < TIME_INTERVAL_MS:
            return self._write([record])
        self._last_time = now
        moment = TIME.pack(now)
        return self._write([RECORD.pack(_TIME, len(moment), zlib.crc32(moment, _TIME_START)) + moment, record])

    def complete_landing(self, pending: Pending) -> NotWritten:
        """Record output that was read before a kill, unless it is recorded already; as `append`.

        Call it before anything is appended. Where positions do not fit, since the file was damaged, it is recorded: a
        line twice is better than a line lost.
        """
        if pending.position < self.base:
            return []  # saved
        # A kill in the middle of a write leaves any number of its whole records: the time, and not the output.
        first = next((event for event in self.events(pending.position) if isinstance(event, Output)), None)
        if first is not None and first.data.rstrip(b"\0") == pending.data:
            return []
        return self._write(list(records_of(Output(data=pending.data))))

    def append_lost(self, records: bytes, length: int) -> None:
        """Append what the file has lost at its end, or where that is not known, as much that draws nothing.

        Args:
            records: Whole records; b"" where they are not known.
            length: How long they were.
        """
        if records:
            self._write([records])
            return
        while length > 0:
            payload = min(max(1, length - RECORD_HEADER_BYTES), PAYLOAD_MAX_BYTES)
            self._write([_padded_header(b"", payload) + bytes(payload)])  # NULs do nothing on a terminal
            length -= RECORD_HEADER_BYTES + payload

    def _write(self, records: list[bytes]) -> NotWritten:
        if self.degraded is None:
            try:
                self._check_size()
                if FILE_HEADER_BYTES + self.size > self._max_bytes:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self._path)
                data = b"".join(records)
                written = os.pwrite(self._fd, data, self._tail)
                if written < len(data):  # the disk is nearly full
                    write_all(self._fd, data[written:], self._tail + written)
            except OSError as exc:
                self._degrade(exc)
            else:
                self._tail += len(data)
                return []
        # Counted all the same: positions are of the stream, and must agree with later snapshots.
        not_written = []
        for record in records:
            self._skipped += len(record)
            not_written.append((self.position, record))
        return not_written

    def _check_size(self) -> None:
        """Make the file as long as it was, where somebody has cut it short, or written behind its end."""
        # Not os.fstat, which takes four times as long. No other call depends on the offset that this moves.
        size = os.lseek(self._fd, 0, os.SEEK_END)
        if size > self._tail:
            os.ftruncate(self._fd, self._tail)
        elif size < self._tail:
            self._fill_up()

    def _fill_up(self) -> None:
        """Put output that tells what is missing behind the last whole record of a file that was cut short."""
        start = FILE_HEADER_BYTES + sum(length for length, _ in islice(read_records(self._fd), KEPT_RECORDS))
        lost = self._tail - start
        self.damage = Damage(path=self._path, reason="it was cut short while it was in use", lost_bytes=lost)
        os.ftruncate(self._fd, start)
        os.ftruncate(self._fd, self._tail)  # a hole of zeros: NULs, which do nothing on a terminal
        write_all(self._fd, file_header(self._base), 0)
        text = lost_marker(lost)
        # At least one record was lost, and none is shorter than RECORD_HEADER_BYTES + 1.
        while (room := self._tail - start) > 0:
            length = min(room, RECORD_HEADER_BYTES + PAYLOAD_MAX_BYTES)
            if 0 < room - length <= RECORD_HEADER_BYTES:
                length -= RECORD_HEADER_BYTES + 1
            shown = text if len(text) <= length - RECORD_HEADER_BYTES else b""
            write_all(self._fd, _padded_header(shown, length - RECORD_HEADER_BYTES) + shown, start)
            start, text = start + length, b""
        for event in self._latest.values():  # which may have been lost
            for record in records_of(event):
                write_all(self._fd, record, self._tail)
                self._tail += len(record)

    def _degrade(self, error: OSError) -> None:
        """Stop recording; what is in the file stays readable.

        Nothing is recorded after a gap, even if there is room again: a replay would feed the emulator output that
        follows on something it has never seen. The next snapshot ends the gap.
        """
        self.degraded = error
        with suppress(OSError):
            os.ftruncate(self._fd, self._tail)

    # Saving

    def mark(self) -> int:
        """Return the position of the end of the stream, for a snapshot of a screen that has been fed everything.

        A degraded journal starts a side file here, if it can: what is missing before this position is in the snapshot.
        """
        position = self.position
        if self.degraded is not None:
            with suppress(OSError):
                # Kept until the snapshot is committed: a picture that is rebuilt before that needs it.
                older = self.reader(), self._base
                try:
                    fd = self._new_file(position, self._tail)
                except OSError:
                    os.close(older[0])
                    raise
                self._go_on_in(fd, position, FILE_HEADER_BYTES)
                self._older.append(older)
                self._using_side_file = True
        return position

    def discard_before(self, position: int) -> None:
        """Discard the records that a committed snapshot covers.

        Args:
            position: What the snapshot covers: what `mark` returned, or the end of a later record.

        Raises:
            OSError: The new file cannot be written; the old one stays, and stays correct.
        """
        # rename(2) is atomic: a kill leaves the old name on the old file or on the new one. Both are correct, since
        # the snapshot is committed: records before the position are skipped by a replay.
        if self._using_side_file and self._base <= position:
            os.replace(self._side_path, self._path)
            self._using_side_file = False
        if self._base <= position:
            self._close_older()
        if self.degraded is not None and position == self.position:
            # All of it is in the snapshot. The file's own blocks are written again: the disk may have no others.
            self._skipped, self.degraded = 0, None
            self._start(position)
            self.file_number += 1
        if position <= self._base or self.degraded is not None:
            return
        self._check_size()
        start = FILE_HEADER_BYTES + position - self._base
        if self._tail - start > COPY_MAX_BYTES:
            return  # the next save discards it: until then a replay skips it
        fd = self._new_file(position, start)
        try:
            os.replace(self._side_path, self._path)
        except OSError:
            os.close(fd)
            raise
        self._go_on_in(fd, position, FILE_HEADER_BYTES + self._tail - start)

    def discard_all(self) -> None:
        """Discard every record, also where no snapshot has them: they could not be drawn. Raises: as above."""
        self.discard_before(self.position)

    def _new_file(self, base: int, start: int) -> int:
        """Return a new side file that begins at `base`, with what stands in the open one from an offset on."""
        remove(self._side_path)
        fd = open_private(self._side_path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            write_all(fd, file_header(base), 0)
            # In pieces that stay in the processor's cache: five times as fast as all at once.
            for offset in range(start, self._tail, _COPY_STEP_BYTES):
                piece = os.pread(self._fd, min(_COPY_STEP_BYTES, self._tail - offset), offset)
                write_all(fd, piece, FILE_HEADER_BYTES + offset - start)
        except OSError:
            os.close(fd)
            os.unlink(self._side_path)
            raise
        return fd

    def _go_on_in(self, fd: int, base: int, tail: int) -> None:
        close_apart(self._fd)
        self._fd, self._base, self._tail = fd, base, tail
        self._skipped, self.degraded, self._using_side_file = 0, None, False
        self.file_number += 1


@lru_cache(maxsize=8)
def _padded_header(text: bytes, length: int) -> bytes:
    """Return the header of a record of text that NULs make `length` bytes long. Most of a long hole's are equal."""
    return record_header(Kind.OUTPUT, text.ljust(length, b"\0"))


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


def copy_records(opened: Journal, start: int, end: int, path: str) -> int:
    """Copy the records between two positions into a new file, a journal that begins at the first.

    Returns:
        How many bytes of records were copied; fewer where the file has not all of them.

    Raises:
        OSError, UnsafeFile: The file cannot be written.
    """
    return write_records(path, max(start, opened.base), opened.read_raw(start, end))


def write_records(path: str, base: int, pieces: Iterable[bytes]) -> int:
    """Write records to a new file, a journal that begins at a position; return how many bytes. Raises: as above."""
    fd = open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        write_all(fd, file_header(base), 0)
        written = 0
        for piece in pieces:
            write_all(fd, piece, FILE_HEADER_BYTES + written)
            written += len(piece)
    finally:
        os.close(fd)
    return written
