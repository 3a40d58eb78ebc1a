"""The border to libghostty-vt: one class over its C interface, and nothing of Orbit.

Nothing is imported until `load` is called, and a machine without the library gets TerminalUnavailable. Every
result code is checked here. A terminal is used by one thread at a time; the library lets go of the
interpreter lock in every call, so that another thread may feed another terminal meanwhile.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orbitd.terminal.model import StateBusy, StateCorrupt, TerminalError, TerminalUnavailable

CONTINUATION_MAX_BYTES = 16 << 20
"""The longest unfinished control string that a saved state can hold."""

REPLIES_MAX_BYTES = 64 << 10
"""What a program that asks and never reads can make us remember."""

_STRING_MAX_BYTES = 1 << 20
_CELL_PIXELS = (8, 16)
_DEFAULT_COLORS = {"FOREGROUND": (0xD0, 0xD0, 0xD0), "BACKGROUND": (0, 0, 0), "CURSOR": (0xD0, 0xD0, 0xD0)}
_VERSION = b"orbit"
_TERMINFO = b"xterm-256color"
_SUCCESS, _NO_VALUE = 0, -4

# cffi cannot pass a struct with a union by value; a twin of the same layout can (see pyghostty/_ffi.py).
_TWINS = """
typedef struct { GhosttyPointTag tag; struct { uint16_t x; uint32_t y; uint64_t pad; } value; } OrbitPoint;
typedef struct { GhosttyTerminalScrollViewportTag tag; struct { uint64_t row; uint64_t pad; } value; } OrbitScroll;
"""


class Replies:
    """What the terminal answers to the program's questions, up to a limit."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, data: bytes) -> None:
        if len(self.data) + len(data) <= REPLIES_MAX_BYTES:
            self.data += data

    def take(self) -> bytes:
        data = bytes(self.data)
        self.data.clear()
        return data


