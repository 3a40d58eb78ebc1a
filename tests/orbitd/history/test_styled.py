"""Lines with their colours: which parts of a film are played for them."""

from __future__ import annotations

from pathlib import Path

from history_rows import BEGIN, ONE, Rows
from orbitd.history.recorder import KeyFrame, insert_group
from orbitd.history.styled import MAX_PICTURE_LINES, _groups


def test_only_groups_whose_last_picture_may_hold_the_lines_are_played(tmp_path: Path) -> None:
    """Of a flood a picture holds the last lines of a group alone: for a page of others nothing is played."""
    rows = Rows(tmp_path)
    for position, line in ((0, 0), (1000, 100_000), (2000, 100_500)):
        frame = KeyFrame(position=position, at=BEGIN, line=line, cols=80, rows=24)
        insert_group(rows.connection, ONE, frame)
    columns = "session_id, recorded_to, next_line, raw_bytes, film_bytes, text_bytes"
    rows.connection.execute(f"INSERT INTO films ({columns}) VALUES (?, 0, 200000, 0, 0, 0)", (ONE,))
    oldest, newest = 100_000 - MAX_PICTURE_LINES, 200_000 - MAX_PICTURE_LINES
    assert _groups(rows.connection, ONE, 0, oldest - 1) == []
    assert _groups(rows.connection, ONE, oldest - 9, oldest) == [(0, oldest, 100_000)]
    assert _groups(rows.connection, ONE, 99_999, 100_000) == [(0, oldest, 100_000), (1000, 100_000, 100_500)]
    assert _groups(rows.connection, ONE, 100_600, 150_000) == []
    assert _groups(rows.connection, ONE, 199_990, 200_020) == [(2000, newest + 21, 200_021)]
    rows.connection.close()
