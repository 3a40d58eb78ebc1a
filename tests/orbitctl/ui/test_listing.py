"""Tables, laid out: what is cut, what is left out, and what of a session is shown."""

from __future__ import annotations

import random
import re
from datetime import datetime
from typing import Any

import pytest

from orbitctl.ui.listing import (
    LIST_COLUMNS,
    LS_ALL_COLUMNS,
    LS_COLUMNS,
    Column,
    View,
    idle_seconds,
    news,
    sessions_table,
    state,
    table,
    timestamp,
)
from orbitctl.ui.text import take, width

NOW = timestamp("2026-03-01T12:00:00Z")
LETTERS = ["a", "b", "-", "日", "é", "e\u0301", "👍", "❤\ufe0f", "\u202e", "w"]


def session(number: int, name: str | None = None, command: str | None = None, **more: Any) -> dict[str, Any]:
    """Return the JSON of a live session."""
    return {
        "id": f"{number:08x}-0000-4000-8000-000000000000",
        "name": name,
        "session_type": "local",
        "created_at": "2026-03-01T11:00:00Z",
        "last_active": "2026-03-01T11:57:00.5Z",
        "status": "detached",
        "config": {"session_type": "local", "command": command},
        "workspace_id": None,
        "live": True,
        "cols": 80,
        "rows": 24,
        "clients": 0,
        "title": None,
        "last_saved_at": "2026-03-01T11:30:00Z",
        **more,
    }


def drawn(rows: list[dict[str, Any]], columns: tuple[str, ...] = LS_COLUMNS, at: int = 80, **view: Any) -> list[str]:
    view = {"terminal": True, "width": at, "now": NOW, **view}
    return sessions_table(rows, columns, View(**view)).splitlines()


def titles(lines: list[str]) -> list[str]:
    return lines[0].split()


@pytest.mark.parametrize("columns", [LS_COLUMNS, LS_ALL_COLUMNS, LIST_COLUMNS], ids=["ls", "ls -a", "session list"])
@pytest.mark.parametrize("seed", range(40))
def test_no_line_is_too_long_and_names_are_whole(columns: tuple[str, ...], seed: int) -> None:
    """At every width from 20 columns no line is wider, and a name of 24 cells or less is whole where it fits."""
    chance = random.Random(seed)
    names = [
        take("".join(chance.choices(LETTERS, k=chance.randint(1, 40))), chance.choice((8, 24, 60))) for _ in "12345"
    ]
    rows = [
        session(number, name, "c" * chance.randint(0, 90) or None, title=chance.choice((None, "\x1b[2J日" * 999)))
        for number, name in enumerate([*dict.fromkeys(names), None])
    ]
    at = chance.randint(20, 200)
    lines = drawn(rows, columns, at, here=rows[0]["id"] if seed % 2 else None)
    assert [line for line in lines if width(line) > at] == []
    shown = [View(terminal=True).text(name) for name in names]
    whole = [name for name in shown if width(name) <= min(24, at - 2)]
    assert [name for name in whole if not any(name in line for line in lines)] == []


@pytest.mark.parametrize(
    ("at", "left"),
    [
        (95, "ID NAME STATUS TYPE LIVE SIZE CLIENTS IDLE SAVED COMMAND"),
        (94, "ID NAME STATUS TYPE LIVE CLIENTS IDLE SAVED COMMAND"),
        (87, "ID NAME STATUS TYPE LIVE CLIENTS IDLE COMMAND"),
        (78, "ID NAME STATUS LIVE CLIENTS IDLE COMMAND"),
        (71, "ID NAME STATUS LIVE IDLE COMMAND"),
        (62, "ID NAME STATUS IDLE COMMAND"),
        (45, "NAME STATUS IDLE COMMAND"),
        (34, "NAME STATUS IDLE"),
        (20, "NAME STATUS"),
    ],
)
def test_columns_go_by_rank(at: int, left: str) -> None:
    """SIZE, SAVED, TYPE and CLIENTS are left out first; of what is left the command is cut."""
    lines = drawn([session(1, "build-web", "npm run dev -- --port 3000"), session(2, "build-api")], LIST_COLUMNS, at)
    assert titles(lines) == left.split()
    assert "build-web" in lines[1]
    assert "build-api" in lines[2]


@pytest.mark.parametrize(
    ("at", "row"),
    [
        (60, "n" * 24 + "  detached    2m  npm run dev -- --…"),
        (50, "n" * 24 + "  detached    2m  npm run…"),
        (40, "n" * 24 + "  detached    2m"),
        (36, "n" * 24 + "  detached"),
        (24, "n" * 24),
        (20, "n" * 19 + "…"),
    ],
)
def test_the_command_takes_the_rest(at: int, row: str) -> None:
    """COMMAND is what is cut, then it is left out; a name of 24 cells is whole down to 24 columns."""
    assert drawn([session(1, "n" * 24, "npm run dev -- --port 3000")], at=at)[1] == row


