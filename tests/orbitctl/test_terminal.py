"""On a terminal: tables, colours, friendly times, questions."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios

import pytest

from ctl_support import Orbitctl
from orbitctl.ui.output import MAX_SIZE, terminal_size
from orbitctl.ui.spinner import Shown, spinner
from support import RawClient


def test_a_table_is_drawn_with_colours(ctl: Orbitctl) -> None:
    """Ids are short, times friendly, and the status has its colour."""
    found = ctl.id("session", "create", "--name", "web")
    shown = ctl.on_terminal("session", "list").text
    assert found not in shown
    assert found[:8] in shown
    assert "IDLE" in shown
    assert "\x1b[32mactive" in shown


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_turned_off(ctl: Orbitctl, variables: dict[str, str]) -> None:
    """NO_COLOR and TERM=dumb leave no colour."""
    ctl.ok("session", "create", "--name", "web")
    shown = ctl.on_terminal("session", "list", **variables).text
    assert "web" in shown
    assert "\x1b[3" not in shown


def test_a_dumb_terminal_gets_plain_text(ctl: Orbitctl) -> None:
    """TERM=dumb gets no escape at all."""
    ctl.ok("session", "create")
    assert "\x1b" not in ctl.on_terminal("session", "list", TERM="dumb").text


def test_errors_are_coloured_on_a_terminal_only(ctl: Orbitctl) -> None:
    """The label of an error is red on a terminal, and plain with NO_COLOR."""
    assert "\x1b[31;1merror:\x1b[0m" in ctl.on_terminal("session", "show", "nosuch").text
    assert "\x1b" not in ctl.on_terminal("session", "show", "nosuch", NO_COLOR="1").text


@pytest.mark.parametrize("words", [["session", "list"], ["session", "show", "nosuch"]], ids=" ".join)
def test_no_color_set_to_nothing_changes_no_colour(ctl: Orbitctl, words: list[str]) -> None:
    """It counts when it is not empty (no-color.org): in tables, and in errors."""
    ctl.ok("session", "create", "--name", "web")
    coloured = ctl.on_terminal(*words).text
    assert "\x1b[3" in coloured
    assert without_idle(ctl.on_terminal(*words, NO_COLOR="").text) == without_idle(coloured)


def without_idle(shown: str) -> str:
    """Return a table without the seconds that pass between two runs."""
    return re.sub(r"\d+s", "0s", shown)


@pytest.mark.parametrize("columns", ["0", "-1", "-80", "", "x", "1e9", "0x50", "\u0663", "8 0"])
def test_columns_that_are_no_width_leave_it_to_the_terminal(ctl: Orbitctl, columns: str) -> None:
    """Zero and less, and what is no number, count as none: the terminal is asked, and one without a size is 80 wide."""
    ctl.ok("session", "create", "--name", "web", "--", *["word"] * 30)
    of_terminal = ctl.on_terminal("session", "list", COLUMNS=columns).text
    assert without_idle(of_terminal) == without_idle(ctl.on_terminal("session", "list", COLUMNS="80").text)
    assert "web" in of_terminal


@pytest.mark.parametrize("columns", ["1", "2", "59", "60"])
def test_a_table_is_never_narrower_than_can_be_read(ctl: Orbitctl, columns: str) -> None:
    """However few columns there are, the name, which is what one types next, is there."""
    ctl.ok("session", "create", "--name", "website", "--", *["word"] * 30)
    assert "website" in ctl.on_terminal("session", "list", COLUMNS=columns).text


def test_a_table_is_no_wider_than_its_text(ctl: Orbitctl) -> None:
    """A width that no terminal has costs nothing."""
    ctl.ok("session", "create", "--name", "web")
    for columns in ("10000", "999999999", "9" * 5000):
        assert max(map(len, ctl.on_terminal("session", "list", COLUMNS=columns).lines)) < 200


@pytest.mark.parametrize(
    ("variables", "size", "found"),
    [
        ({}, (100, 30), (100, 30)),
        ({"COLUMNS": "120"}, (100, 30), (120, 30)),
        ({"COLUMNS": " 120 ", "LINES": "40"}, (100, 30), (120, 40)),
        ({"COLUMNS": "0", "LINES": "-1"}, (100, 30), (100, 30)),
        ({"COLUMNS": "120", "LINES": "x"}, (0, 0), (120, 24)),
        ({}, (0, 0), (80, 24)),
        ({"COLUMNS": "99999999999999999999999"}, (100, 30), (MAX_SIZE, 30)),
    ],
)
def test_the_size_is_what_variables_or_the_terminal_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], size: tuple[int, int], found: tuple[int, int]
) -> None:
    """COLUMNS and LINES count each by itself; a terminal that does not know its size is 80 by 24."""
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    with os.fdopen(terminal, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert terminal_size() == found
    os.close(master)


def test_an_empty_list_says_what_to_do(ctl: Orbitctl) -> None:
    """On a terminal an empty list tells how to make the first; where some were asked for, how to see all."""
    assert ctl.on_terminal("session", "list").lines == [
        "no sessions; `orbitctl new` starts one, `orbitctl session create` records one"
    ]
    assert ctl.on_terminal("ls", "--label", "team=shop").lines == ["no such session; `orbitctl ls -a` lists all"]
    assert "orbitctl workspace create" in ctl.on_terminal("workspace", "list").text


@pytest.mark.parametrize(("typed", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1), (b"\x03", 130)])
def test_deleting_asks(ctl: Orbitctl, typed: bytes, code: int) -> None:
    """Only yes deletes; no, nothing and Ctrl-C keep the session."""
    found = ctl.id("session", "create", "--name", "web")
    ended = ctl.on_terminal("session", "delete", "web", prompt=b"[y/N]:", typed=typed)
    assert f"Delete web ({found[:8]})? [y/N]:" in ended.text
    assert ended.code == code
    assert ctl.ok("session", "list", "-q").lines == ([] if code == 0 else [found])


def test_yes_does_not_ask(ctl: Orbitctl) -> None:
    """--yes deletes without a question."""
    ctl.ok("session", "create", "--name", "web")
    shown = ctl.on_terminal("session", "delete", "web", "--yes")
    assert (shown.code, "?" in shown.text) == (0, False)


def test_stored_controls_do_not_reach_a_terminal(ctl: Orbitctl, shared_client: RawClient) -> None:
    """Neither a table nor JSON lets a stored command steer the terminal."""
    config = {"session_type": "local", "command": "\x1b]0;owned\x07\x9b2J\x7f"}
    found = shared_client.call("session.create", config=config)["id"]
    for words in (["session", "list"], ["session", "show", found], ["session", "list", "--json"]):
        shown = ctl.on_terminal(*words, NO_COLOR="1").out
        assert b"owned" in shown
        for control in (b"\x1b]", b"\x07", "\x9b".encode(), b"\x7f"):
            assert control not in shown


BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\x85\x9b"
ODD_NAME = "gpj" + BIDI.translate(dict.fromkeys((0x85, 0x9B)))
"""A name may hold all of them but the control characters."""


@pytest.mark.parametrize(
    "words",
    [
        ["session", "list"],
        ["session", "list", "--json"],
        ["session", "show", ODD_NAME],
        ["session", "show", ODD_NAME, "--json"],
        ["session", "show", ODD_NAME + "x"],
        ["session", "create", "--name", ODD_NAME],
        ["session", "delete", ODD_NAME],
        ["session", "attach", ODD_NAME],
        ["session", "signal", ODD_NAME, ODD_NAME],
        ["workspace", "list", "--json"],
        ["workspace", "show", ODD_NAME],
        ["workspace", "show", ODD_NAME, "--json"],
        ["workspace", "delete", ODD_NAME],
        ["workspace", "create", "w", "--config", "@" + ODD_NAME],
        ["rpc", "call", "session.list"],
        ["rpc", "call", ODD_NAME],
        ["config", "check", ODD_NAME],
        [ODD_NAME],
    ],
    ids=lambda words: " ".join(words).replace(ODD_NAME, "NAME"),
)
def test_nothing_reorders_what_a_person_reads(ctl: Orbitctl, shared_client: RawClient, words: list[str]) -> None:
    """Neither tables, errors and questions, nor JSON on a terminal, pass bidirectional controls and line separators."""
    config = {"session_type": "local", "command": "run" + BIDI}
    shared_client.call("session.create", config=config, name=ODD_NAME)
    layout = {"layout_type": "x" + BIDI, "config": {"key" + BIDI: BIDI}}
    shared_client.call("workspace.create", name=ODD_NAME, layout=layout)
    shown = ctl.on_terminal(*words, prompt=b"[y/N]:", typed=b"n\r" if "delete" in words else b"\x04").text
    assert not set(shown) & set(BIDI)
    if words[-1] == "--json" or words == ["rpc", "call", "session.list"]:
        assert json.loads(shown) == ctl.ok(*words).json
        assert BIDI in ctl.ok(*words).text  # in a pipe it comes as it is


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "no_SUCH.locale"},
    ],
    ids=lambda locale: " ".join(locale.values()),
)
def test_text_that_the_locale_cannot_hold_is_printed(
    process_ctl: Orbitctl, shared_client: RawClient, locale: dict[str, str]
) -> None:
    """Letters without an encoding, and bytes that are no UTF-8, become escapes in tables, errors and completions."""
    name = "caf\u00e9\u65e5\U0001f600"
    shared_client.call("session.create", config={"session_type": "local"}, name=name)
    listed = process_ctl.ok("session", "list", **locale)
    assert "caf\\xe9\\u65e5\\U0001f600" in listed.text or name in listed.text
    assert b"Traceback" not in process_ctl.on_terminal("session", "list", **locale).out
    assert process_ctl("session", "list", "--json", **locale).json["sessions"][0]["name"] == name
    for words in (["session", "show", "caf\udce9"], ["snapshot", "show", name + "\udcff\x1b"], [name]):
        ended = process_ctl(*words, **locale)
        assert (ended.code, "Traceback" in ended.err) == (2, False), ended
    ended = process_ctl("_complete", "zsh", "session", "show", "", **locale)
    assert (ended.code, ended.err, ended.lines[1].partition("\t")[0]) == (0, "", name)


def test_a_narrow_terminal_cuts_what_is_elastic(ctl: Orbitctl) -> None:
    """Ids, status and times stay whole where a table does not fit; names and commands are cut, nothing wraps."""
    found = ctl.id("session", "create", "--name", "n" * 60, "--", "c" * 60)
    shown = ctl.on_terminal("session", "list", COLUMNS="80", NO_COLOR="1").text
    title, row = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()  # bold is no colour
    assert row.startswith(f"{found[:8]}  nnn")
    assert "…" in row
    assert " active " in row
    assert max(len(title), len(row)) <= 80


def test_markup_in_a_name_is_no_markup(ctl: Orbitctl) -> None:
    """What looks like markup of a library is shown as it is."""
    ctl.ok("session", "create", "--name", "[red]x[/red] :smile:")
    assert "[red]x[/red] :smile:" in ctl.on_terminal("session", "list").text


def test_a_screen_is_not_waited_for_on_a_terminal(ctl: Orbitctl) -> None:
    """`snapshot save` without a file does not hang on a terminal's stdin."""
    ctl.ok("session", "create", "--name", "web")
    ended = ctl.on_terminal("snapshot", "save", "web")
    assert ended.code == 2
    assert "give a FILE" in ended.text


