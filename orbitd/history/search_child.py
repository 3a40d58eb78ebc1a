"""A search, in a process of its own: a regular expression may take for ever, and then only its end helps.

It is a fork of the screens template, which has loaded all of this, or `python -m orbitd.history.search_child`. It reads
the two databases, writes nothing, and ends with the search, which orbitd ends after a while.

**The order.** A block's lines are older than its `to_at`, so blocks are read by that, newest first. A line that fits is
sent once no block is left that may have a newer one. What waits to be sent is bounded: of more than still fit into the
answer the oldest are dropped, and the answer ends before them.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sqlite3
import sys
import time
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from typing import NoReturn

import msgspec
import zstandard
from msgspec import Struct

from orbitd.history.database import TEXT_COLUMNS, DamagedHistory, StoredText, is_damage, open_reader, text_from_row
from orbitd.history.matching import BadQuery, Matcher
from orbitd.history.search_messages import (
    MAX_FRAME,
    Done,
    Failed,
    Found,
    Part,
    Position,
    Search,
    Started,
    encode,
)
from orbitd.history.text_blocks import (
    MAX_BLOCK_BYTES,
    NO_NUMBER,
    TextBlock,
    decompressed,
    numbers_and_times,
    unpack_runs,
)
from orbitd.keeper.frames import Framer, receive

MAX_LINE = 4096
"""Characters of a line that are sent; of a longer one, those around the match."""

PIECE_BYTES = 512 << 10
"""A block that is longer is searched in pieces of about this, so that no more of it is in memory."""

NEIGHBOUR_BYTES = 2 << 20
"""Of a block that is longer no neighbours are shown: to read it for a line or two would take longer than the search."""

MEMORY_BYTES = 192 << 20
"""What this process may add to its memory: a search takes a tenth of it, unless a line is as long as a history."""

CPU_SECONDS = 4
"""More than orbitd lets it run: it ends if orbitd does not end it."""

_MAX_SENT = 50_000
_MAX_SESSIONS = 10_000
_HIT_BYTES = 256
_PROGRESS_SECS = 0.02
_SHORT_OF_MEMORY = "it takes more memory than a search may have"
_ROW = f"SELECT {TEXT_COLUMNS} FROM texts WHERE seq = ?"  # noqa: S608  # constants of ours
_LINES = f"""
    SELECT {TEXT_COLUMNS} FROM texts WHERE session_id = ? AND is_tail = ? AND first_line <= ? AND next_line > ?
    ORDER BY first_line DESC LIMIT 1
"""  # noqa: S608  # constants of ours
_HAS_LINE = """
    SELECT 1 FROM texts WHERE session_id = ? AND is_tail = 0 AND first_line <= ? AND next_line > ? LIMIT 1
