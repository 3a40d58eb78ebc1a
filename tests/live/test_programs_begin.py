"""What a program finds when it begins: environment, folder, descriptors, signals, umask, terminal."""

from __future__ import annotations

import json
import os
import pwd
import resource
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from live.sessions import Terminal, create, start
from live_support import Viewer
from orbit_protocol.errors import SpawnFailed
from orbit_protocol.types import Session, SessionConfig
from orbitd.sessions.command_line import LOGIN_PATH, Launch, build_launch
from orbitd.sessions.ssh_agent import AgentLinks
from support import WAIT_SECS, DaemonProcess, RawClient

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Python ignores SIGPIPE and SIGXFSZ for itself, glibc 32 and 33 in what posix_spawn(3) starts; nobody any other.
PYTHONS_AND_GLIBCS = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ, 32, 33))
NICE = 0 if os.geteuid() == 0 else 5
CORE = min(4096, *(each for each in resource.getrlimit(resource.RLIMIT_CORE)[1:] if each >= 0), 4096)
SELF = f"{sys.executable} {Path(__file__).with_name('inspect_self.py')}"


def inspected(
    client: RawClient, home: Path, sent: dict[str, str] | None = None, params: Any = (), **config: Any
) -> dict[str, Any]:
    """Return what a program found, and the session that it ran in; `params` are more of its start."""
    session_id = create(client, f"{SELF} {home}/told", **config)
    client.call("session.start", id=session_id, cols=91, rows=31, env=sent, **dict(params))
    viewer = Viewer(client, session_id, (91, 31))
    while "written" not in viewer.text():
        viewer.step()
    return {**json.loads((home / "told").read_text()), "session": session_id}


def test_a_program_begins_clean(shared_daemon: DaemonProcess, shared_client: RawClient, home: Path) -> None:
    """Three descriptors that are its terminal, its own session, no blocked signal, the size as asked."""
    told = inspected(shared_client, home, cwd=str(home))
    assert told["descriptors"] == dict.fromkeys("012", told["terminal"])
    assert (told["is_leader"], told["blocked"], told["cwd"], told["size"]) == (True, 0, str(home), [91, 31])
    assert told["ignored"] & ~PYTHONS_AND_GLIBCS == 0
    assert told["files"] == os.sysconf("SC_OPEN_MAX")


def test_a_broken_pipe_ends_a_program(shared_client: RawClient) -> None:
    """SIGPIPE has its default meaning: `yes | head` ends, and ends quietly."""
    session_id = start(shared_client, "bash -c 'yes | head -1; echo ${PIPESTATUS[0]}; read x'")
    Terminal(shared_client, session_id).follow_until(f"\n{128 + signal.SIGPIPE}")


ODD_STARTER = """
import os, resource, signal, sys
os.nice(5)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for name, soft in (("NOFILE", 256), ("CORE", 4096)):
    limit = getattr(resource, "RLIMIT_" + name)
    resource.setrlimit(limit, (soft, resource.getrlimit(limit)[1]))
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGPIPE):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
os.umask(0o027)
os.dup2(0, 9, inheritable=True)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Becomes the daemon, as a shell would start it that nobody would want his programs to be started from."""
OF_A_STARTER = dict.fromkeys(
    ("AWS_PROFILE", "VIRTUAL_ENV", "PYTHONSTARTUP", "TERM_PROGRAM", "TERMINFO", "TMUX", "STY", "SSH_TTY", "COLUMNS",
     "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_PID", "INVOCATION_ID", "DISPLAY", "LC_TERMINAL", "EDITOR"),
    "7",
)  # fmt: skip
OF_A_WINDOW = dict.fromkeys(
    ("TERM", "TMUX", "TMUX_PANE", "STY", "WINDOWID", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERMINFO_DIRS", "TERMCAP",
     "VTE_VERSION", "ITERM_PROFILE", "LC_TERMINAL_VERSION", "KITTY_WINDOW_ID", "WEZTERM_PANE", "ZELLIJ",
     "ZELLIJ_SESSION_NAME", "ALACRITTY_WINDOW_ID", "KONSOLE_VERSION", "GHOSTTY_RESOURCES_DIR", "VSCODE_IPC_HOOK_CLI",
     "GNOME_TERMINAL_SCREEN", "SSH_TTY", "SSH_CONNECTION", "INSIDE_EMACS", "GPG_TTY", "COLUMNS", "LINES", "SHLVL",
     "PWD", "OLDPWD", "_", "ORBIT_SESSION", "ORBIT_SESSION_NAME", "ORBITD_DATABASE", "NOTIFY_SOCKET"),
    "x",
)  # fmt: skip


