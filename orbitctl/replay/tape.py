"""Asciicast as it comes, page by page: https://docs.asciinema.org/manual/asciicast/v2/. No I/O."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


class NotAsciicast(ValueError):
    """What the daemon has sent is no asciicast; the message says what is wrong."""


class Event(NamedTuple):
    """Something that a film shows.

    Attributes:
        at: Seconds since 1970.
        kind: `o` for output, `r` for another size, `m` for a mark.
        data: The output, `COLSxROWS`, or the mark's label.
    """

    at: float
    kind: str
    data: str


class Tape:
    """Reads the lines of one recording.

    Args:
        since: The moment that was asked for; a recording counts its times from a moment that the header has in whole
            seconds, and that is this one where it is the same second.

    Attributes:
        size: Columns and rows at the beginning; None before the header has come.
        began_at: Seconds since 1970.
    """

    def __init__(self, since: float) -> None:
        self.size: tuple[int, int] | None = None
        self.began_at = since
        self._rest = ""  # of a page that ends within a line

    def receive(self, page: str, *, is_last: bool) -> list[Event]:
        """Return the events of a page. Raises: NotAsciicast."""
        lines = (self._rest + page).split("\n")
        self._rest = "" if is_last else lines.pop()
        events = []
        for line in lines:
            if not line.strip():
                continue
            try:
                value = msgspec.json.decode(line)
            except (ValueError, RecursionError) as error:
                raise NotAsciicast(f"a line of the recording is no JSON: {error}") from error
            if self.size is None:
                self._begin(value)
            elif (event := self._event(value)) is not None:
                events.append(event)
        return events

    def _begin(self, header: Any) -> None:
        fields = header if isinstance(header, dict) else {}
        size = fields.get("width"), fields.get("height")
        if fields.get("version") != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise NotAsciicast("the recording does not begin with a header of asciicast, version 2")
        self.size = size  # type: ignore[assignment]  # two numbers, as was just checked
        began_at = fields.get("timestamp")
        if isinstance(began_at, int | float) and int(began_at) != int(self.began_at):
            self.began_at = float(began_at)

    def _event(self, value: Any) -> Event | None:
        """Return an event; None for what is not drawn: input, and kinds of later versions."""
        if not (isinstance(value, list) and len(value) == 3 and isinstance(value[0], int | float)):
            raise NotAsciicast("a line of the recording is no event: [seconds, kind, data]")
        at, kind, data = value
        if kind not in ("o", "r", "m") or not isinstance(data, str):
            return None
        return Event(self.began_at + at, kind, data)


def size_of(event: Event) -> tuple[int, int] | None:
    """Return columns and rows of an `r`; None where it names none."""
    found = _SIZE.fullmatch(event.data)
    return None if found is None else (int(found[1]), int(found[2]))
