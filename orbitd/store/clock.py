"""Times as the database holds them: RFC 3339, UTC, microseconds, so that text order is time order."""

from __future__ import annotations

from datetime import UTC, datetime

from orbit_protocol.errors import InvalidParams


def now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


def to_text(moment: datetime) -> str:
    """Write a moment in the fixed width that sorts. Raises: InvalidParams."""
    try:
        utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidParams(f"{moment.isoformat()} is in no year from 1 to 9999 of UTC") from error
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def from_text(text: str) -> datetime:
    """Read what `to_text` wrote."""
    return datetime.fromisoformat(text)


def file_stamp(moment: datetime) -> str:
    """Write a moment for a file name, to the second."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
