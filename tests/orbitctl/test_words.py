"""The short words beside the real daemon: new, run, kill, rm, logs, prune, and what they say."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from attach_support import Window
from ctl_support import Ended, Orbitctl, Peer, read_line
from orbit_protocol import PROTOCOL_VERSION, VERSION
from orbit_protocol.errors import (
    AmbiguousReference,
    InvalidParams,
    MethodNotFound,
    NameTaken,
    NotRunning,
    OrbitError,
    SessionNotFound,
)
from orbit_protocol.types import Session
from orbitctl.app import App
from orbitctl.client.client import Answer
from orbitctl.errors import from_daemon


def names(ctl: Orbitctl, *words: str) -> list[str]:
    """Return the names of sessions, oldest first."""
    return [one["name"] for one in ctl.ok("--json", "session", "list", *words).json["sessions"]]


def test_new_in_the_background_prints_name_and_id(ctl: Orbitctl) -> None:
    """`new -d` starts the program and prints what the session is called by; -q prints the id alone."""
    (line,) = ctl.ok("new", "-d", "work", "--", "cat", "-d").lines
    found = ctl.ok("session", "show", "work", "--json").json
    assert line == f"work  {found['id']}"
    assert (found["live"], found["config"]["command"]) == (True, "cat -d")
    (unnamed,) = ctl.ok("new", "-d").lines
    assert ctl.ok("-q", "session", "show", unnamed).lines == [unnamed]


@pytest.mark.parametrize(("name", "typed"), [("work", "work"), ("two words", "'two words'"), ("-x", "-- -x")])
def test_a_name_that_is_taken_is_answered_with_the_command_for_it(ctl: Orbitctl, name: str, typed: str) -> None:
    """The error says how to attach to the session of that name, as a shell takes it, and -A does."""
    ctl.ok("session", "create", "--name", name)
    ended = ctl("new", "-d", f"--name={name}")
    assert ended.code == 5
    assert f"hint: `orbitctl a {typed}` attaches to it." in ended.err
    assert ctl.ok("new", "-A", "-d", f"--name={name}").text.startswith(f"{name}  ")
    assert names(ctl) == [name]


def test_new_attaches_and_dash_a_attaches_again(ctl: Orbitctl) -> None:
    """`new` shows the session; `new -A` of a name that is there shows that one, and starts nothing."""
    with Window(ctl, "new", "work", "--", "sh", "-c", "echo here; read x; exit 3") as window:
        window.screen_until("here")
        with Window(ctl, "new", "-A", "work", "--detach-key", "C-a") as second:
            second.screen_until("here")
            second.type(b"\x01")
            assert second.end() == 0
        window.type("\r")
        assert window.end() == 3


def test_run_names_sessions_after_their_programs(ctl: Orbitctl) -> None:
    """All that follows the program is its own; a second one gets the smallest number that is free."""
    for _ in range(3):
        ctl.ok("run", "-d", "/bin/sh", "-c", "read x", "-d")
    ctl.ok("kill", "sh-2")
    assert ctl.ok("run", "-d", "sh", "-c", "read x", "--json").text.startswith("sh-2  ")
    ctl.ok("run", "-d", "--name", "other", "cat")
    ctl.ok("run", "-d", "--rm", "cat")
    assert names(ctl) == ["sh", "sh-3", "sh-2", "other", "cat"]
    shown = ctl.ok("--json", "session", "show", "sh-2").json["config"]
    assert (shown["command"], shown["auto_remove"]) == ("sh -c 'read x' --json", False)
    assert ctl.ok("--json", "session", "show", "cat").json["config"]["auto_remove"] is True


@pytest.fixture
def scripted_daemon(offline: Orbitctl) -> Iterator[ScriptedDaemon]:
    """A daemon that answers as a test says."""
    daemon = ScriptedDaemon(offline)
    yield daemon
    daemon.peer.close()


class ScriptedDaemon:
    """Answers the requests of orbitctl one by one, whatever they ask, and keeps them.

    Args:
        ctl: Runs orbitctl in a home without a daemon.

    Attributes:
        inside: The session that orbitctl runs in.
    """

    def __init__(self, ctl: Orbitctl) -> None:
        self._ctl, self._path = ctl, ctl.home / "peer"
        self._answers: list[dict[str, Any]] = []
        self.inside = ""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.peer = Peer(self._path, self._talk)

    def _talk(self, connection: socket.socket) -> None:
        while line := read_line(connection):
            request = json.loads(line)
            self.asked.append((request["method"], request.get("params", {})))
            body = {"jsonrpc": "2.0", "id": request["id"], **self._answers.pop(0)}
            connection.sendall(json.dumps(body).encode() + b"\n")

    def __call__(self, *words: str, answers: list[Any]) -> Ended:
        """Run orbitctl; an answer is a result, or an exception."""
        self._answers = [
            {"error": {"code": one.code, "message": one.message, "data": one.data()}}
            if isinstance(one, OrbitError)
            else {"result": one}
            for one in answers
        ]
        return self._ctl("--socket", str(self._path), *words, ORBIT_SESSION=self.inside)


def session(name: str | None = None, identity: str = "5e0c6f6e", **more: Any) -> dict[str, Any]:
    """Return a session as the daemon sends it; its id begins with `identity`."""
    moment = "2026-01-31T12:00:00Z"
    identity += "5e0c6f6e-0b57-4d35-a3a2-6ea5f5d0d6a1"[len(identity) :]
    config = {"session_type": "local", "command": "htop"}
    times = {"created_at": moment, "last_active": moment}
    base = {"id": identity, "name": name, "session_type": "local", "status": "detached", "config": config}
    return {**base, **times, "workspace_id": None, **more}


def page(*sessions: dict[str, Any]) -> dict[str, Any]:
    return {"sessions": list(sessions), "next_cursor": None}


OURS = {"version": VERSION, "protocol_version": PROTOCOL_VERSION}


def test_a_number_that_somebody_else_takes_meanwhile_is_passed_over(scripted_daemon: ScriptedDaemon) -> None:
    """Where the name that was free is taken after all, the next one is looked for."""
    taken = NameTaken("Session x has the name")
    answers = [taken, page(session("htop")), taken, page(session("htop"), session("htop-2")), session("htop-3")]
    ended = scripted_daemon("run", "-d", "htop", answers=[*answers, session("htop-3")])
    assert ended.text == f"htop-3  {session()['id']}\n"
    tried = [params["name"] for method, params in scripted_daemon.asked if method == "session.create"]
    assert tried == ["htop", "htop-2", "htop-3"]


def test_what_is_removed_at_its_end_is_seen_however_quick_it_was(scripted_daemon: ScriptedDaemon) -> None:
    """Where `run --rm` finds its session deleted already, what it printed and its exit code come from the trash."""
    one = session("true", exit_code=3)
    one["config"]["auto_remove"] = True
    screen = {"data": "quick\n\n", "cols": 80, "rows": 24, "cursor": {"col": 0, "row": 1, "visible": True}, "title": ""}

    def attach(_: App, create: Callable[[], Answer[Session]], *_rest: object) -> int:
        create()
        raise from_daemon(SessionNotFound("gone")) from SessionNotFound("gone")

    with mock.patch("orbitctl.attach.run_attach.run_attached", attach):
        ended = scripted_daemon("run", "--rm", "true", answers=[one, one, screen, {}])
    assert (ended.code, ended.text) == (3, "quick\n")
    methods = [method.removeprefix("session.") for method, _ in scripted_daemon.asked]
    assert methods == ["create", "undelete", "screen", "delete"]
    assert scripted_daemon.asked[-1][1] == {"id": one["id"]}  # into the trash


def test_several_are_ended_and_each_that_fails_is_told(ctl: Orbitctl) -> None:
    """The exit code is that of the first failure; one that has ended is no error, and --json has a line for each."""
    for name in ("one", "two"):
        ctl.ok("new", "-d", name, "--", "cat")
    ended = ctl("kill", "one", "nosuch", "two", "one")
    assert (ended.code, ended.out) == (4, b"")
    assert re.findall(r"^(\w+) \(\w{8}\) has ended$", ended.err, re.M) == ["one", "two"]
    assert ended.err.count("nosuch") == 1
    again = ctl.ok("kill", "one", "two", "--json")
    assert [json.loads(line)["status"] for line in again.lines] == ["terminated"] * 2
    assert re.fullmatch(r"one \(\w{8}\) had ended already\n", ctl.ok("kill", "one").err)


def test_detaching_what_is_detached_is_no_error(ctl: Orbitctl) -> None:
    """It is said, and nothing changes; inside a session none means this one."""
    found = ctl.id("new", "-d", "work", "--", "cat")
    assert ctl.ok("session", "detach", "work").err == f"work ({found[:8]}) was detached already\n"
    assert ctl.environment.setdefault("ORBIT_SESSION", found) == found
    assert ctl.ok("session", "detach", "-q").lines == [found]


def test_inside_a_session_none_means_this_one(ctl: Orbitctl) -> None:
    """show, logs, rename and detach take no name there; kill and rm want one."""
    found = ctl.id("new", "-d", "work", "--", "cat")
    ctl.environment["ORBIT_SESSION"] = found
    assert ctl.ok("session", "show", "-q").lines == [found]
    assert ctl.ok("logs", "-q").lines == [found]
    assert ctl.ok("--json", "session", "rename", "other").json["name"] == "other"
    assert ctl.ok("--json", "session", "rename", "--none").json["name"] is None
    for word in ("kill", "rm"):
        assert ctl(word).code == 2


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("no_window", "no window that types into it shows this session now"),
        ("client", "the window that shows this session cannot be switched"),
        ("alone", "no other session runs"),
    ],
)
def test_a_window_that_cannot_be_switched_is_told_why(scripted_daemon: ScriptedDaemon, reason: str, said: str) -> None:
    """Inside a session `a` names the reason, and what would do: none shows it, above all, is not one that cannot."""
    scripted_daemon.inside = "5e0c6f6e"
    ended = scripted_daemon("a", answers=[NotRunning("refused", data={"reason": reason})])
    assert (ended.code in (4, 5), ended.err.splitlines()[0]) == (True, f"error: {said}")


def test_send_inside_a_session_types_into_this_one(ctl: Orbitctl) -> None:
    """One word, or keys alone, go to this session; a word that names another goes there, and two always do."""
    found = ctl.id("new", "-d", "work", "--", "sh", "-c", "exec cat > work")
    ctl.ok("new", "-d", "other", "--", "sh", "-c", "exec cat > other")
    ctl.environment["ORBIT_SESSION"] = found
    ctl.ok("session", "send", "x" * 300, "--enter")
    ctl.ok("session", "send", "last line", "--enter")
    ctl.ok("session", "send", "other", "there")
    assert ctl("session", "send", "nosuch", "text").code == 4
    ctl.ok("session", "send", "other", "--enter")
    ctl.ok("session", "send", "--key", "C-d")
    ctl.ok("session", "send", "other", "--key", "C-d")
    for name in ("work", "other"):
        ctl.ok("session", "wait", name)
    assert (ctl.home / "work").read_text() == f"{'x' * 300}\nlast line\n"
    assert (ctl.home / "other").read_text() == "there\n"


def test_logs_are_the_lines_that_were_printed(ctl: Orbitctl) -> None:
    """History and screen come in order, without the empty rows below; -n takes the last lines."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", "seq 1 100; exit 0")
    ctl.ok("session", "wait", "work")
    assert ctl.ok("logs", "work").lines == [str(number) for number in range(1, 101)]
    assert ctl.ok("logs", "work", "-n", "2").lines == ["99", "100"]
    assert ctl.ok("logs", "work", "-n", "0").lines == []


