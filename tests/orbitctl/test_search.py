"""`orbitctl search`: in a pipe, on a terminal with and without colours, through a pager, and page by page."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import click
import pytest

from ctl_support import Orbitctl
from orbit_protocol.errors import Busy
from orbit_protocol.results import SearchPage
from orbitctl.commands.search import search
from orbitctl.errors import CommandError, ExitCode
from orbitd.history.text_blocks import NO_NUMBER, Line
from search_support import Filled
from support import DaemonProcess

NOTHING_CHOSEN = {
    **dict.fromkeys(("regex", "session", "workspace", "since", "until")),
    "text": "x",
    "labels": (),
    "context": 0,
    "limit": 1,
    "ignore_case": False,
    "case_sensitive": False,
}
NOW = int(time.time() * 1000)


@pytest.fixture
def filled(daemon: DaemonProcess) -> Iterator[Filled]:
    """Return the history of a daemon of its own."""
    found = Filled(daemon.database_path.parent)
    yield found
    found.connection.close()


@pytest.fixture
def ids(own_ctl: Orbitctl, filled: Filled) -> list[str]:
    """Return the ids of two sessions, `web` with the newest line and `db`, and a third that has ended."""
    ids = [own_ctl.id("session", "create", "--name", name) for name in ("web", "db", "old")]
    web, db, old = ids
    lines = ["start", "listening on 80", "GET /needle", "ok", "GET /x", "GET /Needle/\x1b[31m\u202e", "end"]
    filled.row(web, [Line(number=number, at=NOW + number, text=text) for number, text in enumerate(lines)])
    filled.row(db, [Line(number=7, at=NOW - 90_000_000, text="a needle in the database")])
    filled.row(old, [Line(number=NO_NUMBER, at=NOW - 200_000_000, text="~ needle of vim")])
    own_ctl.ok("session", "terminate", "old")
    return ids


def test_in_a_pipe_each_line_has_its_session_and_its_time(own_ctl: Orbitctl, ids: list[str]) -> None:
    """Lines come by session, that with the newest line first, in the order in which they were shown, as they are."""
    lines = [re.split("  ", line, maxsplit=2) for line in own_ctl.ok("search", "needle").lines]
    assert [(name, text) for name, _, text in lines] == [
        ("web", "GET /needle"),
        ("web", "GET /Needle/\x1b[31m\u202e"),
        ("db", "a needle in the database"),
        ("old", "~ needle of vim"),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", moment) for _, moment, _ in lines)


def test_a_line_that_was_cut_is_not_searched_again(own_ctl: Orbitctl, filled: Filled) -> None:
    """Where an expression does not fit what is left of a long line, it may take for ever to find that out."""
    session = own_ctl.id("session", "create", "--name", "web")
    filled.row(session, [Line(number=0, at=NOW, text="start " + "a" * 20_000 + "b")])
    shown = own_ctl.on_terminal("search", "-e", "start (a+)+b")
    assert b"start aaaa" in shown.out
    assert shown.code == 0


def test_what_is_searched_can_be_chosen(own_ctl: Orbitctl, ids: list[str]) -> None:
    """Case, expressions, sessions, times and the limit choose the lines."""
    choices: list[tuple[list[str], list[str]]] = [
        (["Needle"], ["GET /Needle/\x1b[31m\u202e"]),
        (["-s", "needle"], ["GET /needle", "a needle in the database", "~ needle of vim"]),
        (["-i", "NEEDLE", "--session", "db"], ["a needle in the database"]),
        (["-e", r"^GET /\w+$"], ["GET /needle", "GET /x"]),
        (["needle", "--since", "1d"], ["GET /needle", "GET /Needle/\x1b[31m\u202e"]),
        (["needle", "--until", "2 days ago"], ["~ needle of vim"]),
        (["needle", "-n", "1"], ["GET /Needle/\x1b[31m\u202e"]),
    ]
    for arguments, expected in choices:
        lines = own_ctl.ok("search", *arguments).lines
        assert [re.split("  ", line, maxsplit=2)[2] for line in lines] == expected, arguments


def test_lines_around_hits(own_ctl: Orbitctl, ids: list[str]) -> None:
    """With -C neighbouring lines are printed once, and dashes stand between lines that do not touch."""
    text = own_ctl.ok("search", "-C1", "-e", "listening|/[Nx]", "--session", "web").lines
    assert [re.split("  ", line, maxsplit=2)[-1] for line in text] == [
        *("start", "listening on 80", "GET /needle", "ok", "GET /x", "GET /Needle/\x1b[31m\u202e", "end")
    ]
    text = own_ctl.ok("search", "-C1", "-e", "start|end", "--session", "web").lines
    assert [re.split("  ", line, maxsplit=2)[-1] for line in text] == [
        *("start", "listening on 80", "--", "GET /Needle/\x1b[31m\u202e", "end")
    ]


def test_many_lines_that_touch(own_ctl: Orbitctl, ids: list[str], filled: Filled) -> None:
    """A hundred thousand hits one behind the other are printed: what that takes grows with their number alone."""
    for start in range(0, 100_000, 1_000):
        numbers = range(start, start + 1_000)
        filled.row(ids[1], [Line(number=number, at=NOW + number, text=f"flood {number}") for number in numbers])
    lines = own_ctl.ok("search", "flood", "-n", "1000000").lines
    assert [line.rsplit(" ", 1)[1] for line in lines] == [str(number) for number in range(100_000)]


def test_nothing_found_is_1_and_usage_is_2(own_ctl: Orbitctl, ids: list[str]) -> None:
    """The exit code is that of grep: 1 where nothing is found; 2 for a command line that is none."""
    ended = own_ctl("search", "nowhere")
    assert (ended.code, ended.out, ended.err) == (1, b"", "")
    assert own_ctl("search").code == 2
    assert own_ctl("search", "a", "-e", "b").code == 2
    assert own_ctl("search", "a", "-i", "-s").code == 2
    assert "error: REGEX is empty" in own_ctl("search", "-e", "").err
    assert own_ctl("search", "").code == 2
    assert own_ctl("search", "a", "--since", "1h", "--until", "2h").code == 2
    assert own_ctl("search", "a", "--session", "unknown").code == 4
    ended = own_ctl("search", "-e", "a(")
    assert ended.code == 2
    assert "error: REGEX is no regular expression: missing ), unterminated subpattern at character 2" in ended.err


def test_json_and_ids(own_ctl: Orbitctl, ids: list[str]) -> None:
    """--json is the answer of the method, -q the ids of the sessions."""
    found = own_ctl.ok("--json", "search", "needle", "-n", "2").json
    assert [hit["line"] for hit in found["hits"]] == [5, 2]
    assert found["complete"] is True
    assert own_ctl.ok("-q", "search", "needle").lines == ids
    assert own_ctl("--json", "search", "nowhere").json["hits"] == []


def test_more_than_a_page(own_ctl: Orbitctl, ids: list[str], filled: Filled) -> None:
    """More lines than one answer may have are asked for page by page."""
    lines = [Line(number=number, at=NOW + 1000, text=f"many {number}") for number in range(100, 12_100)]
    filled.row(ids[0], lines)
    assert len(own_ctl.ok("search", "many", "-n", "100000").lines) == 12_000
    ended = own_ctl.ok("search", "many")
    assert len(ended.lines) == 100
    assert ended.err == "the newest 100 lines; -n shows more\n"


def test_a_page_that_comes_too_late_is_asked_for_again() -> None:
    """Where a busy machine lets no part of the text be read in time, it is asked again, three times in all."""
    late = CommandError("The history could not be read in time")
    late.__cause__ = Busy(late.message)
    page = SearchPage(hits=[], next_cursor=None, searched_bytes=5, complete=True)
    for answers, code in (([late, late, page], ExitCode.ERROR), ([late, late, late], None)):
        app = Mock(json=True, **{"call.side_effect": answers})
        if code is None:
            with pytest.raises(CommandError):
                click.Context(search, obj=app).invoke(search, **NOTHING_CHOSEN)
        else:
            assert click.Context(search, obj=app).invoke(search, **NOTHING_CHOSEN) == code
        assert app.call.call_count == 3


def test_on_a_terminal(own_ctl: Orbitctl, ids: list[str]) -> None:
    """On a terminal lines stand under the names of sessions, matches are in colour, and nothing is obeyed."""
    shown = own_ctl.on_terminal("search", "needle", PAGER="cat", TERM="xterm", NO_COLOR="").text
    web, db, _ = ids
    assert f"\x1b[1;35mweb\x1b[0m  {web[:8]}, 2 lines\n" in shown
    assert f"\n\n\x1b[1;35mdb\x1b[0m  {db[:8]}, 1 line\n" in shown
    assert "GET /\x1b[1;31mneedle\x1b[0m\n" in shown
    assert "GET /\x1b[1;31mNeedle\x1b[0m/\\x1b[31m\\u202e\n" in shown
    plain = own_ctl.on_terminal("search", "needle", PAGER="cat", TERM="xterm", NO_COLOR="1").text
    assert "\x1b" not in plain
    assert "GET /Needle/\\x1b[31m\\u202e\n" in plain
    assert own_ctl.on_terminal("search", "nowhere", TERM="xterm").code == 1


def test_a_pager_on_a_terminal(own_ctl: Orbitctl, ids: list[str], tmp_path: Path) -> None:
    """On a terminal $PAGER shows it, with less's options for what fits; it may leave early, or be missing."""
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho "options $LESS $1"\nsed "s/^/paged /"\n')
    pager.chmod(pager.stat().st_mode | stat.S_IXUSR)
    shown = own_ctl.on_terminal("search", "needle", PAGER=f"{pager} -x", TERM="xterm", NO_COLOR="1")
    assert "options FRX -x\n" in shown.text
    assert "paged web  " in shown.text
    assert own_ctl.on_terminal("search", "needle", PAGER="true").code == 0
    assert "GET /needle" in own_ctl.on_terminal("search", "needle", PAGER="/nowhere/less", NO_COLOR="1").text
    assert "paged" not in own_ctl.ok("search", "needle", PAGER=str(pager)).text


