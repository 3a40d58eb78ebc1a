"""What has to be done to a window before a picture is drawn on it, so that it loses no line. No I/O.

A picture begins with a reset that clears the screen. What stands there and is not in the picture is scrolled into the
window's history before: the user's own screen at first; after a resize the rows that the window shows above the
picture's first. The window has rewrapped its rows, as the session's emulator has, but may have fetched others out of
its history. Both have the cursor at the same character, since the daemon reads no output between a resize and its
picture: so the rows above the cursor that the window has more than the picture are those that are not in it. Where the
terminal does not say where its cursor is, it counts as at the bottom: then a line may be there twice, and none is lost.
So it may where output was shown at another size than the session had, since it takes more rows here, or fewer
(`add_uncertain`).

A window may change while a picture is on its way, and then rows of it are drawn over each other, or over lines that
the window has fetched out of its history. So it is remembered up to which line the window has all for certain, and a
picture that turns out to be drawn wrongly is followed by another one with everything behind that line.
"""

from __future__ import annotations

import re

from orbit_protocol.terminal_reset import LINES_UP, RESET, RESET_IN_USE, TO_PRIMARY
from orbitctl.attach.connection import Notice
from orbitctl.attach.cursor_question import Position
from orbitctl.attach.line_count import LineCount

MAX_HISTORY_LINES = 1_000_000
_RESET_BEGINS = b"\x18"

# How a picture goes on to the alternate screen, and where the cursor of the primary one is before it.
_ENTERS_ALTERNATE = re.compile(rb"\x1b\[\?(?:1049|1047|47)h")
_CURSOR_BEFORE = re.compile(rb"\x1b\[(\d+);\d+H(?:\x1b\[[0-9;:]*m)*\Z")