@pytest.fixture
def oddly_started(home: Path) -> Iterator[DaemonProcess]:
    """A daemon whose starter had limits, signals, a priority and an environment of its own."""
    daemon = DaemonProcess(home, environment=OF_A_STARTER)
    daemon.environment |= {"PATH": f"/opt/odd:{os.environ['PATH']}", "LANG": "C.UTF-8", "LC_TIME": "C"}
    daemon.prefix = (sys.executable, "-c", ODD_STARTER)
    yield daemon.start()
    daemon.end()


def test_nothing_of_who_started_the_daemon_reaches_a_program(oddly_started: DaemonProcess, home: Path) -> None:
    """A client's program has the client's environment, umask and limits; another that of a login; all CPUs, nice 0."""
    own = {"HOME": str(home), "ONLY": "the client's", "LC_TIME": "C"}
    sent = {**own, **OF_A_WINDOW}
    given = {"umask": 0o002, "limits": {"nofile": 512, "core": 0}}
    with oddly_started.client() as client:
        one = inspected(client, home, sent, given)
        two = inspected(client, home, env={"COLUMNS": "as asked"})
        set_for_all = {
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "ORBIT_SESSION": one["session"],
            "ORBITD_SOCKET": str(oddly_started.socket_path),
            "ORBIT_SOCKET": str(oddly_started.socket_path),
        }
        # Python itself sets LC_CTYPE where there is no locale (PEP 538).
        assert {name: one["env"][name] for name in one["env"] if name != "LC_CTYPE"} == {**own, **set_for_all}
        assert (one["umask"], one["files"], one["core"]) == (0o002, 512, 0)
        account = pwd.getpwuid(os.getuid())
        assert two["env"] == {
            "HOME": str(home),
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
            "SHELL": account.pw_shell,
            "PATH": LOGIN_PATH.decode(),
            "LANG": "C.UTF-8",
            "LC_TIME": "C",
            "XDG_RUNTIME_DIR": oddly_started.environment["XDG_RUNTIME_DIR"],
            "COLUMNS": "as asked",
            **set_for_all,
            "ORBIT_SESSION": two["session"],
        }
        assert (two["umask"], two["files"], two["core"]) == (0o027, 256, CORE)
        limits = Path(f"/proc/{oddly_started.pid}/limits").read_text().splitlines()
        assert [line.split()[4] for line in limits if line.startswith("Max core file size")] == ["0"]
        for told in (one, two):
            assert told["ignored"] & ~PYTHONS_AND_GLIBCS == told["blocked"] == 0
            assert (told["nice"], told["cpus"]) == (NICE, sorted(os.sched_getaffinity(0)))
            assert told["descriptors"] == dict.fromkeys("012", told["terminal"])
    kept = [path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "told"]
    assert len(kept) > 3
    assert not any(b"the client's" in content for content in kept)


def test_ssh_that_is_connected_again_is_what_it_was(shared_daemon: DaemonProcess, home: Path) -> None:
    """It has the environment and umask of the client that started it, and the agent of the one that attached last."""
    (home / "bin").mkdir()
    wrapper, agents = home / "bin" / "ssh", [home / "first", home / "second"]
    for agent in agents:
        agent.touch()
    wrapper.write_text(
        f'#!/bin/sh\necho "$ONLY $(umask) $(readlink "$SSH_AUTH_SOCK")."\n'
        f"[ -e {home}/again ] && exec sleep 1000\ntouch {home}/again; read x; exit 255\n"
    )
    wrapper.chmod(0o755)
    with shared_daemon.client() as client:
        session_id = create(client, session_type="ssh", host="h", reconnect=True)
        env = {"PATH": f"{home}/bin:{os.environ['PATH']}", "ONLY": "the client's", "SSH_AUTH_SOCK": str(agents[0])}
        client.call("session.start", id=session_id, env=env, umask=0o026)
        terminal = Terminal(client, session_id, env={"SSH_AUTH_SOCK": str(agents[1])})
        terminal.follow_until("the client's 0026")
        terminal.type("\n")
        terminal.follow_until(f"the client's 0026 {agents[1]}.")


def test_a_name_of_a_session_is_told(shared_client: RawClient, home: Path) -> None:
    """Prompts show ORBIT_SESSION_NAME, which a session without a name has not; no config can set it."""
    config = {"session_type": "local", "command": f"{SELF} {home}/told", "env": {"ORBIT_SESSION": "x"}}
    made = shared_client.call("session.create", name="caf\u00e9 1", config=config)
    shared_client.call("session.start", id=made["id"], env={"ORBIT_SESSION_NAME": "outer"})
    Viewer(shared_client, made["id"]).read_until("written")
    env = json.loads((home / "told").read_text())["env"]
    assert (env["ORBIT_SESSION"], env["ORBIT_SESSION_NAME"]) == (made["id"], "caf\u00e9 1")