def test_a_query_that_a_shell_gives_as_bytes(own_ctl: Orbitctl, ids: list[str]) -> None:
    """Bytes that are not UTF-8 are refused in words, and odd characters are searched for as they are."""
    ended = own_ctl("search", "\udcff")
    assert ended.code != 0
    assert "UTF-8" in ended.err
    assert own_ctl.ok("search", "\x1b[31m").lines
    assert own_ctl("search", "a\nb").code == 2  # no line has one


def test_what_was_printed_just_now(own_ctl: Orbitctl, filled: Filled) -> None:
    """A running session is saved before the search, and is found when it has ended; what a program draws is, too."""
    draw = r"printf '\033[?1049h\033[5;3Hdrawn needle\n'; sleep 1000"
    script = f"for i in 1 2 3; do echo printed needle $i; done; {draw}"
    session_id = own_ctl.id("session", "run", "--name", "now", "--detach", "--", "sh", "-c", script)
    own_ctl.ok("session", "wait", "now", "--for", "text", "drawn needle", "--timeout", "30")
    expected = ["printed needle 1", "printed needle 2", "printed needle 3", "  drawn needle"]
    for _ in range(2):
        hits = own_ctl.ok("--json", "search", "needle").json["hits"]
        assert sorted((hit["line"], hit["text"], hit["source"]) for hit in hits) == [
            (-1, expected[3], "screen"),
            *((number, expected[number], "line") for number in range(3)),
        ]
        assert {hit["session_id"] for hit in hits} == {session_id}
        own_ctl.ok("session", "terminate", "now")
