"""Format text for people and scripts: measure widths, write times and sizes."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here: lists of sessions are drawn within milliseconds
    from datetime import datetime


_CELLS: dict[str, int] = {}
"""How many columns a character occupies, as far as it has been asked for: the tables are searched once for each."""
# By number: a name would have Python load `unicodedata` where it compiles this module.
_EMOJI_STYLE = "\ufe0f"  # variation selector 16
_SOFT_HYPHEN = "\u00ad"


def _cells(character: str) -> int:
    # Not at the top: most text is ASCII, and the tables are a shared library of their own to load.
    from unicodedata import category, east_asian_width

    # Nonspacing and enclosing marks and format characters have no width; wide ones have two (Annex 11).
    if category(character) in ("Mn", "Me", "Cf") and character != _SOFT_HYPHEN:
        found = 0
    else:
        found = 2 if east_asian_width(character) in "WF" else 1
    _CELLS[character] = found
    return found


def width(text: str) -> int:
    """Return how many columns `text` occupies on a terminal."""
    if text.isascii():
        return len(text)
    total = 0
    known = _CELLS.get
    for character in text:
        cells = known(character)
        total += _cells(character) if cells is None else cells
    if _EMOJI_STYLE in text:  # what is before it is shown as an emoji, which is wide (Standard 51, 1.4.1)
        total += sum(width(before[-1:]) == 1 for before in text.split(_EMOJI_STYLE)[:-1])
    return total


def take(text: str, columns: int) -> str:
    """Return the longest beginning of `text` that is no wider than `columns`."""
    if text.isascii():
        return text[: max(0, columns)]
    # A character and what is combined with it stay together: where the next one would be too much is the end.
    end, used = 0, 0
    for number, character in enumerate(text):
        cells = width(character)
        if character == _EMOJI_STYLE and width(text[number - 1 : number]) == 1:
            cells = 1
        if cells and character != _EMOJI_STYLE:
            end = number
        used += cells
        if used > columns:
            return text[:end]
    return text


def take_end(text: str, columns: int) -> str:
    """Return the longest end of `text` that is no wider than `columns`, and begins with no combining character."""
    start = max(0, len(text) - max(0, columns))
    while start < len(text) and (width(text[start:]) > columns or not width(text[start])):
        start += 1
    return text[start:]


def rfc3339(moment: datetime) -> str:
    """Return a time as in the protocol: UTC, with a Z."""
    from datetime import UTC

    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


_UNITS = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def duration(seconds: float) -> str:
    """Return a length of time as its largest unit: `3m`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"


def span_ago(seconds: float) -> str:
    """Return how long ago something was: `3m ago`; less than nothing is in the future."""
    if seconds < -1:
        return f"in {duration(-seconds)}"
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


def ago(moment: datetime) -> str:
    """Return how long ago a time was: `3m ago`."""
    return span_ago(time.time() - moment.timestamp())


def size(count: int) -> str:
    """Return a number of bytes as people read it: `1.2 MiB`."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1023.95:  # which is 1024.0 when it is rounded
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def plural(count: int, noun: str) -> str:
    """Return `1 session`, `2 sessions`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