def test_a_name_is_found_by_its_beginning_where_nothing_is_destroyed(ctl: Orbitctl) -> None:
    """On a terminal, what one name alone begins with will do for show, and not for kill, nor in a pipe."""
    found = ctl.id("session", "create", "--name", "build-web")
    assert ctl.on_terminal("session", "show", "-q", "buil").text.split() == [found]
    for word in ("kill", "rm", "undelete"):
        assert ctl.on_terminal(word, "buil").code == 4
    assert "buil" not in ctl.on_terminal("a", "--no-start", "buil", NO_COLOR="1").text.split("error: ")[1].split()
    assert ctl("session", "show", "buil").code == 4
    ctl.ok("session", "create", "--name", "build-api", "--", "make")
    shown = ctl.on_terminal("session", "show", "build", NO_COLOR="1")
    assert shown.code == 5
    assert re.search(r"ID +NAME +STATUS +SINCE +COMMAND\n", shown.text)
    assert re.search(r"-\w{12} +build-api +active +(just now|\d+s ago) +make\n", shown.text)


def test_an_ambiguous_reference_shows_what_it_could_be() -> None:
    """The candidates are a table, with what is escaped and wide in line; of an older daemon, the ids."""
    sessions = [
        {"id": "a1", "name": "日本", "status": "terminated", "since": "2026-01-31T12:00:00Z", "command": "vim\x1b"},
        {"id": "b22", "name": None, "status": "detached", "since": "2026-01-31T12:00:00Z", "command": None},
    ]
    error = from_daemon(AmbiguousReference("fits 2", data={"candidates": ["a1", "b22"], "sessions": sessions}))
    title, first, second = (re.sub(r"\w+ ago", "some ago", line) for line in error.details)
    assert re.split(" {2,}", title) == ["ID", "NAME", "STATUS", "SINCE", "COMMAND"]
    assert re.split(" {2,}", first) == ["a1", "日本", "terminated", "some ago", "vim\\x1b"]
    assert re.split(" {2,}", second) == ["b22", "-", "detached", "some ago", "-"]
    assert title.index("STATUS") == second.index("detached") == first.index("terminated") + 2
    older = from_daemon(AmbiguousReference("fits 2", data={"candidates": ["a1", "b22"]}))
    assert older.details == ("could be: a1", "could be: b22")


