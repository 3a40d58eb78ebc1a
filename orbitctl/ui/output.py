"""Write output: data to stdout, all else to stderr.

On a terminal tables are as wide as it is, times are friendly and ids short; in a pipe columns
are aligned with blanks, nothing is cut, and times and ids are whole (`orbitctl.ui.listing`). All text
passes `visible` before it is written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from orbit_protocol.visible import visible, visible_json
from orbitctl.errors import CommandError
from orbitctl.ui import listing, text
from orbitctl.ui.listing import EMPTY, View
from orbitctl.ui.stdout import MAX_SIZE as MAX_SIZE
from orbitctl.ui.stdout import is_smart_terminal as is_smart_terminal
from orbitctl.ui.stdout import is_without_colour as is_without_colour
from orbitctl.ui.stdout import terminal_size as terminal_size
from orbitctl.ui.stdout import view_of_stdout

T = TypeVar("T")


class Formatter(View):
    """Formats values for a terminal or for a pipe."""

    def moment(self, value: datetime | None) -> str:
        """Return a time: `3m ago` or RFC 3339."""
        if value is None:
            return EMPTY
        return text.ago(value) if self.terminal else text.rfc3339(value)

    def full_moment(self, value: datetime | None) -> str:
        """Return a time; on a terminal both ways: `3m ago (2026-01-31 12:00)`."""
        if value is None or not self.terminal:
            return self.moment(value)
        return f"{text.ago(value)} ({value.astimezone():%Y-%m-%d %H:%M})"

    def size(self, count: int) -> str:
        """Return a number of bytes, with a unit on a terminal."""
        return text.size(count) if self.terminal else str(count)


class Column(listing.Column, Generic[T]):
    """A column of a table whose rows are objects of one type; see `listing.Column`."""

    def __init__(
        self,
        title: str,
        cell: Callable[[T, Formatter], str | None],
        style: Callable[[T], str] | None = None,
        *,
        right: bool = False,
        rank: int = 0,
        floor: int | None = None,
        optional: bool = False,
    ) -> None:
        super().__init__(title, cell, style, right=right, rank=rank, floor=floor, optional=optional)


class Output:
    """Writes to this process's stdout and stderr."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.format = Formatter(terminal=self.terminal)

    def line(self, line: str) -> None:
        """Write a line of data."""
        sys.stdout.write(visible(line) + "\n")

    def json(self, raw: bytes) -> None:
        """Write JSON as it came; on a terminal, with what that would obey as JSON's escapes."""
        self.bytes((visible_json(raw) if self.terminal else raw) + b"\n")

    def bytes(self, data: bytes) -> None:
        """Write bytes as they are. Raises: CommandError, BrokenPipeError."""
        sys.stdout.flush()  # text that was written before comes before
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CommandError(f"cannot write to stdout: {error.strerror}") from error

    def table(self, columns: Sequence[Column[T]], rows: Iterable[T]) -> None:
        """Write a table with a header."""
        sys.stdout.write(listing.table(columns, list(rows), view_of_stdout(Formatter)))

    def details(self, pairs: Iterable[tuple[str, str | None]]) -> None:
        """Write the fields of one thing, one on each line."""
        pairs = list(pairs)
        widest = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self.line(f"{name + ':':<{widest + 1}}  {EMPTY if value in (None, '') else value}")

    def note(self, message: str) -> None:
        """Write a message that is not data to stderr."""
        to_stderr(visible(message) + "\n")

    def clear_line(self) -> None:
        """Clear the line of stderr's cursor, if it is a terminal that can."""
        if sys.stderr.isatty() and is_smart_terminal():
            to_stderr("\r\x1b[K")

    def problem(self, label: str, message: str, colour: str = "31") -> None:
        """Write `label: message` to stderr; on a terminal that may have colours the label is in colour."""
        if sys.stderr.isatty() and is_smart_terminal() and not is_without_colour():
            label = f"\x1b[{colour};1m{label}:\x1b[0m"
        else:
            label += ":"
        to_stderr(f"{label} {visible(message)}\n")


def to_stderr(message: str) -> None:
    """Write to stderr; where that is not possible it is dropped, unless the reader has ended: BrokenPipeError."""
    sys.stdout.flush()  # before stderr is written: on a terminal, both in order
    try:
        sys.stderr.write(message)
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        return
