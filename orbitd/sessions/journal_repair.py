"""Journals as they are found: whole, torn by a kill or a power cut, damaged, or something else in their place.

A torn tail is what any kill leaves: a record that was not written to its end, or zeros that were preallocated. Damage
is what a failing disk or memory leaves, or a hand: a record with records behind it whose checksum does not fit, a
header that is none. What is damaged is kept aside, unchanged, as `ID.damaged-TIME`, and a clean file takes its place,
with every whole record from before and behind the damage, and a line of text where output is missing.

**One wrong bit** of a record that is not long is found by its checksum, and put right: nothing is lost then.

**Finding the next record.** Behind a damaged record the next one is looked for where the record's own length says, then
byte by byte: the first place at which a whole record with a fitting checksum begins. A program may print bytes that are
a whole record, and one that is found inside of a damaged one is replayed. It is output of the same session, and a
record can do nothing that output could not do by itself: OSC 7 sets a folder too. The work is bounded: see
`_BUDGET_BYTES`.

**Positions** behind damage are right as long as no byte was removed or inserted. That is assumed where the snapshot's
position falls on the border of two records. Where it does not, everything behind the damage is replayed: a line twice
is better than a line lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from orbit_os.files import PRIVATE_FILE, UnsafeFile, open_private, set_mode, sync, sync_descriptor
from orbitd.sessions.journal_file import (
    CAPTURE_MAX_BYTES,
    FILE_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    Cwd,
    Event,
    Kind,
    Output,
    Resize,
    checksum,
    close_apart,
    file_header,
    has_checksum_of,
    is_of_another_version,
    parse_base,
    parse_record,
    payload_length,
    read_record,
    read_records,
    record_header,
    records_of,
    write_all,
)

DAMAGED = ".damaged-"
"""What stands between a session's id and the time in the name of a damaged journal."""

UNREADABLE = ".unreadable-"
"""The same in the name of a file with records that could not be drawn."""

KEPT_UNREADABLE = 8
"""How many files with records that could not be drawn are kept of one session, the newest ones."""

KEPT = 3
"""How many damaged journals of one session are kept, the newest ones."""

_BUDGET_BYTES = 256 << 20
"""How much is read to find whole records in damaged parts of one file; some tenths of a second."""

_CANDIDATE_BYTES = 4096
"""What a place where a record may begin costs of the budget, beside its payload."""

_CORRECTABLE_BYTES = 8 << 10
"""The longest payload in which a wrong bit is looked for. Up to 11,450 bytes, no two records with fitting checksums
differ in less than four bits, so that two wrong bits are never taken for another one."""

_MAX_CORRECTIONS = 256
"""How often a wrong bit is looked for in one file; some milliseconds each."""

_KINDS = frozenset(Kind)
_POLYNOMIAL = 0xEDB88320
_SCAN_BYTES = 1 << 20
_PAGE_BYTES = 4096

# The first bytes of a record that can be: kind and upper half of the length. Text has none of them, and of random bytes
# one in a million begins so. The lookahead consumes nothing, so that no place is passed over.
_CANDIDATE = re.compile(
    rb"\x01(?=\x00[\x00-\x10])|\x02(?=\x00\x00\x00\x04)|\x03(?=\x00\x00[\x00-\x03])"
    rb"|\x04(?=\x00\x00[\x00-\x10])|\x05(?=\x00\x00\x00\x08)"
)
_LOOKAHEAD = 4


class Damage(Struct, frozen=True, kw_only=True):
    """What was wrong with a journal.

    Attributes:
        path: Where the file is now, unchanged.
        reason: What was found, for the log.
        lost_bytes: How much of it, headers included, could not be read and is in no snapshot.
        removed: Damaged journals of this session that were removed, being the oldest.
    """

    path: str
    reason: str
    lost_bytes: int = 0
    removed: int = 0


