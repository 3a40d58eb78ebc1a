"""`orbitctl ls`, and --columns, --format and --sort of the commands that list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from ctl_support import InProcess, Orbitctl, Peer, scripted
from orbitctl.commands.list_options import SessionOptions
from orbitctl.ui.listing import LIST_COLUMNS, LS_COLUMNS, View
from support import RawClient

VIEW = View(terminal=False, now=1_767_225_700.0)
ROWS: list[dict[str, Any]] = [
    {
        "id": f"{number}aaaaaaa-0000-4000-8000-000000000000",
        "name": name,
        "session_type": "local",
        "created_at": f"2026-01-01T00:00:0{number}{fraction}Z",
        "last_active": f"2026-01-01T00:00:{idle}Z",
        "status": "detached",
        "config": {"session_type": "local", "command": "vi\ta", "env": {"A.B": "1"}},
        "workspace_id": None,
        "live": live,
        "cols": 80,
        "pid": pid,
        "labels": {"team": "web", "k8s.io/app": "x"},
    }
    for number, fraction, name, idle, live, pid in (
        (1, "", "beta", 30, True, 900),
        (1, ".5", None, 10, False, None),
        (3, "", "Alpha", 20, True, 1000),
    )
]


def lines(sort: str | None = None, template: str = "{NAME}", columns: str | None = None, ls: bool = True) -> list[str]:
    options = SessionOptions(LS_COLUMNS if ls else LIST_COLUMNS, ls, columns, None if columns else template, sort)
    return options.sessions_text(ROWS, VIEW).splitlines()


@pytest.mark.parametrize(
    ("template", "line"),
    [
        (r"{id}\t{name}", "1aaaaaaa-0000-4000-8000-000000000000\tbeta"),
        ("{status} {STATUS} {idle} {exit}.", "detached detached 1m ."),
        (r"{{{pid}}}\\\n{live}", "{900}\\\ntrue"),
        (r"\q{config.command}", r"\qvi\ta"),
        ("{labels.k8s.io/app} {labels.none}{config.env.A.B}", "x 1"),
        ("{labels}", '{"team":"web","k8s.io/app":"x"}'),
        ("{LABELS}", "k8s.io/app=x,team=web"),
        ("", ""),
    ],
)
def test_a_template_is_filled_for_each(template: str, line: str) -> None:
    r"""Fields are the JSON's, or columns; capitals are what the column shows; what is not printable is escaped."""
    assert "\n".join(lines(template=template)).startswith(line)
    assert "\n" in line or len(lines(template=template)) == len(ROWS)


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("name", ["Alpha", "beta", ROWS[1]["id"]]),
        ("-name", ["beta", "Alpha", ROWS[1]["id"]]),
        ("idle", ["beta", "Alpha", ROWS[1]["id"]]),
        ("-idle", [ROWS[1]["id"], "Alpha", "beta"]),
        ("created", ["beta", ROWS[1]["id"], "Alpha"]),
        ("-created_at", ["Alpha", ROWS[1]["id"], "beta"]),
        ("pid", ["beta", "Alpha", ROWS[1]["id"]]),
        ("status,-pid", ["Alpha", "beta", ROWS[1]["id"]]),
        ("config.command", ["beta", ROWS[1]["id"], "Alpha"]),
    ],
)
def test_sessions_are_sorted(sort: str, names: list[str]) -> None:
    """By columns and fields; numbers and times by size, letters whatever their case, what has no value last."""
    assert lines(sort) == names


def test_columns_are_chosen_and_shown_in_their_order() -> None:
    """`ls` shows its own status and name in them, `session list` those of the JSON."""
    assert [line.split() for line in lines(columns="status, NAME")[:3]] == [
        ["STATUS", "NAME"],
        ["detached", "beta"],
        ["lost", ROWS[1]["id"]],
    ]
    assert lines(columns="status,name", ls=False)[2].split() == ["detached", "-"]


@pytest.mark.parametrize("name", ["foo", "0", "", "name.x", "name!r", "name.__class__", "config.foo", "id:>9", " id"])
def test_an_unknown_field_is_named_with_those_there_are(name: str) -> None:
    """Nothing of a template is evaluated: what is no field is an error that lists fields and columns."""
    with pytest.raises(click.UsageError) as caught:
        lines(template=f"{{{name}}}")
    assert f"'{name}'" in caught.value.message or name == ""
    assert "idle" in caught.value.message or name == ""