def test_a_long_name_takes_from_the_command() -> None:
    """A longer name is whole as long as 8 cells of the command are there, and is cut then, at its end."""
    rows = [session(1, "n" * 54, "npm run dev"), session(2, "web")]
    assert drawn(rows)[1] == "n" * 54 + "  detached    2m  npm run…"
    assert drawn(rows, at=79)[1] == "n" * 52 + "…  detached    2m  npm run…"


def test_cut_names_that_differ_read_differently() -> None:
    """Names that are alike as far as they can be shown are cut in the middle."""
    rows = [session(1, "build-web-frontend-staging-one"), session(2, "build-web-frontend-staging-two")]
    assert drawn(rows, at=24)[1:] == ["build-web-fr…staging-one", "build-web-fr…staging-two"]


def test_a_session_without_a_name_shows_what_can_be_typed() -> None:
    """The first digits of its id, as many as it takes to tell the sessions apart."""
    assert drawn([session(1)])[1].split()[0] == "00000001"
    alike = [session(1, id=f"aaaaaaaa-{end}-4000-8000-000000000000") for end in ("0001", "0002")]
    assert [line.split()[0] for line in drawn(alike)[1:]] == ["aaaaaaaa-0001", "aaaaaaaa-0002"]
    assert [line.split()[0] for line in drawn(alike, terminal=False)[1:]] == [one["id"] for one in alike]
    assert drawn([session(1)], LIST_COLUMNS, 40)[1].split()[0] == "00000001"


def test_names_that_two_sessions_had_have_their_ids_beside_them() -> None:
    """A name means the newest of them, so the ids say which is which."""
    ended = {"status": "terminated", "live": False}
    lines = drawn([session(1, "web", **ended), session(2, "web", **ended)], LS_ALL_COLUMNS)
    assert titles(lines)[:2] == ["ID", "NAME"]
    assert [line.split()[:2] for line in lines[1:]] == [["00000001", "web"], ["00000002", "web"]]
    apart = [session(1, "web", machine="one"), session(2, "web", machine="two")]
    assert titles(drawn(apart, ("machine", *LS_COLUMNS)))[:2] == ["HOST", "NAME"]


def test_in_a_pipe_nothing_is_cut_or_left_out() -> None:
    """Every column of `session list` but the news is there, whole, and the first word of `ls` is the name."""
    rows = [session(1, "n" * 100, "c" * 100), session(2)]
    lines = drawn(rows, LIST_COLUMNS, 20, terminal=False)
    assert len(titles(lines)) == len(LIST_COLUMNS) - 1
    assert rows[0]["id"] in lines[1]
    assert "n" * 100 in lines[1]
    assert lines[1].endswith("c" * 100)
    assert drawn(rows, terminal=False, here=rows[0]["id"])[1].split()[0] == "n" * 100


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"status": "active", "clients": 1}, "attached"),
        ({}, "detached"),
        ({"live": False}, "lost"),
        ({"live": False, "exit_code": 255}, "lost"),
        ({"live": False, "cols": None, "status": "active"}, "recorded"),
        ({"live": False, "cols": 80, "status": "active"}, "recorded"),
        ({"live": False, "status": "terminated", "exit_code": 1}, "exit 1"),
        ({"live": False, "status": "terminated", "exit_signal": 9}, "signal KILL"),
        ({"live": False, "status": "terminated", "exit_signal": 40}, "signal 40"),
        ({"live": False, "status": "terminated"}, "ended"),
        ({"live": False, "status": "archived", "exit_code": 0}, "archived"),
    ],
)
def test_a_status_says_what_became_of_the_program(more: dict[str, Any], shown: str) -> None:
    """Attached or detached while it runs, then how it ended, or that it is lost or never ran here."""
    assert state(session(1, **more)) == shown


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({}, 179.5),
        ({"last_output_at": "2026-03-01T11:58:00Z"}, 120),
        ({"last_output_at": "2026-03-01T11:58:00Z", "last_input_at": "2026-03-01T11:59:00Z"}, 60),
        ({"last_input_at": "2026-03-01T12:00:05Z"}, 0),
    ],
)
def test_idle_counts_from_the_last_output_or_key(more: dict[str, Any], seconds: float) -> None:
    """What is saved or detached later does not count; without either, the last change does."""
    assert idle_seconds(session(1, **more), NOW) == seconds


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"command": "bash", "title": "ada@host: ~"}, "ada@host: ~"),
        ({"command": "bash", "title": "ada@host: ~", "live": False}, "bash"),
        ({"command": "bash"}, "bash"),
        ({"command": "bash", "title": "  "}, "bash"),
        ({}, "(login shell)"),
        ({"cols": None, "live": False}, "-"),
        ({"config": {"record": "none"}}, "(private)"),
        ({"config": {"record": "none"}, "title": "vim"}, "(private) vim"),
        (
            {"session_type": "ssh", "config": {"host": "db", "username": "ada", "port": 22, "command": None}},
            "ssh ada@db:22",
        ),
    ],
)
def test_command_is_the_title_or_what_runs(more: dict[str, Any], shown: str) -> None:
    """The title while the program runs that has set it, else the command, else the shell."""
    assert drawn([session(1, "a", **more)])[1].endswith(f"  {shown}")


