"""What a program finds when it begins: environment, folder, descriptors, signals, umask, terminal."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from live.sessions import Terminal, create, start
from live_support import Viewer
from orbit_protocol.errors import SpawnFailed
from orbit_protocol.types import Session, SessionConfig
from orbitd.sessions.command_line import build_launch
from orbitd.sessions.ssh_agent import AgentLinks
from support import WAIT_SECS, DaemonProcess, RawClient

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
SELF = f"{sys.executable} {Path(__file__).with_name('inspect_self.py')}"


def inspected(client: RawClient, home: Path, sent: dict[str, str] | None = None, **config: Any) -> dict[str, Any]:
    """Return what a program found, and the session that it ran in."""
    session_id = create(client, f"{SELF} {home}/told", **config)
    client.call("session.start", id=session_id, cols=91, rows=31, env=sent)
    viewer = Viewer(client, session_id, (91, 31))
    while "written" not in viewer.text():
        viewer.step()
    return {**json.loads((home / "told").read_text()), "session": session_id}


def test_a_program_begins_clean(shared_daemon: DaemonProcess, shared_client: RawClient, home: Path) -> None:
    """Three descriptors that are its terminal, its own session, no blocked signal, the size as asked."""
    told = inspected(shared_client, home, cwd=str(home))
    assert told["descriptors"] == dict.fromkeys("012", told["terminal"])
    assert (told["is_leader"], told["blocked"], told["cwd"], told["size"]) == (True, 0, str(home), [91, 31])
    # Python ignores SIGPIPE and SIGXFSZ for itself, glibc 32 and 33 in what posix_spawn(3) starts; nobody any other.
    assert told["ignored"] & ~_mask(signal.SIGPIPE, signal.SIGXFSZ, 32, 33) == 0
    assert told["files"] == os.sysconf("SC_OPEN_MAX")


def _mask(*numbers: int) -> int:
    return sum(1 << (number - 1) for number in numbers)


def test_a_broken_pipe_ends_a_program(shared_client: RawClient) -> None:
    """SIGPIPE has its default meaning: `yes | head` ends, and ends quietly."""
    session_id = start(shared_client, "bash -c 'yes | head -1; echo ${PIPESTATUS[0]}; read x'")
    Terminal(shared_client, session_id).follow_until(f"\n{128 + signal.SIGPIPE}")


def test_the_umask_is_the_users(home: Path) -> None:
    """Programs get the umask that the daemon was started with, not the daemon's own 077."""
    before = os.umask(0o027)
    daemon = DaemonProcess(home)
    try:
        daemon.start()
    finally:
        os.umask(before)
    try:
        with daemon.client() as client:
            assert inspected(client, home)["umask"] == 0o027
    finally:
        daemon.end()


def test_the_environment(stopped_daemon: DaemonProcess, home: Path) -> None:
    """The terminal's names are set, those of other terminals are not, and nothing of a supervisor's gets through."""
    stopped_daemon.environment |= {"TMUX": "x", "STY": "x", "COLUMNS": "7", "INVOCATION_ID": "x", "WATCHDOG_PID": "1"}
    with stopped_daemon.start().client() as client:
        env = inspected(client, home, {"LANG": "C.UTF-8", "TERM": "dumb"})["env"]
    assert (env["TERM"], env["COLORTERM"], env["LANG"]) == ("xterm-256color", "truecolor", "C.UTF-8")
    assert not {"TMUX", "STY", "COLUMNS", "WATCHDOG_PID", "NOTIFY_SOCKET", "LISTEN_FDS"} & set(env)


def test_the_agents_link(shared_daemon: DaemonProcess, shared_client: RawClient, home: Path) -> None:
    """SSH_AUTH_SOCK names a link that the start and each writable attach renew; a session's own link is followed."""
    told = inspected(shared_client, home, {"SSH_AUTH_SOCK": "/agents/first"})
    session_id, link = told["session"], told["env"]["SSH_AUTH_SOCK"]
    assert os.readlink(link) == "/agents/first"
    attach = {"id": session_id, "cols": 80, "rows": 24}
    shared_client.call("session.attach", **attach, env={"SSH_AUTH_SOCK": "/agents/second"})
    assert os.readlink(link) == "/agents/second"
    shared_client.call("session.attach", **attach, read_only=True, env={"SSH_AUTH_SOCK": "/agents/third"})
    shared_client.call("session.attach", **attach, env={"SSH_AUTH_SOCK": link})
    shared_client.call("session.attach", **attach, env={})
    assert os.readlink(link) == "/agents/second"
    with shared_daemon.client() as other:
        inner = inspected(other, home, {"SSH_AUTH_SOCK": link})
    assert os.readlink(inner["env"]["SSH_AUTH_SOCK"]) == "/agents/second"
    shared_client.call("session.terminate", id=session_id)
    assert not os.path.lexists(link)


