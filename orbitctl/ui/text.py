"""Format text for people and scripts: measure widths, write times and sizes."""

from __future__ import annotations

from datetime import UTC, datetime


def width(text: str) -> int:
    """Return how many columns `text` occupies on a terminal."""
    if text.isascii():
        return len(text)
    # Not at the top: most text is ASCII, and the tables are a shared library of their own to load.
    from unicodedata import category, east_asian_width

    def columns(character: str) -> int:
        # Nonspacing and enclosing marks and format characters have no width; wide ones have two (Annex 11).
        if category(character) in ("Mn", "Me", "Cf"):
            return 0
        return 2 if east_asian_width(character) in "WF" else 1

    return sum(columns(character) for character in text)


def pad(text: str, columns: int) -> str:
    """Return `text` with blanks up to a number of columns."""
    return text + " " * (columns - width(text))


def rfc3339(moment: datetime) -> str:
    """Return a time as in the protocol: UTC, with a Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


_UNITS = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def duration(seconds: float) -> str:
    """Return a length of time as its largest unit: `3m`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"


def ago(moment: datetime) -> str:
    """Return how long ago a time was: `3m ago`."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds < -1:
        return f"in {duration(-seconds)}"
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


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
