"""The client of the plain cases: it finds the daemon as the usual one does, and leaves to that what is not plain."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctl_support import Peer, read_line
from orbitctl.client import light
from orbitctl.client.light import LightConnection, Unusual, socket_path
from orbitctl.client.paths import ClientPaths

Serve = Callable[[Callable[[socket.socket], None]], LightConnection]


@pytest.fixture
def serve(home: Path) -> Iterator[Serve]:
    """Return a function that connects to a scripted peer."""
    made: list[Any] = []

    def start(answer: Callable[[socket.socket], None]) -> LightConnection:
        path = home / "s"
        made.append(Peer(path, answer))
        made.insert(0, LightConnection({"ORBITD_SOCKET": str(path)}))
        return made[0]

    yield start
    for one in made:
        one.__exit__(None) if isinstance(one, LightConnection) else one.close()


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "a runtime folder": {"HOME": "{home}", "XDG_RUNTIME_DIR": "{home}/run"},
    "no runtime folder": {"HOME": "{home}"},
    "a relative one": {"HOME": "{home}", "XDG_RUNTIME_DIR": "run"},
    "another user's": {"HOME": "{home}", "XDG_RUNTIME_DIR": "/run/user/1"},
    "a state folder": {"HOME": "{home}", "XDG_STATE_HOME": "{home}//other/"},
    "no home": {"XDG_RUNTIME_DIR": "{home}/run"},
    "a relative home": {"HOME": "x", "XDG_RUNTIME_DIR": "{home}/run"},
    "a home that is a file": {"HOME": "/dev/null"},
    "a home that is not there": {"HOME": "{home}/none"},
    "a long home": {"HOME": "{home}/" + "x" * 100},
    "a socket": {"ORBITD_SOCKET": "{home}/s"},
    "a socket below home": {"HOME": "{home}", "ORBITD_SOCKET": "~/s"},
    "a socket in a session": {"ORBITD_SOCKET": "{home}/s", "ORBIT_SOCKET": "{home}/s"},
    "a relative socket": {"HOME": "{home}", "ORBITD_SOCKET": "s"},
    "a socket with $": {"HOME": "{home}", "ORBITD_SOCKET": "$HOME/s"},
    "an empty socket": {"HOME": "{home}", "ORBITD_SOCKET": ""},
    "a database": {"HOME": "{home}", "ORBITD_DATABASE": "{home}/d"},
    "a configuration": {"HOME": "{home}", "ORBITD_CONFIG": "{home}/c.toml"},
    "a configuration in its place": {"HOME": "{home}", "XDG_CONFIG_HOME": "{home}/configured"},
    "a configuration of comments": {"HOME": "{home}", "XDG_CONFIG_HOME": "{home}/commented"},
    "a configuration that is a folder": {"HOME": "{home}", "XDG_CONFIG_HOME": "{home}/folder"},
    "a configuration that cannot be found": {"HOME": "{home}", "XDG_CONFIG_HOME": "{home}/dangling"},
}
PLAIN = {
    "a runtime folder", "no runtime folder", "a relative one", "another user's", "a state folder", "a socket",
    "a socket below home", "a socket in a session", "an empty socket", "a configuration of comments",
}  # fmt: skip


@pytest.mark.parametrize("named", ENVIRONMENTS)
def test_the_socket_is_the_usual_client_s_or_it_is_left_to_that(home: Path, named: str) -> None:
    """In no environment are there two answers to which socket is the daemon's; the plain ones have this one."""
    for name in ("configured", "commented", "dangling", "folder"):
        (home / name / "orbit").mkdir(parents=True)
    (home / "configured" / "orbit" / "config.toml").write_text(f'[daemon]\nsocket_path = "{home}/configured.sock"\n')
    (home / "commented" / "orbit" / "config.toml").write_text('# [daemon]\r\n\n \t# socket_path = "x"')
    (home / "dangling" / "orbit" / "config.toml").symlink_to("none")
    (home / "folder" / "orbit" / "config.toml").mkdir()
    environ = {name: value.format(home=home) for name, value in ENVIRONMENTS[named].items()}
    try:
        found = socket_path(environ)
    except Unusual:
        assert named not in PLAIN
        return
    paths = ClientPaths(environ, None)
    assert (found, paths.is_database_chosen) == (paths.socket_path, False)


