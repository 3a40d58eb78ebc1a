"""Folders, commands and variables that are not UTF-8: they stay bytes, and cost no other session anything."""

from __future__ import annotations

import base64
import json
import os
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live.sessions import create, keeper_of, start, wait_for_end
from live.test_programs_begin import argv_of, session_of
from live_support import Viewer, encoded
from orbit_protocol.text import to_text
from orbitd.sessions.command_line import build_launch
from orbitd.sessions.ssh_agent import AgentLinks
from support import WAIT_SECS, DaemonProcess, RawClient

CAFE = b"caf\xe9"
SHELL = "sh"
SHOW_BYTES = Path(__file__).with_name("show_bytes.py")

WORDS = st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b""))
FOLDERS = WORDS.map(lambda raw: raw.replace(b"/", b"")).filter(lambda raw: raw not in (b"", b".", b".."))
NAMES = WORDS.map(lambda raw: b"X" + raw.replace(b"=", b""))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def folder_in(home: Path) -> bytes:
    """Make a folder whose name is not UTF-8."""
    folder = os.fsencode(home) + b"/" + CAFE
    os.mkdir(folder)
    return folder


def go_into(client: RawClient, session_id: str, folder: bytes) -> None:
    """Have a session's shell go into a folder, and wait until it is there."""
    with Viewer(client, session_id).emulator:
        client.call("session.send", id=session_id, data=encoded(b"cd '" + folder + b"' && echo in-$((6*7))\n"))
        while b"in-42" not in base64.b64decode(client.notice()["params"].get("data", "")):
            continue
    client.call("session.detach", id=session_id)


def saved(client: RawClient, session_id: str) -> bytes:
    """Return the bytes of the screen that is saved for a session."""
    client.call("maintenance.auto_save")
    return base64.b64decode(client.call("snapshot.latest", session_id=session_id)["terminal_buffer"])


def test_a_session_in_such_a_folder_is_a_session_as_any_other(
    shared_daemon: DaemonProcess, shared_client: RawClient, home: Path
) -> None:
    """It is listed, found, attached and saved, its folder is text with the bytes beside it; others have no bytes."""
    folder = folder_in(home)
    session_id, other_id = start(shared_client, SHELL), start(shared_client, SHELL, cwd=str(home))
    go_into(shared_client, session_id, folder)
    listed = {each["id"]: each for each in shared_client.call("session.list")["sessions"]}
    found = shared_client.call("session.get", id=session_id)
    assert (found["cwd"], found["cwd_bytes"]) == (to_text(folder), b64(folder))
    assert (listed[session_id]["cwd_bytes"], listed[other_id]["cwd"]) == (b64(folder), str(home))
    assert "cwd_bytes" not in listed[other_id]
    assert shared_client.call("session.find", ref=session_id)["cwd_bytes"] == b64(folder)
    with shared_daemon.client() as client:
        viewer = Viewer(client, session_id)
        assert viewer.session["cwd_bytes"] == b64(folder)
        assert "in-42" in viewer.text()
        viewer.emulator.close()
    assert b"in-42" in saved(shared_client, session_id)
    assert "screens of" not in str(shared_client.call("daemon.info")["warnings"])


def test_a_session_leaves_such_a_folder(shared_client: RawClient, home: Path) -> None:
    """Its bytes go with it, in the answer and in what is saved."""
    session_id = start(shared_client, SHELL)
    go_into(shared_client, session_id, folder_in(home))
    saved(shared_client, session_id)
    go_into(shared_client, session_id, os.fsencode(home))
    saved(shared_client, session_id)
    shared_client.call("session.terminate", id=session_id)
    found = shared_client.call("session.get", id=session_id)
    assert found["cwd"] == str(home)
    assert "cwd_bytes" not in found


def test_such_a_folder_is_there_after_a_restart_and_a_reboot(stopped_daemon: DaemonProcess, home: Path) -> None:
    """A next daemon finds program and folder again, and after a reboot a shell comes back there."""
    folder = folder_in(home)
    with stopped_daemon.start().client() as client:
        session_id = create(client)
        client.call("session.start", id=session_id, env={**stopped_daemon.environment, "SHELL": "/bin/sh"})
        go_into(client, session_id, folder)
        pid = client.call("session.get", id=session_id)["pid"]
        saved(client, session_id)
    for end in (stopped_daemon.stop, stopped_daemon.kill):
        end()
        with stopped_daemon.start().client() as client:
            (found,) = client.call("session.list")["sessions"]
            assert (found["live"], found["pid"], found["cwd_bytes"]) == (True, pid, b64(folder))
    keeper = keeper_of(pid)
    stopped_daemon.kill()
    stopped_daemon.end_keeper()
    wait_for_end(keeper)
    wait_for_end(pid)
    with stopped_daemon.start().client() as client:
        found = client.call("session.get", id=session_id)
        assert (found["live"], found["cwd"], found["cwd_bytes"]) == (True, to_text(folder), b64(folder))
        assert found["pid"] != pid
        assert os.readlink(b"/proc/%d/cwd" % found["pid"]) == folder


