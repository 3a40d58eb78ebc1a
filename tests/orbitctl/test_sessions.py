"""`orbitctl session` beside the real daemon."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from pathlib import Path

import pytest

from ctl_support import Ended, Orbitctl
from needs import needs
from support import DaemonProcess, RawClient

SESSION_TITLES = [
    "ID",
    "NAME",
    "STATUS",
    "TYPE",
    "HOST",
    "WORKSPACE",
    "LIVE",
    "SIZE",
    "CLIENTS",
    "IDLE",
    "SAVED",
    "COMMAND",
]


def test_a_program_is_given_what_this_shell_has(process_ctl: Orbitctl, home: Path) -> None:
    """Environment, umask and limits are those of the shell that runs orbitctl, but for what names its window."""
    told = f"{home}/told"
    script = f"(umask; ulimit -Sn; env) > {told}"
    ours = " ".join([*process_ctl.command, "-q", "session", "run", "-d", "--", "sh", "-c", shlex.quote(script)])
    env = "ONLY=here TMUX=x TERM_PROGRAM=x SSH_TTY=x"
    session = process_ctl.shell(f"umask 026; ulimit -Sn 111; {env} {ours}").text.strip()
    process_ctl.ok("session", "wait", session)
    umask, files, *variables = Path(told).read_text().splitlines()
    found = dict(line.split("=", 1) for line in variables)
    assert (umask, files, found["ONLY"], found["HOME"]) == ("0026", "111", "here", process_ctl.environment["HOME"])
    assert not {"TMUX", "TERM_PROGRAM", "SSH_TTY"} & set(found)


def test_a_created_session_is_listed(ctl: Orbitctl) -> None:
    """Create prints the new session as a row, and list prints the same row."""
    created = ctl.ok("session", "create", "--name", "web", "--", "npm", "run", "dev server")
    assert re.split(" {2,}", created.lines[0]) == SESSION_TITLES
    assert created.lines[1].split()[1:6] == ["web", "active", "local", "-", "-"]
    assert created.lines[1].endswith("npm run 'dev server'")
    assert ctl.ok("session", "list").lines == created.lines


def test_the_command_is_joined_as_a_shell_would_split_it(ctl: Orbitctl) -> None:
    """Words with blanks and quotes come back as they were given, options of the command too."""
    words = ["sh", "-c", "echo 'a b' \"$HOME\"", "--json", "--", "-x"]
    found = ctl.ok("--json", "session", "create", *words).json
    assert shlex.split(found["config"]["command"]) == words


def test_an_ssh_session_has_host_port_and_user(ctl: Orbitctl) -> None:
    """--host alone makes an ssh session, and its address is shown in one word."""
    ctl.ok("session", "create", "--host", "db.example", "--port", "2222", "--user", "ada")
    assert "ada@db.example:2222" in ctl.ok("session", "list", "--type", "ssh").text
    assert ctl.ok("session", "list", "--type", "local", "-q").text == ""


@pytest.mark.parametrize("before", [True, False])
def test_common_options_stand_anywhere(ctl: Orbitctl, before: bool) -> None:
    """--json and --socket work before the group and after the command."""
    socket = ctl.environment.pop("XDG_RUNTIME_DIR") + "/orbit/orbitd.sock"
    options = ["--json", "--socket", socket, "--no-autostart"]
    words = [*options, "session", "list"] if before else ["session", "list", *options]
    assert ctl.ok(*words).json == {"sessions": [], "next_cursor": None}


def test_json_is_the_result_to_the_letter(ctl: Orbitctl, shared_client: RawClient) -> None:
    """--json prints the bytes of the daemon's result and a newline."""
    name = ctl.id("session", "create", "--name", "日本")
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "session.find", "params": {"ref": name}})
    shared_client.send(line.encode())
    answer = shared_client.read_line()
    shown = ctl.ok("session", "show", name, "--json").out
    assert shown.endswith(b"}\n")
    assert shown.strip() in answer


def test_references_are_id_prefix_or_name(ctl: Orbitctl) -> None:
    """A session is found by its id, by a prefix of 4 characters, and by name."""
    found = ctl.id("session", "create", "--name", "web")
    for ref in (found, found[:4], "web"):
        assert ctl.ok("session", "show", "-q", ref).text.strip() == found