def test_removing_asks_once_and_says_how_to_undo(ctl: Orbitctl) -> None:
    """On a terminal one question names all; elsewhere it needs --yes. What was deleted comes back by a command."""
    ctl.ok("new", "-d", "one", "--", "cat")
    ctl.ok("session", "create", "--name", "two words")
    refused = ctl("rm", "one", "two words")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    asked = ctl.on_terminal("rm", "one", "nosuch", "two words", prompt=b"[y/N]: ", typed=b"y\n", NO_COLOR="1")
    assert re.search(r"Delete one \(\w{8}\) \(still runs\), two words \(\w{8}\)\?", asked.text)
    assert asked.text.count("[y/N]") == 1
    assert "hint: `orbitctl undelete one 'two words'` brings them back\n" in asked.text
    assert (asked.code, names(ctl)) == (4, [])


def test_a_session_is_deleted_once_however_often_it_is_named(scripted_daemon: ScriptedDaemon) -> None:
    """By its name and by its id it is one; --purge asks the daemon to delete it for good."""
    one = session("work")
    ended = scripted_daemon("rm", "-y", "--purge", "work", one["id"], answers=[one, one, {}])
    assert (ended.code, ended.err) == (0, "deleted session work (5e0c6f6e) for good\n")
    assert scripted_daemon.asked[2:] == [("session.delete", {"id": one["id"], "purge": True})]


