"""The C interface of libghostty-vt, loaded on demand: one class over it, and nothing of Orbit.

Nothing is imported until `load` is called, and a machine without the library gets TerminalUnavailable. Every
result code is checked here. A terminal is used by one thread at a time. cffi releases the GIL around every call, so
that another thread may feed another terminal meanwhile; a callback takes it again.

Lifetimes: what `ffi.new`, `ffi.from_buffer`, `ffi.callback` and `ffi.new_handle` return is freed with the Python
object, whatever pointers the library still has. So what the library keeps is kept here in attributes; what it copies
during the call may be a temporary. What the library allocates is freed with the library's own functions.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from orbitd.screens import _ghostty_abi
from orbitd.screens.model import Rgb, StateBusy, StateCorrupt, TerminalError, TerminalUnavailable

CONTINUATION_MAX_BYTES = 16 << 20
"""The longest unfinished control string that a saved state can hold."""

REPLIES_MAX_BYTES = 64 << 10
"""How much is kept for a program that asks and never reads the answers."""

_STRING_MAX_BYTES = 1 << 20
CELL_PIXELS = (8, 16)
"""Width and height of a cell, as the terminal is told and as it tells programs."""

FOREGROUND, BACKGROUND = (0xD0, 0xD0, 0xD0), (0, 0, 0)
"""The default colours while no client has given its own."""

PALETTE_SIZE = 256
_VERSION = b"orbit"
_TERMINFO = b"xterm-256color"
_SUCCESS = 0
NO_VALUE = -4
"""What the library returns where there is nothing to get."""


class Effects:
    """What a program's output has asked for beside a picture: answers to its queries, the bell, a progress bar.

    Attributes:
        progress: The state and the percentage (-1 for none) that OSC 9;4 has set last; None where it shows none.
        removals: How often the progress was removed, which a reset of the terminal (RIS) does as well.
    """

    def __init__(self) -> None:
        self.bells = 0
        self.progress: tuple[int, int] | None = None
        self.removals = 0
        self.is_light = False
        self._replies = bytearray()

    @property
    def reply_bytes(self) -> int:
        """How many bytes of answers there are."""
        return len(self._replies)

    def add_reply(self, data: bytes) -> None:
        """Keep an answer; it is dropped beyond the limit."""
        if len(self._replies) + len(data) <= REPLIES_MAX_BYTES:
            self._replies += data

    def take_reply(self, start: int) -> bytes:
        """Return and remove the answers behind the first `start` bytes of them."""
        data = bytes(self._replies[start:])
        del self._replies[start:]
        return data

    def drain_replies(self) -> bytes:
        """Return and remove the answers."""
        data = bytes(self._replies)
        self._replies.clear()
        return data


class Library:
    """The loaded library with what is made once: callbacks, by-value structs, the layout of a cell."""

    def __init__(self, ffi: Any, lib: Any) -> None:
        self.ffi, self.lib = ffi, lib
        for ours, real in (("OrbitPoint", "GhosttyPoint"), ("OrbitScroll", "GhosttyTerminalScrollViewport")):
            if (ffi.sizeof(ours), ffi.alignof(ours)) != (ffi.sizeof(real), ffi.alignof(real)):
                raise TerminalUnavailable(f"this libghostty lays out {real} in an unknown way")
        self.grid_ref = ffi.cast(
            "GhosttyResult(*)(GhosttyTerminal, OrbitPoint, GhosttyGridRef *)",
            ffi.addressof(lib, "ghostty_terminal_grid_ref"),
        )
        self.track = ffi.cast(
            "GhosttyResult(*)(GhosttyTerminal, OrbitPoint, GhosttyTrackedGridRef *)",
            ffi.addressof(lib, "ghostty_terminal_grid_ref_track"),
        )
        self.set_tracked = ffi.cast(
            "GhosttyResult(*)(GhosttyTrackedGridRef, GhosttyTerminal, OrbitPoint)",
            ffi.addressof(lib, "ghostty_tracked_grid_ref_set"),
        )
        self.scroll_viewport = ffi.cast(
            "void(*)(GhosttyTerminal, OrbitScroll)", ffi.addressof(lib, "ghostty_terminal_scroll_viewport")
        )
        layouts = msgspec.json.decode(ffi.string(lib.ghostty_type_json()))["types"]
        self.cell_bits: dict[str, Any] = layouts["GhosttyCell"]["bits"]
        self._templates: dict[str, Any] = {}
        self._version = ffi.from_buffer(_VERSION)
        # Kept for the life of the process: terminals call them through bare function pointers.
        self._callbacks = {
            "WRITE_PTY": ffi.callback("GhosttyTerminalWritePtyFn", self._write_pty),
            "BELL": ffi.callback("GhosttyTerminalBellFn", self._bell),
            "PROGRESS_REPORT": ffi.callback("GhosttyTerminalProgressReportFn", self._progress_report),
            "DEVICE_ATTRIBUTES": ffi.callback("GhosttyTerminalDeviceAttributesFn", self._device_attributes),
            "SIZE": ffi.callback("GhosttyTerminalSizeFn", self._size),
            "COLOR_SCHEME": ffi.callback("GhosttyTerminalColorSchemeFn", self._color_scheme),
            "XTVERSION": ffi.callback("GhosttyTerminalXtversionFn", self._xtversion),
        }

    def new_sized(self, ctype: str) -> Any:
        """Return a new struct whose own and nested `size` fields are set, as the C interface wants them."""
        if ctype not in self._templates:
            self._templates[ctype] = self.ffi.new(f"{ctype} *")
            self._set_sizes(self._templates[ctype])
        return self.ffi.new(f"{ctype} *", self._templates[ctype][0])

    def _set_sizes(self, pointer: Any) -> None:
        kind = self.ffi.typeof(pointer).item
        for name, field in kind.fields:
            if name == "size":
                pointer.size = self.ffi.sizeof(kind)
            elif field.type.kind == "struct":
                self._set_sizes(self.ffi.addressof(pointer[0], name))

    def check(self, result: int, what: str) -> None:
        """Raise TerminalError unless a result code says success."""
        if result != _SUCCESS:
            raise TerminalError(f"libghostty: {what} failed with {result}")

    def set_option(self, terminal: Any, name: str, value: Any) -> None:
        """Set one option of a terminal; `value` is a pointer that the library reads, or a callback or NULL."""
        option = getattr(self.lib, f"GHOSTTY_TERMINAL_OPT_{name}")
        self.check(self.lib.ghostty_terminal_set(terminal, option, value), f"set {name}")

    def configure(self, terminal: Any, effects: Any) -> None:
        """Set everything that is not part of a terminal's saved state, for a new or a decoded one.

        Args:
            terminal: A native terminal.
            effects: A handle of its Effects, which must live as long as the terminal does.
        """
        new = self.ffi.new
        set_option = functools.partial(self.set_option, terminal)
        set_option("CONTINUATION_MAX_BYTES", new("size_t *", CONTINUATION_MAX_BYTES))
        set_option("APC_MAX_BYTES", new("size_t *", _STRING_MAX_BYTES))
        set_option("CLIPBOARD_WRITE_MAX_BYTES", new("size_t *", _STRING_MAX_BYTES))
        set_option("KITTY_IMAGE_STORAGE_LIMIT", new("uint64_t *", 0))
        set_option("GLYPH_PROTOCOL", new("bool *", False))
        terminfo = self.ffi.from_buffer("uint8_t[]", _TERMINFO)
        set_option("TERMINFO_NAME", new("GhosttyString *", {"ptr": terminfo, "len": len(_TERMINFO)}))
        set_option("USERDATA", effects)
        for name, callback in self._callbacks.items():
            set_option(name, callback)

    def set_defaults(self, terminal: Any) -> None:
        """Set what is part of a terminal's saved state, for a new one."""
        # No DECSCUSR can ask for the hollow block, so that it stands for "the client's own cursor".
        hollow = self.lib.GHOSTTY_TERMINAL_CURSOR_STYLE_BLOCK_HOLLOW
        self.set_option(terminal, "DEFAULT_CURSOR_STYLE", self.ffi.new("GhosttyTerminalCursorStyle *", hollow))
        self.set_default_colors(terminal, FOREGROUND, BACKGROUND, ())

    def set_default_colors(self, terminal: Any, foreground: Rgb, background: Rgb, palette: tuple[Rgb, ...]) -> None:
        """Set the colours that hold where a program has set none, and what questions for them are answered with.

        Args:
            terminal: A native terminal.
            foreground: Of text, and of the cursor.
            background: Of the screen.
            palette: The first colours of the palette; the others are the library's own.
        """
        for name, rgb in (("FOREGROUND", foreground), ("BACKGROUND", background), ("CURSOR", foreground)):
            self.set_option(terminal, f"COLOR_{name}", self.ffi.new("GhosttyColorRgb *", rgb))
        whole = [*palette, *self.palette[len(palette) :]]
        self.set_option(terminal, "COLOR_PALETTE", self.ffi.new(f"GhosttyColorRgb[{PALETTE_SIZE}]", whole))

    @functools.cached_property
    def palette(self) -> list[Rgb]:
        """The library's own 256 colours."""
        colors = self.ffi.new(f"GhosttyColorRgb[{PALETTE_SIZE}]")
        self.lib.ghostty_color_palette_default(colors)
        return [(color.r, color.g, color.b) for color in colors]

    def set_replies_enabled(self, terminal: Any, *, on: bool) -> None:
        """Turn the terminal's answers to the program's queries on or off."""
        self.set_option(terminal, "WRITE_PTY", self._callbacks["WRITE_PTY"] if on else self.ffi.NULL)

    def decode(self, data: bytes, *, history: bool) -> Any:
        """Return the terminal that a snapshot holds; the caller frees it. Without `history`, only its screens."""
        ffi, lib = self.ffi, self.lib
        source = ffi.from_buffer("uint8_t[]", data)  # no copy; the decoder reads it until the `with` ends
        with self._decoder(source, len(data)) as decoder:
            terminal = ffi.new("GhosttyTerminal *")
            step = lib.ghostty_snapshot_decoder_decode if history else lib.ghostty_snapshot_decoder_ready
            result = step(decoder, terminal)
        if result != _SUCCESS:
            raise StateCorrupt(f"libghostty cannot read the saved terminal ({result})")
        return terminal[0]

    @contextmanager
    def _decoder(self, source: Any, size: int) -> Iterator[Any]:
        ffi, lib = self.ffi, self.lib
        decoder = ffi.new("GhosttySnapshotDecoder *")
        self.check(lib.ghostty_snapshot_decoder_new_buf(ffi.NULL, decoder, source, size), "a snapshot decoder")
        try:
            limit, retain = ffi.new("size_t *", CONTINUATION_MAX_BYTES), ffi.new("bool *", True)
            prefix = "GHOSTTY_SNAPSHOT_DECODER_OPT_"
            for name, value in (("MAX_CONTINUATION_BYTES", limit), ("RETAIN_CONTINUATION", retain)):
                self.check(lib.ghostty_snapshot_decoder_set(decoder[0], getattr(lib, prefix + name), value), name)
            yield decoder[0]
        finally:
            lib.ghostty_snapshot_decoder_free(decoder[0])

    def encode(self, terminal: Any) -> bytes:
        """Return the terminal's snapshot.

        Raises:
            StateBusy: An unfinished control string is longer than CONTINUATION_MAX_BYTES, or the library refuses what
                its own parser and resizes have made.
            TerminalError: It fails otherwise.
        """
        call = self.lib.ghostty_snapshot_encode_alloc
        result, data = self._call_allocating(lambda pointer, size: call(terminal, self.ffi.NULL, pointer, size))
        if result == -2:
            raise StateBusy("libghostty cannot save the terminal as it is now: a control string is too long, say")
        self.check(result, "encoding a snapshot")
        return data

    def continuation(self, terminal: Any) -> bytes:
        """Return the bytes of the unfinished sequence or character, b"" where the library has not kept them."""
        call = self.lib.ghostty_terminal_continuation_alloc
        result, data = self._call_allocating(lambda pointer, size: call(terminal, self.ffi.NULL, pointer, size))
        return data if result == _SUCCESS else b""

    def format(
        self, terminal: Any, selection: Any, extras: tuple[str, ...] = (), *, emit: str = "VT", unwrap: bool = False
    ) -> bytes:
        """Return a selection as VT bytes with the formatter's extras of these names, or as `PLAIN` text.

        Args:
            terminal: A native terminal.
            selection: A pointer to a GhosttySelection.
            extras: Fields of GhosttyFormatterTerminalExtra or GhosttyFormatterScreenExtra.
            emit: The format.
            unwrap: Write no line end between the rows of one wrapped line.
        """
        ffi, lib = self.ffi, self.lib
        options = self.new_sized("GhosttyFormatterTerminalOptions")
        options.emit, options.selection = getattr(lib, f"GHOSTTY_FORMATTER_FORMAT_{emit}"), selection
        options.unwrap = unwrap
        for name in extras:
            group = options.extra if hasattr(options.extra, name) else options.extra.screen
            setattr(group, name, True)
        formatter = ffi.new("GhosttyFormatter *")
        self.check(lib.ghostty_formatter_terminal_new(ffi.NULL, formatter, terminal, options[0]), "a formatter")
        try:
            call = lib.ghostty_formatter_format_alloc
            result, data = self._call_allocating(lambda pointer, size: call(formatter[0], ffi.NULL, pointer, size))
        finally:
            lib.ghostty_formatter_free(formatter[0])
        self.check(result, "formatting")
        return data

    def _call_allocating(self, call: Any) -> tuple[int, bytes]:
        """Make a call that allocates its result; return its code and a copy of the result."""
        pointer, size = self.ffi.new("uint8_t **"), self.ffi.new("size_t *")
        result = call(pointer, size)
        if result != _SUCCESS:
            return result, b""
        try:
            return result, self.ffi.buffer(pointer[0], size[0])[:] if size[0] else b""
        finally:
            self.lib.ghostty_free(self.ffi.NULL, pointer[0], size[0])

    # Callbacks. They run inside `ghostty_terminal_vt_write`, in the thread that feeds the terminal. An exception
    # cannot pass through C: cffi prints it on stderr and returns 0, so nothing in them may raise.

    def _write_pty(self, _terminal: Any, userdata: Any, data: Any, size: int) -> None:
        self.ffi.from_handle(userdata).add_reply(self.ffi.buffer(data, size)[:])

    def _bell(self, _terminal: Any, userdata: Any) -> None:
        self.ffi.from_handle(userdata).bells += 1  # a third of a microsecond

    def _progress_report(self, _terminal: Any, userdata: Any, report: Any) -> None:
        effects, state = self.ffi.from_handle(userdata), int(report.state)
        removed = state == self.lib.GHOSTTY_TERMINAL_PROGRESS_STATE_REMOVE
        effects.progress = None if removed else (state, int(report.progress))
        effects.removals += removed

    def _device_attributes(self, _terminal: Any, _userdata: Any, out: Any) -> bool:
        """Answer as a VT220 with colour, version 10, which fits TERM=xterm-256color."""
        out.primary.conformance_level = 62
        out.primary.features[0] = 22
        out.primary.num_features = 1
        out.secondary.device_type, out.secondary.firmware_version, out.secondary.rom_cartridge = 1, 10, 0
        out.tertiary.unit_id = 0
        return True

    def _size(self, terminal: Any, _userdata: Any, out: Any) -> bool:
        value = self.ffi.new("uint16_t *")
        for field, key in (
            ("columns", self.lib.GHOSTTY_TERMINAL_DATA_COLS),
            ("rows", self.lib.GHOSTTY_TERMINAL_DATA_ROWS),
        ):
            self.lib.ghostty_terminal_get(terminal, key, value)
            setattr(out, field, value[0])
        out.cell_width, out.cell_height = CELL_PIXELS
        return True

    def _color_scheme(self, _terminal: Any, userdata: Any, out: Any) -> bool:
        is_light = self.ffi.from_handle(userdata).is_light
        out[0] = self.lib.GHOSTTY_COLOR_SCHEME_LIGHT if is_light else self.lib.GHOSTTY_COLOR_SCHEME_DARK
        return True

    def _xtversion(self, _terminal: Any, _userdata: Any) -> Any:
        # Returned by value; the bytes that it points to are kept in `_version`.
        return self.ffi.new("GhosttyString *", {"ptr": self._version, "len": len(_VERSION)})[0]


@functools.cache  # of results only: where the library is missing, each call tries again
def load() -> Library:
    """Load libghostty-vt; a second call returns the same library.

    Raises:
        TerminalUnavailable: There is no build for this machine, or its interface is another one.
    """
    ffi, lib = _ghostty_abi.load()
    try:
        return Library(ffi, lib)
    except (KeyError, AttributeError, msgspec.DecodeError, ffi.error) as exc:
        raise TerminalUnavailable(f"this version of pyghostty does not fit ({exc})") from exc
