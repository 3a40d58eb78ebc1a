"""Tells from a cell's 64 bits what it shows and how it looks.

The library describes the layout (`ghostty_type_json`). Two dictionaries that fill themselves turn a cell into its
text and into the key of its look, so that the loop over a row's cells runs in C.
"""

from __future__ import annotations

import functools
from typing import Any

from orbitd.terminal._ghostty import Library

BLANK = 1 << 63
"""In a look: nothing was written here."""

TAIL = 1 << 62
"""The look of the second cell of a wide character."""

_REMEMBERED_CELLS = 8192
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def character(code: int) -> str:
    """Return the character of a code point, unless a client would take it for an order (DEL, C1)."""
    return _REPLACEMENT if 0x7F <= code < 0xA0 else chr(code)


@functools.cache
def dictionaries(library: Library) -> tuple[Layout, Texts, Looks]:
    """Return what all readers share, so that a cell once understood stays so."""
    layout = Layout(library)
    return layout, Texts(layout), Looks(layout)


class Layout:
    """Where the fields of a cell are, from the library's own description."""

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
        self.look = self.tag | self.style | self.protected | self.hyperlink
        lib = library.lib
        self.cluster = lib.GHOSTTY_CELL_CONTENT_CODEPOINT_GRAPHEME
        self.palette, self.rgb = lib.GHOSTTY_CELL_CONTENT_BG_COLOR_PALETTE, lib.GHOSTTY_CELL_CONTENT_BG_COLOR_RGB
        self.tail = lib.GHOSTTY_CELL_WIDE_SPACER_TAIL

    @staticmethod
    def _mask(field: dict[str, Any]) -> int:
        return ((1 << int(field["width"])) - 1) << int(field["lsb"])


class Texts(dict[int, str]):
    """A cell to the text that it shows, "" for none."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __missing__(self, cell: int) -> str:
        layout, text = self._layout, ""
        if cell & layout.tag < layout.palette:
            code = (cell >> layout.content_shift) & layout.codepoint
            text = character(code) if code else ""
        if len(self) >= _REMEMBERED_CELLS:
            self.clear()
        self[cell] = text
        return text


class Looks(dict[int, int]):
    """A cell to the key of its look: cells with equal keys side by side make one run."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __missing__(self, cell: int) -> int:
        layout = self._layout
        if cell & layout.tag >= layout.palette:
            key = BLANK | (cell & (layout.tag | layout.content))
        else:
            key = cell & layout.look
            if (cell & layout.wide) >> layout.wide_shift == layout.tail:
                key = TAIL
            elif not (cell >> layout.content_shift) & layout.codepoint:
                key |= BLANK
        if len(self) >= _REMEMBERED_CELLS:
            self.clear()
        self[cell] = key
        return key