def test_a_name_that_begins_with_a_dash_works_after_dashes(ctl: Orbitctl) -> None:
    """`--` ends the options, so that any name can be given."""
    found = ctl.id("session", "create", "--name", "-q")
    assert ctl.ok("session", "show", "--json", "--", "-q").json["id"] == found


def test_unknown_sessions_exit_with_4(ctl: Orbitctl) -> None:
    """The message names the reference, and the hint names a command."""
    ended = ctl("session", "show", "nosuch")
    assert (ended.code, ended.out) == (4, b"")
    assert "nosuch" in ended.err
    assert "hint: `orbitctl ls -a` shows the sessions there are." in ended.err


def test_a_taken_name_exits_with_5(ctl: Orbitctl) -> None:
    """A second open session of the name is a conflict."""
    ctl.ok("session", "create", "--name", "web")
    assert ctl("session", "create", "--name", "web").code == 5


def test_an_ambiguous_prefix_exits_with_5(ctl: Orbitctl, shared_client: RawClient) -> None:
    """A prefix that fits two sessions is refused, and both are named."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    while not (ambiguous := [ids for ids in alike.values() if len(ids) == 2]):
        for created in shared_client.batch("session.create", [{"config": {"session_type": "local"}}] * 100):
            alike[created["result"]["id"][:4]].append(created["result"]["id"])
    ended = ctl("session", "show", ambiguous[0][0][:4])
    assert ended.code == 5
    assert all(one in ended.err for one in ambiguous[0])


def test_the_status_moves(ctl: Orbitctl) -> None:
    """detach, set-status and terminate change the status, and what is not allowed exits with 5."""
    found = ctl.id("session", "create")
    steps = [("detach", []), ("set-status", ["active"]), ("terminate", [])]
    shown = [ctl.ok("--json", "session", step, found, *more).json["status"] for step, more in steps]
    assert shown == ["detached", "active", "terminated"]
    ended = ctl("session", "detach", found)
    assert ended.code == 5
    assert "hint: " in ended.err


def test_an_archived_session_is_restored(ctl: Orbitctl) -> None:
    """What is done to an archived session fails with the command that brings it back, and that does."""
    found = ctl.id("session", "create")
    ctl.ok("session", "terminate", found)
    ctl.ok("maintenance", "archive", "--before", "0s")
    ended = ctl("session", "rename", found, "x")
    assert (ended.code, "`orbitctl session restore`" in ended.err) == (4, True)
    assert ctl.ok("--json", "session", "restore", found).json["status"] == "terminated"


def test_status_filters_are_repeated(ctl: Orbitctl) -> None:
    """List shows open sessions, those of the statuses asked for, or all."""
    first, second = ctl.id("session", "create"), ctl.id("session", "create")
    ctl.ok("session", "terminate", first)
    assert ctl.ok("session", "list", "-q").lines == [second]
    assert ctl.ok("session", "list", "-q", "--status", "terminated").lines == [first]
    assert ctl.ok("session", "list", "-q", "--status", "terminated", "--status", "active").lines == [first, second]
    assert ctl.ok("session", "list", "-q", "--status", "all").lines == [first, second]


def test_rename_gives_and_takes_names(ctl: Orbitctl) -> None:
    """A name is given, changed and taken away with --none."""
    found = ctl.id("session", "create")
    assert ctl.ok("--json", "session", "rename", found, "a").json["name"] == "a"
    assert ctl.ok("--json", "session", "rename", "a", "b").json["name"] == "b"
    assert ctl.ok("--json", "session", "rename", "b", "--none").json["name"] is None


def test_move_puts_into_workspaces_and_out(ctl: Orbitctl) -> None:
    """A session moves by names, is listed with its workspace's name, and moves out with --none."""
    space = ctl.id("workspace", "create", "shop")
    found = ctl.id("session", "create", "--name", "api")
    assert ctl.ok("--json", "session", "move", "api", "shop").json["workspace_id"] == space
    assert ctl.ok("session", "list", "--workspace", "shop").lines[1].split()[5] == "shop"
    assert ctl.ok("session", "list", "-q", "--workspace", "shop").lines == [found]
    assert ctl.ok("--json", "session", "move", "api", "--none").json["workspace_id"] is None