class Opened(Struct, frozen=True, kw_only=True):
    """A journal's file that is ready to be appended to.

    Attributes:
        fd: Open for reading and writing; the caller closes it.
        base: The position of the first record; None where the file is new.
        tail: The offset at which the last whole record ends.
        end: Its position, in the file that was there; None if that is not known.
        unfinished: Output behind the last record whose header was not written, by an older release.
        damage: What was wrong with the file that was there, if anything.
        latest: The last folder and the last size in the file that was there, by their classes.
    """

    fd: int
    base: int | None
    tail: int
    end: int | None
    unfinished: bytes
    damage: Damage | None
    latest: Mapping[type[Event], Event] = {}


class _Found(Struct, kw_only=True):
    """What a file holds.

    Attributes:
        header: "new", "good", "damaged", or "foreign" where nothing in the file is ours.
        base: The position of the first record; None if it is not known.
        first: The offset of the first record, or of what is in its place.
        tail: Where the last whole record ends.
        damaged: The parts behind the header that cannot be read, as offset and length.
        corrected: Offset -> the record that is there but for one bit.
        latest: As in `Opened`.
    """

    header: Literal["new", "good", "damaged", "foreign"]
    base: int | None = None
    first: int = FILE_HEADER_BYTES
    tail: int = FILE_HEADER_BYTES
    unfinished: bytes = b""
    damaged: list[tuple[int, int]] = []
    corrected: dict[int, bytes] = {}
    latest: dict[type[Event], Event] = {}

    def keep_latest(self, event: Event | None) -> None:
        if isinstance(event, Cwd | Resize):
            self.latest[type(event)] = event

    @property
    def shift(self) -> int:
        """What is added to an offset for its position."""
        return (self.base or 0) - FILE_HEADER_BYTES

    @property
    def end(self) -> int | None:
        """The position at which the last whole record ends; None if it is not known."""
        return 0 if self.header == "new" else None if self.base is None else self.shift + self.tail


def open_journal(path: str, covered: int) -> Opened:
    """Open a journal, or create it; if it is damaged, keep it aside and open a clean one with what is whole in it.

    Args:
        path: The file, in a private folder.
        covered: The position that the newest good snapshot covers.

    Raises:
        OSError: The file can neither be opened nor created, or what is damaged not be kept aside. Nothing was changed.
    """
    damage: Damage | None = None
    try:
        fd = _open(path)
    except (UnsafeFile, IsADirectoryError, PermissionError) as error:
        # No regular file of ours: a link, say. rename(2) does not follow it, and what it leads to is left alone.
        damage = _move_aside(path, _reason_of(error))
        fd = _open(path)
    try:
        found = _inspect(fd)
        if found.header in ("damaged", "foreign") or found.damaged or found.corrected:
            return _rewrite(fd, path, found, covered, _reason(found))
        if os.fstat(fd).st_nlink > 1:  # another name of the same file, a copy: it is not written to
            return _rewrite(fd, path, found, covered, None)
    except BaseException:
        os.close(fd)
        raise
    return Opened(
        fd=fd,
        base=found.base,
        tail=found.tail,
        end=found.end,
        unfinished=found.unfinished,
        damage=damage,
        latest=found.latest,
    )


def damaged_journals(folder: str) -> list[str]:
    """Return what is kept aside in a folder of journals, the oldest of each session first."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [os.path.join(folder, name) for name in sorted(name for name in names if DAMAGED in name)]


def unreadable_journals(folder: str) -> list[str]:
    """Return the files with records that could not be drawn, the oldest of each session first."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [os.path.join(folder, name) for name in sorted(name for name in names if UNREADABLE in name)]


def session_of(name: str) -> str:
    """Return whose a file in a folder of journals is."""
    return name.partition(DAMAGED)[0].partition(UNREADABLE)[0].removesuffix(".new").removesuffix(".repair")


