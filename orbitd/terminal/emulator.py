"""The emulated screen of one session, on libghostty-vt; with `_ghostty*`, the only code that knows that library.

An Emulator is used by one thread at a time. Feeding lets go of the interpreter lock. Its memory is native: close it.
What it may take is bounded: history in lines and in bytes, 16 MiB for an unfinished control string, 64 KiB of
replies that nobody fetched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from orbitd.terminal import _ghostty
from orbitd.terminal._ghostty_probe import Probe
from orbitd.terminal._ghostty_terminal import Terminal
from orbitd.terminal.model import Cursor, Row, Screen, StateBusy, TerminalUnavailable
from orbitd.terminal.render import Theme, to_html, to_text
from orbitd.terminal.repaint import MODES, Layer, Picture, paint

MAX_SCROLLBACK_LINES = 10_000
SCROLLBACK_MAX_BYTES = 16 << 20

_CELL_BYTES, _ROW_BYTES = 8, 8


def unavailable_reason() -> str | None:
    """Say why there are no live sessions on this machine, or return None where there are. The first call loads."""
    try:
        _ghostty.load()
    except TerminalUnavailable as exc:
        return str(exc)
    return None


class Emulator:
    """A terminal without a window.

    Args:
        cols: Columns, 1 to 65535.
        rows: Rows, 1 to 65535.
        max_scrollback_lines: History that is kept at most, give or take a few hundred lines.
        scrollback_max_bytes: The same in bytes, give or take some 400 kB.

    Raises:
        TerminalUnavailable: There is no emulation on this machine.
    """

    def __init__(
        self,
        cols: int,
        rows: int,
        *,
        max_scrollback_lines: int = MAX_SCROLLBACK_LINES,
        scrollback_max_bytes: int = SCROLLBACK_MAX_BYTES,
    ) -> None:
        self._adopt(Terminal.new(_ghostty.load(), cols, rows), max_scrollback_lines, scrollback_max_bytes)

    @classmethod
    def decode(
        cls,
        state: bytes,
        *,
        max_scrollback_lines: int = MAX_SCROLLBACK_LINES,
        scrollback_max_bytes: int = SCROLLBACK_MAX_BYTES,
    ) -> Emulator:
        """Return the terminal that `encode` saved, in the middle of a sequence if it was.

        Raises:
            StateCorrupt: The state is damaged, or of a version that this library does not read.
        """
        library = _ghostty.load()
        emulator = cls.__new__(cls)
        terminal = Terminal(library, library.decode(state, history=True))
        emulator._adopt(terminal, max_scrollback_lines, scrollback_max_bytes)
        return emulator

    def _adopt(self, terminal: Terminal, lines: int, size: int) -> None:
        self._terminal = terminal
        self._limits = (lines, size)
        terminal.limit_scrollback(lines, size)
        self._answering = True

    def close(self) -> None:
        """Free the terminal; nothing else may be called afterwards, but closing again."""
        self._terminal.close()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # In

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take output of the program, cut anywhere."""
        self._terminal.feed(data)

    def resize(self, cols: int, rows: int) -> None:
        """Change the size; lines of the primary screen are wrapped anew."""
        self._terminal.resize(cols, rows)

    @property
    def answering(self) -> bool:
        """Whether the program's questions are answered here: so long as no writable client is attached."""
        return self._answering

    @answering.setter
    def answering(self, on: bool) -> None:
        if on != self._answering:
            self._terminal.library.answer(self._terminal.pointer, on=on)
            self._answering = on

    def replies(self) -> bytes:
        """Take the answers since the last call; they belong into the program's input."""
        return self._terminal.replies.take()

    # What it is

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._terminal.size

    @property
    def title(self) -> str:
        """The title that the program set last, or ""."""
        return self._terminal.text("TITLE")

    @property
    def cwd(self) -> str:
        """The current folder as the program reported it (OSC 7): mostly a file:// address, or ""."""
        return self._terminal.text("PWD")

    @property
    def cursor(self) -> Cursor:
        """Place, look and pen of the cursor."""
        return self._terminal.cursor()

    @property
    def alternate(self) -> bool:
        """Whether the program uses the alternate screen."""
        return self._terminal.alternate

    @property
    def at_ground(self) -> bool:
        """Whether no sequence and no character is half read."""
        return self._terminal.flag("VT_GROUND")

    def modes(self) -> frozenset[str]:
        """Return the modes that are set, DEC private ones as `?N`."""
        return frozenset(mode.name for mode in MODES if self._terminal.mode(mode.number, ansi=mode.ansi))

    def dump(self) -> Screen:
        """Return everything that can be seen, for comparison."""
        cols, rows = self.size
        return Screen(
            cols=cols,
            rows=rows,
            alternate=self.alternate,
            lines=self._terminal.screen_rows(),
            cursor=self.cursor,
            modes=self.modes(),
            keyboard=self._terminal.keyboard,
            extras=self._terminal.extras("scrolling_region", "keyboard", "protection", "hyperlink", "charsets")
            + self._terminal.extras("tabstops", before=True),
            title=self.title,
            cwd=self.cwd,
        )

    # History

    @property
    def scrollback_rows(self) -> int:
        """Lines of history of the screen in use; the alternate screen has none."""
        return self._terminal.scrollback_rows

    @property
    def scrollback_bytes(self) -> int:
        """About what the history takes in memory."""
        return self.scrollback_rows * (self.size[0] * _CELL_BYTES + _ROW_BYTES)

    def trim_scrollback(self, *, max_lines: int | None = None, max_bytes: int | None = None) -> None:
        """Drop the oldest history down to a size, once; the standing limits stay."""
        lines, size = self._limits
        self._terminal.limit_scrollback(
            lines if max_lines is None else min(lines, max_lines), size if max_bytes is None else min(size, max_bytes)
        )
        self._terminal.limit_scrollback(lines, size)

    def compress(self) -> None:
        """Pack the history into about a third of the memory, in about a millisecond; reading it unpacks it again.

        Worth it once a terminal has been quiet for a while; saving it does not unpack anything.
        """
        self._terminal.compress()

    def history(self, lines: int | None = None) -> tuple[Row, ...]:
        """Return the newest `lines` rows of history, the oldest first; all of them by default."""
        end = self.scrollback_rows
        first = 0 if lines is None else max(0, end - lines)
        return tuple(self._terminal.rows(first, end))

    # Out

    def encode(self) -> bytes:
        """Return the whole state: both screens, history, modes, and a half-read sequence.

        Raises:
            StateBusy: A control string of more than 16 MiB is under way.
        """
        return self._terminal.library.encode(self._terminal.pointer)

    def repaint(self, scrollback_lines: int = 0, *, state: bytes | None = None) -> bytes:
        """Return VT bytes that draw this terminal on a cleared one of the same size.

        See `repaint` for what they carry. They end with the sequence that is half read, so that the program's next
        output can follow them.

        Args:
            scrollback_lines: How many lines of history scroll through the client's screen first.
            state: What `encode` has just returned, where it is at hand; otherwise it is made for this.
        """
        try:
            state = self.encode() if state is None else state
        except StateBusy:
            return paint(self._picture(None, scrollback_lines))
        deep = scrollback_lines > 0 and self.alternate
        with Probe(self._terminal.library, state, history=deep) as probe:
            return paint(self._picture(probe, scrollback_lines))

    def screen(self, format: str = "text", *, scrollback: bool = False) -> bytes:  # noqa: A002 - the method's own word
        """Return what is on the screen, text and HTML in UTF-8.

        Args:
            format: `text`, `vt` or `html`.
            scrollback: Put the whole history before it.

        Raises:
            KeyError: There is no such format.
        """
        return {"text": self._text, "vt": self._vt, "html": self._html}[format](scrollback)

    def _shown(self, scrollback: bool) -> Iterator[Row]:
        top = self.scrollback_rows
        return self._terminal.rows(0 if scrollback else top, top + self.size[1])

    def _text(self, scrollback: bool) -> bytes:
        return to_text(self._shown(scrollback)).encode()

    def _vt(self, scrollback: bool) -> bytes:
        return self.repaint(sys.maxsize if scrollback else 0)

    def _html(self, scrollback: bool) -> bytes:
        terminal = self._terminal
        foreground, background = terminal.color("foreground") or (0, 0, 0), terminal.color("background") or (0, 0, 0)
        return to_html(self._shown(scrollback), Theme(terminal.palette(), foreground, background)).encode()

    def _picture(self, probe: Probe | None, scrollback_lines: int) -> Picture:
        """Gather what a repaint draws; without a probe, what only it can find out is left out."""
        terminal = self._terminal
        behind, source = None, terminal
        if self.alternate and probe is not None:
            behind, source = probe.leave_alternate(), probe.terminal
        end = source.scrollback_rows if behind or not self.alternate else 0
        history = tuple(source.rows(max(0, end - scrollback_lines), end)) if scrollback_lines > 0 else ()
        if behind and probe is not None:
            probe.enter_alternate()
        here = Layer(
            lines=terminal.screen_rows(),
            cursor=terminal.cursor(),
            saved=probe.saved_cursor() if probe is not None else None,
            keyboard=probe.keyboard_stack() if probe is not None else (),
        )
        cols, rows = self.size
        return Picture(
            cols=cols,
            rows=rows,
            history=history,
            primary=(behind or Layer(lines=(), cursor=Cursor())) if self.alternate else here,
            alternate=here if self.alternate else None,
            modes=self.modes(),
            margins=terminal.extras("scrolling_region").decode(),
            pen=terminal.extras("hyperlink", "protection", "charsets", "keyboard").decode("utf-8", "replace"),
            tab_stops=self._tab_stops(),
            colors=terminal.changed_colors(),
            title=self.title,
            cwd=self.cwd,
            continuation=terminal.library.continuation(terminal.pointer),
        )

    def _tab_stops(self) -> str:
        """Return what sets the tab stops, or "" where they stand at every eighth column."""
        stops = self._terminal.extras("tabstops", before=True).decode()
        usual = "".join(f"\x1b[{column + 1}G\x1bH" for column in range(8, self.size[0] - 1, 8))
        return "" if stops == f"\x1b[3g{usual}\x1b[H" else stops
