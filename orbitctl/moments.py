"""Moments as people write them: `10 minutes ago`, `yesterday 15:10`, `2026-11-20`. No I/O, and the clock is given."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

EXAMPLES = "2h, '10 minutes ago', 'yesterday 15:10', 15:10, 2026-11-20 or '2026-11-20 15:10'"
"""For help and messages."""

_UNITS = {
    unit: seconds
    for seconds, units in {
        1: "s sec secs second seconds",
        60: "m min mins minute minutes",
        3_600: "h hr hrs hour hours",
        86_400: "d day days",
        604_800: "w week weeks",
    }.items()
    for unit in units.split()
}
_SPAN = re.compile(r"([0-9]{1,9}) ?([a-z]+)")
_SPANS = re.compile(rf"({_SPAN.pattern}(?: |(?=[0-9])|$))+")
_CLOCK = r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?"
_DAY = re.compile(rf"(today|yesterday)(?: {_CLOCK})?")
_TIME = re.compile(_CLOCK)
_EPOCH = re.compile(r"@([0-9]{1,12}(?:\.[0-9]{1,6})?)")


def parse_moment(text: str, now: datetime) -> datetime:
    """Return the moment that a text names, in UTC.

    That is a span back from now (`2h`, `1h30m`, `3 days`, `10 minutes ago`), `now`, a day or a time of one
    (`yesterday`, `yesterday 15:10`), a time (today's, or yesterday's where today's is still to come), a date or a time
    of RFC 3339, or seconds since 1970 (`@1700000000`). A day begins at 0:00. Where the text has no zone, it is local.

    Args:
        text: What was written; case and the number of blanks don't count.
        now: The present, with a zone.

    Raises:
        ValueError: It names none; the message says so in plain words.
    """
    words = " ".join(text.lower().split())
    try:
        return _moment(words, now).astimezone(UTC)
    except (ValueError, OverflowError, OSError):  # of datetime: no such day, or none that it can count to
        raise ValueError(f"{text!r} is no moment; {EXAMPLES} are, for example") from None


def _moment(words: str, now: datetime) -> datetime:
    """Return it, without a zone where that is the local one. Raises: ValueError, OverflowError, OSError."""
    today = now.astimezone().date()
    if words == "now":
        return now
    if found := _EPOCH.fullmatch(words):
        return datetime.fromtimestamp(float(found[1]), UTC)
    span = words.removesuffix(" ago")
    if _SPANS.fullmatch(span):
        seconds = [int(count) * _seconds(unit) for count, unit in _SPAN.findall(span)]
        return now - timedelta(seconds=sum(seconds))
    if found := _DAY.fullmatch(words):
        day = today - timedelta(days=found[1] == "yesterday")
        return _at(day, *found.groups("0")[1:])
    if found := _TIME.fullmatch(words):
        moment = _at(today, *found.groups("0"))
        # The day before by the calendar: where the clocks were changed in between, that is not 24 hours ago.
        return moment if moment.astimezone() <= now else _at(today - timedelta(days=1), *found.groups("0"))
    return datetime.fromisoformat(words.upper())


def _seconds(unit: str) -> int:
    if unit not in _UNITS:
        raise ValueError(unit)
    return _UNITS[unit]


def _at(day: date, hours: str, minutes: str, seconds: str) -> datetime:
    return datetime.combine(day, time(int(hours), int(minutes), int(seconds)))