"""
_SESSION = " UNION ALL ".join(
    f"SELECT name, workspace_id, labels FROM {table} WHERE id = :id AND deleted_at IS NULL"  # noqa: S608  # ours
    for table in ("sessions", "archived_sessions")
)

_search_decoder = msgspec.msgpack.Decoder(Search)
_labels_decoder = msgspec.json.Decoder(dict[str, str])


class _TimeIsUp(Exception):
    """The search has to end."""


class _Row(Struct, frozen=True):
    """What of a row is read before its text."""

    seq: int
    session_id: str
    is_tail: bool
    from_at: int
    to_at: int


class _Hit(Struct, frozen=True, order=True):
    """A line that fits, and its place in the order, which no other has."""

    position: Position
    found: Found
    size: int

    @property
    def has_number(self) -> bool:
        return self.position.number != NO_NUMBER


class Searcher:
    """One search.

    Args:
        search: What for.
        sock: Where it goes; blocking.
        history: The database of histories.
        sessions: The database of sessions.
        matcher: The query.
    """

    def __init__(
        self,
        search: Search,
        sock: socket.socket,
        history: sqlite3.Connection,
        sessions: sqlite3.Connection,
        matcher: Matcher,
    ) -> None:
        self._search, self._sock, self._history, self._sessions = search, sock, history, sessions
        self._matcher = matcher
        self._deadline = time.monotonic() + search.seconds
        self._names: dict[str, tuple[str | None] | None] = {}  # None for a session that is not searched
        self._waiting: list[_Hit] = []  # ascending: the newest last
        self._room, self._room_bytes = search.limit, search.max_bytes
        self._dropped: Position | None = None  # the newest that had no room
        self._sent: set[int] = set()  # hashes of session and text
        self._position = search.before
        self._searched = 0
        self._damaged: list[str] = []
        self._is_partial = False
        self._reported_at = 0.0
        self._neighbours: tuple[str, dict[int, str]] = "", {}  # lines of one row, by number

    def run(self) -> Done:
        """Send what is found; return the end. Raises: OSError, if orbitd has gone; sqlite3.Error."""
        end = self._search_rows()
        self._reported_at = 0.0  # the counts in the last part are right
        self._report([])
        return end

    def _search_rows(self) -> Done:
        newest: int | None = None
        try:
            for row in self._rows():
                newest = row.to_at
                if self._send(newest):
                    return Done(position=self._position, complete=True)
                self._check_time()
                self._read(row)
        except _TimeIsUp:
            # The block in which it ended may have lines of its newest time.
            if newest is not None:
                self._move(Position(at=newest + 1))
            return Done(position=self._position, complete=False)
        except sqlite3.DatabaseError as error:  # of an index, or of a page with several rows
            if newest is None or not is_damage(error):
                raise
            self._is_partial = True
            self._damaged.append(f"texts before {newest}: {error}")
        if self._send(None):
            return Done(position=self._position, complete=True)
        return Done(position=None, complete=not self._is_partial)

    def _rows(self) -> Iterator[_Row]:
        """Yield the rows that may have lines that are wanted, newest first."""
        search = self._search
        query = "SELECT seq, session_id, is_tail, from_at, to_at FROM texts WHERE to_at >= :since"
        if search.session_id is not None:
            query += " AND session_id = :session"
        query += " ORDER BY to_at DESC, seq DESC"
        values = {"since": -(1 << 62) if search.since is None else search.since, "session": search.session_id}
        end = search.until if search.until is not None else 1 << 62
        if search.before is not None:
            end = min(end, search.before.at + 1)
        for seq, session_id, is_tail, from_at, to_at in self._history.execute(query, values):
            if from_at < end and self._name(session_id) is not None:
                yield _Row(seq, session_id, bool(is_tail), from_at, to_at)

    def _name(self, session_id: str) -> tuple[str | None] | None:
        """Return a session's name in a tuple, or None where the session is not searched."""
        if session_id not in self._names:
            if len(self._names) >= _MAX_SESSIONS:
                self._names.clear()
            row = self._sessions.execute(_SESSION, {"id": session_id}).fetchone()
            self._names[session_id] = (row[0],) if row is not None and self._fits(row[1], row[2]) else None
        return self._names[session_id]

    def _fits(self, workspace_id: str | None, labels: str | None) -> bool:
        search = self._search
        if search.workspace_id is not None and workspace_id != search.workspace_id:
            return False
        if not search.labels:
            return True
        try:
            found = {} if labels is None else _labels_decoder.decode(labels)
        except msgspec.MsgspecError:  # a damaged row, which the store names
            return False
        return search.labels.items() <= found.items()

    # Reading

    def _read(self, row: _Row) -> None:
        """Search one block. Raises: _TimeIsUp."""
        try:
            stored = self._stored(row.seq)
            if stored is not None:
                self._search_block(stored)
        except (DamagedHistory, zstandard.ZstdError, msgspec.MsgspecError) as error:
            self._note_damage(row, str(error))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._note_damage(row, str(error))
        except MemoryError:  # a line of many megabytes, and an expression that needs it several times
            self._is_partial = True

    def _check_time(self) -> None:
        """End a search whose time is up, once it has got on: else the next one would end at the same place.

        Raises:
            _TimeIsUp: It is to end.
        """
        if time.monotonic() > self._deadline and self._position != self._search.before:
            raise _TimeIsUp

    def _stored(self, seq: int) -> StoredText | None:
        found = self._history.execute(_ROW, (seq,)).fetchone()
        return None if found is None else text_from_row(found)

    def _note_damage(self, row: _Row, reason: str) -> None:
        text = f"row {row.seq} of texts"
        self._damaged.append(reason if reason.startswith(text) else f"{text}: {reason}")

    def _search_block(self, stored: StoredText) -> None:
        block, known = stored.block, None
        for first, piece in _pieces(block):
            self._check_time()
            self._searched += len(piece)
            if lines := self._matcher.find(piece):
                if known is None:
                    known = _Known(block)
                self._take(stored, known, first, piece, lines)

    def _take(self, stored: StoredText, known: _Known, first: int, piece: bytes, lines: list[int]) -> None:
        """Keep those lines of a piece that fit that are wanted, as far as there is room."""
        texts = piece[:-1].split(b"\n")
        if first + len(texts) > known.count:
            raise DamagedHistory("it has more lines than its runs")
        session_id, seen = stored.session_id, set()
        wanted: list[tuple[Position, int]] = []
        for line in reversed(lines):
            position = known.position(session_id, first + line, texts[line])
            if not self._is_in_time(position.at) or (stored.is_tail and self._is_elsewhere(position)):
                continue
            if position.number == NO_NUMBER:
                if texts[line] in seen:
                    continue
                seen.add(texts[line])
            if self._is_behind(position):
                wanted.append((position, line))
        wanted.sort(reverse=True)
        self._drop_behind(wanted, self._room)
        around = _Around(self, stored, known, first, texts)
        self._waiting += [self._hit(position, line, around) for position, line in wanted]
        self._waiting.sort()
        self._make_room()

    def _is_in_time(self, at: int) -> bool:
        search = self._search
        return (search.since is None or at >= search.since) and (search.until is None or at < search.until)

    def _is_behind(self, position: Position) -> bool:
        """Return whether a line is not sent yet, and may have room in the answer."""
        before, dropped = self._search.before, self._dropped
        return (before is None or position < before) and (dropped is None or position > dropped)

    def _is_elsewhere(self, position: Position) -> bool:
        """Return whether a line of a tail is in another row of its session."""
        values = (position.session, position.number, position.number)
        return position.number >= 0 and self._history.execute(_HAS_LINE, values).fetchone() is not None

    def _drop_behind(self, wanted: list[tuple[Position, int]], room: int) -> None:
        if len(wanted) > room:
            self._drop(wanted[room][0])
            del wanted[room:]

    def _drop(self, position: Position) -> None:
        if self._dropped is None or position > self._dropped:
            self._dropped = position

    def _make_room(self) -> None:
        """Drop the oldest of those that wait, as far as they have no room in the answer: the newest always has."""
        count = size = 0
        for hit in reversed(self._waiting):
            size += hit.size
            if count and (count >= self._room or size > self._room_bytes):
                break
            count += 1
        if count < len(self._waiting):
            self._drop(self._waiting[-count - 1].position)
            del self._waiting[:-count]

    def _hit(self, position: Position, line: int, around: _Around) -> _Hit:
        text = around.texts[line].decode("utf-8", "replace")
        if len(text) > MAX_LINE:
            text = _cut(text, self._matcher.place(text))
        before, after = around.context(line, position.number, self._search.context)
        name = self._name(position.session)
        found = Found(
            session_id=position.session,
            name=None if name is None else name[0],
            at=position.at,
            line=position.number,
            text=text,
            before=before,
            after=after,
        )
        size = _HIT_BYTES + sum(map(len, (text, *before, *after)))
        return _Hit(position, found, size)

    def neighbour(self, session_id: str, number: int) -> str | None:
        """Return the line with a number from another row of a session; None where none has it, or it is damaged."""
        cached_id, lines = self._neighbours
        if number in lines and cached_id == session_id:
            return lines[number]
        for is_tail in (0, 1):
            with contextlib.suppress(DamagedHistory, zstandard.ZstdError, msgspec.MsgspecError, sqlite3.DatabaseError):
                row = self._history.execute(_LINES, (session_id, is_tail, number, number)).fetchone()
                if row is not None and (block := text_from_row(row).block).raw_bytes <= NEIGHBOUR_BYTES:
                    self._neighbours = session_id, _numbered_lines(block)
                    if number in self._neighbours[1]:
                        return self._neighbours[1][number]
        return None

    # Sending

    def _send(self, newest: int | None) -> bool:
        """Send what waits, as far as it is newer than `newest`; return whether the answer is full."""
        hits: list[Found] = []
        is_full = False
        while self._waiting and (newest is None or self._waiting[-1].position.at > newest):
            hit = self._waiting[-1]
            key = hash((hit.position.session, hit.found.text))
            if hit.has_number or key not in self._sent:
                if not self._has_room_for(hit):
                    is_full = True
                    break
                self._room, self._room_bytes = self._room - 1, self._room_bytes - hit.size
                hits.append(hit.found)
                if len(self._sent) < _MAX_SENT:
                    self._sent.add(key)
            self._waiting.pop()
            self._move(hit.position)
        # Behind what was dropped nothing can be sent, since it would be missing.
        if self._dropped is not None and (newest is None or self._dropped.at > newest) and not self._waiting:
            is_full = True
        is_full = is_full or self._room <= 0
        if not is_full and newest is not None:
            self._move(Position(at=newest + 1))
        self._report(hits)
        return is_full

    def _has_room_for(self, hit: _Hit) -> bool:
        return self._room > 0 and (hit.size <= self._room_bytes or self._room == self._search.limit)

    def _move(self, position: Position) -> None:
        if self._position is None or position < self._position:
            self._position = position

    def _report(self, hits: list[Found]) -> None:
        now = time.monotonic()
        if hits or self._damaged or now - self._reported_at > _PROGRESS_SECS:
            self._reported_at = now
            part = Part(hits=hits, position=self._position, searched_bytes=self._searched, damaged=self._damaged)
            self._sock.sendall(encode(part))
            self._damaged = []