def test_an_agent_that_comes_later(shared_daemon: DaemonProcess, shared_client: RawClient, home: Path) -> None:
    """A session started without an agent finds that of who attaches, unless its own config names one."""
    link = inspected(shared_client, home, {})["env"]["SSH_AUTH_SOCK"]
    assert link.startswith(str(shared_daemon.home))
    config = {"SSH_AUTH_SOCK": "/agents/own"}
    assert inspected(shared_client, home, {"SSH_AUTH_SOCK": "/x"}, env=config)["env"]["SSH_AUTH_SOCK"] == "/agents/own"


def test_a_folder_of_links_that_is_open_to_others(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """Only the agent's link fails then: sessions start and are attached to."""
    agent = {"SSH_AUTH_SOCK": "/agents/first"}
    first = start(shared_client, "cat")
    folder = shared_daemon.home / ".local" / "state" / "orbit" / "agent"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    try:
        shared_client.call("session.attach", id=first, cols=80, rows=24, env=agent)
        second = create(shared_client, "cat")
        assert shared_client.call("session.start", id=second, env=agent)["live"]
        assert list(folder.glob(f"{second}*")) == []
        shared_daemon.wait_for_log("agent link not updated", count=2)
    finally:
        folder.chmod(0o700)


AGENT = (
    "import os, socket; s = socket.socket(socket.AF_UNIX); s.connect(os.environ['SSH_AUTH_SOCK']); "
    "s.sendall(os.fsencode(os.environ['HOME'])); s.close(); input()"
)
"""A program that connects to the ssh agent."""


@pytest.mark.parametrize("length", [46, 60, 66])
def test_an_agent_is_reached_from_a_long_home(home: Path, length: int) -> None:
    """connect(2) takes the path of the link itself, which is short where HOME is long."""
    long = home / ("h" * (length - len(str(home)) - 1))
    long.mkdir(mode=0o700)
    daemon = DaemonProcess(home, environment={"HOME": str(long)})
    daemon.database_path = long / ".local" / "share" / "orbit" / "sessions.db"
    try:
        with socket.socket(socket.AF_UNIX) as agent, daemon.start().client() as client:
            agent.bind(str(home / "agent"))
            agent.listen()
            agent.settimeout(WAIT_SECS)
            session_id = create(client, shlex.join([sys.executable, "-c", AGENT]))
            client.call("session.start", id=session_id, env={"SSH_AUTH_SOCK": str(home / "agent")})
            connection, _ = agent.accept()
            with connection:
                assert connection.recv(1000) == os.fsencode(long)
            client.call("session.delete", id=session_id)
        assert [path for path in home.rglob("*") if path.is_symlink()] == []
    finally:
        daemon.end()


def test_links_of_long_paths_are_no_links_to_themselves(home: Path) -> None:
    """A client in a session has that session's short link for an agent: another session's is followed, its own not."""
    links = AgentLinks(f"{home}/{'s' * 100}", str(home))
    one, other = "0" * 36, "1" * 36
    links.update(one, {b"SSH_AUTH_SOCK": b"/agents/first"})
    assert os.path.dirname(links.path(one)) == f"{home}/orbit"
    links.update(one, {b"SSH_AUTH_SOCK": os.fsencode(links.path(one))})
    links.update(other, {b"SSH_AUTH_SOCK": os.fsencode(links.path(one))})
    assert [os.readlink(links.path(each)) for each in (one, other)] == ["/agents/first"] * 2
    links.remove(one)
    assert (links.exists(one), links.exists(other)) == (False, True)


def test_no_program_is_given_a_link_in_a_folder_of_others(home: Path) -> None:
    """Who can change the folder could put an agent there, and be given keys: the client's own agent is passed on."""
    folder = home / "agent"
    links = AgentLinks(str(folder))
    assert links.path_for_program("one") == f"{folder}/one"
    folder.chmod(0o777)
    assert links.path_for_program("one") is None
    sent = {b"SSH_AUTH_SOCK": b"/agents/own"}
    env = {b"HOME": b"/h", b"SHELL": b"/bin/sh"}
    session = session_of(session_type="local")
    launch = build_launch(session, client_env=sent, socket_path="/s", agent_link=None, daemon_env=env)
    assert launch.env[b"SSH_AUTH_SOCK"] == b"/agents/own"


PASSWD = pwd.struct_passwd(("me", "x", 1, 1, "", "/passwd/home", "/passwd/shell"))


@pytest.mark.parametrize(
    ("env", "has_entry", "home_of_program", "folder", "shell"),
    [
        ({b"HOME": b"/h", b"SHELL": b"/s"}, False, b"/h", b"/h", b"/s"),
        ({b"HOME": b"/h"}, False, b"/h", b"/h", b"/bin/sh"),
        ({b"HOME": b"/h", b"SHELL": b""}, True, b"/h", b"/h", b"/passwd/shell"),
        ({b"SHELL": b"/s"}, True, b"/passwd/home", b"/passwd/home", b"/s"),
        ({b"HOME": b"", b"SHELL": b"/s"}, True, b"/passwd/home", b"/passwd/home", b"/s"),
        ({b"SHELL": b"/s"}, False, None, b"/", b"/s"),
        ({b"HOME": b"relative", b"SHELL": b"/s"}, False, b"relative", b"/", b"/s"),
    ],
)
def test_home_and_shell_without_an_entry_in_passwd(
    monkeypatch: pytest.MonkeyPatch,
    env: dict[bytes, bytes],
    has_entry: bool,
    home_of_program: bytes | None,
    folder: bytes,
    shell: bytes,
) -> None:
    """The entry counts where a variable is missing; without one the shell is /bin/sh, and USER is not made up."""

    def entry(uid: int) -> pwd.struct_passwd:
        if has_entry:
            return PASSWD
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", entry)
    session = session_of(session_type="local")
    launch = build_launch(session, client_env=None, socket_path="/s", agent_link="/a", daemon_env=env)
    assert (launch.env.get(b"HOME"), launch.cwd, launch.file) == (home_of_program, folder, shell)
    assert not {b"USER", b"LOGNAME"} & set(launch.env)


def test_passwd_is_not_asked_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up may take seconds, over a network, and fail."""
    asked: list[int] = []
    monkeypatch.setattr(pwd, "getpwuid", asked.append)
    env = {b"HOME": b"/h", b"SHELL": b"/s"}
    build_launch(session_of(session_type="local"), client_env=None, socket_path="/s", agent_link="/a", daemon_env=env)
    assert asked == []


def test_the_login_shell(stopped_daemon: DaemonProcess) -> None:
    """Without a command the user's shell runs, as a login shell: its name begins with a dash."""
    stopped_daemon.environment["SHELL"] = "/bin/bash"
    with stopped_daemon.start().client() as client:
        terminal = Terminal(client, start(client))
        terminal.type("echo $0 $(shopt login_shell)\n")
        terminal.follow_until("-bash login_shell on")


def test_a_folder_that_is_gone(shared_daemon: DaemonProcess, shared_client: RawClient, home: Path) -> None:
    """A program whose folder is no more starts at home instead."""
    assert inspected(shared_client, home, cwd=str(home / "gone"))["cwd"] == str(shared_daemon.home)


def session_of(**config: Any) -> Session:
    return Session(
        id="an-id",
        name=None,
        session_type=config["session_type"],
        created_at=_NOW,
        last_active=_NOW,
        status="detached",
        config=SessionConfig(**config),
        workspace_id=None,
    )


def argv_of(**config: Any) -> tuple[bytes, ...]:
    launch = build_launch(session_of(**config), client_env=None, socket_path="/s", agent_link="/a", daemon_env={})
    return launch.argv


@pytest.mark.parametrize(
    ("config", "argv"),
    [
        ({"host": "h"}, ("ssh", "-tt", "--", "h")),
        ({"host": "h", "port": 22, "username": "u"}, ("ssh", "-tt", "-p", "22", "--", "u@h")),
        ({"host": "h", "command": "ls -l"}, ("ssh", "-tt", "--", "h", "ls -l")),
        ({"host": "h", "command": "-oProxyCommand=x"}, ("ssh", "-tt", "--", "h", " -oProxyCommand=x")),
    ],
)
def test_ssh_is_told_where_its_options_end(config: dict[str, Any], argv: tuple[str, ...]) -> None:
    """Nothing behind `--` can be an option, neither to an ssh that goes on looking for them behind the host."""
    assert argv_of(session_type="ssh", **config) == tuple(word.encode() for word in argv)


@pytest.mark.parametrize("config", [{"host": "-v"}, {"host": "a;id"}, {"host": "h", "username": "$(id)"}])
def test_an_old_session_whose_host_ssh_would_misread_is_not_started(config: dict[str, Any]) -> None:
    """A host or user that only an older version took stays readable, and is refused where ssh would be given it."""
    with pytest.raises(SpawnFailed, match=r"ssh may not be given this: `(host|username)`"):
        argv_of(session_type="ssh", **config)


def test_a_command_is_split_and_no_shell_reads_it() -> None:
    """Quotes are honoured; what only a shell knows stays as it is."""
    words = (b"printf", b"%s", b"a b", b"$HOME", b"*", b";", b"x")
    assert argv_of(session_type="local", command="printf %s 'a b' $HOME * ; x") == words


@pytest.mark.parametrize("command", ["'unclosed", " ", "''x'"])
def test_a_command_that_is_none(command: str) -> None:
    """What cannot be split, or is empty, is refused before anything is started."""
    with pytest.raises(SpawnFailed):
        argv_of(session_type="local", command=command)


def test_every_program_finds_a_fresh_terminal(home: Path, daemon: DaemonProcess) -> None:
    """The terminal answers the same to the first program, to the next one, and to one after a reboot."""
    told = home / "told"
    command = f"{sys.executable} {Path(__file__).with_name('ask_terminal.py')} {told}"
    with daemon.client() as client:
        session = create(client, command)
        for _ in range(2):
            client.call("session.start", id=session)
            client.call("session.wait", id=session, timeout_secs=WAIT_SECS)
    daemon.kill()
    daemon.end_keeper()
    with daemon.start().client() as client:
        client.call("session.start", id=session)
        client.call("session.wait", id=session, timeout_secs=WAIT_SECS)
    first, second, third = (bytes.fromhex(line) for line in told.read_text().splitlines())
    assert b"\x1b[?2004;2$y" in first
    assert (second, third) == (first, first)
