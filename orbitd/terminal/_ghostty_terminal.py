"""One terminal of libghostty-vt, in the words of `model`: what the emulator and its probes are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from orbitd.terminal._ghostty import Library, Replies
from orbitd.terminal._ghostty_rows import RowReader, style_of
from orbitd.terminal.brush import cup
from orbitd.terminal.model import Cursor, Rgb, Row, TerminalError

# DECSCUSR's parameter by the library's name for the shape, blinking and steady.
_SHAPES = {"BLOCK": (1, 2), "UNDERLINE": (3, 4), "BAR": (5, 6), "BLOCK_HOLLOW": (0, 0)}
_CELL_PIXELS = (8, 16)
_PALETTE_SIZE = 256
_ANSI = 1 << 15
_INSERT = 4 | _ANSI
_ORIGIN, _WRAPAROUND, _MARGINS, _GRAPHEME_CLUSTERS = 6, 7, 69, 2027
_CLUSTERS = b"2027"
_CLUSTERS_SET = re.compile(rb"2027[^@-~]*h")


class Terminal:
    """Owns one native terminal until `close`.

    Args:
        library: The loaded library.
        pointer: A terminal that nobody else frees.
    """

    def __init__(self, library: Library, pointer: Any) -> None:
        self.library = library
        self._pointer = pointer
        self.replies = Replies()
        self._userdata = library.ffi.new_handle(self.replies)
        library.configure(pointer, self._userdata)
        self._mend_due = self._narrowed = False
        self._unfinished = not self.flag("VT_GROUND")

    @classmethod
    def new(cls, library: Library, cols: int, rows: int) -> Terminal:
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
        self.close()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take output, cut anywhere.

        libghostty 0.1.3 crashes when, in mode 2027, a cluster grows wide in the last column below the scroll region. So
        that mode is switched off again right behind every sequence that could have set it, and a sequence that the
        cut runs through is finished on its own.
        """
        data = bytes(data)
        rest = memoryview(data)
        if self._unfinished:
            rest = rest[self._write_until_ground(rest) :]
            self._after_sequence()
        if _CLUSTERS in data:
            for end in [match.end() for match in _CLUSTERS_SET.finditer(data)]:
                done = len(data) - len(rest)
                if end > done:
                    self._write(rest[: end - done])
                    rest = rest[end - done :]
                    self._after_sequence()
        self._write(rest)
        self._unfinished = not self.flag("VT_GROUND")

    def _write(self, data: memoryview) -> None:
        source = self.library.ffi.from_buffer("uint8_t[]", data)
        self.library.lib.ghostty_terminal_vt_write(self.pointer, source, len(source))

    def _write_until_ground(self, data: memoryview) -> int:
        """Take what finishes the sequence under way and return how much that was: all of it if it does not end."""
        used = self.library.ffi.new("size_t *")
        source = self.library.ffi.from_buffer("uint8_t[]", data)
        write = self.library.lib.ghostty_terminal_vt_write_until_ground
        return int(used[0]) if write(self.pointer, source, len(source), used) == 0 else len(data)

    def _after_sequence(self) -> None:
        if self.mode(_GRAPHEME_CLUSTERS):
            self._set_mode(_GRAPHEME_CLUSTERS, on=False)
        if self._mend_due and self.flag("VT_GROUND"):
            self._mend()

    def resize(self, cols: int, rows: int) -> None:
        """Change the size; the primary screen is wrapped anew, whatever its mode 7 says.

        Where libghostty does not wrap lines it cuts them off, wide characters in the middle; it cannot encode those,
        and 0.1.3 crashes when such a line is wrapped at a later resize. So mode 7 is on meanwhile, and halves are
        mended.
        """
        narrower = cols < self.number("COLS")
        wraps = self.mode(_WRAPAROUND)
        if not wraps:
            self._set_mode(_WRAPAROUND, on=True)
        try:
            result = self.library.lib.ghostty_terminal_resize(self.pointer, cols, rows, *_CELL_PIXELS)
            self.library.check(result, f"a resize to {cols} columns and {rows} rows")
        finally:
            if not wraps:
                self._set_mode(_WRAPAROUND, on=False)
        self._mend_due = True
        self._narrowed |= narrower
        if self.flag("VT_GROUND"):
            self._mend()

    def _mend(self) -> None:
        """Put right what a resize leaves wrong, once the parser is at ground."""
        narrowed, self._mend_due, self._narrowed = self._narrowed, False, False
        column, row, last = self.number("CURSOR_X"), self.number("CURSOR_Y"), self.number("COLS") - 1
        orders = []
        if not self.alternate:
            if narrowed:  # whatever was cut there is out of sight, and entering it clears it anyway
                orders.append("\x1b[?1047h\x1b[?1047l")
        elif narrowed:
            with RowReader(self.library, self.pointer) as reader:
                # A protected cell is not erased, only overwritten.
                orders += [f"{cup(*place)} {cup(*place)}\x1b[X" for place in reader.halves(self.number("ROWS"))]
        if (orders and self.alternate) or (self.flag("CURSOR_PENDING_WRAP") and column < last):
            orders.append(cup(row, column))  # this also ends a pending wrap, which only the last column may have
        if orders:
            disturbing = [mode for mode in (_ORIGIN, _INSERT) if self.mode(mode)]
            for mode in disturbing:
                self._set_mode(mode, on=False)
            self._write(memoryview("".join(orders).encode()))
            for mode in disturbing:
                self._set_mode(mode, on=True)

    def _set_mode(self, number: int, *, on: bool) -> None:
        self.library.set_option(
            self.pointer, "MODE", self.library.ffi.new("GhosttyTerminalModeConfig *", {"mode": number, "value": on})
        )

    def limit_scrollback(self, lines: int, size: int) -> None:
        """Set how much history is kept, lines and bytes; what is over is dropped at once, the oldest first."""
        for name, value in (("LINES", lines), ("BYTES", size)):
            self.library.set_option(self.pointer, f"SCROLLBACK_MAX_{name}", self.library.ffi.new("size_t *", value))

    def compress(self) -> None:
        lib, result = self.library.lib, self.library.ffi.new("GhosttyTerminalCompressionResult *")
        self.library.check(
            lib.ghostty_terminal_compress(self.pointer, lib.GHOSTTY_TERMINAL_COMPRESSION_MODE_FULL, result), "packing"
        )

    def _get(self, name: str, ctype: str) -> Any:
        """Return a pointer to one value, or None where the library says that there is none."""
        out = self.library.sized(ctype) if ctype == "GhosttyStyle" else self.library.ffi.new(f"{ctype} *")
        key = getattr(self.library.lib, f"GHOSTTY_TERMINAL_DATA_{name}")
        result = self.library.lib.ghostty_terminal_get(self.pointer, key, out)
        if result == -4:
            return None
        self.library.check(result, f"reading {name}")
        return out

    def number(self, name: str, ctype: str = "uint16_t") -> int:
        return int(self._get(name, ctype)[0])

    def flag(self, name: str) -> bool:
        return bool(self._get(name, "bool")[0])

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
            look, blinking, visible = reader.cursor_look()
        names = {
            getattr(self.library.lib, f"GHOSTTY_RENDER_STATE_CURSOR_VISUAL_STYLE_{name}"): name for name in _SHAPES
        }
        column = self.number("CURSOR_X")
        # Elsewhere than at an edge it is a leftover of a resize, which a saved state loses.
        at_edge = column == self.number("COLS") - 1 or self.mode(_MARGINS)
        return Cursor(
            column=column,
            row=self.number("CURSOR_Y"),
            pending_wrap=at_edge and self.flag("CURSOR_PENDING_WRAP"),
            visible=visible,
            shape=_SHAPES[names[look]][0 if blinking else 1],
            style=style_of(self.library, self._get("CURSOR_STYLE", "GhosttyStyle")),
        )

    def rows(self, first: int, last: int) -> Iterator[Row]:
        """Yield rows from `first` until before `last`, 0 being the oldest. Do not change the terminal meanwhile."""
        with RowReader(self.library, self.pointer) as reader:
            yield from reader.rows(first, last, self.number("ROWS"))

    def screen_rows(self) -> tuple[Row, ...]:
        top = self.scrollback_rows
        return tuple(self.rows(top, top + self.number("ROWS")))

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
        out = self.library.ffi.new(f"GhosttyColorRgb[{_PALETTE_SIZE}]")
        key = getattr(self.library.lib, f"GHOSTTY_TERMINAL_DATA_{name}")
        self.library.check(self.library.lib.ghostty_terminal_get(self.pointer, key, out), f"reading {name}")
        raw = bytes(self.library.ffi.buffer(out))
        return list(zip(raw[0::3], raw[1::3], raw[2::3], strict=True))

    def extras(self, *names: str, before: bool = False) -> bytes:
        """Return the sequences that set the formatter's extras of these names.

        The formatter always prints a selection too, so one cell is selected and its bytes are cut off again.

        Args:
            names: Fields of GhosttyFormatterTerminalExtra or GhosttyFormatterScreenExtra.
            before: These stand before the text, not after it.
        """
        selection = self._first_cell()
        text = self.library.format(self.pointer, selection, ())
        both = self.library.format(self.pointer, selection, names)
        return both[: len(both) - len(text)] if before else both[len(text) :]

    def _first_cell(self) -> Any:
        library = self.library
        selection, point = library.sized("GhosttySelection"), library.ffi.new("OrbitPoint *")
        point.tag = library.lib.GHOSTTY_POINT_TAG_ACTIVE
        ref = library.sized("GhosttyGridRef")
        library.check(library.grid_ref(self.pointer, point[0], ref), "the first cell")
        selection.start = selection.end = ref[0]
        return selection