def test_deleting_needs_yes_where_nobody_can_be_asked(ctl: Orbitctl) -> None:
    """In a pipe, delete refuses with exit code 2 unless --yes is given."""
    found = ctl.id("session", "create")
    ended = ctl("session", "delete", found)
    assert ended.code == 2
    assert "--yes" in ended.err
    assert ctl.ok("session", "list", "-q").lines == [found]
    done = ctl.ok("session", "delete", found, "--yes")
    undo = f"hint: `orbitctl undelete {found}` brings it back\n"
    assert (done.text, done.err) == ("", f"deleted session {found}\n{undo}")
    assert ctl.ok("session", "list", "-q").lines == []


def test_pages_are_followed_to_the_end(own_ctl: Orbitctl, client: RawClient) -> None:
    """A list that takes two pages is shown whole, and --limit ends it where it says."""
    created = client.batch("session.create", [{"config": {"session_type": "local"}}] * 1100)
    ids = [answer["result"]["id"] for answer in created]
    assert own_ctl.ok("session", "list", "-q").lines == ids
    whole = own_ctl.ok("session", "list", "--json").json
    assert ([one["id"] for one in whole["sessions"]], whole["next_cursor"]) == (ids, None)
    some = own_ctl.ok("session", "list", "--json", "--limit", "1050").json
    assert [one["id"] for one in some["sessions"]] == ids[:1050]
    assert some["next_cursor"] is not None


def test_controls_in_a_command_never_reach_the_output(ctl: Orbitctl, shared_client: RawClient) -> None:
    """What the daemon stores cannot steer a terminal through a table or details."""
    config = {"session_type": "local", "command": "\x1b]0;owned\x07\n\x9b2J"}
    found = shared_client.call("session.create", config=config)["id"]
    for words in (["session", "list"], ["session", "show", found]):
        shown = ctl.ok(*words).text
        assert "\\x1b]0;owned\\x07\\n\\x9b2J" in shown
        assert "\x1b" not in shown


def test_wide_names_keep_columns_aligned(ctl: Orbitctl) -> None:
    """In a pipe, columns line up by what characters take on a terminal."""
    ctl.ok("session", "create", "--name", "日本語の端末")
    ctl.ok("session", "create", "--name", "plain")
    title, wide, plain = ctl.ok("session", "list").lines
    assert title.index("STATUS") == plain.index("active") == wide.index("active") + 6


@pytest.mark.parametrize(
    "words",
    [
        ["session", "run", "--detach", "--", "sleep", "9"],
        ["session", "run", "--detach", "--cwd", "below", "--", "sleep", "9"],
        ["session", "create", "--cwd", "."],
        ["maintenance", "backup", "copy.db"],
        ["maintenance", "restore", "--yes", "copy.db"],
        ["config", "check", "config.toml"],
        ["--socket", "orbitd.sock", "session", "list"],
    ],
    ids=" ".join,
)
def test_what_needs_a_deleted_folder_is_refused_by_its_name(process_ctl: Orbitctl, words: list[str]) -> None:
    """A command that means a path in the current folder, which has been deleted, says so and does nothing."""
    ended = in_deleted_folder(process_ctl, *words)
    assert (ended.code, ended.out) == (2, b"")
    assert re.match("error: .*the current folder, which.* has been deleted", ended.err)
    assert "Errno" not in ended.err
    assert process_ctl.ok("session", "list", "-q").out == b""


@pytest.mark.parametrize("folder", ["missing/folder", "/dev/null", "file"])
def test_nothing_runs_in_another_folder_than_the_named_one(ctl: Orbitctl, folder: str) -> None:
    """`rm -r build` with a mistyped --cwd does not run at home: what cannot be entered is refused by name."""
    (ctl.home / "file").touch()
    ended = ctl("session", "run", "--detach", "--cwd", folder, "--", "touch", str(ctl.home / "ran"))
    assert (ended.code, ended.out) == (2, b"")
    assert folder in ended.err
    assert ctl.ok("session", "list", "--status", "all", "-q").out == b""


@needs(root=True, linux=True)
def test_a_current_folder_that_may_not_be_entered_is_refused(process_ctl: Orbitctl) -> None:
    """A shell may stand in a folder that its user has lost the permission for (su, another group)."""
    words = shlex.join([*process_ctl.command, "session", "run", "--detach", "--", "true"])
    ended = process_ctl.shell(
        "mkdir -p closed/in && chown 12345 closed && chmod 700 closed && cd closed/in && "
        f"exec setpriv --bounding-set=-dac_override,-dac_read_search {words}"
    )
    assert (ended.code, ended.out) == (2, b"")
    assert "/closed/in: Permission denied" in ended.err