def shown_bytes(client: RawClient, report: Path, words: list[bytes], env: Any = None, **config: Any) -> Any:
    """Run a program that writes down the bytes that it was given; return them, its session and the command."""
    own = [sys.executable, "-I", "-S", str(SHOW_BYTES), str(report)]
    line = shlex.join([*own, *(word.decode("utf-8", "surrogateescape") for word in words)])
    command = line.encode("utf-8", "surrogateescape")
    config = {"session_type": "local", "command_bytes": b64(command), **config}
    session = client.call("session.create", config=config)
    client.call("session.start", id=session["id"], **({} if env is None else {"env_bytes": env}))
    ended = client.call("session.wait", id=session["id"], timeout_secs=WAIT_SECS)
    assert ended == {"exit_code": 0, "exit_signal": None}
    return json.loads(report.read_text()), session, command


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(WORDS, max_size=4),
    folder=FOLDERS,
    given_env=st.dictionaries(NAMES, WORDS, max_size=3),
    own_env=st.dictionaries(NAMES, WORDS, max_size=3),
)
def test_a_program_gets_the_bytes_that_were_sent(
    shared_client: RawClient,
    home: Path,
    words: list[bytes],
    folder: bytes,
    given_env: dict[bytes, bytes],
    own_env: dict[bytes, bytes],
) -> None:
    """Arguments, folder and variables of any bytes reach the program to the byte, and are shown as text."""
    place = os.fsencode(home) + b"/" + folder
    os.makedirs(place, exist_ok=True)
    told, session, command = shown_bytes(
        shared_client,
        home / "report",
        words,
        env=[[b64(name), b64(value)] for name, value in given_env.items()],
        cwd_bytes=b64(place),
        env_bytes=[[b64(name), b64(value)] for name, value in own_env.items()],
    )
    assert told["arguments"] == [word.hex() for word in words]
    assert told["folder"] == place.hex()
    wanted = {name.hex(): value.hex() for name, value in {**given_env, **own_env}.items()}
    assert wanted.items() <= told["environment"].items()
    config = session["config"]
    assert (config["command"], config["cwd"]) == (to_text(command), to_text(place))
    assert config["env"] == {to_text(name): to_text(value) for name, value in own_env.items()}
    for field, raw in (("command", command), ("cwd", place)):
        assert config.get(f"{field}_bytes") == (None if config[field].encode() == raw else b64(raw))


def test_text_beside_bytes_is_ignored(shared_client: RawClient, home: Path) -> None:
    """A client that sends back what it was given, text and bytes, gets the same session again."""
    folder = folder_in(home)
    _, first, _ = shown_bytes(
        shared_client,
        home / "report",
        [CAFE],
        cwd_bytes=b64(folder),
        env_bytes=[[b64(b"X"), b64(CAFE)], [b64(b"Y"), b64(b"text")]],
    )
    again = shared_client.call("session.create", config=first["config"])
    assert again["config"] == first["config"]
    assert shared_client.error("session.create", config={**first["config"], "cwd_bytes": b64(CAFE)})["code"] == -32602


def test_a_program_that_is_not_there_is_named(shared_client: RawClient, home: Path) -> None:
    """A start is refused with a sentence that has the program's path as text."""
    session = shared_client.call(
        "session.create", config={"session_type": "local", "command_bytes": b64(os.fsencode(home) + b"/" + CAFE)}
    )
    error = shared_client.error("session.start", id=session["id"])
    assert (error["code"], to_text(CAFE) in error["message"]) == (1005, True)


def test_what_the_login_has_reaches_the_program(stopped_daemon: DaemonProcess, home: Path) -> None:
    """A variable of the daemon's own environment that is not UTF-8 is a program's too, where it is the login's."""
    stopped_daemon.environment["LC_NAME"] = os.fsdecode(CAFE)
    with stopped_daemon.start().client() as client:
        told, _, _ = shown_bytes(client, home / "report", [])
    assert told["environment"][b"LC_NAME".hex()] == CAFE.hex()


