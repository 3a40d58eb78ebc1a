"""Finds out what the library has no question for, by trying it on a copy.

What ESC 8 would restore, which keyboard flags lie under the current ones, and what stands on the primary screen
behind the alternate one: a copy that is thrown away is fed the sequence, and then looked at.
"""

from __future__ import annotations

from orbitd.terminal._ghostty import Library
from orbitd.terminal._ghostty_terminal import Terminal
from orbitd.terminal.model import Cursor
from orbitd.terminal.repaint import Layer, SavedCursor

_CANCEL = b"\x18\x1b\\"  # CAN ends whatever sequence is under way, ST a string that CAN does not
_KEYBOARD_STACK = 8


class Probe:
    """A copy of a terminal, freed at the end of the `with`.

    Args:
        library: The loaded library.
        state: The encoded terminal.
        history: Copy the history as well; that costs the most.
    """

    def __init__(self, library: Library, state: bytes, *, history: bool) -> None:
        self.terminal = Terminal(library, library.decode(state, history=history))
        library.answer(self.terminal.pointer, on=False)
        self.terminal.feed(_CANCEL)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.terminal.close()

    def leave_alternate(self) -> Layer:
        """Go to the primary screen as the program would, and return it."""
        restores = self.terminal.mode(1049)
        self.terminal.feed(b"\x1b[?1049l" if restores else b"\x1b[?47l")
        lines, cursor = self.terminal.screen_rows(), self.terminal.cursor()
        # Entering 1049 again saves this cursor, so there is nothing else to keep.
        return Layer(
            lines=lines, cursor=cursor, saved=None if restores else self.saved_cursor(), keyboard=self.keyboard_stack()
        )

    def enter_alternate(self) -> None:
        """Go back to the alternate screen, which keeps what only `saved_cursor` and `keyboard_stack` ask for."""
        self.terminal.feed(b"\x1b[?47h")

    def saved_cursor(self) -> SavedCursor | None:
        """Return what ESC 8 brings back, or None if that is the upper left corner and a plain pen."""
        self.terminal.feed(b"\x1b8")
        cursor, origin = self.terminal.cursor(), self.terminal.mode(6)
        plain = Cursor(visible=cursor.visible, shape=cursor.shape)
        return None if (cursor, origin) == (plain, False) else SavedCursor(cursor=cursor, origin=origin)

    def keyboard_stack(self) -> tuple[int, ...]:
        """Return the kitty keyboard flags that pops would lay bare, the oldest first."""
        flags = []
        for _ in range(_KEYBOARD_STACK):
            flags.append(self.terminal.keyboard)
            self.terminal.feed(b"\x1b[<u")
        while flags and not flags[-1]:
            flags.pop()
        return tuple(reversed(flags))