@pytest.mark.parametrize("template", ["{", "}", "{id", "a}b", "{}", "{id}}", "{{id}"])
def test_a_lone_brace_is_an_error(template: str) -> None:
    """A brace of the text is written twice."""
    with pytest.raises(click.UsageError, match="a brace is written twice"):
        lines(template=template)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ls", "--columns", "id,foo"], "--columns: there is no 'foo'; there are id, name, status,"),
        (["ls", "--sort", "-foo"], "--sort: there is no 'foo'; there are id, name,"),
        (["ls", "--sort", ""], "--sort: names are separated by single commas"),
        (["ls", "--columns", "id", "--format", "x"], "give --columns or --format"),
        (["ls", "--json", "--sort", "id"], "--json prints the result as it came"),
        (["ls", "-q", "--format", "{id}"], "neither with --json nor with --quiet"),
        (["ls", "--deleted", "-a"], "--deleted stands alone"),
        (["ls", "--label", "x"], "'x' is not KEY=VALUE"),
        (["session", "list", "--columns", "foo"], "there is no 'foo'"),
        (["snapshot", "list", "x", "--format", "{terminal_buffer}"], "there is no 'terminal_buffer'"),
        (["workspace", "list", "--sort", "idle"], "there is no 'idle'; there are id, name, layout, active, created"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_shown_is_a_usage_error(offline: Orbitctl, words: list[str], message: str) -> None:
    """It exits with 2 before a daemon is asked, and names what there is."""
    ended = offline(*words)
    assert (ended.code, ended.out) == (2, b""), ended
    assert message in ended.err


def test_ls_lists_in_a_pipe_and_on_a_terminal(ctl: Orbitctl, shared_client: RawClient) -> None:
    """The same columns; on a terminal ids are short and commands cut, also where it has no colours and no escapes."""
    ctl.ok("session", "create", "--name", "build-web", "--", "npm", *["run"] * 40)
    unnamed = ctl.id("session", "create")
    ended = ctl.id("session", "create", "--name", "gone")
    ctl.ok("session", "terminate", ended)
    piped = ctl.ok("ls").lines
    assert [line.split()[:2] for line in piped] == [
        ["NAME", "STATUS"],
        ["build-web", "recorded"],
        [unnamed, "recorded"],
    ]
    assert piped[1].endswith("run run")
    assert [line.split()[1] for line in ctl.ok("ls", "-a").lines] == ["STATUS", "recorded", "recorded", "ended"]
    drawn = ctl.on_terminal("ls", COLUMNS="40", TERM="dumb").lines
    assert [line.split()[0] for line in drawn] == ["NAME", "build-web", unnamed[:8]]
    assert drawn[1].endswith("…")
    assert max(map(len, drawn)) <= 40
    assert "\x1b[2mrecorded" in ctl.on_terminal("ls").text
    assert ctl.ok("ls", "-q", "--sort", "-created").lines[0] == unnamed
    assert ctl.ok("ls", "--json").json == ctl.ok("session", "list", "--json").json


def test_ls_finds_labels_and_workspaces(ctl: Orbitctl, shared_client: RawClient) -> None:
    """--label, --workspace and --status narrow the list."""
    web, api = (ctl.id("session", "create", "--name", name) for name in ("web", "api"))
    shared_client.call("session.set_labels", id=web, labels={"team": "a=b"})
    ctl.ok("workspace", "create", "shop")
    ctl.ok("session", "move", "api", "shop")
    assert ctl.ok("ls", "-q", "--label", "team=a=b").lines == [web]
    assert ctl.ok("ls", "-q", "-l", "team=a").lines == []
    assert ctl.ok("ls", "-q", "--workspace", "shop").lines == [api]
    assert ctl.ok("ls", "-q", "--status", "terminated").lines == []
    assert ctl.ok("ls", "--format", "{name} {WORKSPACE}").lines == ["web ", "api shop"]


@pytest.mark.parametrize("words", [["ls"], ["session", "list"]], ids=" ".join)
def test_the_trash_is_listed_with_ids_and_times(home: Path, words: list[str]) -> None:
    """--deleted shows the ids that a name may no longer say, and since when each is there."""
    deleted = {**ROWS[0], "deleted_at": "2026-01-02T00:00:00Z"}
    page = {"sessions": [deleted], "next_cursor": None}
    peer = Peer(home / "socket", scripted({"session.list_deleted": {"result": page}}))
    try:
        shown = InProcess(home).ok(*words, "--deleted", "--socket", str(home / "socket")).lines
    finally:
        peer.close()
    assert [line.split()[:2] for line in shown] == [["ID", "NAME"], [deleted["id"], "beta"]]
    assert deleted["deleted_at"] in shown[1]


def test_other_lists_take_the_options_too(ctl: Orbitctl) -> None:
    """Snapshots and workspaces are chosen, sorted and formatted; a snapshot's id is whole at any width."""
    ctl.ok("session", "create", "--name", "web")
    first, second = (ctl.id("snapshot", "save", "web", stdin=data) for data in (b"longer", b"short"))
    assert ctl.ok("snapshot", "list", "web", "--sort", "screen", "-q").lines == [second, first]
    assert ctl.ok("snapshot", "list", "web", "--format", "{id} {buffer_bytes}").lines == [f"{second} 5", f"{first} 6"]
    narrow = ctl.on_terminal("snapshot", "list", "web", COLUMNS="40", NO_COLOR="1").lines
    assert [line.split()[0] for line in narrow] == ["ID", second, first]
    ctl.ok("workspace", "create", "b", "--config", '{"deep": {"er": [1]}}')
    ctl.ok("workspace", "create", "a")
    assert ctl.ok("workspace", "list", "--sort", "name", "--columns", "name").lines == ["NAME", "a", "b"]
    assert ctl.ok("workspace", "list", "--format", "{layout.config.deep}").lines == ['{"er":[1]}', ""]
