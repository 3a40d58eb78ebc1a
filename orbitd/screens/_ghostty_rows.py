"""Reads rows of cells out of a terminal, fast enough for ten thousand lines in Python.

A row comes as one array of cells, 64 bits each, whose layout the library describes (`ghostty_type_json`). Two
dictionaries that fill themselves turn a cell into its text and into a key of its attributes, so that the loop over a
row's cells runs in C. Only a new style, a hyperlink or a cluster of several code points asks the library.

That takes some 50 microseconds a row. The library's formatter draws a row in less than one, but not every row as it
is; `classify` finds those that it does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Self

from orbitd.screens._ghostty import Library
from orbitd.screens._ghostty_snapshot import SnapshotScreen, without_controls
from orbitd.screens.model import (
    PLAIN,
    Color,
    DrawnMarks,
    Link,
    Row,
    RowMark,
    Run,
    Style,
    TerminalError,
    TerminalUnavailable,
    Zone,
)
from orbitd.screens.vt_writer import has_agreed_width

_CHUNK_ROWS = 128  # the library copies what it is asked for; small chunks stay in the processor's cache
_CELL_BYTES = 8
_FLAGS = ("bold", "faint", "italic", "blink", "inverse", "invisible", "strikethrough", "overline")

BLANK = 1 << 63
"""Bit of an attribute key: nothing was written to the cell."""

TAIL = 1 << 62
"""The attribute key of the second cell of a wide character."""

_MAX_CACHED_CELLS = 8192
# What `Layout.planes` say of a cell.
PLANE_TEXT, PLANE_LOOK, PLANE_OTHER, PLANE_MARK, PLANE_ZONE = 1, 2, 4, 8, 16
_WITHOUT_ZONE = bytes(value & ~PLANE_ZONE for value in range(256))
_ZONE_BYTES = re.compile(b"[" + bytes(value for value in range(32) if value & PLANE_ZONE) + b"]")
_SAME_ZONE = re.compile(b"|".join(b"%c+" % zone for zone in Zone))
_ASCII_TEXT = bytes((PLANE_TEXT, PLANE_TEXT | PLANE_MARK))
_BLANK = (0, PLANE_MARK)
_EMPTY_OR_LINE = b"E" + b"L" * 255  # by the first cell of a row without gaps
# `classify` has a letter for each row; a pattern then finds groups of rows that are drawn in the same way:
#   E empty, e empty and marked as continuing the row before; O other, o other and wrapping into the next;
#   and for rows that the library's formatter draws as they are:
#   L a line of its own, B, M and F the beginning, middle and final row of a wrapped line, all but the final one full;
#   R and r wrap though they are not full, r continuing the row before.
# Erasing and scrolling may leave a row that continues none, and one that none continues. The formatter, which joins the
# rows of a line, does what the row-by-row way does except where a group ends: it ends no line behind a row that wraps,
# also if that is not full or the next is empty; it carries blanks over into a row that continues a line, also if none
# wraps into it; and it drops empty rows at the end.
GROUPS = re.compile(rb"[BM]*[LF](?:E*(?:L|B[BM]*[LF]))*(?:E*(?:R|B[BM]*[Rr]?))?|[BM]*[Rr]|[BM]+|[Ee]+|[Oo]+")
GROUPS_OF_ROWS = re.compile(rb"[LBMFRr]+(?:[Ee]+[LBMFRr]+)*|[Ee]+|[Oo]+")
"""The same where the formatter is not to join rows."""
WRAPPING = b"BMRro"
# The letters of each kind: those of rows that continue the row before begin at 4, those that wrap at 2 and 6, each time
# once for a row that is not full, and once for one that is.
EMPTY, SIMPLE, OTHER = b"EEEEeeee", b"LLRBFFrM", b"OOooOOoo"
_PLAIN_ROWS = re.compile(rb"[^\0]{%d,}|[^\0]+\Z" % (_CHUNK_ROWS // 4))
"""Rows that need not be read; fewer take no longer with the chunk that is copied for those beside them."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def character(code: int) -> str:
    """Return the character of a code point; DEL and C1, which a client's terminal would execute, are replaced."""
    return _REPLACEMENT if 0x7F <= code < 0xA0 else chr(code)


