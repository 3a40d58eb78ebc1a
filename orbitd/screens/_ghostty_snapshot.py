"""What a terminal's snapshot says that libghostty's C interface does not: no library, no I/O.

The ids of hyperlinks, the pen's link, and what a program has said of its prompts. The format is version 1 of
`src/terminal/snapshot/snapshot.ksy` in Ghostty's sources: records, and in them little-endian integers. A snapshot that
is another, or is not what its lengths say, gives nothing (`parse` returns None), and the rest is drawn without it.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from contextlib import suppress

from orbitd.screens.model import Link, PromptState, Zone

_MAGIC = b"GHOSTSNP\x01\x00"
_RECORD = struct.Struct("<HII")  # tag, length of the payload, CRC
_TERMINAL, _SCREEN, _PAGE, _HISTORY = 1, 2, 3, 4
_REDRAW_OFFSET = 32  # in TERMINAL
_SCREEN_HEADER = struct.Struct("<HHQHHBB16sIHBB8sBBB")
_SAVED_CURSOR_BYTES = 23
_HISTORY_HEADER = struct.Struct("<HI")
_PAGE_HEADER = struct.Struct("<HHHHHHII")
_STYLE_BYTES = 18  # in a page's table, with its number
_ROW = struct.Struct("<BH")  # flags, number of cells
_PLAIN_TEXT = bytes(range(0x20, 0x7F))
# A row's flags: that it wraps, that it continues another, two for marks (OSC 133), and how many bytes a cell has.
_MARKED, _TWO_BYTES, _FOUR_BYTES = 0b1100, 1 << 4, 2 << 4
_FOURS = bytes(range(0, 256, 4))
_LINK_SHIFT = 48  # in a cell of eight bytes; shorter ones have no link
_IMPLICIT, _EXPLICIT = 1, 2
# Of a shell's redrawing after a resize: yes, no, and the last line only. No is what the library begins with, so it says
# nothing of the shell.
_REDRAW = (";redraw=1", "", ";redraw=last")
_CLICK = {1: (";click_events=1", ";click_events=2"), 2: (";cl=line", ";cl=m", ";cl=v", ";cl=w")}
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\udc80-\udcff]")


class SnapshotScreen:
    """One of the two screens of a snapshot.

    Attributes:
        prompt: What OSC 133 has said last.
        pen_link: The link of the next character.
    """

    def __init__(self, key: int, prompt: PromptState, pen_link: tuple[bytes | int, bytes] | None) -> None:
        self.prompt = prompt
        self._key, self._pen_link = key, pen_link
        self._pages: list[tuple[int, int, memoryview]] = []  # rows, number of links, payload; the oldest first
        self._starts: list[int] = []  # of pages with links, as distances of their last rows from the screen's end
        self._linked: list[tuple[int, memoryview]] = []
        self._rows: dict[int, list[Link | None]] = {}
        self._parsed: set[int] = set()
        self._prefix = ""

    def add_page(self, payload: memoryview, *, oldest: bool = False) -> None:
        """Add a page behind the others, or before them."""
        _, rows, _, links, *_ = _PAGE_HEADER.unpack_from(payload)
        self._pages.insert(0 if oldest else len(self._pages), (rows, links, payload))

    def finish(self) -> None:
        """Number the rows, when all pages are there."""
        below = 0
        for rows, links, payload in reversed(self._pages):
            if links:
                self._starts.append(below)
                self._linked.append((rows, payload))
            below += rows

    @property
    def pen_link(self) -> Link | None:
        return None if self._pen_link is None else self._link(*self._pen_link)

    def links(self, row: int) -> list[Link | None] | None:
        """Return the link of each cell of a row, with none at the end left out; None where it cannot be read.

        Args:
            row: Counted from the end: 0 is the last row of the screen. A decoded terminal may have less history.
        """
        index = bisect_right(self._starts, row) - 1
        if index >= 0 and index not in self._parsed:
            self._parsed.add(index)
            # What went wrong is not raised: the rest of the screen is drawn as it is, and the row's links without ids.
            with suppress(struct.error, LookupError, ValueError, TypeError):
                self._parse_page(self._starts[index], *self._linked[index])
        return self._rows.get(row)

    def plain_rows(self, count: int, cols: int, empty: bytes, plain: bytes) -> bytes:
        """Return a letter for each of the last rows: which of these it is, and 0 where it may be anything else.

        Cells of one byte are narrow text without a look, those of four may have one of 63 styles and nothing else that
        matters here. They must be ASCII, without blank cells between.

        Args:
            count: How many rows, the last one being that of the screen; fewer are returned where there are not as many.
            cols: Columns of the terminal; in pages that have another number, nothing is known.
            empty: The letters of rows without text, at 4 those that continue a row, at 2 and 6 those that wrap.
            plain: Those of rows with text, each time once for a row that is not full, and once for one that is.
        """
        parts, missing = list[bytes](), count
        for rows, _, payload in reversed(self._pages):
            if missing <= 0:
                break
            known = bytearray()
            with suppress(struct.error, LookupError, ValueError, TypeError):
                known = _plain_rows_of_page(payload, cols, empty, plain)
            parts.append(bytes(known) if len(known) == rows else bytes(rows))
            missing -= rows
        return b"".join(reversed(parts))[max(0, -missing) :]

    def _link(self, link_id: bytes | int, uri: bytes) -> Link:
        if isinstance(link_id, bytes):
            return Link(without_controls(uri), without_controls(link_id))
        # The library numbers links without an id for each screen.
        return Link(without_controls(uri), f"{self._id_prefix()}{self._key}.{link_id}")

    def _id_prefix(self) -> str:
        """Return a beginning that no id of a program has: a repaint's ids may come back in a later snapshot."""
        if not self._prefix:
            joined, number = b"\n".join(bytes(payload) for _, payload in self._linked), 0
            if self._pen_link is not None and isinstance(self._pen_link[0], bytes):
                joined += self._pen_link[0]
            while b"orbit%d-" % number in joined:
                number += 1
            self._prefix = f"orbit{number}-"
        return self._prefix

    def _parse_page(self, below: int, rows: int, payload: memoryview) -> None:
        links, at = _links_of_page(payload)
        table = {number: None if link is None else self._link(*link) for number, link in links.items()}
        for row in range(rows):
            flags, cells = _ROW.unpack_from(payload, at)
            width = 1 << (flags >> 4 & 3)
            at += _ROW.size
            if width == 8:
                values = payload[at : at + cells * width].cast("Q")
                linked = [table.get(cell >> _LINK_SHIFT) for cell in values]
                if any(linked):
                    self._rows[below + rows - 1 - row] = linked
            at += cells * width


