"""Moments as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from orbitctl.moments import parse_moment

NOW = datetime(2026, 11, 27, 16, 0, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def local_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Live two hours and a half east of Greenwich: it is 18:30:30 there."""
    monkeypatch.setenv("TZ", "EAST-2:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-11-27T16:00:30"),
        ("0s", "2026-11-27T16:00:30"),
        ("2h", "2026-11-27T14:00:30"),
        ("10m", "2026-11-27T15:50:30"),
        ("2w", "2026-11-13T16:00:30"),
        ("3 days", "2026-11-24T16:00:30"),
        ("10 minutes ago", "2026-11-27T15:50:30"),
        ("10min ago", "2026-11-27T15:50:30"),
        ("1 hour ago", "2026-11-27T15:00:30"),
        ("1h30m", "2026-11-27T14:30:30"),
        ("1 hour 30 minutes ago", "2026-11-27T14:30:30"),
        ("  10  Minutes\tAGO ", "2026-11-27T15:50:30"),
        ("today", "2026-11-26T21:30:00"),
        ("yesterday", "2026-11-25T21:30:00"),
        ("today 9:05", "2026-11-27T06:35:00"),
        ("yesterday 15:10", "2026-11-26T12:40:00"),
        ("yesterday 15:10:05", "2026-11-26T12:40:05"),
        ("15:10", "2026-11-27T12:40:00"),
        ("18:30:30", "2026-11-27T16:00:30"),
        ("18:31", "2026-11-26T16:01:00"),
        ("23:59:59", "2026-11-26T21:29:59"),
        ("2026-11-20", "2026-11-19T21:30:00"),
        ("2026-11-20 15:10", "2026-11-20T12:40:00"),
        ("2026-11-20T15:10:05.25", "2026-11-20T12:40:05.250000"),
        ("2026-11-20T15:10:00Z", "2026-11-20T15:10:00"),
        ("2026-11-20t15:10:00z", "2026-11-20T15:10:00"),
        ("2026-11-20 15:10:00+01:00", "2026-11-20T14:10:00"),
        ("@1700000000", "2023-11-14T22:13:20"),
        ("@1700000000.5", "2023-11-14T22:13:20.500000"),
    ],
)
def test_a_text_names_a_moment(text: str, moment: str) -> None:
    """Spans are counted back from now, and what has no zone is local time."""
    parsed = parse_moment(text, NOW)

    assert parsed == datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert parsed.utcoffset() == timedelta()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "ago",
        "10",
        "10 parsecs ago",
        "-2h",
        "2h foo",
        "1 h 2",
        "25:00",
        "15:60",
        "yesterday 24:00",
        "2026-02-30",
        "2026-11-20 25:00",
        "0001-01-01",
        "999999999w",
        "@",
        "@-1",
        "@999999999999",
        "\u0661\u0660 minutes ago",
        "2h\x00",
    ],
)
def test_what_names_none_is_refused_in_plain_words(text: str) -> None:
    """The message quotes the text and gives examples, whatever is wrong with it."""
    with pytest.raises(ValueError, match="is no moment; 2h, '10 minutes ago'") as caught:
        parse_moment(text, NOW)
    assert repr(text) in str(caught.value)


def test_yesterday_is_a_day_of_the_calendar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a change of the clocks, yesterday at 15:10 is not 24 hours before today at 15:10."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    now = datetime(2026, 10, 25, 16, 0, tzinfo=UTC)

    assert parse_moment("15:10", now) - parse_moment("yesterday 15:10", now) == timedelta(hours=25)