def test_a_shell_of_such_a_path_is_run(home: Path) -> None:
    """SHELL and HOME may be any bytes; the login shell's name begins with a dash all the same."""
    env = {b"SHELL": b"/bin/" + CAFE, b"HOME": b"/home/" + CAFE}
    launch = build_launch(session_of(session_type="local"), client_env=env, socket_path="/s", agent=None)
    assert (launch.file, launch.argv, launch.folders[0]) == (env[b"SHELL"], (b"-" + CAFE,), env[b"HOME"])


def test_a_remote_command_keeps_its_bytes() -> None:
    """Ssh gets the command as one argument, to the byte."""
    argv = argv_of(session_type="ssh", host="h", command_bytes=b"ls " + CAFE)
    assert argv == (b"ssh", b"-tt", b"--", b"h", b"ls " + CAFE)


def test_an_agent_of_such_a_path_is_linked_to(home: Path) -> None:
    """The link of a session leads to the agent's own path."""
    links = AgentLinks(str(home / "agent"))
    Path(os.fsdecode(os.fsencode(home) + b"/" + CAFE)).touch()
    links.update("one", {b"SSH_AUTH_SOCK": os.fsencode(home) + b"/" + CAFE})
    assert os.readlink(os.fsencode(links.path("one"))) == os.fsencode(home) + b"/" + CAFE


def test_a_title_that_is_not_utf8_is_none(shared_client: RawClient) -> None:
    """Titles are text: one that is not sets no title, and the session is listed as any other."""
    session_id = start(shared_client, r"""sh -c 'printf "\033]2;a\351z\007hello"; read x'""")
    Viewer(shared_client, session_id).read_until("hello")
    (found,) = shared_client.call("session.list")["sessions"]
    assert (found["id"], found["title"]) == (session_id, None)


@pytest.fixture
def odd_daemon(home: Path) -> Any:
    """A daemon in a home that is not UTF-8."""
    odd_home = Path(os.fsdecode(folder_in(home)))
    daemon = DaemonProcess(odd_home)
    yield daemon
    daemon.end()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_home_that_is_not_utf8(odd_daemon: DaemonProcess, log_format: str) -> None:
    """Everything works there: answers have paths as text and as bytes, errors and the log as text."""
    odd_daemon.arguments = ("--log-format", log_format)
    database = os.fsencode(odd_daemon.database_path)
    with odd_daemon.start().client() as client:
        info = client.call("daemon.info")
        assert (info["database_path"], info["database_path_bytes"]) == (to_text(database), b64(database))
        assert base64.b64decode(info["socket_path_bytes"]) == os.fsencode(odd_daemon.socket_path)
        session_id = start(client, SHELL)
        assert client.call("session.get", id=session_id)["cwd_bytes"] == b64(os.fsencode(odd_daemon.home))
        target = os.fsencode(odd_daemon.home) + b"/b.db"
        made = client.call("maintenance.backup", path="ignored", path_bytes=b64(target))
        assert (made["path"], made["path_bytes"]) == (to_text(target), b64(target))
        assert Path(os.fsdecode(target)).stat().st_size == made["bytes"]
        error = client.error("maintenance.backup", path="/", path_bytes=b64(os.fsencode(odd_daemon.home) + b"/no/b.db"))
        assert (error["code"], to_text(CAFE) in error["message"]) == (-32602, True)
        second = DaemonProcess(odd_daemon.home, "--socket", str(odd_daemon.home / "second.sock"))
        assert f"socket {to_text(os.fsencode(odd_daemon.socket_path))}" in second.refused()
    assert odd_daemon.stop() == 0
    serving = next(line for line in odd_daemon.log().splitlines() if "serving" in line)
    told = json.loads(serving)["database"] if log_format == "json" else serving
    assert to_text(database) in told


def test_such_a_home_comes_back_after_a_kill(odd_daemon: DaemonProcess) -> None:
    """Program, journal and screen are found again there by the next daemon."""
    with odd_daemon.start().client() as client:
        session_id = start(client, "sh -c 'echo hello; read x'")
        Viewer(client, session_id).read_until("hello")
    odd_daemon.kill()
    with odd_daemon.start().client() as client:
        assert "hello" in client.call("session.screen", id=session_id)["data"]
        assert client.call("session.get", id=session_id)["live"] is True


def test_the_lock_has_the_sockets_own_bytes(odd_daemon: DaemonProcess) -> None:
    """A program that reads the note in the lock can connect to the socket that it names."""
    odd_daemon.start()
    note = Path(f"{odd_daemon.database_path}.lock").read_bytes()
    path = next(line for line in note.splitlines() if line.startswith(b"socket ")).removeprefix(b"socket ")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
