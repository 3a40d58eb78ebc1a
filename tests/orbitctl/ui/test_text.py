"""Text for people: what may steer a terminal, widths, times and sizes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from orbitctl.ui import text


@pytest.mark.parametrize(("word", "columns"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("é", 1), ("👍", 2)])
def test_width_is_counted_in_columns(word: str, columns: int) -> None:
    """Wide characters take two columns, combining ones none."""
    assert text.width(word) == columns


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(milliseconds=10), "just now"),
        (timedelta(seconds=5), "5s ago"),
        (timedelta(seconds=185), "3m ago"),
        (timedelta(hours=50), "2d ago"),
        (timedelta(days=800), "2y ago"),
        (timedelta(seconds=-90), "in 1m"),
    ],
)
def test_times_are_told_by_their_largest_unit(span: timedelta, words: str) -> None:
    """A time is how long ago it was, rounded down."""
    assert text.ago(datetime.now(UTC) - span) == words


def test_times_are_written_in_utc() -> None:
    """A time with another zone is the same moment in UTC."""
    assert text.rfc3339(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_sizes_have_binary_units(count: int, words: str) -> None:
    """Sizes are told in powers of 1024."""
    assert text.size(count) == words
