"""A client written against docs/protocol.md alone: sockets and JSON, nothing of Orbit's imported.

It stands for the desktop terminal app and the scripts that talk to orbitd: what it relies on
is what the page promises, and what it does is a day's work, with the daemon restarted in between.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support import WAIT_SECS, DaemonProcess

SCREEN = b"\x1b[1;32muser@host\x1b[0m:~$ ls\r\nnotes.txt  \xe6\x97\xa5\xe8\xa8\x98\r\n\xff\x00"
Answer = dict[str, Any]


class Orbit:
    """One connection: a message a line, answers matched by their ids."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(WAIT_SECS)
        self._socket.connect(str(path))
        self._lines: Iterator[str] = self._socket.makefile("r", encoding="utf-8", newline="\n")
        self._answers: dict[Any, Answer] = {}
        self._next_id = 0

    def send(self, message: Any) -> None:
        self._socket.sendall(json.dumps(message, ensure_ascii=False).encode() + b"\n")

    def start(self, method: str, **params: Any) -> int:
        """Send a request; the page says that answers may come in any order."""
        self._next_id += 1
        self.send({"jsonrpc": "2.0", "method": method, "params": params, "id": self._next_id})
        return self._next_id

    def finish(self, request_id: int) -> Answer:
        """Return the answer to a request."""
        while request_id not in self._answers:
            answer = json.loads(next(self._lines))
            self._answers[answer["id"]] = answer
        return self._answers.pop(request_id)

    def call(self, method: str, **params: Any) -> Any:
        answer = self.finish(self.start(method, **params))
        assert "error" not in answer, answer
        return answer["result"]

    def refused(self, method: str, **params: Any) -> tuple[int, str]:
        """Return code and kind of the error that a call ends in."""
        error: Answer = self.finish(self.start(method, **params))["error"]
        assert error["message"]
        assert isinstance(error["data"]["retryable"], bool)
        return error["code"], error["data"]["kind"]

    def line(self) -> Any:
        return json.loads(next(self._lines))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def orbit(shared_daemon: DaemonProcess) -> Iterator[Orbit]:
    connection = Orbit(shared_daemon.socket_path)
    yield connection
    connection.close()


def a_days_work(orbit: Orbit) -> dict[str, Any]:
    """Do what the page describes; return all that has to be there afterwards."""
    layout = {"layout_type": "grid", "config": {"z": 1, "a": [0.5, None, "é"]}}
    workspace = orbit.call("workspace.create", name="work", layout=layout)
    config = {"session_type": "local", "command": "/bin/bash", "workspace_id": workspace["id"]}
    web = orbit.call("session.create", config=config, name="web")
    ssh = {"session_type": "ssh", "host": "example.org", "port": 2222, "username": "user"}
    remote = orbit.call("session.create", config=ssh)
    info = orbit.call(
        "snapshot.save",
        session_id=web["id"],
        terminal_buffer=base64.b64encode(SCREEN).decode(),
        scrollback=base64.b64encode(SCREEN * 10).decode(),
        cols=80,
        rows=24,
    )
    assert (info["buffer_bytes"], info["scrollback_bytes"], info["format"]) == (len(SCREEN), 10 * len(SCREEN), "opaque")
    assert orbit.call("session.detach", id=web["id"])["status"] == "detached"
    orbit.call("workspace.set_active_session", id=workspace["id"], session_id=web["id"])
    orbit.call("session.terminate", id=remote["id"])
    return look(orbit)