@pytest.mark.parametrize("ref", ["work", "aaaa", "aaaa6f6e-0b57-4d35-a3a2-6ea5f5d0d6a1"])
def test_undelete_finds_what_was_deleted_last(scripted_daemon: ScriptedDaemon, ref: str) -> None:
    """By name the newest of the trash, by an id or its beginning that one."""
    newest, older = session("work", "aaaa"), session("work", "bbbb")
    ended = scripted_daemon("undelete", ref, answers=[page(newest, older), newest])
    assert (ended.code, ended.err) == (0, f"brought work ({newest['id'][:8]}) back\n")
    assert scripted_daemon.asked[1] == ("session.undelete", {"id": newest["id"]})


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([page(session("work"), session("x", "5e0c6f6f"))], 5, "5e0c6f6e-"),
        ([page(session("other", "aaaa"))], 4, "`orbitctl ls --deleted`"),
        ([page(session("a b", "5e0c")), NameTaken("taken")], 5, "`orbitctl session rename 'a b' NEW-NAME`"),
    ],
    ids=["ambiguous", "unknown", "taken"],
)
def test_what_cannot_be_undeleted_is_told(
    scripted_daemon: ScriptedDaemon, answers: list[Any], code: int, said: str
) -> None:
    """An ambiguous id, one that is not there, and a name that another session has meanwhile, each with a next step."""
    ended = scripted_daemon("undelete", "5e0c6f", answers=answers)
    assert (ended.code, said in ended.err) == (code, True), ended


