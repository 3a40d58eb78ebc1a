"""An orbitctl and a daemon of different releases: they agree, or the message says which of them to upgrade."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctl_support import Ended, Orbitctl, Peer, read_line
from orbit_protocol import PROTOCOL_VERSION, VERSION
from support import clean_environment

MOMENT = "2030-01-01T00:00:00Z"
SESSION = {
    "id": "5e0c6f6e-0b57-4d35-a3a2-6ea5f5d0d6a1",
    "name": "web",
    "session_type": "local",
    "created_at": MOMENT,
    "last_active": MOMENT,
    "status": "active",
    "config": {"session_type": "local", "command": None, "colour": "a field of the future"},
    "workspace_id": None,
    "mood": {"a field": "of the future"},
}
MISSING = {"error": {"code": -32601, "message": "No such method", "data": {"kind": "method_not_found"}}}
Run = Callable[..., Ended]


def info(**changes: Any) -> dict[str, Any]:
    """Return what a daemon of another release says about itself."""
    said = {"version": VERSION, "protocol_version": PROTOCOL_VERSION, "pid": 1, "started_at": MOMENT}
    return {"result": {**said, "in_the_future": [1, 2], **changes}}


def noting(asked: list[Any], answers: dict[str, Any]) -> Callable[[socket.socket], None]:
    """Answer as told, and note what was asked."""

    def talk(connection: socket.socket) -> None:
        while line := read_line(connection):
            asked.append(json.loads(line))
            body = {"jsonrpc": "2.0", "id": asked[-1]["id"], **answers[asked[-1]["method"]]}
            connection.sendall(json.dumps(body).encode() + b"\n")

    return talk


@pytest.fixture
def asked() -> list[Any]:
    """Every request that the daemon was sent."""
    return []


@pytest.fixture
def against(home: Path, asked: list[Any]) -> Iterator[Callable[[dict[str, Any]], Run]]:
    """Return a function that runs orbitctl beside a daemon that answers as told."""
    peers: list[Peer] = []

    def serve(answers: dict[str, Any]) -> Run:
        environment = clean_environment(home, ORBITCTL_NO_AUTOSTART="1")
        path = home / "run" / "orbit" / "orbitd.sock"
        path.parent.mkdir(mode=0o700)
        peers.append(Peer(path, noting(asked, answers)))
        return Orbitctl(home, environment)

    yield serve
    for peer in peers:
        peer.close()


def test_results_with_new_fields_are_read(against: Callable[[dict[str, Any]], Run]) -> None:
    """A newer daemon may say more: the table is drawn, and --json hands on every field."""
    page = {"result": {"sessions": [SESSION], "next_cursor": None, "total": 1}}
    run = against({"session.list": page, "daemon.info": info(protocol_version=PROTOCOL_VERSION + 1)})
    listed = run("session", "list")
    assert (listed.code, "web" in listed.text) == (0, True), listed
    assert run("--json", "session", "list").json == page["result"]


UNLIKE = [
    (PROTOCOL_VERSION + 1, "Upgrade orbitctl"),
    (PROTOCOL_VERSION - 1, "orbitctl daemon restart"),
]


@pytest.mark.parametrize(("theirs", "advice"), UNLIKE, ids=["newer daemon", "older daemon"])
def test_a_missing_method_says_whom_to_upgrade(
    against: Callable[[dict[str, Any]], Run], theirs: int, advice: str
) -> None:
    """Where the daemon does not know a method and speaks another protocol, it is exit 7 with both versions."""
    run = against({"session.list": MISSING, "daemon.info": info(version="9.8.7", protocol_version=theirs)})
    ended = run("session", "list")
    assert (ended.code, ended.out) == (7, b""), ended
    assert f"orbitd 9.8.7) speaks protocol {theirs}" in ended.err
    assert f"speaks {PROTOCOL_VERSION}" in ended.err
    assert f"hint: {advice}" in ended.err or advice in ended.err.partition("hint: ")[2]


@pytest.mark.parametrize(("theirs", "advice"), UNLIKE, ids=["newer daemon", "older daemon"])
def test_an_answer_of_another_shape_says_whom_to_upgrade(
    against: Callable[[dict[str, Any]], Run], theirs: int, advice: str
) -> None:
    """A result that cannot be read leads to the same question, and to the same exit 7."""
    page = {"result": {"sessions": {"by": "id"}, "next_cursor": None}}
    run = against({"session.list": page, "daemon.info": info(protocol_version=theirs)})
    ended = run("session", "list")
    assert (ended.code, ended.out) == (7, b""), ended
    assert advice in ended.err


def test_a_method_that_only_a_newer_release_has_says_so(against: Callable[[dict[str, Any]], Run]) -> None:
    """Of the same protocol but another release, the daemon that is still the old one is to be restarted: exit 7."""
    run = against({"session.list": MISSING, "daemon.info": info(version="0.0.1")})
    ended = run("session", "list")
    assert "The daemon runs 0.0.1" in ended.err
    assert "orbitctl daemon restart" in ended.err
    assert (ended.code, ended.out) == (7, b""), ended


def test_something_else_behind_the_socket_is_told(against: Callable[[dict[str, Any]], Run]) -> None:
    """What answers, but not as any orbitd does, is exit 7 with a look closer as the next step."""
    run = against({"session.list": {"result": "hello"}, "daemon.info": {"result": "hello"}})
    ended = run("session", "list")
    assert (ended.code, "orbitctl doctor" in ended.err) == (7, True), ended


def test_what_was_not_chosen_is_not_sent(against: Callable[[dict[str, Any]], Run], asked: list[Any]) -> None:
    """An older daemon, which refuses fields that it does not know, is sent only those that were given."""
    empty: dict[str, Any] = {"result": {"sessions": [], "next_cursor": None}}
    run = against({"session.list": empty, "session.create": {"result": SESSION}, "daemon.info": info()})
    assert run("session", "list").code == 0
    assert run("session", "create", "--name", "web").code == 0
    # The list is asked for once more where an answer does not come to the letter as this release writes it.
    sent = {(one["method"], *sorted(one["params"])) for one in asked}
    assert sent == {("session.list", "limit"), ("session.create", "config", "name")}
    assert asked[-1]["params"]["config"] == {"session_type": "local"}
