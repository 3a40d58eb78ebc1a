"""The emulated terminal of one session, on libghostty-vt. Only this module and `_ghostty*` know that library.

An Emulator is used by one thread at a time; the GIL is released while it is fed. Its memory is native: close it.
That memory is bounded: history in lines and in bytes, 16 MiB for an unfinished control string, 64 KiB of replies that
were not read.
"""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress
from typing import Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from orbitd.screens import _ghostty, _ghostty_abi, questions
from orbitd.screens._ghostty_lines import LeftRows, LineCounter, lines_between, rows_of_lines
from orbitd.screens._ghostty_rows import EMPTY, RowReader
from orbitd.screens._ghostty_snapshot import parse
from orbitd.screens._ghostty_terminal import CELL_BYTES, ROW_BYTES, Probe, Terminal, check_size
from orbitd.screens.frame import Frame, draw_row, frame_modes, make_frame
from orbitd.screens.model import (
    MAX_SCROLLBACK_LINES,
    Appearance,
    Colors,
    Cursor,
    Cut,
    DrawnRows,
    PromptState,
    Row,
    Screen,
    StateCorrupt,
    TerminalError,
    TerminalUnavailable,
)
from orbitd.screens.render import Theme, to_html, to_text, without_blanks_at_the_end
from orbitd.screens.repaint import MODES, ScreenBuffer, TerminalContents, paint
from orbitd.screens.said import Scanner
from orbitd.screens.said import State as SaidState
from orbitd.screens.svg import to_svg

SCROLLBACK_MAX_BYTES = 16 << 20
KEY_FRAME_ROWS = 512
"""Rows of history in a key frame, at least, if there are as many."""

_REVERSE_VIDEO = 5
_UNLIMITED = 2**48
_MAX_WRAPPED_ROWS = 1000
_LEAVING = (b"1049l", b"1047l", b"?47l")
_COUNT_SECS = 1.0
"""Counting lines takes a microsecond each: so often at most while a terminal is fed."""

_LINK_PARAMETERS = re.compile(rb"\x1b\]8;[^;]*;")
_HEADER_MAGIC = b"ORBIT\x01"
_HEADER_LENGTH_BYTES = 4
# An OSC is over at BEL, and at ESC, which begins ST; CAN and SUB abort it.
_ICON = re.compile(rb"\x1bc|\x1b\][01];([^\x07\x18\x1a\x1b]{0,2040})(?=[\x07\x1b])")
_ICON_BEGINNING = re.compile(rb"\x1b(?:\](?:[01](?:;[^\x07\x18\x1a\x1b]*)?)?)?")
# Any ESC but that of a control sequence that draws, or moves on: none that moves up, erases a screen, scrolls, repeats,
# asks, or sets modes or margins. Most output has colours only, and is searched for this alone.
_NOT_DRAWING = re.compile(rb"\x1b(?!\[[^@-~]*+[@B-EGIK-RT-ac-egi-kmo-qsu-wy-~])")
_C0 = bytes(range(0x20))
_OSC_MAX_BYTES, _ICON_MAX_CHARACTERS = 2048, 1024


def only_draws(data: bytes) -> bool:
    """Return whether output, from the ground state on, is text and such sequences only; False may be wrong."""
    return (b"\x1b" not in data or _NOT_DRAWING.search(data) is None) and b"\x9b" not in data


def unavailable_reason() -> str | None:
    """Return why this machine has no terminal emulation, or None where it has. The first call loads the library."""
    try:
        _ghostty.load()
    except TerminalUnavailable as exc:
        return str(exc)
    return None


def prepare() -> None:
    """Do in a fork what the first load of an installation takes most memory for. For a process without threads."""
    _ghostty_abi.fill_cache_in_fork()