def _is_plain(plane: int, cols: int, rows: int) -> bool:
    """Return whether all rows are empty or plain ASCII text without gaps, from all their cells as one integer."""
    ones, starts = _masks(cols, rows)
    text = plane & ones
    marks = plane >> PLANE_MARK.bit_length() - 1 & ones
    others = plane & ones * (PLANE_LOOK | PLANE_OTHER)
    gaps = text & ~(text << 8) & ~starts  # text behind a blank cell of the same row
    return not (others or marks & ~text or gaps)


@functools.lru_cache(maxsize=64)
def _masks(cols: int, rows: int) -> tuple[int, int]:
    """Return integers with a byte of 1 for every cell, and for the first cell of every row."""
    return int.from_bytes(b"\1" * (cols * rows), "little"), int.from_bytes((b"\1" + bytes(cols - 1)) * rows, "little")


@functools.cache
def shared_caches(library: Library) -> tuple[Layout, CellTexts, AttributeKeys, SimpleCells]:
    """Return the layout and the caches that all readers of a library share.

    Readers of several terminals may fill the caches in several threads at once. Two threads may then compute the
    same entry; it is the same value, and each dictionary operation by itself is atomic.
    """
    layout = Layout(library)
    return layout, CellTexts(layout), AttributeKeys(layout), SimpleCells(layout)


class Layout:
    """Masks and shifts of a cell's fields, from the library's own description."""

    def __init__(self, library: Library) -> None:
        bits = library.cell_bits
        self.tag = self._mask(bits["content_tag"])
        self.content_shift = bits["content"]["lsb"]
        self.codepoint = (1 << bits["content"]["arms"]["CODEPOINT"]["bits"]["codepoint"]["width"]) - 1
        self.content = self._mask(bits["content"])
        self.style = self._mask(bits["style_id"])
        self.style_shift = bits["style_id"]["lsb"]
        self.wide = self._mask(bits["wide"])
        self.wide_shift = bits["wide"]["lsb"]
        self.protected = self._mask(bits["protected"])
        self.hyperlink = self._mask(bits["hyperlink"])
        self.semantic = self._mask(bits["semantic_content"])
        self.semantic_shift = bits["semantic_content"]["lsb"]
        self.attributes = self.tag | self.style | self.protected | self.hyperlink | self.semantic
        lib = library.lib
        self.cluster = lib.GHOSTTY_CELL_CONTENT_CODEPOINT_GRAPHEME
        self.palette, self.rgb = lib.GHOSTTY_CELL_CONTENT_BG_COLOR_PALETTE, lib.GHOSTTY_CELL_CONTENT_BG_COLOR_RGB
        self.tail = lib.GHOSTTY_CELL_WIDE_SPACER_TAIL
        self.head = lib.GHOSTTY_CELL_WIDE_SPACER_HEAD
        self.row_wraps = self._row_flag(library, lib.GHOSTTY_ROW_DATA_WRAP)
        self.row_continues = self._row_flag(library, lib.GHOSTTY_ROW_DATA_WRAP_CONTINUATION)
        self.row_mark = self._row_bits(library, "GhosttyRowSemanticPrompt *", lib.GHOSTTY_ROW_DATA_SEMANTIC_PROMPT)
        self.row_mark_shift = (self.row_mark & -self.row_mark).bit_length() - 1
        self.planes = self._planes()
        # What a cell's byte that has `wide` says of it; it lies in one byte.
        shift = self.wide_shift % 8
        self.widths = bytes((value >> shift) & (self.wide >> self.wide_shift) for value in range(256))
        self.wide_pair = bytes((lib.GHOSTTY_CELL_WIDE_WIDE, self.tail))
        # The same for the zone.
        shift = self.semantic_shift % 8
        self.zones = bytes((value >> shift) & (self.semantic >> self.semantic_shift) for value in range(256))

    def _row_flag(self, library: Library, data: int) -> int:
        found = self._row_bits(library, "bool *", data)
        if found.bit_count() != 1:
            raise TerminalUnavailable("this libghostty lays out a row in an unknown way")
        return found

    @staticmethod
    def _row_bits(library: Library, ctype: str, data: int) -> int:
        """Return the bits of a row's value that the library reads a field from; it describes only cells itself."""
        value, found = library.ffi.new(ctype), 0
        for bit in (1 << shift for shift in range(64)):
            library.check(library.lib.ghostty_row_get(bit, data, value), "a field of a row")
            found |= bit * bool(value[0])
        return found

    def _planes(self) -> list[tuple[int, bytes]]:
        """Return tables that sum up cells: for a byte's place in a cell, what its values say of the cell.

        The bits are PLANE_TEXT; PLANE_LOOK where the cell is wide or not ASCII; PLANE_OTHER where it is no character
        of its own, protected, or a link; PLANE_MARK where it has a style; PLANE_ZONE where it is prompt or input
        (OSC 133).
        """
        code = self.codepoint << self.content_shift
        parts = (
            (code, PLANE_TEXT),
            (code & ~(0x7F << self.content_shift) | self.wide, PLANE_LOOK),
            (self.tag | self.protected | self.hyperlink, PLANE_OTHER),
            (self.style, PLANE_MARK),
            (self.semantic, PLANE_ZONE),
        )
        planes = []
        for place in range(_CELL_BYTES):
            masks = [(mask >> 8 * place & 0xFF, bit) for mask, bit in parts]
            table = bytes(sum(bit for mask, bit in masks if value & mask) for value in range(256))
            if any(table):
                planes.append((place, table))
        return planes

    @staticmethod
    def _mask(field: dict[str, Any]) -> int:
        return ((1 << int(field["width"])) - 1) << int(field["lsb"])