@pytest.mark.parametrize(
    "text", [b"x", b"[daemon]", b"# a\x00", b"# \xff", b"#" * 20_000, b"# a\rsocket_path = 'x'", b" \x0b"]
)
def test_a_configuration_that_may_say_something_is_left_to_the_usual_client(home: Path, text: bytes) -> None:
    """Settings, mistakes, and what TOML does not take in a comment."""
    (home / "orbit").mkdir()
    (home / "orbit" / "config.toml").write_bytes(text)
    with pytest.raises(Unusual):
        socket_path({"HOME": str(home), "XDG_CONFIG_HOME": str(home)})


def test_a_call_returns_its_result_to_the_letter(serve: Serve) -> None:
    """The result as the daemon wrote it, and what it says; params are sent as they are."""
    sent: list[Any] = []

    def answer(connection: socket.socket) -> None:
        while line := read_line(connection):
            sent.append(json.loads(line))
            raw = '{"a":[1,-2.5,1e400],"é":"\\u0001\\"","none":null}'
            connection.sendall(f'{{"jsonrpc":"2.0","result":{raw},"id":{sent[-1]["id"]}}}\n'.encode())

    connection = serve(answer)
    for number in (1, 2):
        found = connection.call("session.list", {"limit": 3, "ref": 'ä"\n', "status": ["active"], "cursor": None})
        assert found.raw == '{"a":[1,-2.5,1e400],"é":"\\u0001\\"","none":null}'.encode()
        assert found.value == {"a": [1, -2.5, float("inf")], "é": '\x01"', "none": None}
        assert sent.pop() == {
            "jsonrpc": "2.0",
            "id": number,
            "method": "session.list",
            "params": {"limit": 3, "ref": 'ä"\n', "status": ["active"], "cursor": None},
        }


def result(raw: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","result":' + raw + b',"id":1}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        result(b"{}")[:-1],
        result(b"{}")[:-2] + b"\n",
        result(b"{}") * 2,
        b'{"jsonrpc":"2.0","method":"x"}\n' + result(b"{}"),
        b'{"jsonrpc":"2.0","result":{},"id":2}\n',
        b'{"jsonrpc":"2.0","id":1,"result":{}}\n',
        b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"busy"},"id":1}\n',
        b"SSH-2.0-OpenSSH\r\n",
        result(b""),
        result(b"{"),
        result(b"{},{}"),
        result(b"NaN"),
        result(b"\xff"),
        result(b'"\xed\xa0\x80"'),
        result(b'"\\ud800"'),
        result(b'"\\uD800"'),
        result(b'"\x01"'),
        result(b"[" * 100_000 + b"]" * 100_000),
        result(b"1" * 5000),
    ],
    ids=lambda line: repr(line[:60]),
)
def test_any_other_answer_is_left_to_the_usual_client(serve: Serve, line: bytes) -> None:
    """Errors, notifications, what is no JSON, what is cut off, what another program says: none of it is understood."""

    def answer(connection: socket.socket) -> None:
        read_line(connection)
        connection.sendall(line)

    with pytest.raises(Unusual):
        serve(answer).call("daemon.ping", {})


def test_a_silent_daemon_is_left_to_the_usual_client(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for without a word: the usual client says that it does not answer."""
    monkeypatch.setattr(light, "PATIENCE_SECS", 0.01)
    with pytest.raises(Unusual):
        serve(lambda connection: (read_line(connection), read_line(connection))).call("daemon.ping", {})  # type: ignore[arg-type, return-value]


def test_nothing_is_sent_to_another_user_s_process(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says whose process listens; to any but our own the connection is given up before the first byte."""
    received: list[bytes] = []
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(Unusual):
        serve(lambda connection: received.append(read_line(connection)))
    assert received in ([], [b""])


def test_a_socket_without_a_daemon_is_left_to_the_usual_client(home: Path) -> None:
    """No file, a plain file, a path that is too long: the usual client has a message for each."""
    (home / "file").touch()
    for path in ("none", "file", "x" * 200):
        with pytest.raises(Unusual):
            LightConnection({"ORBITD_SOCKET": str(home / path)})


def test_an_answer_of_the_daemon_is_plain(shared_daemon: Any) -> None:
    """The daemon's own answers are understood: nothing here expects another form than it writes."""
    with LightConnection(shared_daemon.environment) as connection:
        assert connection.call("daemon.ping", {}).raw == b'{"pong":true}'
        assert "sessions" in connection.call("session.list", {"limit": 1}).value