class Window:
    """What one window shows.

    Args:
        how: How the lines that were left out can be seen, for a line that tells of them.

    Attributes:
        history_line: How many of the session's lines had left its screen when the window was last drawn; None at first.
        is_known: A picture was drawn that was not found to be wrong: what an attach is to bring counts from there.
        is_resized: The window has changed, and no picture was drawn since.
    """

    def __init__(self, how: str) -> None:
        self.history_line: int | None = None
        self.is_known = self.is_resized = False
        self._how = how
        self._size = (0, 0)
        self._is_frame = self._is_distrusted = False
        self._uncertain_rows = 0
        self._safe_line = 0  # the history up to it is in the window for certain, if the last picture was drawn wrongly
        self._is_confirmed = False  # it was not
        self._lines = LineCount()  # since `history_line` was known
        self._behind: int | None = None  # the cursor's row on a primary screen that was resized while it was hidden

    @property
    def is_frame(self) -> bool:
        """Whether only a part of the picture is shown, and no line of it is the session's history."""
        return self._is_frame

    @property
    def is_primary_stale(self) -> bool:
        """Whether the primary screen has to be drawn when it is shown again."""
        return self._behind is not None

    def begin(self, after_line: int) -> None:
        """Take the window for one that has the session's history up to a line, of an earlier attach."""
        self._safe_line = after_line

    def count(self, output: bytes, *, is_alternate: bool) -> None:
        """Count the lines of output that is shown; `is_alternate` where it begins on the alternate screen."""
        self._lines.feed(output, is_alternate=is_alternate)

    def lose_place(self) -> None:
        """Know of the cursor no more than that it is on the screen: some output was not counted."""
        self._lines.lose_place()

    def confirm(self) -> None:
        """Take the last picture for drawn as it should."""
        self.is_known = self._is_confirmed = True

    def distrust(self, rows: int) -> None:
        """Take nothing that the last picture has drawn for what is shown.

        Args:
            rows: How many lines the window may have fetched out of its history, and lost with it.
        """
        self._safe_line, self._is_distrusted = max(0, self._safe_line - rows), True

    def add_uncertain(self, rows: int) -> None:
        """Add to the rows by which the session may be further than the window, or less far, with the same output."""
        self._uncertain_rows += rows

    def mark_missing(self) -> None:
        """Take what comes from here on for not shown."""
        self._safe_line, self._is_distrusted = self.after_line, True

    def mark_resized(self) -> None:
        """Take the size of the last picture for none that the window has."""
        self.is_resized = True

    def follow_size(self, notice: Notice) -> None:
        """Let the session have another size, whose picture is not drawn: lines may have come back from its history."""
        self.mark_resized()
        if self.history_line is not None and notice.history_line is not None:
            self.history_line = min(self.after_line, notice.history_line)
            self._lines.begin(notice.rows)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the last picture."""
        return self._size

    def leave_all(self) -> None:
        """Forget what is shown: a shell has the window from here on."""
        self._behind, self._is_frame = None, False

    @property
    def after_line(self) -> int:
        """Behind which line of the session its history is missing here, or may be."""
        return self._safe_line if self._is_distrusted else (self.history_line or 0) + self._lines.scrolled

    def leave(self, line: int | None) -> int | None:
        """Return up to which line the window has the history when it is left, and the session has it up to `line`."""
        if self._is_frame or self.history_line is None:
            return self.history_line
        if self._is_distrusted:
            return self._safe_line
        if line is not None:
            self.history_line = line
            self._lines.begin(self._size[1])
        return line

    def asks_cursor(self, notice: Notice, *, is_alternate: bool) -> bool:
        """Return whether the cursor's row decides what `draw` returns."""
        if notice.reason == "frame" and not notice.data.startswith(_RESET_BEGINS):
            return False  # a difference
        return not (is_alternate or self._is_frame or notice.reason == "behind")

    def draw_first(self, picture: bytes, history_line: int, size: tuple[int, int], cursor: Position | None) -> bytes:
        """Return the picture, behind what puts the user's own screen into the history; `cursor` is the user's."""
        rows = size[1] if cursor is None else cursor[0] + (cursor[1] > 0)
        picture = _with_reset(picture)
        self._drawn(history_line, size)
        return scroll_up(rows, size[1]) + picture

    def draw_again(self, picture: bytes, history_line: int, size: tuple[int, int], *, is_alternate: bool) -> bytes:
        """Return the picture of a new attachment, which has the lines behind `after_line` in it."""
        rows = 0
        picture = _with_reset(picture)
        if self._behind is not None:
            rows = size[1] - 1 - self._behind
        elif self._is_frame:
            rows = 0  # no row of it is a line of the session
        elif size != self._size or self._is_distrusted or self.is_resized or self._uncertain_rows:
            rows = size[1]
        self._drawn(history_line, size)
        return (TO_PRIMARY if is_alternate else b"") + scroll_up(rows, size[1]) + picture

    def draw(self, notice: Notice, size: tuple[int, int], cursor: Position | None, alternate: int) -> bytes:
        """Return a repaint, behind what has to be done before.

        Args:
            notice: The repaint.
            size: The window's columns and rows.
            cursor: Where its cursor is, where that is known.
            alternate: The mode by which it is on the alternate screen, or 0.
        """
        data, height, line = notice.data, size[1], notice.history_line or 0
        is_frame = notice.reason == "frame"
        if is_frame and not data.startswith(_RESET_BEGINS):
            self._is_frame = True
            return data  # a difference
        entering = _ENTERS_ALTERNATE.search(data)
        if alternate and entering and not is_frame and notice.reason != "behind" and not self._is_frame:
            # The window rewraps its hidden screen by itself, and nothing can be asked about it. So it stays as it is
            # until the program goes back there.
            row = _row_before(data, entering)
            self._drawn(line, size)
            self._behind = row
            return RESET_IN_USE + data[entering.end() :]
        rows, lost = 0, 0
        if self._is_frame:
            lost = 0 if is_frame else line - (self.history_line or 0)
        elif is_frame:
            rows = height if cursor is None or alternate else cursor[0] + 1
            # The daemon counts what it has drawn for this window, and not the output that was shown behind that.
            line = max(line, self.after_line)
        elif notice.reason == "behind":
            rows = min(notice.lost_lines, height)
            lost = notice.lost_lines - rows
        else:
            wanted = _row_before(data, entering) if entering else notice.cursor_row
            above = cursor[0] if cursor is not None and not alternate else height - 1
            rows = min(above - wanted + self._uncertain_rows, above)
        if self._behind is not None:
            rows = max(rows, height - 1 - self._behind)
        before = TO_PRIMARY if alternate else b""
        before += scroll_up(rows, height)
        if lost > 0:
            before += self._note(lost, size)
        if is_frame and self._is_frame:
            self._size = size  # the line where the output ended stays
        else:
            self._drawn(line, size)
        self._is_frame = is_frame
        return before + data

    def _note(self, lost: int, size: tuple[int, int]) -> bytes:
        """Return what writes a line about lines that are not here, over the first rows, and moves it up."""
        count = "1 line is" if lost == 1 else f"{lost} lines are"
        note = f"[{count} not here; {self._how}]"
        width = sum(1 if character.isascii() else 2 for character in note)
        rows = -(-width // size[0])
        cleared = "".join(f"\x1b[{row + 1};1H\x1b[2K" for row in range(min(rows, size[1])))
        return f"{cleared}\x1b[H\x1b[2m{note}\x1b[m".encode() + scroll_up(rows, size[1])

    def _drawn(self, history_line: int, size: tuple[int, int]) -> None:
        if self._is_confirmed:
            self._safe_line = self.after_line
        # What the picture has on the screen is not in the history any more.
        self._safe_line, self._is_confirmed = min(self._safe_line, history_line), False
        self.history_line, self._size = history_line, size
        self._uncertain_rows = 0
        self._lines.begin(size[1])
        self._behind, self._is_frame, self._is_distrusted, self.is_resized = None, False, False, False


def scroll_up(rows: int, height: int) -> bytes:
    """Return what moves so many rows from the top of the primary screen into the history."""
    return LINES_UP + b"\n" * min(rows, height) if rows > 0 else b""


def rows_of_text(text: str, cols: int) -> int:
    """Return how many rows a screen's text takes, where a line that wraps is one, without blank ones at the end."""
    lines = text.rstrip("\n").split("\n") if text.strip("\n") else []
    return sum(max(1, -(-sum(map(_width, line)) // cols)) if len(line) * 2 > cols else 1 for line in lines)


def rows_below(text: str, cols: int, cursor_row: int) -> int:
    """Return how many rows a screen's text goes on below the cursor; -1 where the cursor's own row is blank, too."""
    return max(-1, rows_of_text(text, cols) - 1 - cursor_row)


def _width(character: str) -> int:
    if character.isascii():
        return 1
    import unicodedata  # not at the top: a library of a megabyte, and most text needs none of it

    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _with_reset(picture: bytes) -> bytes:
    """Return a picture with the reset that it begins with, which earlier daemons left to their clients."""
    return picture if picture.startswith(_RESET_BEGINS) else RESET + picture


def _row_before(picture: bytes, entering: re.Match[bytes]) -> int:
    """Return the row of the cursor on the primary screen, of a picture that goes on to the alternate one."""
    found = _CURSOR_BEFORE.search(picture, max(0, entering.start() - 256), entering.start())
    return int(found[1]) - 1 if found else 0