def base_of(path: str) -> int | None:
    """Return the position at which a journal begins; None if there is no good one."""
    try:
        fd = open_private(path, os.O_RDONLY)
    except (UnsafeFile, OSError):
        return None
    try:
        return parse_base(os.pread(fd, FILE_HEADER_BYTES, 0))
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Remove a file of a journal's, or move aside what cannot be removed; do nothing where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # so `unlink` frees nothing
    except FileNotFoundError:
        return
    except OSError:  # a link, or a file that may not be read
        fd = -1
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError:
        if not os.path.isdir(path) or os.path.islink(path):
            raise
        _move_aside(path, "a folder is in its place")
    finally:
        if fd >= 0:
            close_apart(fd)


# Looking


def _open(path: str) -> int:
    try:
        return open_private(path, os.O_RDWR | os.O_CREAT)
    except PermissionError:
        # Of mode 0400 or 0000, by a hand or a copy. In a private folder nobody else can put another file there now.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise
        set_mode(path, PRIVATE_FILE)
        return open_private(path, os.O_RDWR)


def _reason_of(error: Exception) -> str:
    return "no regular file of this user is in its place" if isinstance(error, UnsafeFile) else "it cannot be opened"


def _inspect(fd: int) -> _Found:
    """Read a file from its beginning to its end."""
    size = os.fstat(fd).st_size
    end = _end_of_data(fd, size)
    search = _Search(fd, size, end)
    found = _inspect_header(fd, size, end, search)
    if found.header in ("new", "foreign"):
        return found
    offset = found.tail
    while True:
        for length, event in read_records(fd, offset):
            if offset >= end:
                break
            found.keep_latest(event)
            offset += length
            found.tail = offset
        if offset >= end:
            return found
        following = search.next_record(offset)
        if following is None:
            is_torn, found.unfinished = _torn_tail(fd, offset, end, size)
            if is_torn:
                return found
        corrected = search.corrected(offset)
        if corrected is not None:
            found.keep_latest(parse_record(corrected))
            found.corrected[offset] = corrected
            offset += len(corrected)
            found.tail = offset
            continue
        found.damaged.append((offset, (end if following is None else following) - offset))
        if following is None:
            return found
        offset = following


def _inspect_header(fd: int, size: int, end: int, search: _Search) -> _Found:
    """Find out where the first record is, and its position."""
    header = os.pread(fd, FILE_HEADER_BYTES, 0)
    if end == 0 or (size < FILE_HEADER_BYTES and file_header(0).startswith(header[:8])):
        return _Found(header="new")  # a kill or a power cut may leave nothing of the header, or its first bytes
    found = _Found(header="good", base=parse_base(header), damaged=[], corrected={}, latest={})
    if found.base is not None:
        return found
    if size < FILE_HEADER_BYTES or is_of_another_version(header):
        return _Found(header="foreign")
    found.header, found.base = "damaged", _corrected_base(header)
    if found.base is None and read_record(fd, FILE_HEADER_BYTES) is None:
        first = search.next_record(-1)  # it may be anywhere
        if first is None:
            return _Found(header="foreign")
        found.first, found.tail = min(first, FILE_HEADER_BYTES), first
        if first > FILE_HEADER_BYTES:
            found.damaged.append((FILE_HEADER_BYTES, first - FILE_HEADER_BYTES))
    return found


def _end_of_data(fd: int, size: int) -> int:
    """Return the offset behind the last byte that is not zero."""
    while size > 0:
        start = max(0, size - _SCAN_BYTES)
        data = os.pread(fd, size - start, start).rstrip(b"\0")
        if data:
            return start + len(data)
        size = start
    return 0