class Library:
    """The loaded library with what is made once: callbacks, twins, the layout of a cell."""

    def __init__(self, ffi: Any, lib: Any) -> None:
        self.ffi, self.lib = ffi, lib
        ffi.cdef(_TWINS)
        for twin, real in (("OrbitPoint", "GhosttyPoint"), ("OrbitScroll", "GhosttyTerminalScrollViewport")):
            if (ffi.sizeof(twin), ffi.alignof(twin)) != (ffi.sizeof(real), ffi.alignof(real)):
                raise TerminalUnavailable(f"this libghostty lays out {real} in an unknown way")
        self.grid_ref = ffi.cast(
            "GhosttyResult(*)(GhosttyTerminal, OrbitPoint, GhosttyGridRef *)",
            ffi.addressof(lib, "ghostty_terminal_grid_ref"),
        )
        self.scroll_viewport = ffi.cast(
            "void(*)(GhosttyTerminal, OrbitScroll)", ffi.addressof(lib, "ghostty_terminal_scroll_viewport")
        )
        self.cell_bits: dict[str, Any] = json.loads(ffi.string(lib.ghostty_type_json()))["types"]["GhosttyCell"]["bits"]
        self._templates: dict[str, Any] = {}
        self._version = ffi.from_buffer(_VERSION)
        self._callbacks = {
            "WRITE_PTY": ffi.callback("GhosttyTerminalWritePtyFn", self._write_pty),
            "DEVICE_ATTRIBUTES": ffi.callback("GhosttyTerminalDeviceAttributesFn", self._device_attributes),
            "SIZE": ffi.callback("GhosttyTerminalSizeFn", self._size),
            "COLOR_SCHEME": ffi.callback("GhosttyTerminalColorSchemeFn", self._color_scheme),
            "XTVERSION": ffi.callback("GhosttyTerminalXtversionFn", self._xtversion),
        }

    def sized(self, ctype: str) -> Any:
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
        if result != _SUCCESS:
            raise TerminalError(f"libghostty: {what} failed with {result}")

    def set_option(self, terminal: Any, name: str, value: Any) -> None:
        option = getattr(self.lib, f"GHOSTTY_TERMINAL_OPT_{name}")
        self.check(self.lib.ghostty_terminal_set(terminal, option, value), f"set {name}")

    def configure(self, terminal: Any, replies: Any) -> None:
        """Give a new or decoded terminal everything that is not part of its saved state."""
        new = self.ffi.new
        set_option = functools.partial(self.set_option, terminal)
        set_option("CONTINUATION_MAX_BYTES", new("size_t *", CONTINUATION_MAX_BYTES))
        set_option("APC_MAX_BYTES", new("size_t *", _STRING_MAX_BYTES))
        set_option("CLIPBOARD_WRITE_MAX_BYTES", new("size_t *", _STRING_MAX_BYTES))
        set_option("KITTY_IMAGE_STORAGE_LIMIT", new("uint64_t *", 0))
        set_option("GLYPH_PROTOCOL", new("bool *", False))
        terminfo = self.ffi.from_buffer("uint8_t[]", _TERMINFO)
        set_option("TERMINFO_NAME", new("GhosttyString *", {"ptr": terminfo, "len": len(_TERMINFO)}))
        set_option("USERDATA", replies)
        for name, callback in self._callbacks.items():
            set_option(name, callback)

    def set_defaults(self, terminal: Any) -> None:
        """Give a new terminal what a saved state carries along."""
        # No DECSCUSR can ask for the hollow block, so that it stands for "the client's own cursor".
        hollow = self.lib.GHOSTTY_TERMINAL_CURSOR_STYLE_BLOCK_HOLLOW
        self.set_option(terminal, "DEFAULT_CURSOR_STYLE", self.ffi.new("GhosttyTerminalCursorStyle *", hollow))
        for name, rgb in _DEFAULT_COLORS.items():
            self.set_option(terminal, f"COLOR_{name}", self.ffi.new("GhosttyColorRgb *", rgb))

    def answer(self, terminal: Any, *, on: bool) -> None:
        """Let the terminal answer the program's questions, or keep silent."""
        self.set_option(terminal, "WRITE_PTY", self._callbacks["WRITE_PTY"] if on else self.ffi.NULL)

    def decode(self, data: bytes, *, history: bool) -> Any:
        """Return the terminal of a snapshot, the caller's to free; without `history`, little more than its screens."""
        ffi, lib = self.ffi, self.lib
        source = ffi.from_buffer("uint8_t[]", data)
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
            StateBusy: A control string longer than CONTINUATION_MAX_BYTES is under way.
        """
        call = self.lib.ghostty_snapshot_encode_alloc
        result, data = self._allocated(lambda pointer, size: call(terminal, self.ffi.NULL, pointer, size))
        if result == -2:
            raise StateBusy("the terminal cannot be saved just now: what it is in the middle of is too long")
        self.check(result, "encoding a snapshot")
        return data

    def continuation(self, terminal: Any) -> bytes:
        """Return the bytes of the sequence or character that has begun and not ended, if they are still known."""
        call = self.lib.ghostty_terminal_continuation_alloc
        result, data = self._allocated(lambda pointer, size: call(terminal, self.ffi.NULL, pointer, size))
        return data if result == _SUCCESS else b""

    def format(self, terminal: Any, selection: Any, extras: tuple[str, ...]) -> bytes:
        """Return VT bytes of a selection, with what the formatter calls extras."""
        ffi, lib = self.ffi, self.lib
        options = self.sized("GhosttyFormatterTerminalOptions")
        options.emit, options.selection = lib.GHOSTTY_FORMATTER_FORMAT_VT, selection
        for name in extras:
            holder = options.extra if hasattr(options.extra, name) else options.extra.screen
            setattr(holder, name, True)
        formatter = ffi.new("GhosttyFormatter *")
        self.check(lib.ghostty_formatter_terminal_new(ffi.NULL, formatter, terminal, options[0]), "a formatter")
        try:
            call = lib.ghostty_formatter_format_alloc
            result, data = self._allocated(lambda pointer, size: call(formatter[0], ffi.NULL, pointer, size))
        finally:
            lib.ghostty_formatter_free(formatter[0])
        self.check(result, "formatting")
        return data

    def _allocated(self, call: Any) -> tuple[int, bytes]:
        """Run a call that allocates its answer, and take the answer over."""
        pointer, size = self.ffi.new("uint8_t **"), self.ffi.new("size_t *")
        result = call(pointer, size)
        if result != _SUCCESS:
            return result, b""
        try:
            return result, self.ffi.buffer(pointer[0], size[0])[:] if size[0] else b""
        finally:
            self.lib.ghostty_free(self.ffi.NULL, pointer[0], size[0])

    # What the library calls. An exception here cannot travel through C; cffi would print it, so nothing may raise.

    def _write_pty(self, _terminal: Any, userdata: Any, data: Any, size: int) -> None:
        self.ffi.from_handle(userdata).add(self.ffi.buffer(data, size)[:])

    def _device_attributes(self, _terminal: Any, _userdata: Any, out: Any) -> bool:
        """Answer as a VT220 with colour, version 10: what programs take xterm-256color for."""
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
        out.cell_width, out.cell_height = _CELL_PIXELS
        return True

    def _color_scheme(self, _terminal: Any, _userdata: Any, out: Any) -> bool:
        out[0] = self.lib.GHOSTTY_COLOR_SCHEME_DARK
        return True

    def _xtversion(self, _terminal: Any, _userdata: Any) -> Any:
        return self.ffi.new("GhosttyString *", {"ptr": self._version, "len": len(_VERSION)})[0]


@functools.cache
def load() -> Library:
    """Load libghostty-vt, once.

    Raises:
        TerminalUnavailable: There is no build of it here, or one that does not fit.
    """
    try:
        from pyghostty._ffi import ffi, lib
    except ImportError as exc:
        raise TerminalUnavailable(f"pyghostty is not installed ({exc})") from exc
    except OSError as exc:
        raise TerminalUnavailable(f"libghostty-vt cannot be loaded ({exc})") from exc
    try:
        return Library(ffi, lib)
    except (KeyError, AttributeError, ffi.error) as exc:
        raise TerminalUnavailable(f"this version of pyghostty does not fit ({exc})") from exc