def test_marks_say_where_we_are_and_what_rang() -> None:
    """`*` is the session that the command runs in, `!` one that wants to be looked at."""
    rows = [
        session(1, "here"),
        session(2, "rang", bell=True),
        session(3, "broken", screen="damaged"),
        session(4, "said", notification={"title": "", "body": "x", "urgency": "low"}),
        session(5, "x", unseen_output=True),
    ]
    assert [line[:3] for line in drawn(rows, here=rows[0]["id"])[1:]] == ["* h", "! r", "! b", "! s", "  x"]


NOTE = {"title": "\x1b[31m", "body": "x", "urgency": "normal"}


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, None),
        ({"bell": False, "notification": None, "unseen_output": False, "progress": None}, None),
        ({"unseen_output": True}, "output"),
        ({"unseen_output": True, "bell": True}, "bell"),
        ({"unseen_output": True, "bell": True, "notification": NOTE}, "notification"),
        ({"progress": {"state": "normal", "percent": 45}}, "45%"),
        ({"progress": {"state": "normal", "percent": None}}, "busy"),
        ({"progress": {"state": "indeterminate", "percent": None}}, "busy"),
        ({"progress": {"state": "error", "percent": 45}}, "error"),
        ({"progress": {"state": "paused", "percent": 45}, "bell": True}, "bell,paused"),
    ],
)
def test_news_is_one_word_and_the_progress(more: dict[str, Any], shown: str | None) -> None:
    """The strongest of what has happened since the user left, and how far the program says it is."""
    assert news(session(1, **more)) == shown
    lines = drawn([session(1, "a", **more), session(2, "b", "make")])
    assert ("NEWS" in lines[0]) == (shown is not None)
    plain = drawn([session(1, "a", "make", **more)], terminal=False)
    assert plain[0].split() == ["NAME", "STATUS", "IDLE", "NEWS", "COMMAND"]
    assert plain[1].split()[3:] == [shown or "-", "make"]
    assert "NEWS" not in drawn([session(1, "a", **more)], LIST_COLUMNS, terminal=False)[0]


def test_news_is_left_out_before_a_name_is_cut() -> None:
    """On a narrow terminal the mark says that a session wants to be looked at."""
    lines = drawn([session(1, "n" * 24, "make", notification=NOTE)], at=40)
    assert "NEWS" not in lines[0]
    assert lines[1].startswith("! " + "n" * 24)


def test_nothing_in_a_cell_steers_the_terminal() -> None:
    """Control characters and overrides of direction are escapes, and count as such."""
    (line,) = drawn([session(1, "a\u202eb", "\x1b]0;x\x07")])[1:]
    assert line.startswith("a\\u202eb  ")
    assert line.endswith("\\x1b]0;x\\x07")


def test_colours_add_no_width() -> None:
    """Without its escapes a coloured table is the plain one."""
    rows = [session(1, "日本", "x" * 99), session(2, "web", status="active")]
    coloured = "\n".join(drawn(rows, colour=True))
    assert "\x1b[32mattached\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured).split("\n") == drawn(rows)


def test_what_stdout_cannot_encode_is_an_escape_of_its_real_width() -> None:
    """In a locale without them, letters and the ellipsis are escapes, and lines still fit."""
    lines = drawn([session(1, "日本", "x" * 99)], encoding="ascii", at=60)
    assert "\\u65e5\\u672c" in lines[1]
    assert lines[1].endswith("\\u2026")
    assert all(len(line) <= 60 for line in lines)


def test_an_id_that_must_be_given_whole_is_never_cut() -> None:
    """A column that is not elastic and has rank 0 stays whole where the terminal is narrower than it."""
    columns = [Column("ID", lambda row, _: row), Column("TAKEN", lambda _, __: "1m ago", rank=1)]
    assert table(columns, ["i" * 36], View(terminal=True, width=20)) == f"ID\n{'i' * 36}\n"


@pytest.mark.parametrize(
    "moment",
    [
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00Z",
        "2000-02-29T12:00:00.25Z",
        "2024-12-31T23:59:59.999999Z",
        "2026-03-01T01:00:00+02:00",
        "2100-03-01T00:00:00-09:30",
    ],
)
def test_times_are_read_as_datetime_reads_them(moment: str) -> None:
    """With fractions, leap days and zones."""
    assert timestamp(moment) == pytest.approx(datetime.fromisoformat(moment).timestamp(), abs=1e-6)
