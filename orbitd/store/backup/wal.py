"""A write-ahead log that may be damaged: its frames, corrected where possible, and whether commits would be lost.

SQLite reads a WAL up to the first frame that does not fit, and takes what follows for the rest
of an interrupted transaction, as it is after a kill. A flipped bit looks the same to it, and
all commits behind it would be gone without a word. Each frame has the running checksum of all
frames up to it, so it can also be checked by itself, with the sums of the frame before
(sqlite.org/fileformat.html#the_write_ahead_log).
"""

from __future__ import annotations

import array
import os
import struct
import sys
import time
from collections.abc import Iterable, Iterator

from msgspec import Struct

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, salt 1, salt 2, sum 1, sum 2
_FRAME = struct.Struct(">6I")  # page, database size after a commit or 0, salt 1, salt 2, sum 1, sum 2
_MAGIC = 0x377F0682  # + 1 where checksums are made of big-endian words
_DEFAULT_PAGE_BYTES = 4096
_CORRECTIONS = 8
"""How many frames of one log are tried to be corrected; each takes some milliseconds, and a torn log has many."""
_INDEX = struct.Struct("=3I2BH4I8s2I")
"""The head of the shared memory, 48 bytes, in the machine's byte order: version, unused, changes, whether it is made,
byte order of checksums, page size, frames, pages, the last frame's two sums, the log's salts, and its own two sums."""
_INDEX_SUMMED = 40
_MODULUS = 1 << 32
_MASK = _MODULUS - 1

Sums = tuple[int, int]


class Frame(Struct, frozen=True, kw_only=True):
    """One frame: a page as it is, or as it can be corrected.

    Args:
        number: Of the page.
        commits: The size of the database in pages after the transaction that it ends; 0 if it ends none.
        page: None if it is damaged and cannot be corrected, or is of an earlier run of the log.
        fits: Whether SQLite takes it.
        changed: Whether it would fit with one bit, or one byte of its checksum, changed.
    """

    number: int
    commits: int
    page: bytes | None
    fits: bool
    changed: bool = False


class Log(Struct, frozen=True, kw_only=True):
    """What a WAL holds: the frames of its present run, not those of an earlier one that it overwrites."""

    page_bytes: int
    header_damaged: bool
    frames: list[Frame]

    def _committed(self) -> list[Frame]:
        """Return the frames up to the last that ends a transaction."""
        last = max((at for at, frame in enumerate(self.frames) if frame.commits), default=-1)
        return self.frames[: last + 1]

    def damage(self) -> str | None:
        """Return what is damaged if SQLite would drop commits for it; None for a log that is whole or was interrupted.

        A kill leaves a last transaction without its commit, and a power cut leaves one of which any sector may be
        as it was before. Frames that do not fit are damage where a later transaction follows, as each is on disk before
        the next one begins; or where one changed bit would make the only one fit.
        """
        if self.header_damaged:
            return "the head of its log is damaged"
        # Behind the last commit a frame may have a newer page than its checksum: SQLite overwrites a page that
        # the same transaction has written, and makes the checksums at its commit (walRewriteChecksums in wal.c).
        committed = self._committed()
        misfits = [at for at, frame in enumerate(committed) if not frame.fits]
        if not misfits:
            return None
        # Where even the page of a frame is unknown, so is whether it ends a transaction: a torn head may be older.
        is_followed = any(frame.commits and frame.page is not None for frame in self.frames[misfits[0] : -1])
        # A sector of older content may differ in one bit too, but hardly where all else of the transaction is there.
        if is_followed or (len(misfits) == 1 and committed[misfits[0]].changed):
            return "its log is damaged"
        return None

    def lost_pages(self) -> int:
        """Return how many frames that were committed are damaged and cannot be corrected."""
        return sum(frame.page is None for frame in self._committed())

    def database_pages(self) -> int:
        """Return the size of the database in pages after the last transaction; 0 if that is unknown."""
        return next((frame.commits for frame in reversed(self.frames) if frame.commits and frame.page is not None), 0)

    def pages(self) -> dict[int, bytes]:
        """Return the newest content of each page that was committed; of a damaged frame, what was there before it."""
        return {frame.number: frame.page for frame in self._committed() if frame.page is not None}


class _Index(Struct, frozen=True, kw_only=True):
    """The head of a database's shared memory (sqlite.org/walformat.html#the_wal_index_file_format)."""

    page_bytes: int
    frames: int
    checkpointed: int
    sums: Sums
    salts: bytes
    written_at: float


