"""One terminal of libghostty-vt as an object that returns the values of `model`, and throw-away copies of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Self

from orbit_protocol import MAX_COLUMNS_OR_ROWS, MAX_SCREEN_CELLS
from orbitd.screens._ghostty import CELL_PIXELS, NO_VALUE, PALETTE_SIZE, Effects, Library
from orbitd.screens._ghostty_rows import (
    EMPTY,
    GROUPS,
    GROUPS_OF_ROWS,
    OTHER,
    WRAPPING,
    RowReader,
    shared_caches,
    style_of,
)
from orbitd.screens._ghostty_snapshot import SnapshotScreen, without_controls
from orbitd.screens.model import Cursor, DrawnMarks, DrawnRows, Link, PromptState, Rgb, Row, TerminalError
from orbitd.screens.repaint import SavedCursor, ScreenBuffer
from orbitd.screens.vt_writer import cup

# DECSCUSR's parameter by the library's name for the shape, blinking and steady.
_SHAPES = {"BLOCK": (1, 2), "UNDERLINE": (3, 4), "BAR": (5, 6), "BLOCK_HOLLOW": (0, 0)}
_ANSI = 1 << 15
_INSERT = 4 | _ANSI
_ORIGIN, _WRAPAROUND, _MARGINS = 6, 7, 69
_GRAPHEME_CLUSTERS, _ALLOW_COLUMNS, _COLUMNS = 2027, 40, 3
_KEPT_OFF = (_GRAPHEME_CLUSTERS, _ALLOW_COLUMNS)
# The parameters of DECSET and XTRESTORE, `CSI ? 2027 ; 40 h`. Everything outside of @ to ~ may stand between them: a
# parser executes or ignores control characters there. Only one question mark may, so each search ends at the next one,
# and all of them together pass the data once; the possessive `*+` never goes back.
_MODES_SET = re.compile(rb"\?([^?@-~]*+)([hr])")
_NUMBERS_KEPT_OFF = re.compile(b"|".join(b"%d" % number for number in _KEPT_OFF))
# Once mode 40 was set, also what changes the columns, and what resets mode 40.
_MODES_CHANGED = re.compile(rb"\?([^?@-~]*+)([hlr])")
_NUMBERS_CHANGED = re.compile(_NUMBERS_KEPT_OFF.pattern + rb"|(?<![0-9])0*%d(?![0-9])" % _COLUMNS)
_NOT_IN_NUMBERS = bytes(byte for byte in range(256) if byte not in b"0123456789:;")
_WRAPS = re.compile(b"[" + WRAPPING + b"]")
_EMPTY_ROW = Row()
_PEN_LINK = re.compile(rb"\x1b\]8;(?:id=([^;]*))?;(.+?)\x1b\\", re.DOTALL)
_UNDERLINE_COLOR = re.compile(r"\x1b\[58;(?:2;(\d+);(\d+);(\d+)|5;(\d+))m")
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code != 0x0A)
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
_CSI_MAX_BYTES = 256
_CANCEL = b"\x18\x1b\\"  # CAN ends an unfinished sequence; ST a string, where CAN does not
_KEYBOARD_STACK = 8
CELL_BYTES = ROW_BYTES = 8
"""Of the library's memory for history, for each cell and row."""
# A page of history: its size, on systems with pages of 16 KiB too, and somewhat less than what it has for rows.
_PAGE_BYTES, _PAGE_CELLS_BYTES = 409_600, 370_000
_UNLIMITED = 2**48


def check_size(cols: int, rows: int) -> None:
    """Raise ValueError unless an emulator may have this size.

    ED, DECALN or RIS of `MAX_SCREEN_CELLS` take libghostty some milliseconds; 65535 columns or rows crash it.
    """
    if not (1 <= cols <= MAX_COLUMNS_OR_ROWS and 1 <= rows <= MAX_COLUMNS_OR_ROWS and cols * rows <= MAX_SCREEN_CELLS):
        raise ValueError(f"a terminal of {cols} columns and {rows} rows is not possible")


def _next_mode_change(data: bytes, position: int, allows_columns: bool) -> re.Match[bytes] | None:
    """Return what looks next like a sequence that has to be looked at; strings and plain text may do so as well."""
    sequence, numbers = (_MODES_CHANGED, _NUMBERS_CHANGED) if allows_columns else (_MODES_SET, _NUMBERS_KEPT_OFF)
    for match in sequence.finditer(data, position):
        if numbers.search(match[1].translate(None, _NOT_IN_NUMBERS)):
            return match
    return None