class _Known:
    """Numbers and times of a block's lines.

    Raises:
        zstandard.ZstdError, msgspec.DecodeError: The block is damaged.
    """

    def __init__(self, block: TextBlock) -> None:
        self._runs = unpack_runs(block.runs)
        self._starts: list[int] = []
        self.count = 0
        for run in self._runs:
            self._starts.append(self.count)
            self.count += run.count

    def number(self, index: int) -> int:
        """Return the number of a line."""
        at = bisect_right(self._starts, index) - 1
        run = self._runs[at]
        return NO_NUMBER if run.first == NO_NUMBER else run.first + index - self._starts[at]

    def time(self, index: int) -> int:
        """Return the time of a line."""
        return self._runs[bisect_right(self._starts, index) - 1].at

    def position(self, session_id: str, index: int, text: bytes) -> Position:
        """Return the place of a line in the order of all."""
        at = bisect_right(self._starts, index) - 1
        run, ordinal = self._runs[at], index - self._starts[at]
        if run.first == NO_NUMBER:
            return Position(run.at, session_id, NO_NUMBER, ordinal, zlib.crc32(text))
        return Position(run.at, session_id, run.first + ordinal)


class _Around:
    """The lines around those of a piece."""

    def __init__(self, searcher: Searcher, stored: StoredText, known: _Known, first: int, texts: list[bytes]) -> None:
        self._searcher, self._stored, self._known, self._first = searcher, stored, known, first
        self.texts = texts

    def context(self, line: int, number: int, count: int) -> tuple[list[str], list[str]]:
        """Return up to `count` lines before a line of the piece, and behind it."""
        if not count:
            return [], []
        if number == NO_NUMBER:
            return self._same_picture(line, -1, count)[::-1], self._same_picture(line, 1, count)
        return self._numbered(line, number, -1, count)[::-1], self._numbered(line, number, 1, count)

    def _same_picture(self, line: int, step: int, count: int) -> list[str]:
        """Return neighbours of a line without number: those that were shown with it."""
        at = self._known.time(self._first + line)
        found: list[str] = []
        while len(found) < count and 0 <= (line := line + step) < len(self.texts):
            index = self._first + line
            if self._known.number(index) != NO_NUMBER or self._known.time(index) != at:
                break
            found.append(_begin(self.texts[line].decode("utf-8", "replace")))
        return found

    def _numbered(self, line: int, number: int, step: int, count: int) -> list[str]:
        """Return the lines with the next numbers, from other rows too; lines without number may stand between."""
        found: list[str] = []
        here: int | None = line
        while len(found) < count and number + step >= 0:
            number += step
            here = self._next_numbered(here, step)
            if here is not None and self._known.number(self._first + here) == number:
                text: str | None = self.texts[here].decode("utf-8", "replace")
            else:
                here, text = None, self._searcher.neighbour(self._stored.session_id, number)
            if text is None:
                break
            found.append(_begin(text))
        return found

    def _next_numbered(self, line: int | None, step: int) -> int | None:
        if line is None:
            return None
        while 0 <= (line := line + step) < len(self.texts):
            if self._known.number(self._first + line) != NO_NUMBER:
                return line
        return None


