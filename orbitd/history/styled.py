"""Lines of a history with their colours: the film is played up to where they had left the screen, and drawn.

Lines and rows of a picture are joined by their text: where a picture does not hold a line any more, as in a flood, or
where there is no film, the line has no colours.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import itertools
import re
import sqlite3
from collections.abc import Sequence
from functools import partial

from orbit_protocol.errors import OrbitError
from orbitd.history import film
from orbitd.history.database import NoteDamage
from orbitd.history.history import History
from orbitd.history.scenes import Reel, Scenes, read_reel, reel_of
from orbitd.screens.model import MAX_SCROLLBACK_LINES, Cut

MAX_REELS = 4
"""So many groups of a film are played for a page of lines; the lines of others have no colours."""

PLAY_SECS = 5.0
"""How long that may take."""

MAX_STYLED_BYTES = 4 << 20
"""Of all lines together; those behind have no colours. A line may have a style for each of its cells."""

MAX_CANDIDATES = 64
"""So many rows are tried as the end of the lines that are looked for."""

MAX_PICTURE_LINES = MAX_SCROLLBACK_LINES + 1_000
"""A picture holds no more: its history, and its screen."""

_TAG = re.compile(r"<(?:/|span |a )[^>]*>")
_SEQUENCE = re.compile("\x1b\\[[0-9;:]*m")


async def styled(
    history: History, scenes: Scenes, session_id: str, lines: Sequence[tuple[int, str]], how: str
) -> dict[int, str]:
    """Return lines with their colours, by their numbers; those are missing that no picture holds.

    Args:
        history: The films.
        scenes: Draws them.
        session_id: The session.
        lines: Number and text, in the order of their numbers.
        how: `html` or `vt`.
    """
    found: dict[int, str] = {}
    if not lines:
        return found
    work = partial(_groups, session_id=session_id, first=lines[0][0], last=lines[-1][0])
    nothing: list[tuple[int, int, int]] = []
    groups = await history.read(work, nothing)
    with contextlib.suppress(TimeoutError, OrbitError):  # the text is there without colours
        async with asyncio.timeout(PLAY_SECS):
            for position, begin, end in groups[-MAX_REELS:]:
                wanted = [line for line in lines if begin <= line[0] < end]
                if wanted:
                    rows = await _rows(history, scenes, session_id, position, how)
                    found.update(_joined(wanted, rows, how))
    room = MAX_STYLED_BYTES
    for number in sorted(found):
        room -= len(found[number].encode())
        if room < 0:
            del found[number]
    return found


def _groups(connection: sqlite3.Connection, session_id: str, first: int, last: int) -> list[tuple[int, int, int]]:
    """Return the groups whose last picture may hold some lines: position, and these lines, to before the last."""
    rows = connection.execute(
        "SELECT position, line FROM groups WHERE session_id = ? ORDER BY position", (session_id,)
    ).fetchall()
    film = connection.execute("SELECT next_line FROM films WHERE session_id = ?", (session_id,)).fetchone()
    end_of_all = max(last + 1, film[0] if film else 0)
    # To play a group takes seconds: of a flood, where pictures hold few of the lines, most pages need none.
    groups = [
        (at, max(begin, end - MAX_PICTURE_LINES), end)
        for (at, begin), (_, end) in itertools.pairwise([*rows, (0, end_of_all)])
    ]
    return [(at, begin, end) for at, begin, end in groups if begin < end and begin <= last and end > first]


async def _rows(history: History, scenes: Scenes, session_id: str, position: int, how: str) -> list[str]:
    """Return the rows of history and screen at the end of a group. Raises: OrbitError."""
    reel = await read_reel(
        history, partial(_reel, session_id=session_id, position=position, note_damage=history.note_damage)
    )
    if reel is None:
        return []
    async with scenes.playing(session_id, reel) as picture:
        drawn = await picture.render(reel.end, how, scrollback=True, cut=Cut(first=0))
    text = drawn.data.decode("utf-8", "replace")
    if how == "vt":
        return _closed(text.split("\r\n")[:-1], _SEQUENCE, is_html=False)
    return _closed(text[text.index(">") + 1 : text.rindex("</pre>")].split("\n")[:-1], _TAG, is_html=True)


def _reel(connection: sqlite3.Connection, session_id: str, position: int, note_damage: NoteDamage) -> Reel | None:
    group = next(film.groups_from(connection, session_id, position, note_damage), None)
    if group is None or group.position != position:
        return None
    return reel_of(group, film.parts_of(connection, group, note_damage))


def _closed(rows: Sequence[str], change: re.Pattern[str], *, is_html: bool) -> list[str]:
    """Return rows of which each begins and ends with the plain style, which may have gone on from row to row."""
    found, style = [], list[str]()
    for row in rows:
        begin = "".join(style)
        for match in change.finditer(row):
            sequence = match[0]
            if sequence.startswith("</"):
                del style[-1:]
            elif sequence in ("\x1b[0m", "\x1b[m"):
                style.clear()
            else:
                style.append(sequence)
        if is_html:
            end = "".join("</a>" if tag.startswith("<a ") else "</span>" for tag in reversed(style))
        else:
            end = "\x1b[0m" if style else ""
        found.append(f"{begin}{row}{end}")
    return found


def _joined(lines: Sequence[tuple[int, str]], rows: Sequence[str], how: str) -> dict[int, str]:
    """Return the rows of lines, by the lines' numbers: where most of them stand one behind the other."""
    plain = [_SEQUENCE.sub("", row) if how == "vt" else html.unescape(_TAG.sub("", row)) for row in rows]
    best: dict[int, str] = {}
    candidates = (index for index in range(len(plain), 0, -1) if lines[-1][1].endswith(plain[index - 1].rstrip()))
    for end in itertools.islice(candidates, MAX_CANDIDATES):
        found: dict[int, str] = {}
        for number, text in reversed(lines):
            begin = _begin_of(text, plain, end)
            if begin is None:
                break
            found[number] = "".join(rows[begin:end])
            end = begin
        if len(found) > len(best):
            best = found
        if len(best) == len(lines):
            break
    return best


def _begin_of(text: str, rows: Sequence[str], end: int) -> int | None:
    """Return where the rows of a line begin that end before `end`; None where these are of another line."""
    joined = ""
    for begin in range(end - 1, -1, -1):
        joined = rows[begin] + joined
        if joined.rstrip() == text.rstrip():
            return begin
        if len(joined.rstrip()) > len(text):
            return None
    return None