def _modes_in(parameters: bytes) -> set[int]:
    numbers = re.split(b"[;:]", parameters.translate(None, _NOT_IN_NUMBERS))
    return {int(number) for number in numbers if number and len(number) < 20}


class Terminal:
    """Own one native terminal until `close`. One thread at a time.

    Args:
        library: The loaded library.
        pointer: A native terminal; it is freed by `close`.
    """

    def __init__(self, library: Library, pointer: Any) -> None:
        self.library = library
        self._pointer = pointer
        self.effects = Effects()
        # The library keeps the handle and passes it to callbacks; from_handle on a collected one crashes.
        self._userdata = library.ffi.new_handle(self.effects)
        library.configure(pointer, self._userdata)
        # A resize in the middle of a sequence is repaired once the parser is at ground: `_repair_after_resize`.
        self._repair_pending = self._was_narrowed = False
        self._values: dict[str, tuple[int, Any]] = {}  # what `number` reads: key, and where to
        self.is_mid_sequence = not self.flag("VT_GROUND")
        self._size = self._native_size()
        self.allows_columns = False
        """Whether the program has set mode 40, which the library never has set for long; it is in no snapshot."""
        self._limits = (_UNLIMITED, _UNLIMITED)  # of history, in lines and bytes
        self._large_pages, self._history_rows, self._bytes_set = False, self.scrollback_rows, -1
        for mode in _KEPT_OFF:
            self._set_mode(mode, on=False)  # a state that another version saved may have them set

    @classmethod
    def new(cls, library: Library, cols: int, rows: int) -> Terminal:
        check_size(cols, rows)
        pointer = library.ffi.new("GhosttyTerminal *")
        library.check(library.lib.ghostty_terminal_new(library.ffi.NULL, pointer, cols, rows), "a terminal")
        terminal = cls(library, pointer[0])
        library.set_defaults(pointer[0])
        return terminal

    @property
    def pointer(self) -> Any:
        """The native terminal; after `close` there is none."""
        if self._pointer is None:
            raise TerminalError("this terminal is closed")
        return self._pointer

    def close(self) -> None:
        """Free the native memory now; closing again does nothing."""
        if self._pointer is not None:
            self.library.lib.ghostty_terminal_free(self._pointer)
            self._pointer = None

    def __del__(self) -> None:
        # For a terminal that was not closed: Python does not know the size of native memory, and would not
        # hurry to collect it.
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feed(self, data: bytes | bytearray | memoryview, *, only_draws: bool = False) -> None:
        """Interpret output of the program, split anywhere; `only_draws` where it is known to set no modes.

        Two modes are switched off again right behind every sequence that could have set them, and a sequence that was
        split between two calls is finished by itself first. In mode 2027, libghostty 0.1.3 crashes when a cluster grows
        wide in the last column below the scroll region. In mode 40, DECCOLM (mode 3) sets the emulator's columns to 80
        or 132; but the size is the window's, and the program's terminal keeps it. What else DECCOLM does, it does here.
        """
        data = bytes(data)  # the GIL is released below: nobody may change the buffer meanwhile
        rest, was_allowed = memoryview(data), self.allows_columns
        removals = self.effects.removals
        if self.is_mid_sequence:
            begun = self._unfinished_csi() if self.allows_columns else b""
            used = self._write_until_ground(rest)
            sequence = (begun + rest[:used]).removeprefix(b"\x1b[") if begun else b""
            self._at_sequence_end(_MODES_CHANGED.fullmatch(sequence))
            rest = rest[used:]
        position = 0
        while not only_draws and (change := _next_mode_change(data, position, self.allows_columns)):
            done, end = len(data) - len(rest), change.end()
            position = end
            if end > done:
                is_change = False
                # In text, or in a string, it is no sequence.
                if self.allows_columns and end - 1 > done and _modes_in(change[1]) & {_COLUMNS, _ALLOW_COLUMNS}:
                    self._write(rest[: end - 1 - done])
                    rest, done = rest[end - 1 - done :], end - 1
                    is_change = bool(self._unfinished_csi())
                self._write(rest[: end - done])
                rest = rest[end - done :]
                self._at_sequence_end(change if is_change else None)
        self._write(rest)
        if was_allowed and self.effects.removals != removals and b"\x1bc" in data:
            self.allows_columns = False
        self.is_mid_sequence = not self.flag("VT_GROUND")
        self._restore_size()
        self._keep_lines()

    def _write(self, data: memoryview) -> None:
        source = self.library.ffi.from_buffer("uint8_t[]", data)
        self.library.lib.ghostty_terminal_vt_write(self.pointer, source, len(source))

    def _write_until_ground(self, data: memoryview) -> int:
        """Write the rest of an unfinished sequence; return how many bytes that was, all of them if it does not end."""
        used = self.library.ffi.new("size_t *")
        source = self.library.ffi.from_buffer("uint8_t[]", data)
        write = self.library.lib.ghostty_terminal_vt_write_until_ground
        return int(used[0]) if write(self.pointer, source, len(source), used) == 0 else len(data)

    def _unfinished_csi(self) -> bytes:
        """Return the bytes of an unfinished control sequence; b"" in a string, in text, or where it is very long."""
        if self.flag("VT_GROUND"):
            return b""
        buffer, size = self.library.ffi.new("uint8_t[]", _CSI_MAX_BYTES), self.library.ffi.new("size_t *")
        read = self.library.lib.ghostty_terminal_continuation_buf
        if read(self.pointer, buffer, len(buffer), size) != 0:
            return b""
        data = bytes(self.library.ffi.buffer(buffer, size[0]))
        return data if data.startswith(b"\x1b[") or data == b"\x1b" else b""

    def _at_sequence_end(self, change: re.Match[bytes] | None) -> None:
        """Do what has to be done behind a sequence.

        Args:
            change: The sequence, if it is known to be one that changes modes; not needed before mode 40 was set.
        """
        if self.mode(_GRAPHEME_CLUSTERS):
            self._set_mode(_GRAPHEME_CLUSTERS, on=False)
        was_allowed = self.allows_columns
        if self.mode(_ALLOW_COLUMNS):
            self._set_mode(_ALLOW_COLUMNS, on=False)
            self._restore_size()
            self.allows_columns = True
        if was_allowed and change is not None:
            modes, is_set = _modes_in(change[1]), change[2] == b"h"
            if _COLUMNS in modes and change[2] != b"r":
                # DECCOLM resets the margins, erases the screen, and moves the cursor to its first place.
                columns = b"\x1b[s" if self.mode(_MARGINS) else b""
                self._write(memoryview(columns + b"\x1b[r\x1b[2J\x1b[H"))
            if _ALLOW_COLUMNS in modes and not is_set:
                self.allows_columns = False
        if self._repair_pending and self.flag("VT_GROUND"):
            self._repair_after_resize()

    def _restore_size(self) -> None:
        """Undo a change of the size by one sequence that sets the modes 40 and 3 both.

        The screen is empty then: DECCOLM has erased it.
        """
        if self._native_size() != self._size:
            if self.mode(_COLUMNS):
                self._set_mode(_COLUMNS, on=False)
            self._resize(*self._size)

    def resize(self, cols: int, rows: int) -> None:
        """Change the size; lines of the primary screen are rewrapped, whatever its mode 7 says.

        Raises:
            ValueError: The size is out of bounds.
        """
        check_size(cols, rows)
        self._size = cols, rows
        self._resize(cols, rows)

    def _resize(self, cols: int, rows: int) -> None:
        """Resize the native terminal.

        Where libghostty does not rewrap lines it cuts them off, wide characters in the middle; it cannot encode those,
        and 0.1.3 crashes when such a line is rewrapped at a later resize. So mode 7 is on meanwhile, and the halves of
        wide characters are erased.
        """
        narrower = cols < self.number("COLS")
        wraps = self.mode(_WRAPAROUND)
        if not wraps:
            self._set_mode(_WRAPAROUND, on=True)
        try:
            result = self.library.lib.ghostty_terminal_resize(self.pointer, cols, rows, *CELL_PIXELS)
            self.library.check(result, f"a resize to {cols} columns and {rows} rows")
        finally:
            if not wraps:
                self._set_mode(_WRAPAROUND, on=False)
        self._apply_limits()  # a row has another size now
        self._repair_pending = True
        self._was_narrowed |= narrower
        if self.flag("VT_GROUND"):
            self._repair_after_resize()

    def _repair_after_resize(self) -> None:
        """Correct what a resize leaves wrong. The parser must be at ground: sequences are written for it."""
        narrowed, self._repair_pending, self._was_narrowed = self._was_narrowed, False, False
        column, row, last = self.number("CURSOR_X"), self.number("CURSOR_Y"), self.number("COLS") - 1
        sequences = []
        if not self.alternate:
            if narrowed:  # the alternate screen is not visible, and entering it clears it anyway
                sequences.append("\x1b[?1047h\x1b[?1047l")
        elif narrowed:
            with RowReader(self.library, self.pointer) as reader:
                halves = list(reader.split_wide_cells(self.number("ROWS")))
                # ECH alone spares a protected cell (DECSCA); a space overwrites it, and is then erased.
                sequences += [f"{cup(*cell)} {cup(*cell)}\x1b[X" for cell in halves]
        if (sequences and self.alternate) or (self.flag("CURSOR_PENDING_WRAP") and column < last):
            sequences.append(cup(row, column))  # this also ends a pending wrap, which only the last column may have
        if sequences:
            # These two change what the sequences above do.
            interfering = [mode for mode in (_ORIGIN, _INSERT) if self.mode(mode)]
            for mode in interfering:
                self._set_mode(mode, on=False)
            self._write(memoryview("".join(sequences).encode()))
            for mode in interfering:
                self._set_mode(mode, on=True)

    def _set_mode(self, number: int, *, on: bool) -> None:
        self.library.set_option(
            self.pointer, "MODE", self.library.ffi.new("GhosttyTerminalModeConfig *", {"mode": number, "value": on})
        )

    @property
    def rows_a_page(self) -> int:
        """How many rows of history are dropped at once."""
        return max(1, _PAGE_CELLS_BYTES // (self.size[0] * CELL_BYTES + ROW_BYTES))

    def limit_scrollback(self, lines: int, size: int) -> None:
        """Keep at least the newest `lines` lines of history where `size` bytes hold them, and drop more.

        The library keeps history in pages, and drops whole ones. A page over its limit of bytes is used again for new
        lines; one over its limit of lines is given back to the kernel and faulted in again, which took a quarter of the
        time of a flood. So lines are limited as the bytes that pages of the usual size need for them; pages with many
        styles, clusters or links are larger, and get all of `size`.
        """
        self._limits = lines, size
        # The history of a decoded state may be in such pages; setting a limit would drop what is over it at once.
        self._large_pages = self.alternate or 2 * self.scrollback_rows > lines
        self._apply_limits()

    def _apply_limits(self) -> None:
        lines, size = self._limits
        rows, rows_a_page = self.size[1], self.rows_a_page
        # The page that is being filled, and the oldest, which is dropped before the next is begun, are two more.
        pages = -(-(lines + rows) // rows_a_page) + 2 if lines else 0
        limit = size if self._large_pages and lines else min(size, pages * _PAGE_BYTES)
        # So many lines fit into no limit of bytes, except with very few columns.
        most_lines = 4 * lines + 4 * rows_a_page if lines else 0
        # A resize copies large pages into larger ones; to set the same limit again would drop some of them.
        self._set_scrollback_limits(most_lines, limit if limit != self._bytes_set else None)

    def trim_scrollback(self, lines: int, size: int) -> None:
        """Drop the oldest history down to a size, once; the limits for what comes later stay."""
        # The library drops what is over a limit when the limit is set.
        self._set_scrollback_limits(lines, size)
        self._apply_limits()

    def _set_scrollback_limits(self, lines: int, size: int | None) -> None:
        """Set the library's limits; without a size only the one of lines."""
        new, set_option = self.library.ffi.new, self.library.set_option
        set_option(self.pointer, "SCROLLBACK_MAX_LINES", new("size_t *", lines))
        if size is not None:
            set_option(self.pointer, "SCROLLBACK_MAX_BYTES", new("size_t *", size))
            self._bytes_set = size
        self._history_rows = self.scrollback_rows

    def _keep_lines(self) -> None:
        """Notice large pages by that lines were dropped which were to be kept.

        A program that erases the history and prints more than before may look the same; it then gets more history than
        it needs, within the limit of bytes.
        """
        rows = self.scrollback_rows
        if rows >= self._history_rows:
            self._history_rows = rows
        elif not self.alternate:  # that has no history
            self._history_rows = rows
            if 0 < rows < self._limits[0] and not self._large_pages:
                self._large_pages = True
                self._apply_limits()

    def compress(self) -> None:
        lib, result = self.library.lib, self.library.ffi.new("GhosttyTerminalCompressionResult *")
        self.library.check(
            lib.ghostty_terminal_compress(self.pointer, lib.GHOSTTY_TERMINAL_COMPRESSION_MODE_FULL, result), "packing"
        )

    def _get(self, name: str, ctype: str) -> Any:
        """Return a pointer to one value, or None where the library says that there is none."""
        out = self.library.new_sized(ctype) if ctype == "GhosttyStyle" else self.library.ffi.new(f"{ctype} *")
        key = getattr(self.library.lib, f"GHOSTTY_TERMINAL_DATA_{name}")
        result = self.library.lib.ghostty_terminal_get(self.pointer, key, out)
        if result == NO_VALUE:
            return None
        self.library.check(result, f"reading {name}")
        return out

    def number(self, name: str, ctype: str = "uint16_t") -> int:
        # Read some twenty times for each piece of output: to allocate for each would take three times as long.
        key, out = self._values.get(name) or self._prepare(name, ctype)
        if result := self.library.lib.ghostty_terminal_get(self.pointer, key, out):
            self.library.check(result, f"reading {name}")
        return int(out[0])

    def _prepare(self, name: str, ctype: str) -> tuple[int, Any]:
        library = self.library
        found = getattr(library.lib, f"GHOSTTY_TERMINAL_DATA_{name}"), library.ffi.new(f"{ctype} *")
        self._values[name] = found
        return found

    def flag(self, name: str) -> bool:
        return bool(self.number(name, "bool"))

    def text(self, name: str) -> str:
        string = self._get(name, "GhosttyString")[0]
        return bytes(self.library.ffi.buffer(string.ptr, string.len)).decode("utf-8", "replace") if string.len else ""

    def mode(self, number: int, *, ansi: bool = False) -> bool:
        config = self.library.ffi.new("GhosttyTerminalModeConfig *", {"mode": number | ansi * _ANSI, "value": False})
        key = self.library.lib.GHOSTTY_TERMINAL_DATA_MODE
        self.library.check(self.library.lib.ghostty_terminal_get(self.pointer, key, config), f"mode {number}")
        return bool(config.value)

    @property
    def size(self) -> tuple[int, int]:
        _ = self.pointer  # raises where it is closed
        return self._size

    def _native_size(self) -> tuple[int, int]:
        return self.number("COLS"), self.number("ROWS")

    @property
    def scrollback_rows(self) -> int:
        return self.number("SCROLLBACK_ROWS", "size_t")

    @property
    def alternate(self) -> bool:
        active = self.number("ACTIVE_SCREEN", "GhosttyTerminalScreen")
        return active == int(self.library.lib.GHOSTTY_TERMINAL_SCREEN_ALTERNATE)

    @property
    def keyboard(self) -> int:
        return self.number("KITTY_KEYBOARD_FLAGS", "uint8_t")

    def cursor(self) -> Cursor:
        with RowReader(self.library, self.pointer) as reader:
            look, blinking, visible = reader.cursor_shape()
        names = {
            getattr(self.library.lib, f"GHOSTTY_RENDER_STATE_CURSOR_VISUAL_STYLE_{name}"): name for name in _SHAPES
        }
        column = self.number("CURSOR_X")
        # A pending wrap elsewhere than at an edge is left from a resize, and not part of a saved state.
        at_edge = column == self.number("COLS") - 1 or self.mode(_MARGINS)
        return Cursor(
            column=column,
            row=self.number("CURSOR_Y"),
            pending_wrap=at_edge and self.flag("CURSOR_PENDING_WRAP"),
            visible=visible,
            shape=_SHAPES[names[look]][0 if blinking else 1],
            style=style_of(self.library, self._get("CURSOR_STYLE", "GhosttyStyle")),
        )

    def rows(self, first: int, last: int, snapshot: SnapshotScreen | None = None) -> Iterator[Row]:
        """Yield rows from `first` until before `last`, 0 being the oldest. Do not change the terminal meanwhile.

        Args:
            first: The first row.
            last: The row behind the last.
            snapshot: The same screen in a snapshot, which has the ids of links.
        """
        with RowReader(self.library, self.pointer, snapshot) as reader:
            yield from reader.rows(range(first, last), self.number("ROWS"))

    def screen_rows(self, snapshot: SnapshotScreen | None = None) -> tuple[Row, ...]:
        top = self.scrollback_rows
        return tuple(self.rows(top, top + self.number("ROWS"), snapshot))

    def drawn_rows(
        self, first: int, last: int, snapshot: SnapshotScreen | None = None, *, unwrap: bool = True
    ) -> Iterator[Row | DrawnRows]:
        """Yield rows from `first` until before `last`, 0 being the oldest: as many as possible drawn by the library.

        Do not change the terminal meanwhile.

        Args:
            first: The first row.
            last: The row behind the last.
            snapshot: The same screen in a snapshot, which has the ids of links.
            unwrap: Say where the rows of wrapped lines are to be joined, so that a terminal wraps them again.
        """
        if self.number("COLS") == 1:  # a wide character does not fit, and is another one when it is printed again
            yield from self.rows(first, last, snapshot)
            return
        with RowReader(self.library, self.pointer, snapshot) as reader:
            letters, marks = reader.classify(first, last, self.number("ROWS"))
        spans = [group.span() for group in (GROUPS if unwrap else GROUPS_OF_ROWS).finditer(letters)]
        # The rows that have to be read are read in one pass: drawn groups need those that wrap across their borders.
        read = set[int]()
        for start, end in spans:
            if letters[start] in OTHER:
                read.update(range(start, end))
            elif unwrap and letters[start] not in EMPTY:
                if start > 0 and letters[start - 1] in WRAPPING:
                    read.add(start)
                if letters[end - 1] in WRAPPING:
                    read.add(end - 1)
        with RowReader(self.library, self.pointer, snapshot) as reader:
            rows = reader.rows([first + number for number in sorted(read)], self.number("ROWS"))
            for start, end in spans:
                if letters[start] in OTHER:
                    yield from (next(rows) for _ in range(start, end))
                elif letters[start] in EMPTY:
                    numbers = range(start, end)
                    yield from (Row(mark=marks[row].mark) if row in marks else _EMPTY_ROW for row in numbers)
                else:
                    inner = letters[start : end - 1]
                    first_row = next(rows) if start in read else _EMPTY_ROW
                    last_row = first_row if end - 1 == start else next(rows) if end - 1 in read else _EMPTY_ROW
                    yield DrawnRows(
                        text=self._drawn(first + start, first + end),
                        first=first_row,
                        last=last_row,
                        wraps=tuple(letter in WRAPPING for letter in inner) if unwrap and _WRAPS.search(inner) else (),
                        marks=_part(marks, start, end) if marks else {},
                    )

    def _drawn(self, first: int, last: int) -> str:
        """Return the VT sequences of simple and empty rows between simple ones, each row a line."""
        drawn = self.library.format(self.pointer, self._selected_rows(first, last)).decode()
        # The colour of an underline with colons: terminals that do not know it take semicolons for other attributes.
        return _UNDERLINE_COLOR.sub(_with_colons, drawn) if "\x1b[58;" in drawn else drawn

    def plain_text(self, first: int, last: int) -> str | None:
        """Return the text of rows from `first` until before `last`, a line for each, as the library writes it.

        Returns:
            None where a cell has a control character, which the library writes as it is.
        """
        text = self.library.format(self.pointer, self._selected_rows(first, last), emit="PLAIN")
        if len(text.translate(None, _CONTROLS)) < len(text) or (not text.isascii() and _C1.search(text)):
            return None
        return text.decode("utf-8", "replace")

    def whole_lines(self, first: int, last: int, columns: int, begin: int = 0) -> bytes:
        """Return the text of rows from `first` to `last`, of that its first columns, with wrapped lines as one.

        Of the first row, the columns before `begin` are left out.
        """
        selection = self._selected_rows(first, last + 1, columns, begin)
        return self.library.format(self.pointer, selection, emit="PLAIN", unwrap=True)

    def text_rows(self, first: int, last: int) -> int:
        """Return how many of the rows from `first` until before `last` there are without the empty ones at the end."""
        text = self.library.format(self.pointer, self._selected_rows(first, last), emit="PLAIN")
        return text.count(b"\n") + 1 if text else 0

    def wraps(self, row: int) -> bool:
        """Return whether a row goes on in the next one; 0 is the oldest of the history."""
        lib, flags = self.library.lib, self.library.ffi.new("GhosttyRow *")
        self.library.check(lib.ghostty_grid_ref_row(self._cell_ref(0, row), flags), "a row")
        wraps = self.library.ffi.new("bool *")
        self.library.check(lib.ghostty_row_get(flags[0], lib.GHOSTTY_ROW_DATA_WRAP, wraps), "a row")
        return bool(wraps[0])

    def is_left_blank(self, row: int) -> bool:
        """Return whether the last cell of a row has no room for the wide character that begins the next one."""
        layout = shared_caches(self.library)[0]
        cell = self._cell(self.number("COLS") - 1, row)
        return bool((cell & layout.wide) >> layout.wide_shift == layout.head)

    def is_blank(self, column: int, row: int) -> bool:
        """Return whether nothing was written to a cell."""
        layout, cell = shared_caches(self.library)[0], self._cell(column, row)
        has_text = cell & layout.tag < layout.palette and (cell >> layout.content_shift) & layout.codepoint
        return not has_text and bool((cell & layout.wide) >> layout.wide_shift != layout.tail)

    def _cell(self, column: int, row: int) -> int:
        cell = self.library.ffi.new("GhosttyCell *")
        self.library.check(self.library.lib.ghostty_grid_ref_cell(self._cell_ref(column, row), cell), "a cell")
        return int(cell[0])

    def _cell_ref(self, column: int, row: int) -> Any:
        library, point = self.library, self.library.ffi.new("OrbitPoint *")
        point.tag, point.value.x, point.value.y = library.lib.GHOSTTY_POINT_TAG_SCREEN, column, row
        ref = library.new_sized("GhosttyGridRef")
        library.check(library.grid_ref(self.pointer, point[0], ref), "a cell")
        return ref

    def _selected_rows(self, first: int, last: int, columns: int = 0, begin: int = 0) -> Any:
        """Return a selection of the rows from `first` until before `last`, 0 being the oldest of the history.

        Args:
            first: The first row.
            last: The row behind the last.
            columns: How much of the last one; 0 for all.
            begin: The first column of the first row.
        """
        selection = self.library.new_sized("GhosttySelection")
        selection.start = self._cell_ref(begin, first)[0]
        selection.end = self._cell_ref((columns or self.number("COLS")) - 1, last - 1)[0]
        return selection

    def palette(self) -> list[Rgb]:
        return self._colors("COLOR_PALETTE")

    def changed_colors(self) -> dict[str, Rgb]:
        """Return the colours that the program has set: palette indexes, "foreground", "background", "cursor"."""
        changed: dict[str, Rgb] = {}
        pairs = zip(self._colors("COLOR_PALETTE"), self._colors("COLOR_PALETTE_DEFAULT"), strict=True)
        for index, (now, default) in enumerate(pairs):
            if now != default:
                changed[str(index)] = now
        for name in ("foreground", "background", "cursor"):
            effective, default_color = self.color(name), self.color(f"{name}_default")
            if effective is not None and effective != default_color:
                changed[name] = effective
        return changed

    def color(self, name: str) -> Rgb | None:
        out = self._get(f"COLOR_{name.upper()}", "GhosttyColorRgb")
        return None if out is None else (out.r, out.g, out.b)

    def _colors(self, name: str) -> list[Rgb]:
        out = self.library.ffi.new(f"GhosttyColorRgb[{PALETTE_SIZE}]")
        key = getattr(self.library.lib, f"GHOSTTY_TERMINAL_DATA_{name}")
        self.library.check(self.library.lib.ghostty_terminal_get(self.pointer, key, out), f"reading {name}")
        raw = bytes(self.library.ffi.buffer(out))
        return list(zip(raw[0::3], raw[1::3], raw[2::3], strict=True))

    def pen(self) -> str:
        """Return the sequences for the protection and the charsets of the next character."""
        return self.extras("protection", "charsets").decode()

    def pen_link(self) -> Link | None:
        """Return the link of the next character, with its id if the program gave one."""
        found = _PEN_LINK.search(self.extras("hyperlink"))
        return Link(without_controls(found[2]), without_controls(found[1] or b"")) if found else None

    def extras(self, *names: str, before: bool = False) -> bytes:
        """Return the sequences that set the formatter's extras of these names.

        The formatter always formats a selection too, so one cell is selected and its bytes are removed again.

        Args:
            names: Fields of GhosttyFormatterTerminalExtra or GhosttyFormatterScreenExtra.
            before: The formatter writes these before the text, not after it.
        """
        library = self.library
        selection, point = library.new_sized("GhosttySelection"), library.ffi.new("OrbitPoint *")
        point.tag = library.lib.GHOSTTY_POINT_TAG_ACTIVE  # column and row are 0: `new` clears
        ref = library.new_sized("GhosttyGridRef")
        library.check(library.grid_ref(self.pointer, point[0], ref), "the first cell")
        selection.start = selection.end = ref[0]
        text = library.format(self.pointer, selection, ())
        both = library.format(self.pointer, selection, names)
        return both[: len(both) - len(text)] if before else both[len(text) :]


def _part(marks: dict[int, DrawnMarks], start: int, end: int) -> dict[int, DrawnMarks]:
    """Return the marks of some rows, which are numbered from the first of them."""
    if end - start > len(marks):
        return {row - start: mark for row, mark in marks.items() if start <= row < end}
    return {row - start: marks[row] for row in range(start, end) if row in marks}


def _with_colons(match: re.Match[str]) -> str:
    red, green, blue, index = match.groups()
    return f"\x1b[58:5:{index}m" if index else f"\x1b[58:2::{red}:{green}:{blue}m"


class Probe:
    """A throw-away copy of a terminal, for what the library has no query for; freed at the end of the `with`.

    What ESC 8 would restore, which keyboard flags lie under the current ones, and what is on the primary screen while
    the alternate one is used: the copy is fed the sequence, and then read.

    Args:
        library: The loaded library.
        state: The encoded terminal.
        screens: The screens of the same state, as `_ghostty_snapshot.parse` returns them; {} where it cannot.
        history: Copy the history as well; that costs the most.
    """

    def __init__(self, library: Library, state: bytes, screens: dict[bool, SnapshotScreen], *, history: bool) -> None:
        self.screens = screens
        self.terminal = Terminal(library, library.decode(state, history=history))
        library.set_replies_enabled(self.terminal.pointer, on=False)
        self.terminal.feed(_CANCEL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.terminal.close()

    def leave_alternate(self) -> ScreenBuffer:
        """Switch to the primary screen as the program would, and return it."""
        restores = self.terminal.mode(1049)
        self.terminal.feed(b"\x1b[?1049l" if restores else b"\x1b[?47l")
        snapshot = self.screens.get(False)
        lines, cursor, pen = self.terminal.screen_rows(snapshot), self.terminal.cursor(), self.terminal.pen()
        # Entering 1049 again saves this cursor, so there is nothing else to keep.
        return ScreenBuffer(
            lines=lines,
            cursor=cursor,
            saved=None if restores else self.saved_cursor(),
            keyboard=self.keyboard_stack(),
            prompt=PromptState() if snapshot is None else snapshot.prompt,
            pen=pen,
        )

    def enter_alternate(self) -> None:
        """Switch back to the alternate screen: saved cursor and keyboard flags are kept for each screen.

        Mode 47 does not clear it, as 1049 would; its text is not read from here anyway.
        """
        self.terminal.feed(b"\x1b[?47h")

    def saved_cursor(self) -> SavedCursor | None:
        """Return what ESC 8 brings back, or None if that is the upper left corner and a plain pen."""
        self.terminal.feed(b"\x1b8")
        cursor, origin, pen = self.terminal.cursor(), self.terminal.mode(6), self.terminal.pen()
        plain = Cursor(visible=cursor.visible, shape=cursor.shape)
        if (cursor, origin, pen) == (plain, False, ""):
            return None
        return SavedCursor(cursor=cursor, origin=origin, pen=pen)

    def keyboard_stack(self) -> tuple[int, ...]:
        """Return the stack of kitty keyboard flags, the oldest first, by popping them one by one."""
        flags = []
        for _ in range(_KEYBOARD_STACK):
            flags.append(self.terminal.keyboard)
            self.terminal.feed(b"\x1b[<u")
        while flags and not flags[-1]:
            flags.pop()
        return tuple(reversed(flags))