def _numbered_lines(block: TextBlock) -> dict[int, str]:
    pieces = [piece for _, piece in _pieces(block)]
    texts = b"".join(pieces).split(b"\n")
    known = numbers_and_times(unpack_runs(block.runs))
    return {
        number: text.decode("utf-8", "replace")
        for text, (number, _) in zip(texts, known, strict=False)
        if number != NO_NUMBER
    }


def _pieces(block: TextBlock) -> Iterator[tuple[int, bytes]]:
    """Yield pieces of a block's text, whole lines, each with the index of its first line.

    Raises:
        zstandard.ZstdError, DamagedHistory: The block is damaged.
    """
    if block.raw_bytes <= PIECE_BYTES:
        text = decompressed(block.text, PIECE_BYTES)
        if text and not text.endswith(b"\n"):
            raise DamagedHistory("it does not end with a line")
        if text:
            yield 0, text
        return
    first, total, parts = 0, 0, []
    reader = zstandard.ZstdDecompressor().stream_reader(block.text)
    while data := reader.read(PIECE_BYTES):
        total += len(data)
        if total > MAX_BLOCK_BYTES:
            raise DamagedHistory("it is too long")
        end = data.rfind(b"\n") + 1
        if not end:  # in the middle of a line that is longer than a piece
            parts.append(data)
            continue
        piece = b"".join((*parts, data[:end]))
        parts = [data[end:]]
        yield first, piece
        first += piece.count(b"\n")
    if any(parts):
        raise DamagedHistory("it does not end with a line")