def test_an_older_daemon_starts_programs_without_what_it_does_not_know(scripted_daemon: ScriptedDaemon) -> None:
    """Right after an upgrade `new` works: what orbitd can do without is left out, one by one, and nothing else is."""
    one = session("work", live=True)
    unknown = [InvalidParams(f"Object contains unknown field `{name}`") for name in ("umask", "limits")]
    ended = scripted_daemon("new", "-d", "work", "--", "htop", answers=[one, *unknown, one])
    assert ended.code == 0, ended
    started = [params for method, params in scripted_daemon.asked if method == "session.start"]
    assert [{"umask", "limits"} & set(params) for params in started] == [{"umask", "limits"}, {"limits"}, set()]
    assert started[2].keys() == started[0].keys() - {"umask", "limits"}


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["run", "--rm", "-d", "htop"], [InvalidParams("Object contains unknown field `auto_remove` - at `$.config`")]),
        (["ls", "--label", "a=b"], [InvalidParams("Object contains unknown field `labels`")]),
        (["undelete", "work"], [MethodNotFound("No such method: 'session.list_deleted'"), OURS]),
        (["rm", "-y", "work"], [session("work"), MethodNotFound("No such method: 'session.list_deleted'"), OURS]),
        (["prune", "-y"], [page(session("work")), MethodNotFound("No such method: 'session.list_deleted'"), OURS]),
    ],
    ids=["rm at the end", "labels", "undelete", "rm", "prune"],
)
def test_what_an_older_daemon_does_not_know_is_not_done(
    scripted_daemon: ScriptedDaemon, words: list[str], answers: list[Any]
) -> None:
    """The user is told to restart it; above all nothing is deleted for good where it has no trash."""
    ended = scripted_daemon(*words, answers=answers)
    assert (ended.code, "`orbitctl daemon restart`" in ended.err) == (7, True), ended
    assert ended.err.startswith("error: the running orbitd is older than this orbitctl"), ended
    assert "session.delete" not in [method for method, _ in scripted_daemon.asked]