def test_a_limit_that_no_system_has_is_refused(shared_client: RawClient) -> None:
    """A limit whose name is mistyped is an error, not one that is never set."""
    error = shared_client.error("session.start", id=create(shared_client, "cat"), limits={"nofiles": 1})
    assert (error["code"], "`limits` has no 'nofiles'" in error["message"]) == (-32602, True)


@pytest.fixture
def agents(home: Path) -> dict[str, str]:
    """Paths of ssh agents: nothing but their names counts until somebody connects."""
    (home / "agents").mkdir()
    paths = {name: str(home / "agents" / name) for name in ("first", "second", "third", "own")}
    for path in paths.values():
        Path(path).touch()
    return {**paths, "ended": str(home / "agents" / "ended")}


def test_the_agents_link(
    shared_daemon: DaemonProcess, shared_client: RawClient, home: Path, agents: dict[str, str]
) -> None:
    """SSH_AUTH_SOCK names a link that the start and each writable attach renew; a session's own link is followed."""
    told = inspected(shared_client, home, {"SSH_AUTH_SOCK": agents["first"]})
    session_id, link = told["session"], told["env"]["SSH_AUTH_SOCK"]
    assert os.readlink(link) == agents["first"]
    attach = {"id": session_id, "cols": 80, "rows": 24}
    shared_client.call("session.attach", **attach, env={"SSH_AUTH_SOCK": agents["second"]})
    assert os.readlink(link) == agents["second"]
    shared_client.call("session.attach", **attach, read_only=True, env={"SSH_AUTH_SOCK": agents["third"]})
    shared_client.call("session.attach", **attach, env={"SSH_AUTH_SOCK": agents["ended"]})
    shared_client.call("session.attach", **attach, env={"SSH_AUTH_SOCK": link})
    shared_client.call("session.attach", **attach, env={})
    assert os.readlink(link) == agents["second"]
    with shared_daemon.client() as other:
        inner = inspected(other, home, {"SSH_AUTH_SOCK": link})
    assert os.readlink(inner["env"]["SSH_AUTH_SOCK"]) == agents["second"]
    shared_client.call("session.terminate", id=session_id)
    assert not os.path.lexists(link)


@pytest.mark.parametrize("sent", [None, {}, {"SSH_AUTH_SOCK": ""}, {"SSH_AUTH_SOCK": "ended"}])
def test_no_agent_no_variable(
    shared_client: RawClient, home: Path, agents: dict[str, str], sent: dict[str, str] | None
) -> None:
    """Without an agent there is no SSH_AUTH_SOCK, as `[ -z "$SSH_AUTH_SOCK" ] && eval $(ssh-agent)` looks for it."""
    if sent and sent["SSH_AUTH_SOCK"]:
        sent = {"SSH_AUTH_SOCK": agents["ended"]}
    assert "SSH_AUTH_SOCK" not in inspected(shared_client, home, sent)["env"]
    config = {"SSH_AUTH_SOCK": agents["own"]}
    assert inspected(shared_client, home, sent, env=config)["env"]["SSH_AUTH_SOCK"] == agents["own"]


def test_a_folder_of_links_that_is_open_to_others(
    shared_daemon: DaemonProcess, shared_client: RawClient, agents: dict[str, str]
) -> None:
    """Only the agent's link fails then: sessions start and are attached to."""
    agent = {"SSH_AUTH_SOCK": agents["first"]}
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
            client.call("session.start", id=session_id, env={"SSH_AUTH_SOCK": f"{home}/agent", "HOME": str(long)})
            connection, _ = agent.accept()
            with connection:
                assert connection.recv(1000) == os.fsencode(long)
            client.call("session.delete", id=session_id)
        assert [path for path in home.rglob("*") if path.is_symlink()] == []
    finally:
        daemon.end()


def test_links_of_long_paths_are_no_links_to_themselves(home: Path, agents: dict[str, str]) -> None:
    """A client in a session has that session's short link for an agent: another session's is followed, its own not."""
    links = AgentLinks(f"{home}/{'s' * 100}", str(home))
    one, other = "0" * 36, "1" * 36
    links.update(one, {b"SSH_AUTH_SOCK": agents["first"].encode()})
    assert os.path.dirname(links.path(one)) == f"{home}/orbit"
    links.update(one, {b"SSH_AUTH_SOCK": os.fsencode(links.path(one))})
    links.update(other, {b"SSH_AUTH_SOCK": os.fsencode(links.path(one))})
    assert [os.readlink(links.path(each)) for each in (one, other)] == [agents["first"]] * 2
    links.remove(one)
    assert (links.exists(one), links.exists(other)) == (False, True)