def _cut(text: str, place: int) -> str:
    """Return the part of a long line around a place."""
    start = max(0, min(place - MAX_LINE // 4, len(text) - MAX_LINE))
    end = start + MAX_LINE
    return ("\u2026" if start else "") + text[start:end] + ("\u2026" if end < len(text) else "")


def _begin(text: str) -> str:
    return text if len(text) <= MAX_LINE else text[:MAX_LINE] + "\u2026"


def _limit_memory() -> None:
    """Bound what this process may allocate, and how long it may run; the former on Linux only."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def answer(search: Search, sock: socket.socket) -> Done | Failed:
    """Search, send what is found, and return the last message. Raises: OSError, if orbitd has gone."""
    try:
        matcher = Matcher(search.query, regex=search.regex, case=search.case)
        if not os.path.exists(search.history):  # nothing was ever recorded
            return Done(position=None, complete=True)
        with (
            contextlib.closing(open_reader(search.history)) as history,
            contextlib.closing(open_reader(search.sessions)) as sessions,
        ):
            sessions.text_factory = _lenient_text
            history.execute("BEGIN")  # one state of the database for the whole search
            return Searcher(search, sock, history, sessions, matcher).run()
    except BadQuery as error:
        return Failed(message=str(error), reason="query")
    except sqlite3.Error as error:
        return Failed(message=str(error), reason="damage" if is_damage(error) else "unreadable")
    except MemoryError:
        return Failed(message=_SHORT_OF_MEMORY, reason="unreadable")


def _lenient_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def serve(sock_fd: int) -> None:
    """Do the one search that orbitd asks for. Raises: OSError, if orbitd has gone."""
    _limit_memory()
    with socket.socket(fileno=sock_fd) as sock:
        sock.sendall(encode(Started()))
        framer = Framer(MAX_FRAME)
        while True:
            data, _ = receive(sock)
            if not data:
                return
            for payload in framer.receive(data):
                sock.sendall(encode(answer(_search_decoder.decode(payload), sock)))
                return


def main() -> NoReturn:
    """Be the child; the argument is the descriptor of its socket."""
    with contextlib.suppress(OSError):
        serve(int(sys.argv[1]))
    sys.exit(0)


if __name__ == "__main__":
    main()