def _links_of_page(payload: memoryview) -> tuple[dict[int, tuple[bytes | int, bytes] | None], int]:
    """Return a page's table of links, as `_parse_link` has each, and the position of its first row."""
    _, _, styles, count, *_ = _PAGE_HEADER.unpack_from(payload)
    at, links = _PAGE_HEADER.size + styles * _STYLE_BYTES, dict[int, tuple[bytes | int, bytes] | None]()
    for _ in range(count):
        (number,) = struct.unpack_from("<H", payload, at)
        links[number], at = _parse_link(payload, at + 2)
    return links, at


def _plain_rows_of_page(payload: memoryview, cols: int, empty: bytes, plain: bytes) -> bytearray:
    page_cols, rows, *_ = _PAGE_HEADER.unpack_from(payload)
    if page_cols != cols:
        return bytearray(rows)
    _, at = _links_of_page(payload)
    data, read, header_bytes = bytes(payload[at:]), _ROW.unpack_from, _ROW.size
    letters, texts, styled, end = bytearray(rows), dict[int, bytes](), dict[int, bytes](), 0
    for row in range(rows):  # the most frequent loop of a repaint
        flags, cells = read(data, end)
        start = end + header_bytes
        end = start + (cells << (flags >> 4))
        if flags & (_MARKED | _TWO_BYTES):  # or eight
            continue
        (styled if flags & _FOUR_BYTES else texts)[row] = data[start:end]
        kind = 2 * (flags & 0b11) + (cells == cols)
        letters[row] = (plain if cells else empty)[kind]
    for found, is_text in ((texts, _is_text), (styled, _is_styled_text)):
        if not is_text(b"".join(found.values())):  # mostly it is, and this look at all rows is the only one
            for row, row_cells in found.items():
                if not is_text(row_cells):
                    letters[row] = 0
    return letters