def _corrected_base(header: bytes) -> int | None:
    """Return the position in a header of which one bit is wrong, None if there is more wrong with it.

    Two headers with fitting checksums differ in four bits at least (the distance of CRC-32 at 160 bits), so that there
    is one answer at most.
    """
    for bit in range(8 * FILE_HEADER_BYTES):
        flipped = bytearray(header)
        flipped[bit // 8] ^= 1 << bit % 8
        if (base := parse_base(bytes(flipped))) is not None:
            return base
    return None


class _Search:
    """Finds the next whole record behind damage, with a budget for the whole file."""

    def __init__(self, fd: int, size: int, end: int) -> None:
        self._fd = fd
        self._size = size
        self._end = end
        self._budget = _BUDGET_BYTES
        self._corrections = _MAX_CORRECTIONS

    def next_record(self, offset: int) -> int | None:
        """Return where the next whole record behind a damaged one at `offset` begins, None if there is none."""
        aligned, stop = None, self._end
        if offset >= 0:
            length = payload_length(os.pread(self._fd, RECORD_HEADER_BYTES, offset))
            if length is not None and self._is_whole(offset + RECORD_HEADER_BYTES + length):
                aligned = stop = offset + RECORD_HEADER_BYTES + length
        start = offset + 1
        while start < stop and self._budget > 0:
            chunk = os.pread(self._fd, _SCAN_BYTES + _LOOKAHEAD, start)
            for match in _CANDIDATE.finditer(chunk):
                found = start + match.start()
                if match.start() >= _SCAN_BYTES or found >= stop or self._budget <= 0:
                    break
                # Inside of the record's own length, what a program printed may look like one. Records that lead right
                # to the next one are there where bytes were removed.
                if self._is_whole(found) and (aligned is None or self._leads_to(found, aligned)):
                    return found
            start += _SCAN_BYTES
        return aligned

    def _leads_to(self, offset: int, wanted: int) -> bool:
        while offset < wanted and self._budget > 0 and (record := read_record(self._fd, offset)) is not None:
            offset += record[0]
            self._budget -= _CANDIDATE_BYTES + record[0]
        return offset == wanted

    def _is_whole(self, offset: int) -> bool:
        self._budget -= _CANDIDATE_BYTES
        length = payload_length(os.pread(self._fd, RECORD_HEADER_BYTES, offset))
        if length is None or offset + RECORD_HEADER_BYTES + length > self._size:
            return False
        self._budget -= length
        return read_record(self._fd, offset) is not None

    def corrected(self, offset: int) -> bytes | None:
        """Return the record at an offset with the one bit put right that is wrong in it; None if more is wrong."""
        record = self._corrected(offset)
        return None if record is None or parse_record(record) is None else record

    def _corrected(self, offset: int) -> bytes | None:
        self._corrections -= 1
        header = os.pread(self._fd, RECORD_HEADER_BYTES, offset)
        if self._corrections < 0 or len(header) < RECORD_HEADER_BYTES:
            return None
        longest = os.pread(self._fd, CAPTURE_MAX_BYTES, offset + RECORD_HEADER_BYTES)
        length = payload_length(header)
        if length is not None and length <= min(len(longest), _CORRECTABLE_BYTES):
            payload = bytearray(longest[:length])
            difference = checksum(header[0], payload) ^ int.from_bytes(header[-4:], "big")
            bit = _bit_of(difference, 8 * length)
            if bit is not None:
                payload[-1 - bit // 8] ^= 0x80 >> bit % 8
            if bit is not None or difference.bit_count() == 1:  # the latter: it is in the checksum itself
                return record_header(header[0], payload) + payload
        for bit in range(8 * (RECORD_HEADER_BYTES - 4)):
            flipped = bytearray(header)
            flipped[bit // 8] ^= 1 << bit % 8
            length = payload_length(flipped)
            if length is not None and length <= len(longest):
                payload = bytearray(longest[:length])
                if checksum(flipped[0], payload) == int.from_bytes(header[-4:], "big"):
                    return bytes(flipped + payload)
        return None


def _bit_of(difference: int, count: int) -> int | None:
    """Return the bit that makes this difference of two CRC-32s, counted from the last of `count`; None if none does."""
    # A CRC is linear: a flipped bit changes it in one way, whatever the others are. The last bit that goes into it
    # (the highest of the last byte) changes it by the polynomial, each one before by what one more step makes of that.
    step = _POLYNOMIAL
    for bit in range(count):
        if step == difference:
            return bit
        step = step >> 1 ^ (_POLYNOMIAL if step & 1 else 0)
    return None


def _torn_tail(fd: int, offset: int, end: int, size: int) -> tuple[bool, bytes]:
    """Return whether a kill or a power cut leaves what stands at `offset`, with no whole record behind it.

    Returns:
        That, and output that was captured into the file and whose header was not written to its end.
    """
    header = os.pread(fd, RECORD_HEADER_BYTES, offset).ljust(RECORD_HEADER_BYTES, b"\0")
    begin = offset + RECORD_HEADER_BYTES
    if not any(header):
        # NULs at the end of the output are lost with the zeros behind it; on a terminal they do nothing. Where most
        # are NULs, it was not captured: a bit or more of the preallocated zeros is wrong.
        data = os.pread(fd, min(end - begin, CAPTURE_MAX_BYTES + 1), begin)
        is_captured = len(data) <= CAPTURE_MAX_BYTES and 2 * data.count(0) < len(data)
        return (True, data) if is_captured else (False, b"")
    if header[0] == 0:
        # An older release wrote the first byte last: the other ones are right.
        length = payload_length(bytes([Kind.OUTPUT]) + header[1:]) or 0
        data = os.pread(fd, length, begin)
        is_last = length > 0 and end <= begin + length and has_checksum_of(header, data)
        return is_last, data if is_last else b""
    if size < begin:
        return header[0] in _KINDS, b""
    length = payload_length(header) or 0
    if length > 0 and begin + length > size:
        # The file ends within the record. If what is there has the record's checksum, its length is what is wrong.
        there = os.pread(fd, size - begin, begin)
        return not has_checksum_of(header, there) and not has_checksum_of(header, there[: max(0, end - begin)]), b""
    # Written into preallocated space, a torn record is missing from a border of two pages on. As above, a wrong length
    # looks like that.
    border = (begin + length - 1) // _PAGE_BYTES * _PAGE_BYTES
    is_torn = length > 0 and offset < border and end <= border
    return is_torn and not has_checksum_of(header, os.pread(fd, max(0, end - begin), begin)), b""


# Repairing


def _reason(found: _Found) -> str:
    if found.header == "foreign":
        return "it is no journal of this version"
    if found.damaged:
        return f"{len(found.damaged)} parts of it cannot be read"
    if found.corrected:
        return f"{len(found.corrected)} records have a wrong bit, which was put right"
    return "its header cannot be read"


def _record_at(fd: int, found: _Found, offset: int) -> bytes | None:
    """Return the bytes of the record at an offset, as they should be."""
    if offset in found.corrected:
        return found.corrected[offset]
    record = read_record(fd, offset)
    return None if record is None else os.pread(fd, record[0], offset)


def _rewrite(fd: int, path: str, found: _Found, covered: int, reason: str | None) -> Opened:
    """Write a file with all whole records that the snapshot has not, and put it in the place of `fd`'s."""
    # Where the base is not known, the file is taken to begin where the snapshot ends, as it does except between a
    # commit and the rename that follows.
    base = covered if found.base is None else max(found.base, covered)
    temporary = f"{path}.repair"
    remove(temporary)
    clean = open_private(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        write_all(clean, file_header(base), 0)
        tail, lost = FILE_HEADER_BYTES, 0
        for record, lost_here in _needed(fd, found, covered):
            write_all(clean, record, tail)
            tail += len(record)
            lost += lost_here
        sync_descriptor(clean)  # the file that it replaces may be on disk already
        damage = None if reason is None else _keep_aside(fd, path, reason, lost)
        os.replace(temporary, path)
        sync(os.path.dirname(path))
    except BaseException:
        os.close(clean)
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    os.close(fd)
    unfinished = found.unfinished if found.base is None or found.shift + found.tail >= covered else b""
    return Opened(
        fd=clean,
        base=base,
        tail=tail,
        end=found.end,
        unfinished=unfinished,
        damage=damage,
        latest=found.latest,
    )


def _parts(fd: int, found: _Found) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield offset, length and bytes of each record in order; for a part that cannot be read None in their place."""
    offset = found.first
    for start, length in [*found.damaged, (found.tail, 0)]:
        while offset < start and (record := _record_at(fd, found, offset)) is not None:
            yield offset, len(record), record
            offset += len(record)
        yield start, length, None
        offset = start + length


def _needed(fd: int, found: _Found, covered: int) -> Iterator[tuple[bytes, int]]:
    """Yield each record that is not in the snapshot; for what is lost a line that says so, with the number of bytes."""
    limit = covered - found.shift  # the offset at which the snapshot ends
    if found.base is None:
        limit = 0
    elif limit < found.tail and not _is_border(fd, found, limit):
        # Bytes were removed or inserted in front of it.
        limit = found.damaged[0][0] if found.damaged else found.first
    for offset, length, record in _parts(fd, found):
        if record is not None:
            if offset >= limit:
                yield record, 0
        elif lost := min(length, max(0, offset + length - limit)):
            yield b"".join(records_of(Output(data=lost_marker(lost)))), lost


def _is_border(fd: int, found: _Found, limit: int) -> bool:
    """Return whether a record begins at an offset, or no record has it."""
    if limit <= found.first:
        return True
    return any(
        offset == limit or (record is None and offset <= limit <= offset + length)
        for offset, length, record in _parts(fd, found)
    )


def lost_marker(lost: int) -> bytes:
    """Return output that shows how much is missing. CAN and ST end what may be unfinished in front of the damage."""
    return f"\x18\x1b\\\r\n[{lost} bytes of output could not be read]\r\n".encode()


def _keep_aside(fd: int, path: str, reason: str, lost: int) -> Damage:
    """Give a damaged file a second name; its own is about to be replaced."""
    here = os.fstat(fd)
    others = [name for name in _damaged_of(path) if os.path.samestat(here, os.lstat(name))]
    if others:  # a kill came between the two steps
        return Damage(path=others[0], reason=reason, lost_bytes=lost)
    name = _free_name(path)
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError:  # a file system without hard links
        with open(open_private(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as copy:
            with open(os.dup(fd), "rb") as source:
                source.seek(0)
                shutil.copyfileobj(source, copy)
            copy.flush()
            sync_descriptor(copy.fileno())
    return Damage(path=name, reason=reason, lost_bytes=lost, removed=_remove_oldest(path))


def _move_aside(path: str, reason: str) -> Damage:
    """Rename what is in a journal's place and is none."""
    name = _free_name(path)
    os.rename(path, name)
    return Damage(path=name, reason=reason, removed=_remove_oldest(path))


def _free_name(path: str) -> str:
    """Return a name that is the newest one of this session, whatever the clock says."""
    name = f"{path}{DAMAGED}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    return max([name, *(f"{other}+" for other in _damaged_of(path)[-1:])])


def _damaged_of(path: str) -> list[str]:
    return _beginning_with(path + DAMAGED)


def _beginning_with(*prefixes: str) -> list[str]:
    """Return the files of one folder whose paths begin with one of these, in order."""
    # One look through the folder, which has a file for each session. `glob` needs four times as long: half a second
    # for 100,000 files.
    folder = os.path.dirname(prefixes[0])
    wanted = tuple(os.path.basename(prefix) for prefix in prefixes)
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(os.path.join(folder, name) for name in names if name.startswith(wanted))


def _remove_oldest(path: str) -> int:
    removed = 0
    for name in _damaged_of(path)[:-KEPT]:
        with contextlib.suppress(OSError):  # a folder stays
            os.unlink(name)
            removed += 1
    return removed


def remove_damaged(path: str) -> None:
    """Remove what was kept aside of a session that is deleted."""
    for name in _beginning_with(path + DAMAGED, path + UNREADABLE):
        with contextlib.suppress(OSError):
            os.unlink(name)


def remove_oldest_unreadable(path: str) -> None:
    """Keep the newest files with records of a session that could not be drawn."""
    for name in _beginning_with(path + UNREADABLE)[:-KEPT_UNREADABLE]:
        with contextlib.suppress(OSError):
            os.unlink(name)
