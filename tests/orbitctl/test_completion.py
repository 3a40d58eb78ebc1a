"""What shells are offered: which words, and how they are quoted. Real shells are in test_completion_shells.py."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from completion_table import table_source
from ctl_support import Orbitctl, Peer
from needs import require
from orbitctl.completion import answer, table
from orbitctl.completion.answer import COMMANDS, Place
from orbitctl.completion.bash_words import Line, quoted
from support import WAIT_SECS, DaemonProcess

BREAKS = " \t\n\"'@><=;|&(:"
"""COMP_WORDBREAKS as bash sets it."""
NAMES = [
    "two words",
    "a,b",
    "it's",
    'a"q',
    "$HOME",
    "b`id`",
    "x:y:z",
    "back\\slash",
    "bang!x",
    "*",
    "~t",
    "#h",
    "ünï ż",
    "é\u00a0b",
]


def session(name: str | None, number: int, **more: Any) -> dict[str, Any]:
    """Return a session as the daemon lists it; one with a greater number was used later."""
    return {
        "id": f"{number:08d}-0000-4000-8000-000000000000",
        "name": name,
        "status": "detached",
        "config": {"session_type": "local", "command": "cat"},
        "last_active": f"2026-01-01T00:00:{number:02d}Z",
        **more,
    }


SESSIONS = [
    session("ended", 1, status="terminated"),
    session("kept", 2),
    session("old", 3, live=True),
    session("new", 4, live=True, clients=1, labels={"tier": "front"}),
    session(None, 5, live=True),
    session("-dash", 6, live=True),
    session("gpj\u202e\u2028\u2069x", 7, live=True),
    session("ended", 8, status="terminated"),
    session("old", 9, status="terminated"),
]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what a shell is offered for words, the last of which is begun: the words alone."""

    def ask(_: Place, method: str, params: dict[str, Any]) -> Any:
        if method == "session.list_deleted":
            return {"sessions": [session("gone", 1)]}
        if method == "workspace.list":
            return {"workspaces": [{"id": "1", "name": "shop a", "layout": {"layout_type": "tabs"}}]}
        return {"sessions": [one for one in SESSIONS if one["status"] in params["status"]]}

    monkeypatch.setattr(answer, "_ask", ask)

    def ask_for(*words: str) -> list[str]:
        lines = answer.answer("zsh", words)
        return [line.partition("\t")[0] for line in lines[1:]] if lines[0] == "words" else lines

    return ask_for


IDS = {number: f"{number:08d}-0000-4000-8000-000000000000" for number in range(10)}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        # Live sessions to attach, the one that was used last first; by its id what cannot be typed or shown.
        (["session", "attach", ""], [IDS[7], IDS[6], IDS[5], "new", "old"]),
        (["session", "attach", "-r", "n"], [IDS[7], IDS[6], IDS[5], "new", "old"]),
        (["session", "attach", "ke"], [IDS[7], IDS[6], IDS[5], "new", "old", "kept", "ended"]),
        (["session", "attach", "--", "-"], [IDS[7], "-dash", IDS[5], "new", "old"]),
        (["session", "show", ""], [IDS[7], IDS[6], IDS[5], "new", "old", "kept", "ended"]),
        (["session", "start", ""], ["kept", "ended"]),
        (["session", "delete", ""], ["ended", "kept", IDS[7], IDS[6], IDS[5], "new", "old"]),
        (["session", "terminate", ""], [IDS[7], IDS[6], IDS[5], "new", "old", "kept"]),
        (["session", "move", "new", ""], ["shop a"]),
        (["session", "list", "--workspace", ""], ["shop a"]),
        (["session", "list", "--workspace=s"], ["--workspace=shop a"]),
        (["session", "list", "--type", ""], ["local", "ssh"]),
        (["workspace", "set-active", "shop a", "--json", "n"], [IDS[7], IDS[6], IDS[5], "new", "old", "kept", "ended"]),
        (["-q", "--socket", "/s", "session", "move", "-q", "new", ""], ["shop a"]),
        (["rpc", "disc"], ["call", "discover"]),
        (["session", "nothing", ""], []),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["session", "rename", "new", ""], []),
        (["a", ""], [IDS[7], IDS[6], IDS[5], "new", "old"]),
        (["a", "-c", "new", "--", ""], ["command 4"]),
        (["new", "-d", "--", "vi", ""], ["command 3"]),
        (["new", "work", "--", "vi", ""], ["command 3"]),
        (["run", "-d", "vi", "-"], ["command 2"]),
        (["rm", "new", "kept", ""], ["ended", IDS[7], IDS[6], IDS[5], "old"]),
        (["undelete", ""], ["gone"]),
        (["resume", ""], [IDS[7], IDS[6], IDS[5], "new", "old", "kept", "ended"]),
        (["resume", "new", "vi", ""], ["command 2"]),
        (["resume", "--", "vi", ""], ["command 2"]),
        (["ls", "--label", ""], ["tier=front"]),
        (["workspace", "list", "--columns", "id,layout,a"], ["id,layout," + x for x in ("name", "active", "created")]),
        (["workspace", "list", "--sort", "-"], ["-id", "-name", "-layout", "-active", "-created"]),
        (["help", "rpc", ""], ["call", "discover"]),
        (["session", "run", ""], ["command 2"]),
        (["session", "run", "--name", "x", "-d", "--", "vi", "-"], ["command 6"]),
        (["session", "create", "--workspace", "w", "make", "-j", ""], ["command 4"]),
        (["session", "create", "--cwd", ""], ["folders"]),
        (["snapshot", "save", "new", ""], ["files"]),
        (["--socket", ""], ["files"]),
    ],
)  # fmt: skip
def test_what_can_be_meant_is_offered(offered: Any, words: list[str], found: list[str]) -> None:
    """The place decides: sessions that the command can take, workspaces, values of options, another program's words."""
    assert offered(*words) == found