class StateHeader(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What belongs to a saved terminal and is not in the library's snapshot; a map before the snapshot's bytes.

    A field that another version has added is ignored, and one that is missing has its default. A header that would
    be empty is left out.
    """

    icon: str = ""
    progress: tuple[int, int] | None = None
    allows_columns: bool = False
    history_line: int = 0
    said: SaidState | None = None
    written: tuple[tuple[int, int], ...] = ()

    def to_bytes(self) -> bytes:
        """Return the bytes that stand before the snapshot."""
        data = msgspec.msgpack.encode(self)
        if self == StateHeader():
            return b""
        return _HEADER_MAGIC + len(data).to_bytes(_HEADER_LENGTH_BYTES, "big") + data

    @classmethod
    def split(cls, state: bytes) -> tuple[StateHeader, bytes]:
        """Return the header of a saved state, and the snapshot behind it. Raises: StateCorrupt."""
        if not state.startswith(_HEADER_MAGIC):
            return cls(), state
        start = len(_HEADER_MAGIC) + _HEADER_LENGTH_BYTES
        end = start + int.from_bytes(state[len(_HEADER_MAGIC) : start], "big")
        try:
            return _headers.decode(state[start:end]), state[end:]
        except msgspec.DecodeError as exc:
            raise StateCorrupt(f"the saved terminal's header cannot be read ({exc})") from exc

    @classmethod
    def of(cls, state: bytes) -> StateHeader:
        """Return the header of a state whose snapshot may be unreadable; an empty one where it is unreadable too."""
        try:
            return cls.split(state)[0]
        except StateCorrupt:
            return cls()


_headers = msgspec.msgpack.Decoder(StateHeader)


class IconName:
    """Follow the name that OSC 0 and 1 give to the window's icon: libghostty parses and drops it.

    An ESC begins a new sequence wherever it stands, in a string as well, so no more of the parser is needed.
    """

    def __init__(self, name: str = "", unfinished: bytes = b"") -> None:
        self.name = name
        self._unfinished = unfinished if _ICON_BEGINNING.fullmatch(unfinished) else b""

    def feed(self, data: bytes, *, was_reset: bool) -> None:
        """Follow output, split anywhere. `was_reset` says that a RIS may be in it."""
        if self._unfinished or was_reset or b"]" in data:
            data = self._unfinished + data
            for match in _ICON.finditer(data):
                self._set(match[1] or b"")
        end = data[-_OSC_MAX_BYTES:]
        start = end.rfind(b"\x1b")
        self._unfinished = end[start:] if start >= 0 and _ICON_BEGINNING.fullmatch(end, start) else b""

    def _set(self, name: bytes) -> None:
        try:
            self.name = name.translate(None, _C0).decode()[:_ICON_MAX_CHARACTERS]
        except UnicodeDecodeError:
            return  # libghostty takes no such title either


class Emulator:
    """A terminal emulator without a window.

    Args:
        cols: Columns, 1 to 4096.
        rows: Rows, 1 to 4096; 1,000,000 cells at most.
        max_scrollback_lines: History that is kept at least, where the bytes hold it; sometimes more.
        scrollback_max_bytes: History that is kept at most, give or take some 400 kB.

    Attributes:
        scanner: Finds what programs say; it is fed by itself, and saved with the rest.
        written: When lines were written that are on the screen: up to which number, and a time in milliseconds since
            the epoch, the first ones first. Saved with the rest; only who sets it knows.

    Raises:
        TerminalUnavailable: There is no emulation on this machine.
        ValueError: The size is out of bounds.
    """

    def __init__(
        self,
        cols: int,
        rows: int,
        *,
        max_scrollback_lines: int = MAX_SCROLLBACK_LINES,
        scrollback_max_bytes: int = SCROLLBACK_MAX_BYTES,
    ) -> None:
        terminal = Terminal.new(_ghostty.load(), cols, rows)
        self._init_terminal(terminal, StateHeader(), max_scrollback_lines, scrollback_max_bytes)

    @classmethod
    def decode(
        cls,
        state: bytes,
        *,
        max_scrollback_lines: int = MAX_SCROLLBACK_LINES,
        scrollback_max_bytes: int = SCROLLBACK_MAX_BYTES,
    ) -> Emulator:
        """Return the terminal that `encode` saved, in the middle of a sequence if it was saved there.

        Raises:
            StateCorrupt: The state is damaged, or of a version that this library does not read.
        """
        library = _ghostty.load()
        emulator = cls.__new__(cls)
        header, snapshot = StateHeader.split(state)
        terminal = Terminal(library, library.decode(snapshot, history=True))
        try:
            check_size(*terminal.size)
        except ValueError as exc:
            terminal.close()
            raise StateCorrupt(f"the saved terminal is too large: {exc}") from exc
        emulator._init_terminal(terminal, header, max_scrollback_lines, scrollback_max_bytes)
        return emulator

    def _init_terminal(self, terminal: Terminal, header: StateHeader, lines: int, size: int) -> None:
        self._terminal = terminal
        terminal.effects.progress, terminal.allows_columns = header.progress, header.allows_columns
        self.scanner = Scanner(header.said)
        self.written = header.written
        self._icon = IconName(header.icon, terminal.library.continuation(terminal.pointer))
        self._limits = (lines, size)
        terminal.limit_scrollback(lines, size)
        self._answering = True
        self._rows_read: dict[int, Row] = {}  # rows of the screen as it is now, for frames of several sizes
        self._questions = questions.QuestionFinder()
        self._appearance = Appearance()
        # A decoded terminal may be on its alternate screen; a reference to a row of that must not be kept.
        self._lines: LineCounter | None = None
        # A state that was saved on the alternate screen has the number of the screen behind that.
        self._line, self._kept_at, self._is_counted = header.history_line, 0.0, self.alternate
        self._start_counting()

    def close(self) -> None:
        """Free the terminal; afterwards only `close` may be called."""
        if self._lines is not None:
            self._lines.close()
        self._terminal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Input

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Interpret output of the program, split anywhere."""
        data = bytes(data)
        removals = self._terminal.effects.removals
        self._rows_read.clear()
        self._feed_and_answer(data)
        self._icon.feed(data, was_reset=self._terminal.effects.removals != removals)
        if not self.alternate:
            self._keep_counting(data)
        elif any(leaving in data for leaving in _LEAVING):
            self._is_counted = False  # it has left the alternate screen, and is back there

    def _feed_and_answer(self, data: bytes) -> None:
        """Feed the terminal, and answer the questions that it leaves unanswered."""
        effects, draws = self._terminal.effects, not self._terminal.is_mid_sequence and only_draws(data)
        for piece, question in self._questions.cut(data) if self._answering and not draws else ((data, None),):
            before = effects.reply_bytes
            self._terminal.feed(piece, only_draws=draws)
            if question is not None and effects.reply_bytes == before:
                effects.add_reply(self._answer(question))
        self._questions.keep_unfinished(data, at_ground=self.at_ground)

    def _answer(self, question: re.Match[bytes]) -> bytes:
        if question["csi"] == questions.POSITION:
            effects = self._terminal.effects
            before = effects.reply_bytes
            self._terminal.feed(b"\x1b[6n")
            return effects.take_reply(before).replace(b"\x1b[", b"\x1b[?", 1)
        return questions.answer(
            question, cells=self.size, pixels=_ghostty.CELL_PIXELS, graphics=self._appearance.kitty_graphics
        )

    def set_appearance(self, appearance: Appearance) -> None:
        """Set what questions about colours and graphics are answered with; colours that a program has set stay.

        A change between a dark and a light background is an answer too, where the program has asked for it (mode 2031).
        """
        self._appearance = appearance
        terminal = self._terminal
        foreground = appearance.foreground or _ghostty.FOREGROUND
        background = appearance.background or _ghostty.BACKGROUND
        terminal.library.set_default_colors(terminal.pointer, foreground, background, appearance.palette)
        red, green, blue = background
        is_light = 299 * red + 587 * green + 114 * blue >= 127_500  # of 255,000: the luma of BT.601
        if is_light != terminal.effects.is_light:
            terminal.effects.is_light = is_light
            if self._answering and terminal.mode(2031):
                terminal.effects.add_reply(b"\x1b[?997;%dn" % (2 if is_light else 1))

    def resize(self, cols: int, rows: int) -> None:
        """Change the size; lines of the primary screen are rewrapped. Nothing else changes it.

        Raises:
            ValueError: The size is out of bounds.
        """
        self._rows_read.clear()
        self._terminal.resize(cols, rows)
        self._is_counted = False

    @property
    def answering(self) -> bool:
        """Whether the program's queries are answered here."""
        return self._answering

    @answering.setter
    def answering(self, on: bool) -> None:
        if on != self._answering:
            self._terminal.library.set_replies_enabled(self._terminal.pointer, on=on)
            self._answering = on

    def replies(self) -> bytes:
        """Return and remove the answers since the last call; write them to the program's input."""
        return self._terminal.effects.drain_replies()

    @property
    def bells(self) -> int:
        """How often the program has rung the bell (BEL) since this object was made; a saved state has no count."""
        return self._terminal.effects.bells

    # State

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._terminal.size

    @property
    def title(self) -> str:
        """The title that the program set last, or ""."""
        return self._terminal.text("TITLE")

    @property
    def icon(self) -> str:
        """The name that the program gave to the window's icon last, or ""."""
        return self._icon.name

    @property
    def progress(self) -> tuple[int, int] | None:
        """The state and the percentage that the program has reported (OSC 9;4), -1 for none; None for no progress."""
        return self._terminal.effects.progress

    @property
    def cwd(self) -> str:
        """The working directory as the program reported it (OSC 7): mostly a file:// URL, or ""."""
        return self._terminal.text("PWD")

    @property
    def cursor(self) -> Cursor:
        """The cursor's position, shape and pen."""
        return self._terminal.cursor()

    @property
    def alternate(self) -> bool:
        """Whether the program uses the alternate screen."""
        return self._terminal.alternate

    @property
    def at_ground(self) -> bool:
        """Whether the parser is in its ground state: no sequence and no character is unfinished."""
        return self._terminal.flag("VT_GROUND")

    def modes(self) -> frozenset[str]:
        """Return the modes that are set, DEC private ones as `?N`."""
        return frozenset(mode.name for mode in MODES if self._terminal.mode(mode.number, ansi=mode.ansi))

    def dump(self) -> Screen:
        """Return everything that can be seen, for comparisons."""
        cols, rows = self.size
        return Screen(
            cols=cols,
            rows=rows,
            alternate=self.alternate,
            lines=self._terminal.screen_rows(),
            cursor=self.cursor,
            modes=self.modes(),
            keyboard=self._terminal.keyboard,
            extras=self._terminal.extras("scrolling_region", "keyboard", "protection", "charsets")
            + self._terminal.extras("tabstops", before=True)
            + _LINK_PARAMETERS.sub(b"\x1b]8;;", self._terminal.extras("hyperlink")),
            at_prompt=self._terminal.flag("CURSOR_AT_PROMPT"),
            title=self.title,
            icon=self.icon,
            cwd=self.cwd,
            progress=self.progress,
        )

    # History

    @property
    def scrollback_rows(self) -> int:
        """Lines of history of the screen in use; the alternate screen has none."""
        return self._terminal.scrollback_rows

    @property
    def scrollback_bytes(self) -> int:
        """The history's approximate size in memory."""
        return self.scrollback_rows * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """What a row of history takes in memory, at least."""
        return self.size[0] * CELL_BYTES + ROW_BYTES

    @property
    def history_line(self) -> int:
        """How many lines have left the primary screen into the history since the session began.

        A line that wraps is one. Lines that come back when the screen becomes taller do not count any more.
        """
        return self._count_lines()

    def _count_lines(self, snapshot: bytes | None = None) -> int:
        """Count, in a copy that is made of the snapshot, or of a new one, where the primary screen is hidden."""
        if not self.alternate:
            self._start_counting()
            if self._lines is not None:
                self._line = self._lines.count(self.scrollback_rows, self.size[1])
        elif not self._is_counted:
            # How many rows the hidden screen's history has only a copy can tell. Where the library refuses to make
            # one, the last number stays: it is too low, and at worst lines are shown twice.
            with suppress(TerminalError):
                state = self._snapshot() if snapshot is None else snapshot
                with Probe(self._terminal.library, state, {}, history=True) as probe:
                    probe.leave_alternate()
                    self._count_in(probe.terminal)
        return self._line

    def _count_in(self, copy: Terminal) -> None:
        """Count in a copy that has left the alternate screen."""
        if self._lines is not None:
            self._line = self._lines.count_in(copy.pointer, copy.scrollback_rows, self.size[1])
        self._is_counted = True

    def _start_counting(self) -> None:
        if self._lines is None and not self.alternate:
            terminal = self._terminal
            self._lines = LineCounter(terminal.library, terminal.pointer, self._line)

    def _keep_counting(self, data: bytes) -> None:
        self._is_counted = False
        self._start_counting()
        if self._lines is None:
            return
        self._lines.fed(data.count(b"\n"))
        now = time.monotonic()
        if now - self._kept_at > _COUNT_SECS:
            self._kept_at = now
            self._lines.keep(self.scrollback_rows, self.size[1])

    def count_from(self, line: int) -> None:
        """Count on from a line at least: what is drawn here follows what has left the screen already."""
        if line > self.history_line:
            self._line = line
            if self._lines is not None:
                self._lines.line = line

    def go_on_from(self, line: int) -> None:
        """Set the number of the line that the first row of the primary screen, which is in use, belongs to."""
        self._line = line
        self._start_counting()
        if self._lines is not None:
            self._lines.go_on_from(line)

    # Text of the primary screen, while that is in use

    def left_rows(self, line: int) -> tuple[LeftRows, int]:
        """Return what takes the rows that leave the screen, from the beginning of a line on, and that line's number.

        Close it before this emulator. Where the history does not reach as far, they begin with its oldest row.
        """
        row, first = self.row_of(line)
        return LeftRows(self._terminal, row), first

    def row_of(self, line: int) -> tuple[int, int]:
        """Return the row in which a line begins, 0 being the oldest of the history, and its number.

        That of the first row where the history does not reach as far, and that at the top of the screen where the line
        is on it.
        """
        top, rows, terminal, here = self.scrollback_rows, self.size[1], self._terminal, self.history_line
        lines = max(0, here - line)
        row = top - rows_of_lines(terminal.library, terminal.pointer, lines, top, rows)
        return row, here - lines_between(terminal.library, terminal.pointer, row, top, rows)

    def lines_between(self, first: int, last: int) -> int:
        """Return how many lines end in the rows from `first` until before `last`, 0 being the oldest."""
        return lines_between(self._terminal.library, self._terminal.pointer, first, last, self.size[1])

    @property
    def cursor_cell(self) -> tuple[int, int]:
        """Column and row of the cursor."""
        return self._terminal.number("CURSOR_X"), self._terminal.number("CURSOR_Y")

    def text_from(self, row: int, column: int) -> bytes:
        """Return the text from a cell to the end of the screen, a line for each line, without empty ones at the end."""
        last = self.scrollback_rows + self.size[1] - 1
        return self._terminal.whole_lines(row, last, 0, column) if row <= last else b""

    def trim_scrollback(self, *, max_lines: int | None = None, max_bytes: int | None = None) -> None:
        """Drop the oldest history down to a size, once; the limits for what comes later stay."""
        lines, size = self._limits
        self._terminal.trim_scrollback(
            lines if max_lines is None else min(lines, max_lines), size if max_bytes is None else min(size, max_bytes)
        )

    def forget_before(self, line: int) -> None:
        """Drop the history before a line, and what a full-screen program has left that is not on the screen.

        The library drops whole pages of history, which hold hundreds of lines: where one holds older lines too, all of
        the history goes. A sequence that is begun is cut off then: what follows of it is shown as text.
        """
        lines = max(0, self.history_line - line)
        self.trim_scrollback(max_lines=lines)
        cancel = b"" if self.at_ground else b"\x18\x1b\\"
        if self.alternate:  # `scrollback_rows` is of the screen in use
            self.feed(cancel + b"\x1b[?47l\x1b[3J\x1b[?47h")
        else:
            erase = b"\x1b[3J" if self.scrollback_rows > lines else b""
            self.feed(cancel + erase + b"\x1b[?1047h\x1b[2J\x1b[?1047l")

    def compress(self) -> None:
        """Compress the history to about a third of its memory, in about a millisecond; reading decompresses it.

        Worth it once a terminal has been quiet for a while; `encode` does not decompress anything.
        """
        self._terminal.compress()

    def history(self, lines: int | None = None) -> tuple[Row, ...]:
        """Return the newest `lines` rows of history, the oldest first; all of them by default."""
        end = self.scrollback_rows
        first = 0 if lines is None else max(0, end - lines)
        return tuple(self._terminal.rows(first, end))

    # Output

    def encode(self) -> bytes:
        """Return the whole state: both screens, history, modes, and an unfinished sequence.

        Raises:
            TerminalError: The library refuses, for now or until the screen has changed: StateBusy where an unfinished
                control string is longer than 16 MiB, others after some resizes of clusters and wide characters.
        """
        snapshot = self._snapshot()
        header = StateHeader(
            icon=self.icon,
            progress=self.progress,
            allows_columns=self._terminal.allows_columns,
            history_line=self._count_lines(snapshot),
            said=self.scanner.state if self.scanner.state != SaidState() else None,
            written=self.written,
        )
        return header.to_bytes() + snapshot

    def _snapshot(self) -> bytes:
        return self._terminal.library.encode(self._terminal.pointer)

    def save(self) -> tuple[bytes, bytes]:
        """Return what `encode` and `repaint` do, encoding once.

        Where the library refuses to encode, the state is b"", and the repaint has the whole history.
        """
        try:
            state = self.encode()
        except TerminalError:
            return b"", paint(self._contents(None, sys.maxsize))
        return state, self.repaint(state=state)

    def repaint(self, scrollback_lines: int = 0, *, after_line: int | None = None, state: bytes | None = None) -> bytes:
        """Return VT bytes that draw this terminal on a cleared one of the same size.

        The module `repaint` says what they set. They end with an unfinished sequence, if there is one, so that the
        program's next output can follow them. Where the library refuses to copy the terminal, what only a copy can tell
        is left out: saved cursors, and the primary screen with its history while the alternate one is in use.

        Args:
            scrollback_lines: How many rows of history scroll through the client's screen first, at most.
            after_line: Only those behind so many lines of the session; all of them where there were not as many.
            state: What `encode` has just returned, if the caller has it; saves encoding again.
        """
        try:
            state = self.encode() if state is None else state
            # The history belongs to the primary screen: it is read from the copy only while that is hidden here.
            with_history = scrollback_lines > 0 and self.alternate
            _, snapshot = StateHeader.split(state)
            screens = parse(snapshot) or {}
            with Probe(self._terminal.library, snapshot, screens, history=with_history) as probe:
                return paint(self._contents(probe, scrollback_lines, after_line))
        except TerminalError:
            return paint(self._contents(None, scrollback_lines, after_line))

    def frame(self, cols: int, rows: int, left: int = 0, top: int = 0) -> Frame:
        """Return what a window of this size shows of the screen, with the cursor in it.

        Args:
            cols: Columns of the window.
            rows: Rows of the window.
            left: The first column that was shown before.
            top: The first row that was shown before.
        """
        terminal, cursor, modes = self._terminal, self.cursor, self.modes()
        return make_frame(
            self.size,
            (cols, rows),
            (left, top),
            read_rows=self._read_rows,
            cursor=cursor,
            modes=frame_modes(modes, terminal.keyboard, terminal.extras("keyboard"), cursor),
            is_updating="?2026" in modes,
        )

    def _read_rows(self, first: int, last: int) -> list[Row]:
        """Return rows of the screen from `first` until before `last`; each is read once until the screen changes."""
        read, top = self._rows_read, self.scrollback_rows
        missing = [number for number in range(first, last) if number not in read]
        if missing:
            start, end = missing[0], missing[-1] + 1
            read.update(zip(range(start, end), self._terminal.rows(top + start, top + end), strict=True))
        return [read[number] for number in range(first, last)]

    def screen(
        self,
        format: str = "text",  # noqa: A002 - the method's own word
        *,
        scrollback: bool = False,
        cut: Cut | None = None,
        cursor: bool = False,
        colors: Colors = Colors(),  # noqa: B008 - frozen
    ) -> bytes:
        """Return what is on the screen, text, HTML and SVG in UTF-8.

        Args:
            format: `text`, `vt`, `html` or `svg`.
            scrollback: Put the whole history before it.
            cut: Only these lines of the history and the screen; as VT, without what else a terminal's state is.
            cursor: Draw the cursor where it is visible, as HTML and SVG.
            colors: As HTML and SVG: those that the program has not set.

        Raises:
            KeyError: There is no such format.
            TooLarge: There is too much to draw.
        """
        top = self.scrollback_rows
        first, last = (0 if scrollback else top), top + self.size[1]
        if cut is not None:
            first, last, _ = self.cut_lines(cut)
            if format == "vt":
                return self._vt_lines(first, last)
        if format == "vt":
            return self.repaint(sys.maxsize if scrollback else 0)
        if format == "text":
            return self._text(first, last)
        return {"html": self._html, "svg": self._svg}[format](first, last, self._theme(colors), cursor)

    def searchable(self) -> tuple[bytes, bytes]:
        """Return the lines of the screen in UTF-8, and the one that the cursor is in, up to the cursor.

        Wrapped lines are whole, but for what is more than `_MAX_WRAPPED_ROWS` above.
        """
        terminal, top, cursor = self._terminal, self.scrollback_rows, self.cursor
        with RowReader(terminal.library, terminal.pointer) as reader:
            above = max(0, top - _MAX_WRAPPED_ROWS)
            ends = reader.line_ends(above, top + self.size[1], self.size[1])
        first = above + ends.rfind(1, 0, top - above) + 1
        begin = above + ends.rfind(1, 0, top + cursor.row - above) + 1
        column = cursor.column + cursor.pending_wrap
        line = terminal.whole_lines(begin, top + cursor.row, column) if column or begin < top + cursor.row else b""
        return terminal.whole_lines(first, top + self.size[1] - 1, self.size[0]), line

    def cut_lines(self, cut: Cut) -> tuple[int, int, int]:
        """Return the first line of a part, the line behind its last, and how many lines there are to be cut.

        Lines are rows as they are on the screen, counted from the oldest of the history. Blank ones at the end are
        none, but for those above the cursor.
        """
        top, rows = self.scrollback_rows, self.size[1]
        total = top + self.cursor.row + 1
        with RowReader(self._terminal.library, self._terminal.pointer) as reader:
            letters, _ = reader.classify(top, top + rows, rows)
        total = max(total, top + len(letters.rstrip(EMPTY)))
        first, lines = cut.first, cut.lines
        if first is None:
            first = 0 if lines is None else max(0, total - lines)
        elif first < 0:
            first = max(0, total + first)
        first = min(first, total)
        return first, (total if lines is None else min(total, first + lines)), total

    def _text(self, first: int, last: int) -> bytes:
        if first == last:
            return b""
        text = self._terminal.plain_text(first, last)
        if text is None:
            return to_text(self._terminal.rows(first, last)).encode()
        return without_blanks_at_the_end(text.split("\n")).encode()

    def _vt_lines(self, first: int, last: int) -> bytes:
        """Return the lines with their colours and styles, each from a plain pen to a plain pen."""
        drawn = self._terminal.drawn_rows(first, last, unwrap=False) if first < last else ()
        lines = [row.text.encode() if isinstance(row, DrawnRows) else draw_row(row, self.size[0]) for row in drawn]
        return b"".join(line + b"\r\n" for line in lines)

    def _theme(self, colors: Colors) -> Theme:
        """Return the colours: the program's, else those that are given, else our own.

        The defaults in the terminal are not asked: they are those of the client that owns the size.
        """
        terminal = self._terminal
        changed, palette = terminal.changed_colors(), terminal.library.palette
        given = (*colors.palette, *palette[len(colors.palette) :])
        foreground = changed.get("foreground", colors.foreground or _ghostty.FOREGROUND)
        background = changed.get("background", colors.background or _ghostty.BACKGROUND)
        if terminal.mode(_REVERSE_VIDEO):
            foreground, background = background, foreground
        return Theme(
            [changed.get(str(index), color) for index, color in enumerate(given)],
            foreground,
            background,
            changed.get("cursor", colors.cursor or foreground),
        )

    def _cursor_in(self, first: int, last: int, wanted: bool) -> Cursor | None:
        """Return the cursor, its row counted from `first`; None where it is not among these rows, or not shown."""
        cursor = self.cursor
        row = self.scrollback_rows + cursor.row
        if not (wanted and cursor.visible and first <= row < last):
            return None
        return replace(cursor, row=row - first)

    def _html(self, first: int, last: int, theme: Theme, with_cursor: bool) -> bytes:
        drawn_rows, cursor = self._terminal.drawn_rows, self._cursor_in(first, last, with_cursor)
        if first == last:
            return to_html((), theme).encode()
        if cursor is None:
            return to_html(drawn_rows(first, last, unwrap=False), theme).encode()
        # The library draws no cursor: its row is read, and drawn between those before and behind it.
        row = first + cursor.row
        before = list(drawn_rows(first, row, unwrap=False)) if first < row else []
        here = list(self._terminal.rows(row, row + 1))
        behind = list(drawn_rows(row + 1, last, unwrap=False)) if row + 1 < last else []
        return to_html(before + here + behind, theme, (len(before), cursor)).encode()

    def _svg(self, first: int, last: int, theme: Theme, with_cursor: bool) -> bytes:
        rows = self._terminal.rows(first, last) if first < last else ()
        return to_svg(rows, (self.size[0], last - first), theme, self._cursor_in(first, last, with_cursor)).encode()

    def _contents(self, probe: Probe | None, scrollback_lines: int, after_line: int | None = None) -> TerminalContents:
        """Collect what a repaint draws; without a probe, saved cursors and what it alone can read are left out.

        The order matters: the probe's queries change it. It leaves the alternate screen first, and returns there
        before the saved cursor and the keyboard flags are read, which each screen has of its own.
        """
        terminal, screens = self._terminal, probe.screens if probe is not None else {}
        behind, source = None, terminal
        if self.alternate and probe is not None:
            behind, source = probe.leave_alternate(), probe.terminal
        end = source.scrollback_rows if behind or not self.alternate else 0
        if after_line is not None and scrollback_lines > 0 and end:
            if behind:
                self._count_in(source)
            if (lines := self.history_line - after_line) >= 0:
                rows = rows_of_lines(source.library, source.pointer, lines, end, self.size[1])
                scrollback_lines = min(scrollback_lines, rows)
        history = (
            tuple(source.drawn_rows(max(0, end - scrollback_lines), end, screens.get(False)))
            if scrollback_lines > 0
            else ()
        )
        if behind and probe is not None:
            probe.enter_alternate()
        snapshot = screens.get(self.alternate)
        here = ScreenBuffer(
            lines=terminal.screen_rows(snapshot),
            cursor=terminal.cursor(),
            saved=probe.saved_cursor() if probe is not None else None,
            keyboard=probe.keyboard_stack() if probe is not None else (),
            prompt=PromptState() if snapshot is None else snapshot.prompt,
            pen=terminal.pen(),
        )
        cols, rows = self.size
        return TerminalContents(
            cols=cols,
            rows=rows,
            history=history,
            primary=(behind or ScreenBuffer(lines=(), cursor=Cursor())) if self.alternate else here,
            alternate=here if self.alternate else None,
            modes=self.modes(),
            margins=terminal.extras("scrolling_region").decode(),
            key_encoding=terminal.extras("keyboard").decode(),
            pen_link=terminal.pen_link() if snapshot is None else snapshot.pen_link,
            tab_stops=self._tab_stops(),
            colors=terminal.changed_colors(),
            title=self.title,
            icon=self.icon,
            cwd=self.cwd,
            progress=self.progress,
            continuation=terminal.library.continuation(terminal.pointer),
        )

    def _tab_stops(self) -> str:
        """Return the sequences that set the tab stops, or "" where there is one every eight columns."""
        stops = self._terminal.extras("tabstops", before=True).decode()
        usual = "".join(f"\x1b[{column + 1}G\x1bH" for column in range(8, self.size[0] - 1, 8))
        return "" if stops == f"\x1b[3g{usual}\x1b[H" else stops


def key_frame(state: bytes) -> bytes:
    """Return a saved state with the newest rows of its history only; b"" where the library refuses, or for b"".

    A terminal that grows gets some back, and those that a film draws with it are as they were.
    """
    if not state:
        return b""
    try:
        header, snapshot = StateHeader.split(state)
        library = _ghostty.load()
        with Terminal(library, library.decode(snapshot, history=True)) as terminal:
            terminal.trim_scrollback(KEY_FRAME_ROWS + terminal.rows_a_page, _UNLIMITED)
            return header.to_bytes() + library.encode(terminal.pointer)
    except TerminalError:
        return b""