def look(orbit: Orbit) -> dict[str, Any]:
    """Return everything that a client can see."""
    every = ["active", "detached", "terminated", "archived"]
    sessions = orbit.call("session.list", status=every)["sessions"]
    stats = orbit.call("stats.get")
    return {
        "sessions": sessions,
        "workspaces": orbit.call("workspace.list")["workspaces"],
        "latest": [orbit.call("snapshot.latest", session_id=one["id"]) for one in sessions],
        "counts": {name: stats[name] for name in stats if name.startswith("total_") or name.endswith("_sessions")},
    }


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_days_work_is_there_after_a_restart(daemon: DaemonProcess, ending: str) -> None:
    """Sessions, statuses, snapshots, workspaces and counts are the same after a stop and after a kill."""
    orbit = Orbit(daemon.socket_path)
    before = a_days_work(orbit)
    orbit.close()
    getattr(daemon, ending)()
    orbit = Orbit(daemon.start().socket_path)
    after = look(orbit)
    orbit.close()
    assert after == before
    web, remote = after["sessions"]
    assert (web["name"], web["status"], web["config"]["command"]) == ("web", "detached", "/bin/bash")
    assert (remote["name"], remote["status"], remote["config"]["port"]) == (None, "terminated", 2222)
    assert base64.b64decode(after["latest"][0]["terminal_buffer"]) == SCREEN
    assert after["latest"][1] is None
    assert after["workspaces"][0]["active_session_id"] == web["id"]
    assert list(after["workspaces"][0]["layout"]["config"]) == ["z", "a"]
    assert after["counts"]["total_sessions"] == 2


def test_errors_are_as_the_page_says(orbit: Orbit) -> None:
    """Code and kind tell what went wrong, and the connection goes on."""
    orbit.call("session.create", config={"session_type": "local"}, name="web")
    assert orbit.refused("session.create", config={"session_type": "local"}, name="web") == (1001, "name_taken")
    assert orbit.refused("session.get", id="nothing") == (1000, "session_not_found")
    assert orbit.refused("workspace.find", ref="nothing") == (1200, "workspace_not_found")
    assert orbit.refused("snapshot.get", id="nothing") == (1100, "snapshot_not_found")
    assert orbit.refused("session.create", config={"session_type": "ssh"}) == (-32602, "invalid_params")
    assert orbit.refused("session.lsit") == (-32601, "method_not_found")
    session = orbit.call("session.find", ref="web")
    orbit.call("session.terminate", id=session["id"])
    assert orbit.refused("session.detach", id=session["id"]) == (1002, "invalid_transition")


def test_many_requests_at_once_are_matched_by_id(orbit: Orbit) -> None:
    """Requests that do not wait for each other are all answered, whatever the order."""
    started = {
        number: orbit.start("session.create", config={"session_type": "local"}, name=f"s{number}")
        for number in range(50)
    }
    names = {number: orbit.finish(request)["result"]["name"] for number, request in reversed(started.items())}
    assert names == {number: f"s{number}" for number in started}


def test_a_batch_and_a_notification_work_as_the_specification_says(orbit: Orbit) -> None:
    """A batch is answered in one line, without an entry for the notification that is in it."""
    ping = {"jsonrpc": "2.0", "method": "daemon.ping"}
    orbit.send([{**ping, "id": 1}, ping, {"jsonrpc": "2.0", "method": "none", "id": "b"}])
    first, second = orbit.line()
    assert (first["result"], second["error"]["code"]) == ({"pong": True}, -32601)


def test_pages_are_followed_by_their_cursor(orbit: Orbit) -> None:
    """next_cursor leads through a list, oldest first, and is null at its end."""
    made = [orbit.call("session.create", config={"session_type": "local"})["id"] for _ in range(7)]
    found, cursor = [], None
    while True:
        page = orbit.call("session.list", limit=3, cursor=cursor)
        found += [one["id"] for one in page["sessions"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == made


def test_times_are_rfc_3339_in_utc(orbit: Orbit) -> None:
    """A time can be read by any program, and says its zone."""
    session = orbit.call("session.create", config={"session_type": "local"})
    moment = datetime.fromisoformat(session["created_at"])
    assert moment.utcoffset() == timedelta(0)
    assert orbit.call("session.touch", id=session["id"])["last_active"] > session["last_active"]


def test_the_daemon_describes_itself(orbit: Orbit) -> None:
    """daemon.info and rpc.discover tell a program what it needs to know before it begins."""
    info = orbit.call("daemon.info")
    assert (info["protocol_version"], info["limits"]["max_message_bytes"]) == (1, 16 * 1024 * 1024)
    document = orbit.call("rpc.discover")
    assert {"session.create", "snapshot.save"} <= {method["name"] for method in document["methods"]}