def _read_index(path: str) -> _Index | None:
    """Read the shared memory; None if there is none, or what it has is not whole."""
    try:
        with open(path + "-shm", "rb") as file:
            head, copy = file.read(_INDEX.size), file.read(_INDEX.size)
            (checkpointed,) = struct.unpack("=I", file.read(4))
            written_at = os.fstat(file.fileno()).st_mtime
    except (OSError, struct.error):
        return None
    *_, page_bytes, frames, _, sum1, sum2, salts, own1, own2 = _INDEX.unpack(head)
    if head != copy or _checksum(head[:_INDEX_SUMMED], (0, 0), sys.byteorder == "big") != (own1, own2):
        return None
    return _Index(
        page_bytes=65536 if page_bytes == 1 else page_bytes,
        frames=frames,
        checkpointed=checkpointed,
        sums=(sum1, sum2),
        salts=salts,
        written_at=written_at,
    )


def frames_in_use(path: str) -> int:
    """Return how many frames of a database's WAL SQLite reads, while a connection has it open; 0 if that is unknown."""
    index = _read_index(path)
    return 0 if index is None else index.frames


def is_cut_off(path: str) -> bool:
    """Return whether a database's log ends before the last commit, or is gone; to be called before SQLite opens it.

    A log that was cut off looks as after a kill in the middle of a transaction. The shared memory shows it: a kill
    leaves it, and it has the number of frames and the sums of the last one, written after they were on disk. A power
    cut may leave an older state of it. So it counts where it is of the same run of the log, or was written since the
    last boot.
    """
    index = _read_index(path)
    if index is None or index.frames <= index.checkpointed:
        return False
    size = _FRAME.size + index.page_bytes
    try:
        with open(path + "-wal", "rb") as file:
            log = file.read(_HEADER.size)
            file.seek(_HEADER.size + (index.frames - 1) * size)
            last = file.read(size)
    except OSError:
        log = last = b""
    if log[16:24] != index.salts:
        clock = time.CLOCK_BOOTTIME if hasattr(time, "CLOCK_BOOTTIME") else time.CLOCK_MONOTONIC
        return index.written_at > time.time() - time.clock_gettime(clock)
    return len(last) < size or last[8:16] != index.salts or struct.unpack_from(">2I", last, 16) != index.sums