def test_the_trash_is_listed(scripted_daemon: ScriptedDaemon) -> None:
    """`session list --deleted` shows what was deleted and when; the id of what had no name is there once."""
    one, other = (session(name, deleted_at="2026-01-31T12:30:00Z") for name in ("work", None))
    ended = scripted_daemon("session", "list", "--deleted", answers=[page(one, other)])
    assert [line.split() for line in ended.lines] == [
        ["ID", "NAME", "DELETED", "COMMAND"],
        [one["id"], "work", "2026-01-31T12:30:00Z", "htop"],
        [other["id"], "-", "2026-01-31T12:30:00Z", "htop"],
    ]


def test_prune_deletes_what_has_ended_before(ctl: Orbitctl) -> None:
    """Without --older all ended sessions go; nothing to do is said."""
    for name in ("one", "two", "three"):
        ctl.ok("session", "create", "--name", name)
    ctl.ok("kill", "one", "two")
    assert ctl.ok("prune", "--older", "1h", "--yes").err == "no session has ended before that time\n"
    assert ctl("prune").code == 2
    ended = ctl.ok("prune", "--yes", "--older", "0s")
    assert re.fullmatch(
        r"deleted 2 ended sessions\nhint: `orbitctl undelete \w{8} \w{8}` brings them back\n", ended.err
    )
    assert ctl.ok("prune", "--yes").err == "no session has ended\n"
    assert names(ctl, "--status", "all") == ["three"]


def test_prune_leaves_the_sessions_of_workspaces(ctl: Orbitctl) -> None:
    """What was parked is opened again, as park promises, and its ended sessions are deleted by their names alone."""
    ctl.ok("workspace", "create", "shop")
    ctl.ok("session", "create", "--name", "api", "--workspace", "shop")
    ctl.ok("session", "create", "--name", "one")
    ctl.ok("kill", "api", "one")
    ended = ctl.ok("prune", "--yes")
    assert ended.err.startswith("left 1 ended session of workspaces for `orbitctl open`\ndeleted 1 ended session\n")
    assert names(ctl, "--status", "all") == ["api"]
    assert ctl.ok("prune", "--yes").err == "left 1 ended session of workspaces for `orbitctl open`\n"


@pytest.mark.parametrize(
    ("words", "params"),
    [
        (["a=1", "b="], {"a": "1", "b": ""}),
        (["a-", "b=c-"], {"a": None, "b": "c-"}),
    ],
)
def test_labels_are_set_and_removed(
    scripted_daemon: ScriptedDaemon, words: list[str], params: dict[str, str | None]
) -> None:
    """KEY=VALUE sets one, KEY- removes it; those that there are then are printed."""
    one = session("work", labels={"b": "2", "a": "1"})
    ended = scripted_daemon("label", "work", *words, answers=[one, one])
    assert ended.lines == ["a=1", "b=2"]
    assert scripted_daemon.asked[1] == ("session.set_labels", {"id": one["id"], "labels": params})


@pytest.mark.parametrize(
    ("inside", "words", "ref", "command"),
    [
        (True, ["vim -r"], "this", "vim -r"),
        (True, ["vim", "-r", "a b"], "this", "vim -r 'a b'"),
        (True, ["other", "--", "vim"], "other", "vim"),
        (True, ["--session", "other", "vim", "-r"], "other", "vim -r"),
        (True, ["--clear"], "this", None),
        (False, ["work", "vim -r"], "work", "vim -r"),
        (False, ["work", "--", "vim", "--session", "x"], "work", "vim --session x"),
        (False, ["--clear", "work"], "work", None),
        (False, ["work", "--clear"], "work", None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_resume_is_set_from_inside_and_outside(
    scripted_daemon: ScriptedDaemon, inside: bool, words: list[str], ref: str, command: str | None
) -> None:
    """Inside a session all words are the command for this one; outside the first names the session."""
    one = session("work")
    scripted_daemon.inside = "this" if inside else ""
    ended = scripted_daemon("session", "resume", *words, answers=[one, one])
    assert ended.code == 0
    assert scripted_daemon.asked == [
        ("session.find", {"ref": ref}),
        ("session.set_resume", {"id": one["id"], "command": command}),
    ]