def test_what_a_program_has_for_an_agent(home: Path, agents: dict[str, str]) -> None:
    """The link, of the last client where no client starts it, else of the login; none where others could change it."""
    folder = home / "agent"
    links = AgentLinks(str(folder), login={b"SSH_AUTH_SOCK": agents["own"].encode()})
    first, link = {b"SSH_AUTH_SOCK": agents["first"].encode()}, f"{folder}/one".encode()
    assert links.prepare("one", first) == link
    assert (links.prepare("one", None), os.readlink(link)) == (link, agents["first"].encode())
    assert (links.prepare("one", {}), os.path.lexists(link)) == (None, False)
    assert (links.prepare("one", None), os.readlink(link)) == (link, agents["own"].encode())
    folder.chmod(0o777)  # who can change it could put an agent there, and be given keys
    assert links.prepare("one", first) == first[b"SSH_AUTH_SOCK"]
    assert links.prepare("one", {}) is None


PASSWD = pwd.struct_passwd(("me", "x", 1, 1, "", "/passwd/home", "/passwd/shell"))
ACCOUNT = {b"HOME": b"/passwd/home", b"USER": b"me", b"LOGNAME": b"me", b"SHELL": b"/passwd/shell"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[int]:
    """Which uids passwd was asked for; it has an entry unless the parameter is False."""
    uids: list[int] = []

    def entry(uid: int) -> pwd.struct_passwd:
        uids.append(uid)
        if getattr(request, "param", True):
            return PASSWD
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", entry)
    return uids


def launch_of(session: Session | None = None, **changes: Any) -> Launch:
    """Return what is launched for a session, by default one that runs the login shell."""
    given = {"client_env": None, "socket_path": "/s", "agent": None, "daemon_env": {}, **changes}
    return build_launch(session or session_of(session_type="local"), **given)


@pytest.mark.parametrize(
    ("env", "asked", "folders", "shell"),
    [
        ({b"HOME": b"/h", b"SHELL": b"/s"}, False, (b"/h", b"/"), b"/s"),
        ({b"HOME": b"/h"}, False, (b"/h", b"/"), b"/bin/sh"),
        ({b"HOME": b"/h", b"SHELL": b""}, True, (b"/h", b"/"), b"/passwd/shell"),
        ({b"SHELL": b"/s"}, True, (b"/passwd/home", b"/"), b"/s"),
        ({b"SHELL": b"/s"}, False, (b"/",), b"/s"),
        ({b"HOME": b"relative", b"SHELL": b"/s"}, False, (b"/",), b"/s"),
        ({}, True, (b"/passwd/home", b"/"), b"/passwd/shell"),
        ({}, False, (b"/",), b"/bin/sh"),
    ],
    indirect=["asked"],
)
def test_what_a_client_has_not_is_absent(
    asked: list[int], env: dict[bytes, bytes], folders: tuple[bytes, ...], shell: bytes
) -> None:
    """Shell and folder are found by passwd, which is asked only then, and the variables are not made up."""
    launch = launch_of(client_env=env, daemon_env={b"HOME": b"/d", b"SHELL": b"/d", b"PATH": b"/d", b"USER": b"d"})
    assert (launch.file, launch.folders) == (shell, folders)
    assert {name: launch.env.get(name) for name in ACCOUNT} == {name: env.get(name) for name in ACCOUNT}
    assert b"PATH" not in launch.env
    assert bool(asked) == (not (env.get(b"HOME") and env.get(b"SHELL")))


@pytest.mark.parametrize(
    ("daemon_env", "is_managed", "asked", "wanted"),
    [
        ({b"SHELL": b"/nix", b"PATH": b"/venv", b"USER": b"x"}, False, True, {**ACCOUNT, b"PATH": LOGIN_PATH}),
        ({b"HOME": b"/h"}, False, True, {**ACCOUNT, b"HOME": b"/h", b"PATH": LOGIN_PATH}),
        ({b"HOME": b"/h", b"SHELL": b"/s"}, False, False, {b"HOME": b"/h", b"SHELL": b"/s", b"PATH": LOGIN_PATH}),
        ({}, False, False, {b"PATH": LOGIN_PATH}),
        ({b"A": b"1", b"LANG": b"C", b"LC_ALL": b"C", b"LC_TERMINAL": b"x", b"DBUS_SESSION_BUS_ADDRESS": b"b"}, False,
         False, {b"LANG": b"C", b"LC_ALL": b"C", b"DBUS_SESSION_BUS_ADDRESS": b"b", b"PATH": LOGIN_PATH}),
        ({b"A": b"1", b"PATH": b"/m", b"SHELL": b"/m", b"TMUX": b"x", b"INVOCATION_ID": b"x", b"SSH_AUTH_SOCK": b"x"},
         True, True, {**ACCOUNT, b"A": b"1", b"PATH": b"/m", b"SHELL": b"/m"}),
    ],
    indirect=["asked"],
)  # fmt: skip
def test_the_environment_of_a_login(
    asked: list[int], daemon_env: dict[bytes, bytes], is_managed: bool, wanted: dict[bytes, bytes]
) -> None:
    """Without a client it is passwd's, and the service manager's; of a shell that started the daemon it is little."""
    env = launch_of(daemon_env=daemon_env, is_managed=is_managed).env
    ours = {b"TERM", b"COLORTERM", b"ORBIT_SESSION", b"ORBITD_SOCKET", b"ORBIT_SOCKET"}
    assert {name: value for name, value in env.items() if name not in ours} == wanted


def test_the_login_shell(stopped_daemon: DaemonProcess) -> None:
    """Without a command the user's shell runs, as a login shell: its name begins with a dash."""
    with stopped_daemon.start().client() as client:
        session_id = create(client)
        client.call("session.start", id=session_id, env={**stopped_daemon.environment, "SHELL": "/bin/bash"})
        terminal = Terminal(client, session_id)
        terminal.type("echo $0 $(shopt login_shell)\n")
        terminal.follow_until("-bash login_shell on")


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file or directory"), ("file", "Not a directory")])
def test_a_folder_that_was_asked_for(shared_client: RawClient, home: Path, name: str, reason: str) -> None:
    """Where it cannot be entered nothing is run, in HOME neither: the error names it, why, and the next step."""
    (home / "file").touch()
    session_id = create(shared_client, f"touch {home}/ran", cwd=str(home / name))
    error = shared_client.error("session.start", id=session_id)
    assert (error["code"], error["message"]) == (1005, f"The program cannot start in {home}/{name}: {reason}")
    assert error["data"]["hint"].startswith("Make the folder")
    assert not (home / "ran").exists()
    assert not shared_client.call("session.get", id=session_id)["live"]


@pytest.mark.parametrize(
    ("config", "last", "may_move", "folders"),
    [
        ({}, None, False, "/h /"),
        ({"cwd": "/asked"}, None, False, "/asked"),
        ({"cwd": "/asked"}, "/asked", False, "/asked"),
        ({"cwd": "/asked"}, "/last", False, "/last /asked"),
        ({}, "/last", False, "/last /h /"),
        ({"cwd": "/asked"}, "/last", True, "/last /asked /h /"),
        ({"cwd": "/asked"}, "/asked", True, "/asked /h /"),
        ({"cwd": "/asked", "session_type": "ssh", "host": "h"}, None, False, "/asked /h /"),
    ],
)
def test_where_a_program_may_start(config: dict[str, Any], last: str | None, may_move: bool, folders: str) -> None:
    """What was asked for has no substitute but for a shell that comes back by itself; what was only followed has."""
    session = replace(session_of(**{"session_type": "local", **config}), cwd=last)
    launch = launch_of(session, client_env={b"HOME": b"/h", b"SHELL": b"/s"}, may_move=may_move)
    assert launch.folders == tuple(folders.encode().split())


def test_a_shell_whose_folder_is_gone_comes_back_elsewhere(daemon: DaemonProcess, home: Path) -> None:
    """After a reboot it starts in HOME, and the divider tells of it."""
    gone = home / "gone"
    gone.mkdir()
    with daemon.client() as client:
        session_id = create(client, cwd=str(gone))
        client.call("session.start", id=session_id, env={**daemon.environment, "SHELL": "/bin/sh"})
        terminal = Terminal(client, session_id)
        terminal.type("echo be''fore\n")
        terminal.follow_until("before")
    daemon.kill()
    daemon.end_keeper()
    gone.rmdir()
    with daemon.start().client() as client:
        found = client.call("session.get", id=session_id)
        assert (found["live"], found["cwd"]) == (True, str(home))
        screen = client.call("session.screen", id=session_id)["data"].replace("\n", "")
        assert f" in {home}, not in {gone}, which cannot be entered" in screen


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
    return launch_of(session_of(**config)).argv


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