def read_log(path: str, trusted: int = 0) -> Log | None:
    """Read a WAL; None if there is none, or no frame in it.

    Args:
        path: The WAL.
        trusted: How many frames SQLite has checked; they are left out (measured: 0.1 ms a frame, and its memory).

    Raises:
        OSError: It cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return _read_log(file.fileno(), trusted)
    except FileNotFoundError:
        return None


def _read_log(descriptor: int, trusted: int) -> Log | None:
    length = os.fstat(descriptor).st_size
    header = os.pread(descriptor, _HEADER.size, 0)
    if length < _HEADER.size + _FRAME.size or len(header) < _HEADER.size:
        return None
    head, stored = header[:24], struct.unpack_from(">2I", header, 24)
    big_endian = head[3] == (_MAGIC + 1) & 0xFF if head[:3] == b"\x37\x7f\x06" else sys.byteorder == "big"
    # All of the magic is known but for its last bit, which is the order of the words in every checksum.
    for order, magic in ((False, _MAGIC), (True, _MAGIC + 1)):
        whole = magic.to_bytes(4, "big") + head[4:]
        if _checksum(whole, (0, 0), order) == stored:
            head, big_endian = whole, order
    computed = _checksum(head, (0, 0), big_endian)
    damaged = computed != stored or head != header[:24]
    bases = {computed, stored}
    if computed != stored and (corrected := _correct(head, (0, 0), stored, big_endian)[0]) is not None:
        head = corrected
    _, _, page_bytes, _, salt1, salt2 = struct.unpack(">6I", head)
    if not (512 <= page_bytes <= 65536 and page_bytes & (page_bytes - 1) == 0):
        page_bytes = _DEFAULT_PAGE_BYTES
    size = _FRAME.size + page_bytes
    starts = range(_HEADER.size, length - size + 1, size)
    first = 0 if damaged else min(trusted, len(starts))
    heads = [_FRAME.unpack(os.pread(descriptor, _FRAME.size, start)) for start in starts[max(0, first - 1) :]]
    if first:
        bases = {heads.pop(0)[4:6]}
    if damaged and heads and salt1 != heads[0][2] and salt2 != heads[0][3]:
        salt1, salt2 = heads[0][2:4]
    # A frame of the run before has neither of the two salts: one is counted up and the other one is random.
    # One of this run of which a salt is damaged still has the other.
    ours = [index for index, each in enumerate(heads) if each[2] == salt1 or each[3] == salt2]
    if not ours:
        return None
    run = (os.pread(descriptor, size, start) for start in starts[first : first + ours[-1] + 1])
    frames = list(_check_frames(run, (salt1, salt2), bases, big_endian))
    return Log(page_bytes=page_bytes, header_damaged=damaged, frames=frames)


def _check_frames(run: Iterable[bytes], salts: Sums, bases: set[Sums], big_endian: bool) -> Iterator[Frame]:
    """Check each frame from the sums before it: those that were computed, and those that stand in the frame before."""
    tries, is_older = _CORRECTIONS, False
    for frame in run:
        number, commits, salt1, salt2, sum1, sum2 = _FRAME.unpack_from(frame)
        body, stored = frame[:8] + frame[_FRAME.size :], (sum1, sum2)
        computed = {_checksum(body, base, big_endian) for base in bases}
        page: bytes | None = body[8:]
        salted = (salt1, salt2) == salts
        fits = stored in computed and salted
        changed, next_bases = _in_one_byte((salt1, salt2), salts), {stored}
        # An earlier run's frames fit each other. They stand between where a power cut left a transaction in pieces.
        is_older = salt1 != salts[0] and salt2 != salts[1] and (is_older or stored not in computed)
        if is_older:
            page, commits, changed = None, 0, False
        elif stored not in computed:
            one_sum = {each for each in computed if sum1 == each[0] or sum2 == each[1]}
            corrections = [_correct(body, base, stored, big_endian) for base in bases] if tries > 0 else []
            tries -= 1
            fixed = next((body for body, _ in corrections if body is not None), None)
            if any(_in_one_byte(stored, each) for each in one_sum) or (one_sum and fixed is None):
                # The other sum was changed, and the page is as it was written.
                changed, next_bases = any(_in_one_byte(stored, each) for each in one_sum), {stored, *one_sum}
            elif fixed is not None:
                number, commits = struct.unpack_from(">2I", fixed)
                page, changed = fixed[8:], any(one_bit for _, one_bit in corrections)
            else:
                page, changed = None, any(one_bit for _, one_bit in corrections)
            changed = changed and salted  # a head of which a sector is torn has other salts, too
        yield Frame(number=number, commits=commits, page=page, fits=fits, changed=changed)
        bases = next_bases


def _checksum(data: bytes, sums: Sums, big_endian: bool) -> Sums:
    words = _words(data, big_endian)
    first, second = sums
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second


def _correct(data: bytes, sums: Sums, wanted: Sums, big_endian: bool) -> tuple[bytes | None, bool]:
    """Change one word so that the checksum fits.

    Returns:
        The data, or None if there is no such word or more than one; and whether it is one bit of one.
    """
    found = _checksum(data, sums, big_endian)
    miss1, miss2 = (wanted[0] - found[0]) & _MASK, (wanted[1] - found[1]) & _MASK
    words = _words(data, big_endian)
    candidates: list[tuple[int, int]] = []
    # Adding x to a word adds a * x and b * x to the two sums. For the last pair of words (a, b) is (1, 1)
    # and (0, 1), and each pair before it maps both by (a + b, a + 2b), as the checksum does. One of the
    # two is always odd, so it has an inverse, and the other one decides.
    even, odd = (1, 1), (0, 1)
    for at in range(len(words) - 2, -1, -2):
        for place, (a, b) in ((at, even), (at + 1, odd)):
            change = (miss1 * pow(a, -1, _MODULUS) if a & 1 else miss2 * pow(b, -1, _MODULUS)) & _MASK
            if (a * change) & _MASK == miss1 and (b * change) & _MASK == miss2:
                candidates.append((place, (words[place] + change) & _MASK))
        even, odd = (((a + b) & _MASK, (a + 2 * b) & _MASK) for a, b in (even, odd))
    flips = [(place, word) for place, word in candidates if (word ^ words[place]).bit_count() == 1]
    chosen = flips if len(flips) == 1 else candidates
    if len(chosen) != 1:
        return None, bool(flips)
    words[chosen[0][0]] = chosen[0][1]
    if big_endian != (sys.byteorder == "big"):
        words.byteswap()
    return words.tobytes(), bool(flips)


def _in_one_byte(found: Sums, wanted: Sums) -> bool:
    """Return whether two pairs of words differ in one byte."""
    pairs = zip(struct.pack("2I", *found), struct.pack("2I", *wanted), strict=True)
    return sum(one != other for one, other in pairs) == 1


def _words(data: bytes, big_endian: bool) -> array.array[int]:
    words = array.array("I", data)
    if big_endian != (sys.byteorder == "big"):
        words.byteswap()
    return words
