"""The lists without click: byte for byte what the click commands print, and theirs to print where anything is odd."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ctl_support import Orbitctl, Peer, read_line
from orbit_protocol.methods import CANCEL_REQUEST, METHODS
from orbit_protocol.notifications import DETACHED, EXITED, OUTPUT, REPAINT
from orbitctl.attach import connection
from orbitctl.cli import run
from orbitctl.fast import run_fast
from support import DaemonProcess, clean_environment

SEED = 12
WORDS = [
    "web",
    "build-web",
    "build-api",
    "a b",
    "é\u0301",
    "構築",
    "\x1b[2J",
    "x" * 100,
    "👩‍👩‍👧",
    "\u202eabc",
    "-",
    "a,b'c\"\\",
]
STARTED = 1_790_000_000.0


class Stdout(io.TextIOWrapper):
    """A stdout that may be a terminal; COLUMNS says how wide."""

    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class Lists:
    """A daemon that answers with lists of a test, in the one way that a daemon writes."""

    def __init__(self, home: Path) -> None:
        self.environment = {**clean_environment(home), "ORBITD_SOCKET": str(home / "s"), "ORBITCTL_NO_AUTOSTART": "1"}
        self.results: dict[str, Any] = {}
        self.peer = Peer(home / "s", self._talk)

    def _talk(self, connection: Any) -> None:
        while line := read_line(connection):
            request = json.loads(line)
            result = self.results[request["method"]]
            raw = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, separators=(",", ":"))
            connection.sendall(f'{{"jsonrpc":"2.0","result":{raw},"id":{request["id"]}}}\n'.encode())

    def printed(
        self, way: Any, arguments: Sequence[str], *, terminal: bool, **variables: str
    ) -> tuple[Any, bytes, str]:
        """Return an exit code and what is printed to stdout and stderr."""
        environ = {**self.environment, **variables}
        out, err = Stdout(terminal=terminal, encoding=variables.get("encoding", "utf-8")), io.StringIO()
        with (
            mock.patch.dict(os.environ, environ, clear=True),
            mock.patch.multiple(sys, stdout=out, stderr=err),
            mock.patch.object(time, "time", return_value=STARTED),
        ):
            code = way(list(arguments))
        return code, out.buffer.getvalue(), err.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def lists(home: Path) -> Iterator[Lists]:
    found = Lists(home)
    yield found
    found.peer.close()


def moment(secs: float) -> str:
    """Return a time as the daemon writes it, so many seconds ago."""
    found = datetime.fromtimestamp(STARTED - secs, UTC)
    return found.isoformat().replace("+00:00", "Z")


def generated(chance: random.Random) -> dict[str, Any]:
    """Return the JSON of a session, of any kind that there is."""
    live, ran = chance.random() < 0.5, chance.random() < 0.7
    ssh = chance.random() < 0.2
    config = {
        "session_type": "ssh" if ssh else "local",
        "host": "build.example" if ssh else None,
        "port": chance.choice([None, 2222]) if ssh else None,
        "username": chance.choice([None, "ada"]) if ssh else None,
        "workspace_id": None,
        "command": chance.choice([None, *WORDS]),
        "cwd": None,
        "env": None,
    }
    found: dict[str, Any] = {
        "id": "".join(chance.choice("0123456789abcdef-") for _ in range(36)),
        "name": chance.choice([None, *WORDS]),
        "session_type": config["session_type"],
        "created_at": moment(chance.uniform(0, 1e8)),
        "last_active": moment(chance.choice([0.5, 59, 3601, 1e6, 1e8, -7])),
        "status": chance.choice(["active", "detached", "terminated", "archived"]),
        "config": config,
        "workspace_id": chance.choice([None, None, "w1", "w2"]),
    }
    if ran or live:
        found |= {"live": live, "cols": 80, "rows": 24, "clients": chance.choice([0, 1, 12])}
        found |= {"title": chance.choice([None, *WORDS]), "last_saved_at": chance.choice([None, moment(5)])}
        found |= {"exit_code": chance.choice([None, 0, 1]), "exit_signal": chance.choice([None, None, 9, 63])}
    if chance.random() < 0.5:
        note = {"title": chance.choice(WORDS), "body": chance.choice(WORDS), "urgency": "normal"}
        state = chance.choice(["normal", "error", "indeterminate", "paused"])
        found |= {"bell": chance.random() < 0.3, "unseen_output": chance.random() < 0.5, "last_command": None}
        found |= {"notification": chance.choice([None, note])}
        found |= {"progress": chance.choice([None, {"state": state, "percent": chance.choice([None, 0, 100])}])}
    if chance.random() < 0.5:
        found |= {"last_output_at": moment(12), "last_input_at": chance.choice([None, moment(100)])}
    return found


SHOP = {"id": "w1", "name": "shop", "created_at": moment(9), "active_session_id": None}
WORKSPACES = {
    "workspaces": [{**SHOP, "layout": {"layout_type": "x", "config": None}}],
    "next_cursor": None,
}
COMMAND_LINES = (
    *(["session", "list"], ["session", "list", "--json"], ["-q", "session", "list"]),
    *(["ls"], ["ls", "-a"], ["--json", "ls"], ["ls", "--all", "--quiet"]),
)


@pytest.mark.parametrize("arguments", COMMAND_LINES, ids=" ".join)
def test_both_ways_print_the_same(lists: Lists, arguments: list[str]) -> None:
    """Over generated lists, in pipes and on terminals of any width, with colours and without: byte for byte."""
    chance = random.Random(SEED)
    lists.results = {"workspace.list": WORKSPACES}
    seen = set()
    for number in range(40):
        sessions = [generated(chance) for _ in range(chance.choice([0, 1, 2, 7, 30]))]
        lists.results["session.list"] = {"sessions": sessions, "next_cursor": None}
        variables = {"COLUMNS": str(chance.choice([1, 20, 40, 60, 80, 120, 300]))}
        variables |= {"TERM": chance.choice(["xterm-256color", "dumb", ""]), "NO_COLOR": chance.choice(["", "1"])}
        if sessions and chance.random() < 0.3:
            variables["ORBIT_SESSION"] = sessions[0]["id"]
        terminal = number % 3 > 0
        quick = lists.printed(run_fast, arguments, terminal=terminal, **variables)
        usual = lists.printed(run, arguments, terminal=terminal, **variables)
        if quick[0] is None:  # "no sessions", on stderr
            assert (sessions, terminal, usual[1]) == ([], True, b"")
            quick = usual
        assert quick == usual
        seen.add(quick[1])
    assert len(seen) > 20


def test_both_ways_write_what_an_encoding_lacks_as_escapes(lists: Lists) -> None:
    """In a locale that is not UTF-8, on a terminal and in a pipe."""
    chance = random.Random(SEED)
    sessions = [generated(chance) for _ in range(20)]
    lists.results = {"workspace.list": WORKSPACES, "session.list": {"sessions": sessions, "next_cursor": None}}
    for terminal in (True, False):
        quick, usual = (
            lists.printed(way, ["session", "list"], terminal=terminal, encoding="ascii", COLUMNS="100")
            for way in (run_fast, run)
        )
        assert quick == usual
        assert quick[0] == 0


PLAIN = {"sessions": [], "next_cursor": None}


@pytest.mark.parametrize(
    "result",
    [
        {"sessions": [], "next_cursor": "more"},
        {"sessions": []},
        {"next_cursor": None},
        {"sessions": [{"id": "x"}], "next_cursor": None},
        {"sessions": 3, "next_cursor": None},
        [],
        None,
        '{"sessions":[],"next_cursor":null},"jsonrpc":"2.0"',
        "{",
    ],
    ids=str,
)
def test_an_answer_of_another_shape_is_left_to_click(lists: Lists, result: Any) -> None:
    """A second page, a member that is missing, another type, no JSON: nothing is printed, and click does it all."""
    lists.results["session.list"] = result
    assert lists.printed(run_fast, ["session", "list"], terminal=False) == (None, b"", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--help"], ["session"], ["session", "list", "--status", "all"], ["session", "list", "--host", "x"],
        ["session", "list", "x"], ["session", "list", "-qq"], ["--socket", "x", "session", "list"], ["list", "session"],
        ["session", "list", "--", "-q"], ["session", "list", "--js"], ["session list"], ["ls", "-qa"], ["ls", "x"],
        ["session", "list", "-a"], ["session", "ls"], ["a", "-r"], ["a", "x", "y"], ["session", "attach"], ["a"],
        ["attach", "x"], ["-a", "ls"], ["--json", "--all", "ls"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_any_other_command_line_is_left_to_click(lists: Lists, arguments: list[str]) -> None:
    """Options, arguments, other commands, what is wrong, and an attach without a terminal."""
    lists.results["session.list"] = PLAIN
    assert lists.printed(run_fast, arguments, terminal=False) == (None, b"", "")


def test_a_shell_that_completes_gets_click(lists: Lists) -> None:
    """What click reads from its variable of completion is not taken for the command itself."""
    lists.results["session.list"] = PLAIN
    completing = lists.printed(run_fast, ["session", "list"], terminal=False, _ORBITCTL_COMPLETE="bash_complete")
    assert completing == (None, b"", "")


def test_the_program_prints_both_ways_the_same_on_a_terminal(
    process_ctl: Orbitctl, shared_daemon: DaemonProcess
) -> None:
    """Beside a real daemon: `--no-autostart` is no plain command line, and changes nothing here."""
    process_ctl.ok("session", "create", "--name", "構築 1")
    for variables in ({"COLUMNS": "80"}, {"COLUMNS": "40", "NO_COLOR": "1"}):
        quick = process_ctl.on_terminal("session", "list", **variables)
        usual = process_ctl.on_terminal("--no-autostart", "session", "list", **variables)
        assert (quick.code, usual.code) == (0, 0)
        assert "構築 1" in quick.text
        assert without_seconds(quick.text) == without_seconds(usual.text)


def without_seconds(text: str) -> str:
    return "".join(character for character in text if not character.isdigit())


def test_a_list_needs_few_modules(process_ctl: Orbitctl) -> None:
    """Neither click, msgspec or rich, nor what the standard library is slow to import."""
    program = (
        "import sys; sys.argv[1:] = ['session', 'list']; before = set(sys.modules)\n"
        "from orbitctl.__main__ import main\n"
        "try:\n    main()\nfinally:\n    print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    run_ = subprocess.run(
        [sys.executable, "-c", program],
        env=process_ctl.environment,
        cwd=process_ctl.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run_.returncode == 0, run_
    slow = {"click", "msgspec", "rich", "re", "enum", "json", "socket", "typing", "datetime", "contextlib", "signal"}
    assert slow & set(run_.stderr.split()) == set()


def test_an_attach_needs_few_modules() -> None:
    """Neither click nor msgspec, dataclasses or the standard library's sockets: each window has a client for weeks."""
    program = "import sys, orbitctl.attach.plain, orbitctl.client.daemon; print(*sys.modules)"
    run_ = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    slow = {"click", "msgspec", "rich", "json", "socket", "datetime", "dataclasses", "inspect", "subprocess", "tomllib"}
    assert slow & set(run_.stdout.split()) == set()


