"""What stdout is, and what is drawn there: by the terminal itself and by the variables that describe it."""

from __future__ import annotations

import os
import sys
import time

from orbitctl.ui.listing import View

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here: lists of sessions are drawn within milliseconds
    from typing import Any, TypeVar

    V = TypeVar("V", bound=View)

MAX_SIZE = 10_000


def is_smart_terminal() -> bool:
    """Return whether the terminal understands escape sequences, by TERM."""
    return os.environ.get("TERM", "") not in ("", "dumb")


def is_without_colour() -> bool:
    """Return whether NO_COLOR asks for no colour; set to nothing, it does not count (no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def terminal_size() -> tuple[int, int]:
    """Return the columns and lines to write for.

    COLUMNS and LINES say so where they are whole numbers from 1 on, else the terminal does, else it is 80 and 24.
    """
    columns, lines = (_positive(os.environ.get(name, "")) for name in ("COLUMNS", "LINES"))
    if not (columns and lines):
        try:
            of_terminal = os.get_terminal_size(sys.stdout.fileno())
        except (OSError, ValueError):
            of_terminal = os.terminal_size((0, 0))
        columns, lines = columns or of_terminal.columns, lines or of_terminal.lines  # a serial line has 0 and 0
    return columns or 80, lines or 24


def _positive(number: str) -> int:
    """Return a number that a variable holds, at most MAX_SIZE; 0 for what is none."""
    digits = number.strip()
    if not (digits.isascii() and digits.isdigit()):
        return 0
    return min(int(digits[:20]), MAX_SIZE)


def view_of_stdout(kind: type[V], **more: Any) -> V:
    """Return a `View`, or a class like it, of stdout as it is now; `more` are other arguments of it."""
    return kind(
        terminal=sys.stdout.isatty(),
        width=terminal_size()[0],
        colour=is_smart_terminal() and not is_without_colour(),
        now=time.time(),
        encoding=sys.stdout.encoding,
        **more,
    )