class CellTexts(dict[int, str]):
    """Cell -> the text that it shows, "" for none; emptied when it is full."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __missing__(self, cell: int) -> str:
        layout, text = self._layout, ""
        if cell & layout.tag < layout.palette:
            code = (cell >> layout.content_shift) & layout.codepoint
            text = character(code) if code else ""
        if len(self) >= _MAX_CACHED_CELLS:
            self.clear()
        self[cell] = text
        return text


class AttributeKeys(dict[int, int]):
    """Cell -> a key of its attributes; neighbours with equal keys make one run. Emptied when it is full."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __missing__(self, cell: int) -> int:
        layout = self._layout
        if cell & layout.tag >= layout.palette:
            key = BLANK | (cell & (layout.tag | layout.content))
        else:
            key = cell & layout.attributes
            if (cell & layout.wide) >> layout.wide_shift == layout.tail:
                key = TAIL
            elif not (cell >> layout.content_shift) & layout.codepoint:
                key = key & ~layout.semantic | BLANK
        if len(self) >= _MAX_CACHED_CELLS:
            self.clear()
        self[cell] = key
        return key


class SimpleCells(dict[int, bool]):
    """Cell -> whether the library's formatter draws it as it is, in the width that it has here."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __missing__(self, cell: int) -> bool:
        layout = self._layout
        code, wide = (cell >> layout.content_shift) & layout.codepoint, (cell & layout.wide) >> layout.wide_shift
        if cell & (layout.tag | layout.protected | layout.hyperlink) or wide == layout.head:
            simple = False
        else:
            # A wide space: `_copy_keys_to_tails` says more.
            simple = wide == layout.tail or (has_agreed_width(code) and not (wide and code == 0x20))
        if len(self) >= _MAX_CACHED_CELLS:
            self.clear()
        self[cell] = simple
        return simple


class RowReader:
    """Read rows of the terminal's active screen, inside one `with`.

    What `ffi.new` returns is freed by cffi when the Python object is collected, so every pointer that is handed to the
    library is kept in an attribute. The native render state, row iterator and row cells are ours to free: `__exit__`.
    """

    def __init__(self, library: Library, terminal: Any, snapshot: SnapshotScreen | None = None) -> None:
        self._library, self._terminal = library, terminal
        # What knows the ids of links; rows are counted from the end there.
        self._snapshot, self._row_count = snapshot, 0
        ffi = library.ffi
        self._state = ffi.new("GhosttyRenderState *")
        self._iterator = ffi.new("GhosttyRenderStateRowIterator *")
        self._cells = ffi.new("GhosttyRenderStateRowCells *")
        self._view = ffi.new("GhosttyCellsView *")
        self._row_id = ffi.new("GhosttyRenderStateRowId *")
        self._raw_row = ffi.new("GhosttyRow *")
        self._wraps = ffi.new("bool *")
        self._layout, self._texts, self._keys, self._simple_cells = shared_caches(library)
        self._raw_style = library.new_sized("GhosttyStyle")
        self._page: int | None = None
        lib = library.lib
        values = (
            (lib.GHOSTTY_RENDER_STATE_ROW_DATA_RAW, self._raw_row),
            (lib.GHOSTTY_RENDER_STATE_ROW_DATA_CELLS_RAW, self._view),
            (lib.GHOSTTY_RENDER_STATE_ROW_DATA_ID, self._row_id),
        )
        self._row_data = (
            len(values),
            ffi.new("GhosttyRenderStateRowData[]", [key for key, _ in values]),
            ffi.new("void *[]", [pointer for _, pointer in values]),
        )
        self._styles: dict[tuple[int, int], Style] = {}

    def __enter__(self) -> Self:
        lib, null, check = self._library.lib, self._library.ffi.NULL, self._library.check
        check(lib.ghostty_render_state_new(null, self._state), "a render state")
        check(lib.ghostty_render_state_row_iterator_new(null, self._iterator), "a row iterator")
        check(lib.ghostty_render_state_row_cells_new(null, self._cells), "row cells")
        return self

    def __exit__(self, *_: object) -> None:
        lib = self._library.lib
        lib.ghostty_render_state_row_cells_free(self._cells[0])
        lib.ghostty_render_state_row_iterator_free(self._iterator[0])
        lib.ghostty_render_state_free(self._state[0])

    def cursor_shape(self) -> tuple[int, bool, bool]:
        """Return the cursor's shape as the library numbers it, whether it blinks, and whether it is visible."""
        lib, check = self._library.lib, self._library.check
        self._update_render_state()
        cursor = self._library.new_sized("GhosttyRenderStateCursor")
        check(lib.ghostty_render_state_get(self._state[0], lib.GHOSTTY_RENDER_STATE_DATA_CURSOR, cursor), "cursor")
        return int(cursor.visual_style), bool(cursor.blinking), bool(cursor.visible)

    def rows(self, numbers: Sequence[int], screen_rows: int) -> Iterator[Row]:
        """Yield rows, counted from the oldest in the history, in rising order.

        Reading moves the terminal's viewport, and moves it back at the end, also where the caller stops early. The
        terminal must not change meanwhile.
        """
        below = max(0, _CHUNK_ROWS - screen_rows)
        self._row_count = self._history_rows() + screen_rows
        done = 0
        try:
            while done < len(numbers):
                # A chunk begins at the next row that is wanted; those between are passed over, which takes little.
                here = numbers[done]
                for number in self._copied(here, numbers[-1] + 1, screen_rows, below):
                    if not self._library.lib.ghostty_render_state_row_iterator_next(self._iterator[0]):
                        break
                    if number == numbers[done]:
                        yield self._row(number)
                        done += 1
                        if done == len(numbers):
                            break
                if done < len(numbers) and numbers[done] == here:
                    raise TerminalError("libghostty: a row cannot be read")
        finally:
            self._scroll(self._library.lib.GHOSTTY_SCROLL_VIEWPORT_BOTTOM, 0)

    def _update_render_state(self) -> None:
        """Copy the terminal's visible rows into the render state, and go before the first of them.

        Pointers into an earlier copy, as `_view` holds one, are invalid from here on.
        """
        lib, state = self._library.lib, self._state[0]
        self._library.check(lib.ghostty_render_state_update(state, self._terminal), "reading the screen")
        iterator = lib.GHOSTTY_RENDER_STATE_DATA_ROW_ITERATOR
        self._library.check(lib.ghostty_render_state_get(state, iterator, self._iterator), "reading rows")

    def split_wide_cells(self, rows: int) -> Iterator[tuple[int, int]]:
        """Yield row and column of every cell on the screen that is one half of a wide character without the other."""
        lib, layout = self._library.lib, self._layout
        wide, tail = lib.GHOSTTY_CELL_WIDE_WIDE << layout.wide_shift, layout.tail << layout.wide_shift
        self._update_render_state()
        for row in range(rows):
            lib.ghostty_render_state_row_iterator_next(self._iterator[0])
            self._get(lib.GHOSTTY_RENDER_STATE_ROW_DATA_CELLS_RAW, self._view)
            widths = [cell & layout.wide for cell in self._library.ffi.unpack(self._view[0].ptr, self._view[0].len)]
            for column, (left, here, right) in enumerate(zip([0, *widths], widths, [*widths[1:], 0], strict=False)):
                if (here == wide and right != tail) or (here == tail and left != wide):
                    yield row, column

    def _scroll(self, tag: int, row: int) -> None:
        where = self._library.ffi.new("OrbitScroll *")
        where.tag, where.value.row = tag, row
        self._library.scroll_viewport(self._terminal, where[0])

    def _copied(self, first: int, last: int, screen_rows: int, below: int) -> range:
        """Copy rows from `first` on, as many as one update of the render state takes, and go before the first."""
        lib, ffi, check = self._library.lib, self._library.ffi, self._library.check
        overscan = ffi.new("GhosttyRenderStateOverscan *", {"above": 0, "below": below})
        state = self._state[0]
        check(lib.ghostty_render_state_set(state, lib.GHOSTTY_RENDER_STATE_OPTION_OVERSCAN, overscan), "overscan")
        self._scroll(lib.GHOSTTY_SCROLL_VIEWPORT_ROW, first)
        self._update_render_state()
        # The viewport cannot be scrolled below the active screen: near the end of the rows it shows rows before
        # `first`, which are passed over.
        top = min(first, self._history_rows())
        for _ in range(top, first):
            lib.ghostty_render_state_row_iterator_next(self._iterator[0])
        return range(first, min(last, top + screen_rows + below))

    def line_ends(self, first: int, last: int, screen_rows: int) -> bytes:
        """Return 1 for each of the rows from `first` until before `last` that ends a line, 0 for those that wrap.

        The terminal must not change meanwhile. A row takes less than a microsecond.
        """
        lib = self._library.lib
        go_on, read, flags = (
            lib.ghostty_render_state_row_iterator_next,
            lib.ghostty_render_state_row_get,
            self._raw_row,
        )
        iterator, wraps, raw = self._iterator[0], self._layout.row_wraps, lib.GHOSTTY_RENDER_STATE_ROW_DATA_RAW
        below, ends = max(0, _CHUNK_ROWS - screen_rows), bytearray()
        try:
            while (start := first + len(ends)) < last:
                for _ in self._copied(start, last, screen_rows, below):
                    if not go_on(iterator) or read(iterator, raw, flags):
                        raise TerminalError("libghostty: a row cannot be read")
                    ends.append(not flags[0] & wraps)
        finally:
            self._scroll(lib.GHOSTTY_SCROLL_VIEWPORT_BOTTOM, 0)
        return bytes(ends)

    def classify(self, first: int, last: int, screen_rows: int) -> tuple[bytes, dict[int, DrawnMarks]]:
        """Return how each of the rows from `first` until before `last` can be drawn, as letters for `GROUPS`.

        The marks of the rows that have any come with them, by the row's number from `first`.

        The terminal must not change meanwhile. A row that the snapshot tells takes half a microsecond, another some 3:
        its bytes are copied, and nearly all else is done for many rows at once, by operations on bytes that run in C.
        """
        lib, buffer = self._library.lib, self._library.ffi.buffer
        go_on, read, args = (
            lib.ghostty_render_state_row_iterator_next,
            lib.ghostty_render_state_row_get_multi,
            (*self._row_data, self._library.ffi.NULL),
        )
        iterator, view, flags = self._iterator[0], self._view[0], self._raw_row
        below, letters, marks = max(0, _CHUNK_ROWS - screen_rows), bytearray(), dict[int, DrawnMarks]()
        plain = self._plain_rows(first, last, screen_rows)
        try:
            while (start := first + len(letters)) < last:
                if (known := _PLAIN_ROWS.match(plain, len(letters))) is not None:
                    letters += known[0]
                    continue
                raw, rows = list[bytes](), list[int]()
                for _ in self._copied(start, last, screen_rows, below):
                    if not go_on(iterator) or read(iterator, *args):
                        raise TerminalError("libghostty: a row cannot be read")
                    raw.append(buffer(view.ptr, view.len * _CELL_BYTES)[:])
                    rows.append(flags[0])
                chunk, chunk_marks = self._classify_chunk(raw, rows)
                marks.update((len(letters) + row, mark) for row, mark in chunk_marks)
                letters += chunk
        finally:
            self._scroll(lib.GHOSTTY_SCROLL_VIEWPORT_BOTTOM, 0)
        return bytes(letters), marks

    def _plain_rows(self, first: int, last: int, screen_rows: int) -> bytes:
        """Return the letters of those rows that the snapshot tells, and 0 for the others."""
        if self._snapshot is None or first >= last:
            return b""
        cols = self._terminal_number(self._library.lib.GHOSTTY_TERMINAL_DATA_COLS, "uint16_t *")
        # Counted from the end: a terminal that was decoded from the snapshot may have less history.
        count = self._history_rows() + screen_rows - first
        letters = self._snapshot.plain_rows(count, cols, EMPTY, SIMPLE)
        return letters[: last - first] if len(letters) == count else b""

    def _history_rows(self) -> int:
        return self._terminal_number(self._library.lib.GHOSTTY_TERMINAL_DATA_SCROLLBACK_ROWS, "size_t *")

    def _terminal_number(self, data: int, ctype: str) -> int:
        number = self._library.ffi.new(ctype)
        self._library.lib.ghostty_terminal_get(self._terminal, data, number)
        return int(number[0])

    def _classify_chunk(self, raw: list[bytes], flags: list[int]) -> tuple[bytes, list[tuple[int, DrawnMarks]]]:
        """Return the letters of rows, from their cells and the library's values of the rows, and their marks."""
        layout, cols = self._layout, len(raw[0]) // _CELL_BYTES
        # One byte for each cell, what the tables say of the bytes of the cell; `|` of integers is the `|` of all bytes.
        data, summed = b"".join(raw), 0
        zeros = bytes(cols * len(raw))
        if len(data) != len(zeros) * _CELL_BYTES:
            return b"o" * len(
                raw
            ), []  # rows of several lengths: none is known, but reading each row does well with them
        for place, table in layout.planes:
            plane = data[place::_CELL_BYTES]
            if plane != zeros:
                summed |= int.from_bytes(plane.translate(table), "little")
        plane = summed.to_bytes(len(zeros), "little")
        wraps, continues = layout.row_wraps, layout.row_continues
        marked = {number for number, flag in enumerate(flags) if flag & layout.row_mark}
        if summed & _masks(cols, len(raw))[0] * PLANE_ZONE:
            starts = range(0, len(plane), cols)
            marked.update(start // cols for start in starts if _ZONE_BYTES.search(plane, start, start + cols))
        marks = [(number, self._drawn_marks(raw[number], flags[number])) for number in sorted(marked)]
        if marks:
            plane = plane.translate(_WITHOUT_ZONE)
            summed = int.from_bytes(plane, "little")
        has_flags = any(flag & (wraps | continues) for flag in flags)
        if not has_flags and _is_plain(summed, cols, len(raw)):
            return plane[::cols].translate(_EMPTY_OR_LINE), marks
        rows = [plane[start : start + cols].rstrip(b"\0") for start in range(0, len(plane), cols)]
        kinds = [
            (SIMPLE if row else EMPTY) if not row.translate(None, _ASCII_TEXT) else self._kind(cells, row)
            for cells, row in zip(raw, rows, strict=True)
        ]
        if not has_flags:
            return bytes([kind[0] for kind in kinds]), marks
        indexes = [
            (4 if flag & continues else 0) + (2 if flag & wraps else 0) + (len(row) == cols and row[-1] != PLANE_MARK)
            for flag, row in zip(flags, rows, strict=True)
        ]
        return bytes(map(bytes.__getitem__, kinds, indexes)), marks

    def _drawn_marks(self, raw: bytes, flag: int) -> DrawnMarks:
        """Return the marks of a row; `zones` counts characters, for a row that the formatter draws as it is."""
        layout = self._layout
        zones = raw[layout.semantic_shift // 8 :: _CELL_BYTES].translate(layout.zones)
        widths = raw[layout.wide_shift // 8 :: _CELL_BYTES].translate(layout.widths)
        starts = [match.start() for match in _SAME_ZONE.finditer(zones)]
        return DrawnMarks(
            mark=self._mark_of(flag, Zone.PROMPT in zones),
            zones=tuple((start - widths.count(layout.tail, 0, start), Zone(zones[start])) for start in starts),
        )

    def _kind(self, raw: bytes, row: bytes) -> bytes:
        """Return the letters of a row that is not plain ASCII, from its cells and its plane."""
        layout = self._layout
        used = row.rstrip(bytes(_BLANK))  # without the blank cells of a prompt, which are not zero
        cells = memoryview(raw)[: len(row) * _CELL_BYTES].cast("Q").tolist()
        if any(cell & layout.style for cell in cells[len(used) :]):
            return OTHER
        if not used:
            return EMPTY
        if 0 in used or PLANE_MARK in used or not all(map(self._simple_cells.__getitem__, set(cells[: len(used)]))):
            return OTHER
        widths = raw[layout.wide_shift // 8 :: _CELL_BYTES].translate(layout.widths)
        # A resize or an erasure may have left one half of a wide character.
        return OTHER if widths.replace(layout.wide_pair, b"").strip(b"\0") else SIMPLE

    def _get(self, key: int, out: Any) -> None:
        self._library.check(self._library.lib.ghostty_render_state_row_get(self._iterator[0], key, out), "a row")

    def _row(self, number: int) -> Row:
        lib = self._library.lib
        read = lib.ghostty_render_state_row_get_multi
        self._library.check(read(self._iterator[0], *self._row_data, self._library.ffi.NULL), "a row")
        lib.ghostty_row_get(self._raw_row[0], lib.GHOSTTY_ROW_DATA_WRAP, self._wraps)
        view = self._view[0]
        raw: bytes = self._library.ffi.buffer(view.ptr, view.len * _CELL_BYTES)[:]
        # `[:]` copied the cells: the library reuses its memory for the next row. A cell of zeros is blank,
        # and most rows end with many, so they are cut off before the Python loop.
        used = -(-len(raw.rstrip(b"\0")) // _CELL_BYTES)
        cells = memoryview(raw)[: used * _CELL_BYTES].cast("Q").tolist()
        runs = tuple(self._runs(cells, number)) if cells else ()
        mark = self._mark_of(self._raw_row[0], any(run.zone == Zone.PROMPT for run in runs))
        return Row(runs=runs, wraps=self._wraps[0], mark=mark)

    def _mark_of(self, row: int, has_prompt: bool) -> RowMark:
        """Return the mark of a row, from the library's value of it."""
        mark = (row & self._layout.row_mark) >> self._layout.row_mark_shift
        # Erasing and moving may leave a prompt in a row without a mark, which no sequence makes.
        return RowMark(mark) if mark or not has_prompt else RowMark.CONTINUATION

    def _runs(self, cells: list[int], number: int) -> list[Run]:
        layout, texts, runs = self._layout, self._texts, list[Run]()
        # Keys without any of these bits are text of one style, and most are: they take the short way below.
        details = layout.hyperlink | layout.tag | layout.semantic | BLANK
        keys, all_shown = list(map(self._keys.__getitem__, cells)), list(map(texts.__getitem__, cells))
        if TAIL in keys:
            _copy_keys_to_tails(keys, all_shown, layout.tag)
        column, self._page = 0, None
        for key, group in groupby(keys):
            end = column + len(list(group))
            if key == BLANK:
                runs.append(Run(column=column, cells=("",) * (end - column), blank=True))
            else:
                shown = tuple(all_shown[column:end])
                if key & details:
                    runs += self._special_runs(key, column, shown, number)
                else:
                    style = self._style(key, column) if key & layout.style else PLAIN
                    protected = bool(key & layout.protected)
                    runs.append(Run(column=column, cells=shown, style=style, protected=protected))
            column = end
        return _merge_blank_runs(runs)

    def _special_runs(self, key: int, column: int, shown: tuple[str, ...], number: int) -> Iterator[Run]:
        """Yield the run of a key that is more than text and style; one for each address where it has hyperlinks."""
        layout = self._layout
        tag = key & layout.tag
        if key & BLANK:
            background = self._background(key) if tag >= layout.palette else self._style(key, column).bg
            yield Run(column=column, cells=shown, blank=True, style=Style(bg=background))
            return
        style, protected = self._style(key, column), bool(key & layout.protected)
        zone = Zone((key & layout.semantic) >> layout.semantic_shift)
        if tag == layout.cluster:
            shown = tuple(self._cluster(column + index) if text else "" for index, text in enumerate(shown))
        if not key & layout.hyperlink:
            yield Run(column=column, cells=shown, style=style, protected=protected, zone=zone)
            return
        links = self._links(column, len(shown), number)
        for link, group in groupby(range(len(shown)), links.__getitem__):
            first, *rest = group
            part = shown[first : (rest[-1] if rest else first) + 1]
            uri, link_id = link or (None, "")
            yield Run(
                column=column + first,
                cells=part,
                style=style,
                link=uri,
                link_id=link_id,
                protected=protected,
                zone=zone,
            )

    def _links(self, column: int, count: int, number: int) -> list[Link | None]:
        """Return the links of cells of a row: from the snapshot with their ids, else without."""
        found = None if self._snapshot is None else self._snapshot.links(self._row_count - 1 - number)
        if found is not None:
            links = found[column : column + count]
            return links + [None] * (count - len(links))
        uris = [self._link(column + index, number) for index in range(count)]
        return [None if uri is None else Link(uri, "") for uri in uris]

    def _background(self, key: int) -> Color:
        layout = self._layout
        content: int = (key & layout.content) >> layout.content_shift
        if key & layout.tag == layout.palette:
            return content & 0xFF
        return (content & 0xFF, (content >> 8) & 0xFF, (content >> 16) & 0xFF)

    def _style(self, key: int, column: int) -> Style:
        number = (key & self._layout.style) >> self._layout.style_shift
        if not number:
            return PLAIN
        # The library numbers styles for each page of its memory, and a page holds many rows.
        if self._page is None:
            self._page = self._row_id[0].bits[0]
        style_id = (self._page, number)
        style = self._styles.get(style_id)
        if style is None:
            self._cell_get(column, self._library.lib.GHOSTTY_RENDER_STATE_ROW_CELLS_DATA_STYLE, self._raw_style)
            style = self._styles[style_id] = style_of(self._library, self._raw_style)
        return style

    def _cell_get(self, column: int, key: int, out: Any) -> None:
        lib, check = self._library.lib, self._library.check
        self._get(lib.GHOSTTY_RENDER_STATE_ROW_DATA_CELLS, self._cells)
        check(lib.ghostty_render_state_row_cells_select(self._cells[0], column), "a cell")
        check(lib.ghostty_render_state_row_cells_get(self._cells[0], key, out), "a cell")

    def _cluster(self, column: int) -> str:
        ffi, lib = self._library.ffi, self._library.lib
        size = ffi.new("uint32_t *")
        self._cell_get(column, lib.GHOSTTY_RENDER_STATE_ROW_CELLS_DATA_GRAPHEMES_LEN, size)
        codes = ffi.new("uint32_t[]", max(1, size[0]))
        self._cell_get(column, lib.GHOSTTY_RENDER_STATE_ROW_CELLS_DATA_GRAPHEMES_BUF, codes)
        # The library attaches zero-width controls to a character too; they are dropped.
        text = "".join(chr(code) for code in codes[0 : size[0]] if not 0x7F <= code < 0xA0)
        # It drops the variation selector of keycaps, which programs always write: others show an emoji only with it.
        return f"{text[0]}\ufe0f\u20e3" if text[1:] == "\u20e3" and text[0] in "0123456789#*" else text

    def _link(self, column: int, number: int) -> str | None:
        ffi, lib = self._library.ffi, self._library.lib
        ref = self._library.new_sized("GhosttyGridRef")
        point = ffi.new("OrbitPoint *")
        point.tag, point.value.x, point.value.y = lib.GHOSTTY_POINT_TAG_SCREEN, column, number
        self._library.check(self._library.grid_ref(self._terminal, point[0], ref), "a cell")
        size = ffi.new("size_t *")
        lib.ghostty_grid_ref_hyperlink_uri(ref, ffi.NULL, 0, size)
        if not size[0]:
            return None
        data = ffi.new("uint8_t[]", size[0])
        self._library.check(lib.ghostty_grid_ref_hyperlink_uri(ref, data, size[0], size), "a link")
        return without_controls(bytes(ffi.buffer(data, size[0])))


def _copy_keys_to_tails(keys: list[int], shown: list[str], tag: int) -> None:
    """Give the second cell of a wide character the key of its first, so that both are in one run.

    Where a charset has no such character, libghostty puts a space into both cells; they are two spaces here.
    """
    for index, key in enumerate(keys):
        if key == TAIL:
            keys[index] = keys[index - 1] if index else BLANK
            if index and shown[index - 1] == " ":
                keys[index], shown[index] = keys[index] & ~tag, " "


def _merge_blank_runs(runs: list[Run]) -> list[Run]:
    """Join blank runs of equal style, whose keys may differ, and drop plain ones at the end."""
    while runs and runs[-1].blank and runs[-1].style == PLAIN:
        runs.pop()
    for index in range(len(runs) - 1, 0, -1):
        before, run = runs[index - 1], runs[index]
        if run.blank and before.blank and before.style == run.style:
            joined = Run(column=before.column, cells=before.cells + run.cells, blank=True, style=run.style)
            runs[index - 1 : index + 1] = [joined]
    return runs


def style_of(library: Library, raw: Any) -> Style:
    """Translate the library's style."""
    return Style(
        underline=int(raw.underline),
        fg=_color(library, raw.fg_color),
        bg=_color(library, raw.bg_color),
        underline_color=_color(library, raw.underline_color),
        **{name: bool(getattr(raw, name)) for name in _FLAGS},
    )


def _color(library: Library, raw: Any) -> Color:
    if raw.tag == library.lib.GHOSTTY_STYLE_COLOR_PALETTE:
        return int(raw.value.palette)
    if raw.tag == library.lib.GHOSTTY_STYLE_COLOR_RGB:
        return (raw.value.rgb.r, raw.value.rgb.g, raw.value.rgb.b)
    return None