@pytest.mark.parametrize(
    "words",
    [
        ["session", "list"],
        ["session", "create"],
        ["session", "run", "--detach", "--cwd", "/", "--", "sleep", "9"],
        ["maintenance", "backup"],
        ["config", "check"],
        ["doctor"],
        ["status"],
    ],
    ids=" ".join,
)
def test_what_needs_no_folder_works_in_a_deleted_one(process_ctl: Orbitctl, words: list[str]) -> None:
    """All else does not ask where it runs."""
    assert in_deleted_folder(process_ctl, *words).code == 0


def test_a_daemon_is_started_from_a_deleted_folder(lonely: Orbitctl) -> None:
    """It runs in a folder of its own."""
    ended = in_deleted_folder(lonely, "session", "create", "-q")
    assert ended.code == 0
    assert lonely.ok("session", "list", "-q").out == ended.out


def in_deleted_folder(ctl: Orbitctl, *words: str) -> Ended:
    """Run orbitctl in a folder that has been deleted."""
    return ctl.shell(f"mkdir gone && cd gone && rmdir ../gone && exec {shlex.join([*ctl.command, *words])}")


def test_sessions_of_a_killed_daemon_come_back(daemon: DaemonProcess) -> None:
    """The command line starts a daemon in the place of one that was killed, and everything is there."""
    ctl = Orbitctl(daemon.home, daemon.environment)
    found = ctl.id("session", "create", "--name", "kept")
    daemon.kill()
    try:
        assert ctl.ok("session", "list", "-q").lines == [found]
    finally:
        ctl.ok("daemon", "stop")


def test_either_spelling_of_a_name_is_the_name(ctl: Orbitctl) -> None:
    """A name that is typed in one Unicode spelling is shown, found, and taken in the other."""
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    session = ctl.id("session", "create", "--name", nfd)
    workspace = ctl.id("workspace", "create", nfd)
    assert ctl.ok("session", "list", "--json").json["sessions"][0]["name"] == nfc
    for spelling in (nfc, nfd):
        assert ctl.ok("session", "show", spelling, "-q").lines == [session]
        assert ctl.ok("workspace", "show", spelling, "-q").lines == [workspace]
        assert ctl("session", "create", "--name", spelling).code == 5
        assert ctl("workspace", "create", spelling).code == 5
    long = nfd * 64  # 256 characters once they are composed
    assert ctl.ok("session", "rename", nfd, long, "--json").json["name"] == nfc * 64


def test_what_a_program_has_said_is_shown(ctl: Orbitctl, shared_daemon: DaemonProcess) -> None:
    """`ls` has a word for it, and `session show` the words; nothing of them steers the terminal."""
    prints = (
        r"\033]133;C;cmdline_url=make%%0aall\007\033]133;D;2\007\033]9;4;1;45\007\007"
        r"\033]99;p=body:u=2:e=1;MyAbWzMxbWZhaWxlZOKArg==\033\\"
    )
    with shared_daemon.client() as client:
        cursor = client.call("events.list", limit=0)["cursor"]
        session = ctl.id("session", "run", "-d", "--", "sh", "-c", f"printf '{prints}'; cat")
        client.call("events.wait", kinds=["terminal.notification"], session_id=session, since=cursor, timeout_secs=30)
    (line,) = [line for line in ctl.ok("ls", "--columns", "id,mark,news").lines if session in line]
    assert line.split() == [session, "!", "notification,45%"]
    template = "{id} {last_command.exit_code} {progress.percent} {notification.urgency}"
    assert f"{session} 2 45 critical" in ctl.ok("ls", "--format", template).lines
    (line,) = [line for line in ctl.ok("ls").lines if session in line]
    assert line.split()[3] == "notification,45%"
    shown = dict(re.split(r":\s+", line, maxsplit=1) for line in ctl.ok("session", "show", session).lines)
    assert shown["notification"] == r"3 [31mfailed\u202e (critical)"
    assert shown["since you left"] == "bell, output"
    assert shown["progress"] == "45%"
    assert re.fullmatch(r"make\\nall \(exit 2, after .* s, in /.*\)", shown["last command"])
    found = json.loads(ctl.ok("--json", "session", "show", session).text)
    assert found["last_command"]["command"] == "make\nall"
    ctl.ok("session", "delete", "--yes", session)