def test_long_work_turns_a_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, work that takes its time shows what it is; the line is empty again in the end."""
    monkeypatch.setenv("TERM", "xterm")
    master, terminal = pty.openpty()
    shown = b""
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        with spinner("checking"):
            while b"checking" not in shown:
                shown += os.read(master, 100)
    while not shown.endswith(b"\r          \r"):
        shown += os.read(master, 100)
    os.close(master)
    assert shown.startswith(b"\r| checking")


def test_a_spinner_shows_how_far_work_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts stand beside the sign, no wider than the terminal, and the line is empty again in the end."""
    monkeypatch.setenv("TERM", "xterm")
    master, terminal = pty.openpty()
    shown = b""
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        with spinner("checking") as work:
            work.show_progress("structure", 0, 0)
            while b"checking: structure" not in shown:
                shown += os.read(master, 200)
            work.show_progress("snapshots", 12_000, 320_000)
            while b"checking: 12,000 of 320,000 snapshots" not in shown:
                shown += os.read(master, 200)
            work.show_progress("x" * 100, 1, 2)
            while b"checking: 1 of 2 xx" not in shown or not shown.endswith(b"x"):
                shown += os.read(master, 200)
    while not shown.endswith(b"\r" + b" " * 39 + b"\r"):
        shown += os.read(master, 200)
    os.close(master)
    assert max(len(line) for line in shown.split(b"\r")) == 39


def test_a_spinner_shows_nothing_that_a_terminal_obeys() -> None:
    """What the daemon says that it does is escaped, whether a total is known or not."""
    shown = Shown("checking")
    for total, text in ((0, "checking: \\x1b]0;x\\x07\\n"), (2, "checking: 1 of 2 \\x1b]0;x\\x07\\n")):
        shown.show_progress("\x1b]0;x\x07\n", 1, total)
        assert shown.text == text


def test_interrupted_work_leaves_an_empty_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C takes the spinner off the screen too."""
    monkeypatch.setenv("TERM", "xterm")
    master, terminal = pty.openpty()
    shown = b""

    def work() -> None:
        nonlocal shown
        with spinner("checking"):
            while b"checking" not in shown:
                shown += os.read(master, 100)
            signal.raise_signal(signal.SIGINT)

    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        with pytest.raises(KeyboardInterrupt):
            work()
    while not shown.endswith(b"\r          \r"):
        shown += os.read(master, 100)
    os.close(master)


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done at once leaves the terminal alone."""
    monkeypatch.setenv("TERM", "xterm")
    master, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        with spinner("checking"):
            pass
        assert select.select([master], [], [], 0)[0] == []
    os.close(master)