def test_keys_and_signals_are_offered_as_they_are_begun(offered: Any) -> None:
    """Keys take the modifiers that were typed; a signal has its prefix, or small letters, where it was begun so."""
    assert {"Up", "F20", "C-c"} <= set(offered("session", "send", "new", "--key", ""))
    assert {"C-Up", "C-c"} <= set(offered("session", "send", "new", "--key", "C-"))
    assert "M-S-F5" in offered("session", "send", "new", "--key", "M-S-F")
    assert offered("session", "signal", "new", "")[:3] == ["INT", "TERM", "HUP"]
    assert offered("session", "signal", "new", "SIGI")[0] == "SIGINT"
    assert offered("session", "signal", "new", "i")[0] == "int"
    assert not {"CLD", "IOT", "POLL"} & set(offered("session", "signal", "new", ""))


def test_options_are_offered_where_nothing_else_is_left(offered: Any) -> None:
    """Behind a dash, and where a command takes no more words: its own first, then those of every command."""
    shown = offered("session", "attach", "-")
    assert {"--read-only", "--json", "--help", "--host"} <= set(shown)
    assert shown.index("--read-only") < shown.index("--json")
    assert offered("session", "show", "new", "-")[:1] == ["--json"]
    assert offered("status", "") == offered("status", "-")
    assert {"session", "status", "completion"} <= set(offered(""))
    assert "dial-stdio" not in offered("")


def test_what_a_session_is_is_said_as_ls_says_it() -> None:
    """Beside a name stands the status that `ls` shows, and what runs there."""
    ended = session("e", 1, status="terminated", exit_code=1, cols=80)
    shown = [
        answer._about(one) for one in (ended, session("k", 2), session("l", 3, live=True), session("o", 4, cols=80))
    ]
    assert shown == ["exit 1, cat", "recorded, cat", "detached, cat", "lost, cat"]


def test_an_id_that_was_begun_is_completed(offered: Any) -> None:
    """Where no name fits, an id may be meant: of a session with a name, too."""
    assert IDS[4] in offered("session", "show", "00000004")
    assert IDS[4] not in offered("session", "show", "")


def test_the_table_is_current() -> None:
    """Completion knows the commands as the tree has them; docs/generate.py writes the table."""
    assert Path(table.__file__).read_text() == table_source()
    assert [path for path, (about, _, _, _) in COMMANDS.items() if not about] == []


@pytest.mark.parametrize(
    ("line", "words", "current"),
    [
        ("orbitctl a ", ["orbitctl", "a"], ""), ("orbitctl a b", ["orbitctl", "a"], "b"),
        ("orbitctl 'a b' c\\ d", ["orbitctl", "a b"], "c d"), ('orbitctl "a\\$b\\c', ["orbitctl"], "a$b\\c"),
        ("orbitctl $'a\\'b", ["orbitctl"], "a'b"), ('orbitctl $"a b" ', ["orbitctl", "a b"], ""),
        ("x | orbitctl a:b", ["orbitctl"], "a:b"), ("orbitctl 2>e a <f b", ["orbitctl", "a"], "b"),
        ("orbitctl a\\", ["orbitctl"], "a"), ("orbitctl ''", ["orbitctl"], ""),
        ("orbitctl '' x", ["orbitctl", ""], "x"),
        ("orbitctl a'b'\"c\"d", ["orbitctl"], "abcd"), ("orbitctl \"it's", ["orbitctl"], "it's"),
    ],
)  # fmt: skip
def test_a_line_is_read_as_bash_reads_it(line: str, words: list[str], current: str) -> None:
    """Quotes of each kind are taken off, redirections are left out, and another command begins behind `|`."""
    read = Line(line, BREAKS)
    assert (read.words, read.current, read.is_file) == (words, current, False)


