r"""Takes the text that a session shows, each line once, for its history: no I/O.

Lines that leave the primary screen have numbers. They are taken while the terminal still has them: it is fed in pieces
that push out fewer rows than its history keeps, and pieces end before what erases the history.

Other text never leaves the screen: that of full-screen programs, of screens that are cleared, of programs that draw
over what they have drawn. For that the screen is **looked at** before it is erased, where it stood still, and once a
second while it changes. A line that was seen is stored when it is gone from the screen and has not left it as a line
with a number, so that nothing is stored twice of a program that scrolls; lines of the alternate screen are stored at
each save too. What has been stored once is not stored again soon.

All of it follows from the output and the times in the journal, so that a picture that is built again takes the same.
What looking costs is counted in cells, and paid for by recorded time and by output.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Set

from orbitd.history.text_blocks import BLOCK_BYTES, NO_NUMBER, Run, TextBlock, add_run, pack_text
from orbitd.screens._ghostty_lines import LeftRows
from orbitd.screens.emulator import Emulator, only_draws
from orbitd.screens.messages import TakenText
from orbitd.screens.said import Clock
from orbitd.sessions.journal_file import TIME_INTERVAL_MS

PIECE_BYTES = 64 << 10
"""The most that is fed in one call."""

MAX_TAKEN_BYTES = 16 << 20
"""Blocks that are kept until they are recorded; the oldest are dropped."""

MAX_LINE_BYTES = 1 << 20
"""Of a line that does not end, so much is taken with its number, and the rest in parts without one."""

MIN_HISTORY_BYTES = 2 << 20
"""What a terminal needs to keep so that lines can be taken from it."""

MAX_ROWS = 2048
"""Rows that leave the screen until they are taken: a take has a price of its own, and so has a long list of rows."""

_LEAST_ROWS, _LEAST_PIECE, _MAX_UNFINISHED = 4, 16, 80

MAX_CUTS = 256
"""Of one piece: a program that clears its screen all the time is looked at now and then only."""

STOOD_STILL_MS = 250
LOOK_MS = 1000
MARK_MS = 1000
MAX_MARKS = 4096
MAX_SAVED_MARKS = 256

MAX_STORED = 8192
"""Lines without numbers of which it is remembered that they are stored."""

MAX_VARIANTS, VARIANTS_MS = 16, 600_000
"""How many lines are stored within a time that differ in digits only: clocks, counters, lists of processes."""

KEPT_BYTES = 64 << 10
"""Of the text that was taken last: a screen that grows gets it back, and it leaves the screen once more."""

# What looks cost, in microseconds: a budget that fills by itself. Recorded time gives a twentieth of itself, and output
# about a twentieth of what feeding it takes.
_LOOK_COST, _CELLS_A_MICROSECOND = 100, 20
_MAX_BUDGET = 50_000
_BUDGET_A_MS, _BYTES_A_MICROSECOND = 50, 500

# Of what a byte of output draws so much is taken, and some more: a tab is eight blanks, and REP a screen of letters.
_TEXT_A_BYTE, _MAX_SPARE = 32, 4 << 20

# Most sequences of coloured text end in m: what is looked ahead for first is all that is read of them.
_MODES = rb"\?(?:[0-9;]{0,60};)?(?:1049|1047|47)(?:;[0-9;]{0,60})?(?P<mode>[hl])"
_ERASING = rb"(?:\??(?P<erase>[0-9;]{0,8})J|%b" % _MODES
_SEQUENCES = re.compile(rb"\x1b(?:(?P<reset>c)|\[(?=[0-9;?]*+[Jhl])%b))" % _ERASING)
_SEQUENCES_AND_MOVES = re.compile(
    rb"\x1b(?:(?P<reset>c)|\[(?=[0-9;?]*+[JhlAFHf])%b|(?P<move>[0-9;]{0,16}[AFHf])))" % _ERASING
)
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;?]{0,64})?\Z")
# What may push out a row by itself, as ESC D does, and more rows than they have bytes: scroll up, and repeat.
_SCROLLING = re.compile(rb"\x1b(?:\[(?=[^@-~]*+[Sb])([0-9]{0,5})[^\x1b@-~]{0,8}[Sb]|(?!\[))")
_DIGITS = re.compile(rb"[0-9]+")
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code != 0x0A)
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
_BLANKS = re.compile(rb"(?<! ) ++(?=\n)")


def clean(text: bytes) -> bytes:
    """Return lines without control characters, and without blanks at their ends."""
    text = text.translate(None, _CONTROLS)
    if not text.isascii():
        text = _C1.sub("\N{REPLACEMENT CHARACTER}".encode(), text)
    return _BLANKS.sub(b"", text) if b" \n" in text else text


class TextBuffer:
    """Lines on their way to the history, packed as they come.

    Args:
        next_line: The number that the next line with a number would have.
    """

    def __init__(self, next_line: int) -> None:
        self._blocks: deque[TakenText] = deque()
        self._packed_bytes = 0
        self._texts: list[bytes] = []
        self._runs: list[Run] = []
        self._text_bytes, self._next_line = 0, next_line

    def add(self, text: bytes, runs: list[Run], position: int) -> None:
        """Add lines, with a line feed behind each."""
        self._texts.append(text)
        self._text_bytes += len(text)
        for run in runs:
            add_run(self._runs, run)
        if self._text_bytes >= BLOCK_BYTES:
            self.pack(position)

    def pack(self, position: int) -> None:
        """Pack what there is."""
        block = pack_text(b"".join(self._texts), self._runs, self._next_line)
        self._texts, self._runs, self._text_bytes = [], [], 0
        if block is None:
            return
        self._next_line = block.next_line
        self._blocks.append(TakenText(position=position, block=block))
        self._packed_bytes += _size(block)
        while self._packed_bytes > MAX_TAKEN_BYTES:
            self._drop()

    def forget(self, position: int) -> None:
        """Drop the blocks that were packed up to a position."""
        while self._blocks and self._blocks[0].position <= position:
            self._drop()

    def _drop(self) -> None:
        self._packed_bytes -= _size(self._blocks.popleft().block)

    def blocks(self) -> tuple[TakenText, ...]:
        """Return what is packed, oldest first."""
        return tuple(self._blocks)


def _size(block: TextBlock) -> int:
    return len(block.text) + len(block.runs)


class StoredLines:
    """Which lines without numbers are stored already, as far as that is remembered."""

    def __init__(self) -> None:
        self._stored: dict[int, None] = {}
        self._variants: dict[int, tuple[int, int, int]] = {}  # since when, of how many screens, and the last one

    def add(self, line: bytes, at: int, screen: int) -> bool:
        """Return whether a line is to be stored, and remember it.

        Args:
            line: The line.
            at: When it was shown.
            screen: A number for all lines that stood there together: a log that was cleared is no clock.
        """
        key = hash(line)
        if key in self._stored:
            del self._stored[key]
            self._stored[key] = None
            return False
        digits = hash(_DIGITS.sub(b"0", line))
        if digits != key or b"0" in line:
            since, count, last = self._variants.pop(digits, (at, 0, -1))
            if not 0 <= at - since < VARIANTS_MS:
                since, count, last = at, 0, -1
            count += screen != last
            self._variants[digits] = since, min(count, MAX_VARIANTS + 1), screen
            _limit(self._variants)
            if count > MAX_VARIANTS:
                return False
        self._stored[key] = None
        _limit(self._stored)
        return True


def _limit(lines: dict[int, None] | dict[int, tuple[int, int, int]]) -> None:
    if len(lines) > MAX_STORED:
        del lines[next(iter(lines))]


class TextTaker:
    """Takes the text of one picture. Close it before its emulator.

    Args:
        emulator: The picture. Whatever changes it has to come here first: `pieces`, `resize`, `prepare`.
        clock: The times in its journal.
        position: Of the journal, where the picture is.
        text_from: What was shown up to this position is recorded already, as far as it has no number.
        text_line: The lines before this number are recorded already.
        history: How many rows and bytes of history the terminal keeps, whatever is less.
    """

    def __init__(
        self,
        emulator: Emulator,
        clock: Clock,
        *,
        position: int,
        text_from: int,
        text_line: int,
        history: tuple[int, int],
    ) -> None:
        self._emulator, self._clock = emulator, clock
        self._position = self._settled = position
        self._text_from, self._history = text_from, history
        self._next = text_line  # the lines before it are taken
        if position >= text_from and text_line - emulator.history_line > emulator.size[1]:
            emulator.count_from(text_line)  # a screen that begins again repeats nothing of what is recorded
        self._rows: LeftRows | None = None  # until the primary screen is in use
        self._line = emulator.history_line  # where `_rows` is
        self._partial = b""  # what has left the screen of that line
        self._is_long = False  # and whether some of it has been taken
        self._kept = b""  # lines before `_next`
        self._hidden: tuple[int, list[bytes]] | None = None  # of the primary screen while it is not in use
        self._buffer = TextBuffer(text_line)
        self._unfinished = b""
        self._marks = list(emulator.written)  # up to which line the program had come, and when
        self._opened_at, self._marked, self._is_fed = self._marks[-1][1] if self._marks else 0, 0, False
        self._stored = StoredLines()
        self._seen: dict[bool, dict[bytes, int]] = {False: {}, True: {}}  # when; by whether it is the alternate screen
        self._left = set[bytes]()  # lines that have left the screen since it was looked at
        self._is_moved = self._is_changed = False  # since then
        self._looked, self._looks, self._budget = 0, 0, float(_MAX_BUDGET)
        self._spare = _MAX_SPARE  # bytes of text that may be taken
        self._settle()
        self._look(is_due=True)
        if position <= text_from:
            self._store_seen()

    def close(self) -> None:
        """Free what refers to the emulator."""
        if self._rows is not None:
            self._rows.close()

    # What happens to the picture

    def pieces(self, data: bytes, position: int) -> Iterator[bytes]:
        """Yield output in the pieces in which it is to be fed: each before the next is asked for.

        Args:
            data: The output.
            position: Where its record ends in the journal.
        """
        self._position = position
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            self._budget = min(_MAX_BUDGET, self._budget + len(piece) / _BYTES_A_MICROSECOND)
            self._spare = min(_MAX_SPARE, self._spare + len(piece) * _TEXT_A_BYTE)
            yield from self._cut(piece)
        self._is_fed = self._is_changed = True

    def pass_time(self, milliseconds: int, position: int) -> None:
        """Handle a time in the journal: what was fed before has stood until then, and what comes is of then."""
        self._position, before = position, self._clock.recorded
        passed = max(0, milliseconds - before) if before else 0
        self._budget = min(_MAX_BUDGET, self._budget + passed * _BUDGET_A_MS)
        if self._is_changed and (self._is_moved or self._emulator.alternate):
            stood_still = passed >= STOOD_STILL_MS + TIME_INTERVAL_MS  # output comes for so long behind a time
            if stood_still or not 0 <= milliseconds - self._looked < LOOK_MS:
                self._look()
        if self._is_fed and not 0 <= milliseconds - self._marked < MARK_MS:
            self._mark()
            self._marked, self._is_fed = milliseconds, False

    def resize(self, cols: int, rows: int, position: int) -> None:
        """Resize the emulator. Raises: ValueError."""
        self._position = position
        self._take()
        if self._is_moved or self._emulator.alternate:
            self._look()
        self._emulator.resize(cols, rows)
        if self._rows is not None:
            self._rows.be_unsure()
        self._take()
        self._is_changed = True

    def prepare(self, position: int) -> None:
        """Take what there is before the history is trimmed, or something else is drawn."""
        self._position = position
        self._take()
        if self._emulator.alternate:
            self._look()
            self._store_seen()

    def settle(self, position: int) -> None:
        """Go on behind what `prepare` was for, and behind each record."""
        self._position = position
        self._settle()
        if self._settled < self._text_from <= position:
            self._look(is_due=True)
            self._store_seen()  # as the save did that recorded it
        self._settled = position

    # Saving

    def save(self, position: int) -> None:
        """Take all that there is, before the emulator is encoded."""
        self._position = position
        self._mark()
        self._look(is_due=True)
        self._store_seen()
        self._count_hidden()
        self._emulator.written = tuple(self._marks[-MAX_SAVED_MARKS:])

    def taken(self, text_from: int) -> tuple[TakenText, ...]:
        """Return the text that was taken behind a position, oldest first; what is before it is forgotten."""
        self._buffer.pack(self._position)
        self._buffer.forget(text_from)
        return self._buffer.blocks()

    def tail(self) -> tuple[bool, TextBlock | None]:
        """Return whether it is known what has not left the primary screen, and the lines of that."""
        if self._emulator.alternate:
            if self._hidden is None:
                return False, None
            first, lines = self._hidden
        else:
            first, lines = self._line, self._lines_on_screen()
        texts, runs, now = list[bytes](), list[Run](), self._now()
        if again := lines[: max(0, self._next - first)]:
            changed = self._changed(first, again)
            texts += changed
            runs += [Run(len(changed), NO_NUMBER, now)] if changed else []
            first, lines = first + len(again), lines[len(again) :]
        if lines:
            texts += lines
            runs += self._runs(first, len(lines))
        return True, pack_text(b"".join(line + b"\n" for line in texts), runs, self._next)

    def _lines_on_screen(self) -> list[bytes]:
        """Return the lines from `_line` on, without empty ones at the end."""
        text = self._partial + (b"" if self._rows is None else self._rows.rest())
        lines = clean(text + b"\n").split(b"\n")
        while lines and not lines[-1]:
            lines.pop()
        return lines

    # Where output is cut

    def _cut(self, data: bytes) -> Iterator[bytes]:
        text, begun = self._unfinished + data, len(self._unfinished)
        if only_draws(text):
            self._unfinished = b""
            yield from self._bounded(data, draws=True)
            return
        place, fed, cuts = 0, 0, 0
        while cuts < MAX_CUTS and (found := self._next_sequence(text, place)) is not None:
            place, cut = found.end(), max(fed, found.start() - begun)
            yield from self._bounded(data[fed:cut])
            fed, cuts = cut, cuts + 1
            if self._handle(found):
                yield data[fed : place - begun]
                fed = place - begun
                self._settle()
        yield from self._bounded(data[fed:])
        unfinished = _UNFINISHED.search(text[-_MAX_UNFINISHED:])
        self._unfinished = b"" if unfinished is None else unfinished[0]

    def _next_sequence(self, text: bytes, place: int) -> re.Match[bytes] | None:
        """Return the next sequence that output has to be cut before."""
        while text.find(b"\x1b", place) >= 0:
            watches_moves = not (self._is_moved or self._emulator.alternate)
            found = (_SEQUENCES_AND_MOVES if watches_moves else _SEQUENCES).search(text, place)
            if found is None:
                return None
            place = found.end()
            if watches_moves and found["move"] is not None:
                self._is_moved = True
                if self._rows is not None:
                    self._rows.be_unsure()
            elif not (watches_moves and found["erase"] in (b"", b"0", b"1")):  # of a prompt, which erases nothing
                return found
        return None

    def _handle(self, found: re.Match[bytes]) -> bool:
        """Take what a sequence would erase or hide; return whether it is to be fed by itself."""
        alternate, erase = self._emulator.alternate, found["erase"]
        if found["mode"] == b"h":
            if not alternate:
                self._take()
                self._hidden = None
                if self._spend():
                    self._mark()
                    self._hidden = self._line, self._lines_on_screen()
        elif erase is None:
            self._take()
            self._look()
            if alternate:
                self._store_seen()
            if found["reset"] is not None and self._partial:
                self._add(b"\n")
        elif b"3" in erase.split(b";"):
            self._take()
        else:
            is_whole = erase in (b"2", b"22")
            if is_whole or not 0 <= self._now() - self._looked < STOOD_STILL_MS:
                self._look()
            return False
        return True

    def _bounded(self, data: bytes, *, draws: bool = False) -> Iterator[bytes]:
        """Yield output in parts that push fewer rows into the history than it keeps; take them in between.

        Args:
            data: The output.
            draws: It has no sequence that scrolls.
        """
        emulator = self._emulator
        cols, _ = emulator.size
        rows = min(self._history[0], self._history[1] // emulator.row_bytes)
        most = max(_LEAST_ROWS, min(MAX_ROWS, rows // 4))
        likely = len(data)
        while data:
            count = min(len(data), likely)
            while count > _LEAST_PIECE and _most_rows(data[:count], cols, draws) > most:
                count //= 2
            if count <= _LEAST_PIECE and _most_rows(data[:count], cols, draws) > most:
                self._take()  # REP: so few bytes may push out all that there is
            yield data[:count]
            likely = 4 * count  # to look at all of the rest for each short piece would take longer than to feed it
            data = data[count:]
            if self._rows is not None and not emulator.alternate:
                place = self._rows.place()
                if place is None or abs(emulator.scrollback_rows - place[0]) > most:
                    self._take()

    # Lines that leave the screen

    def _settle(self) -> None:
        """Follow the primary screen, once it is in use, and where a reset has erased what was followed."""
        emulator = self._emulator
        if emulator.alternate:
            return
        self._hidden = None
        if self._rows is None:
            self._rows, self._line = emulator.left_rows(self._next)
        elif self._rows.place() is None and emulator.scrollback_rows == 0:
            self._rows.move(0)
            emulator.go_on_from(self._line)

    def _take(self) -> None:
        emulator, rows = self._emulator, self._rows
        if rows is None or emulator.alternate:
            return
        if self._is_moved:  # what erases rows in the middle of a line may leave some that wrap
            rows.be_unsure()
        place, top = rows.place(), emulator.scrollback_rows
        if self._spare < 0:
            # A few bytes have drawn millions of cells (REP): nobody reads that. To count its lines would take ten times
            # as long as to draw them: they have no numbers.
            self._partial, self._is_long = b"", False
            rows.move(top)
        elif place is None:  # dropped, and more lines with it
            self._partial, self._is_long = b"", False
            self._line = max(self._line, emulator.history_line - emulator.lines_between(0, top))
        elif place[0] > top:  # a taller screen has some back from the history
            self._partial, self._is_long = b"", False
            emulator.go_on_from(self._line - emulator.lines_between(top, place[0]))
            row, self._line = emulator.row_of(emulator.history_line)
            rows.move(row)
        if text := rows.take():
            self._spare -= len(text)
            self._add(text)
        emulator.go_on_from(self._line)
        del self._marks[: bisect_left(self._marks, (self._line, 0))]

    def _add(self, text: bytes) -> None:
        text = self._partial + text
        end = text.rfind(b"\n") + 1
        self._partial, whole = text[end:], clean(text[:end])
        if whole and self._is_long:
            part, _, whole = whole.partition(b"\n")
            self._add_part(part)
            self._line, self._is_long = self._line + 1, False
        if whole:
            self._add_lines(whole)
        if len(self._partial) > MAX_LINE_BYTES:
            self._add_part(clean(self._partial))
            self._partial, self._is_long = b"", True

    def _add_part(self, part: bytes) -> None:
        """Add a part of a line that is too long: the first one with its number."""
        if not self._is_long and self._line >= self._next:
            self._buffer.add(part + b"\n", self._runs(self._line, 1), self._position)
            self._next, self._kept = self._line + 1, b""
        elif part and self._position > self._text_from:
            self._buffer.add(part + b"\n", [Run(1, NO_NUMBER, self._now())], self._position)

    def _add_lines(self, text: bytes) -> None:
        first, count = self._line, text.count(b"\n")
        self._line += count
        if first < self._next:
            lines = text.split(b"\n")[:-1]
            again = lines[: self._next - first]
            for line in self._changed(first, again):
                self._store(line, self._now())
            first, count = first + len(again), count - len(again)
            text = b"".join(line + b"\n" for line in lines[len(again) :])
        if not count:
            return
        self._buffer.add(text, self._runs(first, count), self._position)
        kept = (self._kept if first == self._next else b"") + text[-KEPT_BYTES:]
        if len(kept) > KEPT_BYTES or len(text) > KEPT_BYTES:
            kept = kept[kept.find(b"\n", -KEPT_BYTES) + 1 :]
        self._kept, self._next = kept, first + count
        most = len(self._seen[False])
        if len(self._left) < most:
            self._left.update(text.split(b"\n", most)[:most])

    def _changed(self, first: int, lines: list[bytes]) -> list[bytes]:
        """Return of lines that were taken already those that have another text now: the program has drawn over them."""
        kept = self._kept.split(b"\n")[:-1]
        start = self._next - len(kept)
        return [line for at, line in enumerate(lines, first - start) if line and at >= 0 and kept[at] != line]

    # Times

    def _now(self) -> int:
        return self._clock.recorded or self._opened_at or self._clock.now()

    def _mark(self) -> None:
        """Take what there is, and note up to which line the program has come."""
        if self._rows is None or self._emulator.alternate:
            return
        self._take()
        top, (column, row) = self._emulator.scrollback_rows, self._emulator.cursor_cell
        # In the first column, the line that the cursor is in has not begun.
        line = self._line + self._emulator.lines_between(top, top + row) - (column == 0)
        if not self._marks or line > self._marks[-1][0]:
            self._marks.append((line, self._now()))
            del self._marks[:-MAX_MARKS]

    def _runs(self, first: int, count: int) -> list[Run]:
        """Return the times of some lines: each is that of the first mark at or behind it."""
        runs, end = list[Run](), first + count
        for line, at in self._marks[bisect_left(self._marks, (first, 0)) :]:
            if line >= first and first < end:
                length = min(end, line + 1) - first
                runs.append(Run(length, first, at))
                first += length
        return [*runs, Run(end - first, first, self._now())] if first < end else runs

    # Text that does not leave the screen

    def _look(self, *, is_due: bool = False) -> None:
        """Look at the screen, if it is due or the budget allows it; store what was there before, and is gone."""
        if not self._spend() and not is_due:
            return
        emulator, alternate, now = self._emulator, self._emulator.alternate, self._now()
        text, seen = clean(emulator.text_from(emulator.scrollback_rows, 0) + b"\n"), self._seen[alternate]
        shown = {line: seen.get(line, now) for line in text.split(b"\n") if line}
        self._seen[alternate] = shown
        self._store_gone(seen, shown.keys() if alternate else shown.keys() | self._left)
        if not alternate:
            self._left = set()
        self._is_moved = self._is_changed = False
        self._looked, self._looks = now, self._looks + 1

    def _spend(self) -> bool:
        """Return whether the budget allows a look, and take it from there."""
        cols, rows = self._emulator.size
        cost = _LOOK_COST + cols * rows / _CELLS_A_MICROSECOND
        if cost > self._budget:
            return False
        self._budget -= cost
        return True

    def _store_gone(self, seen: dict[bytes, int], there: Set[bytes]) -> None:
        """Store the lines that are no longer there, but for those that are now the beginning of another one."""
        gone = [line for line in seen if line not in there]
        ordered = sorted(there) if gone else []
        for line in gone:
            place = bisect_left(ordered, line)
            if place == len(ordered) or not ordered[place].startswith(line):
                self._store(line, seen[line])

    def _store_seen(self) -> None:
        """Store what the last look at the alternate screen has found, if that is in use."""
        if self._emulator.alternate:
            for line, at in self._seen[True].items():
                self._store(line, at)

    def _store(self, line: bytes, at: int) -> None:
        if self._stored.add(line, at, self._looks) and self._position > self._text_from:
            self._buffer.add(line + b"\n", [Run(1, NO_NUMBER, at)], self._position)

    def _count_hidden(self) -> None:
        """Take the lines that a resize has moved into the history of the primary screen while that is not in use."""
        if not self._emulator.alternate or self._hidden is None or self._rows is None:
            return
        first, lines = self._hidden
        count = min(self._emulator.history_line - self._next, len(lines) - (self._next - first))
        if count > 0 and first <= self._next:
            # They are in front of `_rows` still: once more they are found there, and known by their numbers.
            line, self._line = self._line, self._next
            self._add_lines(b"".join(each + b"\n" for each in lines[self._next - first :][:count]))
            self._line = line


def _most_rows(data: bytes, cols: int, draws: bool) -> int:
    """Return about how many rows output pushes into the history at most."""
    rows = len(data) // cols + data.count(b"\n")
    for rare in (b"\x0b", b"\x0c", b"\t"):
        if rare in data:  # a tenth of the time that counting takes
            rows += data.count(rare)
    if not draws and b"\x1b" in data:
        rows += sum(int(found[1] or 1) for found in _SCROLLING.finditer(data))
    return rows