def test_what_an_attach_sends_has_the_protocol_s_names() -> None:
    """Methods and notifications that are named without the table are in it."""
    methods = {connection.SESSION_ATTACH, connection.SESSION_LEAVE, connection.SESSION_RESIZE}
    methods |= {connection.SESSION_INPUT, connection.SESSION_SCREEN, connection.CANCEL_REQUEST}
    notices = {connection.OUTPUT, connection.REPAINT, connection.EXITED, connection.DETACHED}
    assert methods <= {*METHODS, CANCEL_REQUEST.name}
    assert notices == {each.name for each in (OUTPUT, REPAINT, EXITED, DETACHED)}


def test_a_flood_is_decoded_the_same() -> None:
    """Behind some megabytes msgspec decodes messages: what they say stays what it was."""
    decoder = connection._Decoder()
    params = {"attachment_id": "a", "data": "AP8=", "history_line": None, "unknown": [1]}
    line = json.dumps({"jsonrpc": "2.0", "method": "session.output", "params": params}).encode()
    quick = decoder.decode(line)
    decoder._decoded_bytes = connection.FLOOD_BYTES
    assert decoder.decode(line) == quick
    assert decoder._loads is not connection._loads
    assert quick.params == connection.Notice(attachment_id="a", data=b"\x00\xff")
    for text in ('{"method": 1, "params": {}}', '{"id": "x"}', "[]", '{"method":"m","params":{"cols":"1"}}', "{} x"):
        with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
            decoder.decode(text.encode())