@pytest.mark.parametrize(
    ("line", "is_file"), [("orbitctl a > f", True), ("orbitctl a 2>", True), ("orbitctl a > f ", False)]
)
def test_a_redirection_takes_a_file(line: str, is_file: bool) -> None:
    """Behind `>` a file is meant, and behind that the command goes on."""
    assert Line(line, BREAKS).is_file == is_file


@pytest.mark.parametrize("name", NAMES)
def test_what_is_inserted_is_the_name_for_bash(name: str) -> None:
    """However much of a name was typed, in quotes of any kind or none: with what is inserted, bash reads the name."""
    lines = []
    for quote in ("", "'", '"', "$'"):
        for count in range(len(name)):
            typed = f"printf '%s\\n' {quote}{quoted(name[:count], quote)}"
            line = Line(typed, BREAKS)
            lines.append(f"{typed[: line.replaced_from]}{line.insertion(name)}{line.quote[-1:]}")
            assert (line.current, line.words) == (name[:count], ["printf", "%s\\n"])
    printed = subprocess.run(["bash"], input="\n".join(lines), capture_output=True, text=True, check=True)
    assert set(printed.stdout.splitlines()) == {name}


def silent(ctl: Orbitctl, **environment: str) -> bool:
    ended = ctl("_complete", "fish", "session", "show", "", **environment)
    return (ended.code, ended.out.decode().removeprefix("words\n"), ended.err) == (0, "", "")


def test_completion_without_a_daemon_is_silent(lonely: Orbitctl) -> None:
    """No daemon is started for a completion, and nothing is said, whatever is wrong."""
    assert silent(lonely)
    assert silent(lonely, HOME="/nonexistent", XDG_RUNTIME_DIR="")
    assert silent(lonely, ORBITD_CONFIG="/nonexistent")
    assert lonely("_complete").out == lonely("_complete", "nonsense").out == b""
    assert not os.path.exists(lonely.home / "run" / "orbit" / "orbitd.sock")


def test_completion_waits_for_a_second_at_most(process_ctl: Orbitctl) -> None:
    """A daemon that takes connections and does not answer is left: the shell has its line back."""
    asked = threading.Event()

    def say_nothing(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        asked.set()
        assert connection.recv(1) == b""  # it waits until the client has gone

    peer = Peer(process_ctl.home / "peer", say_nothing)
    assert silent(process_ctl, ORBITD_SOCKET=str(process_ctl.home / "peer"))
    assert asked.is_set()
    peer.close()


def test_names_come_from_the_daemon(process_ctl: Orbitctl, shared_daemon: DaemonProcess) -> None:
    """The running daemon's sessions are offered, and those of the socket that the line names."""
    process_ctl.ok("session", "create", "--name", "two words")
    offered = process_ctl.ok("_complete", "bash", "orbitctl session show tw", BREAKS)
    assert offered.lines == ["words", "two\\ words"]
    line = f"orbitctl session show --socket {shared_daemon.socket_path} tw"
    elsewhere = process_ctl.ok("_complete", "bash", line, BREAKS, ORBITD_SOCKET="/nonexistent/socket")
    assert elsewhere.lines == ["words", "two\\ words"]


def test_names_come_from_the_daemon_of_a_configuration(
    ctl: Orbitctl, shared_daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a configuration names the socket, that is asked."""
    ctl.ok("session", "create", "--name", "web")
    config = ctl.home / "config.toml"
    config.write_text(f"[daemon]\nsocket_path = {json.dumps(str(shared_daemon.socket_path))}\n")
    monkeypatch.setattr(answer, "TIMEOUT", WAIT_SECS)
    for name, value in {**ctl.environment, "ORBITD_CONFIG": str(config)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ORBITD_SOCKET", raising=False)
    monkeypatch.delenv("ORBITD_DATABASE", raising=False)
    assert answer.answer("bash", ["orbitctl session show w", BREAKS]) == ["words", "web"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_sound(offline: Orbitctl, shell: str) -> None:
    """The script is one that its shell reads without complaint."""
    require(shell)
    (offline.home / "script").write_bytes(offline.ok("completion", shell).out)
    assert offline.shell(f"{shutil.which(shell)} -n {offline.home}/script").code == 0