def _is_text(cells: bytes) -> bool:
    """Return whether cells of one byte are ASCII."""
    return not cells.translate(None, _PLAIN_TEXT)


def _is_styled_text(cells: bytes) -> bool:
    """Return whether cells of four bytes are ASCII.

    Of their bits, 0 and 1 are 0 for a character, 2 to 25 are that, and the rest the number of a style.
    """
    first, second, third, last = (cells[place::4] for place in range(4))
    allowed = ((first, _FOURS), (second, b"\0\1"), (third, b"\0"), (last, _FOURS))
    if any(values.translate(None, known) for values, known in allowed):
        return False
    # A control, or no character, has neither bit 5 nor bit 6: the highest of the first byte, and the second byte.
    printed = int.from_bytes(first, "little") >> 7 | int.from_bytes(second, "little")
    ones = int.from_bytes(b"\1" * len(first), "little")
    return not ~printed & ones


def parse(data: bytes) -> dict[bool, SnapshotScreen] | None:
    """Return the screens of a snapshot by whether they are the alternate one, or None where it cannot be read."""
    if not data.startswith(_MAGIC) or struct.pack("=H", 1) != b"\1\0":  # cells are read in the machine's order
        return None
    screens = dict[bool, SnapshotScreen]()
    try:
        view, at, redraw = memoryview(data), len(_MAGIC), ""
        screen, oldest = None, False
        while at < len(data):
            tag, size, _ = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            payload = view[at : at + size]
            at += size
            if tag == _TERMINAL:
                redraw = _REDRAW[payload[_REDRAW_OFFSET]]
            elif tag == _SCREEN:
                key, screen = _parse_screen(payload, redraw)
                screens[bool(key)], oldest = screen, False
            elif tag == _HISTORY:
                screen, oldest = screens[bool(_HISTORY_HEADER.unpack(payload)[0])], True
            elif tag == _PAGE and screen is not None:
                screen.add_page(payload, oldest=oldest)
        for screen in screens.values():
            screen.finish()
    except (struct.error, LookupError, ValueError, TypeError):
        return None
    return screens


def _parse_screen(payload: memoryview, redraw: str) -> tuple[int, SnapshotScreen]:
    key, *_, flags, _, _, _, _, _, _, click, value, is_saved = _SCREEN_HEADER.unpack_from(payload)
    prompt = PromptState(
        zone=Zone(flags >> 2 & 3),
        until_line_end=bool(flags & 1 << 4),
        options=redraw + (_CLICK[click][value] if click else ""),
    )
    pen_link, _ = _parse_link(payload, _SCREEN_HEADER.size + (_SAVED_CURSOR_BYTES if is_saved else 0))
    return key, SnapshotScreen(key, prompt, pen_link)


def _parse_link(payload: memoryview, at: int) -> tuple[tuple[bytes | int, bytes] | None, int]:
    """Return the id and the address of a link, None for no link, and the position behind it."""
    kind, number = payload[at], 0
    at += 1
    if kind not in (_IMPLICIT, _EXPLICIT):
        return None, at
    (number,) = struct.unpack_from("<I", payload, at)
    at += 4
    link_id: bytes | int = number
    if kind == _EXPLICIT:
        link_id = bytes(payload[at : at + number])
        at += number
    (size,) = struct.unpack_from("<I", payload, at)
    at += 4
    uri = bytes(payload[at : at + size])
    return ((link_id, uri) if uri else None), at + size


def without_controls(text: bytes) -> str:
    """Return bytes as text, with those percent-encoded that are a control character or not UTF-8."""
    decoded = text.decode("utf-8", "surrogateescape")
    return _ODD.sub(
        lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape")), decoded
    )
