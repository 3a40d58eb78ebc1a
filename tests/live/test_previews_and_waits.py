"""Pictures of sessions, and waits for what they print, from the real daemon."""

from __future__ import annotations

import json
import os
import signal
from typing import Any
from xml.etree import ElementTree

from live.screens_processes import screens_processes
from live.sessions import create
from support import DaemonProcess, RawClient

FLOOD = "read x; yes | head -n 300000; echo 'the needle'; yes no | head -n 300000; read x"


def sh(script: str) -> str:
    """Return a command that runs a script."""
    return "sh -c " + json.dumps(script)


def ask(client: RawClient, number: str, method: str, **params: Any) -> None:
    """Send a request; its answer comes when it comes."""
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    client.send(json.dumps(request).encode())


def answers(client: RawClient, numbers: set[str]) -> dict[str, Any]:
    """Return the answers to requests."""
    found: dict[str, Any] = {}
    while set(found) != numbers:
        message = json.loads(client.read_line())
        if message.get("id") in numbers:
            found[message["id"]] = message["result"] if "result" in message else message["error"]
    return found


def started(client: RawClient, script: str) -> str:
    """Run a script in a session; return its id."""
    session = create(client, sh(script))
    client.call("session.start", id=session, cols=40, rows=5)
    return session


def test_many_wait_for_a_line_in_a_flood(daemon: DaemonProcess) -> None:
    """As many calls as may wait on one connection are answered with a line that is on the screen for no time at all."""
    numbers = {f"wait {number}" for number in range(255)}
    with daemon.client() as client:
        session = started(client, FLOOD)
        for number in sorted(numbers):
            ask(client, number, "session.wait", id=session, **{"for": "text", "pattern": "needle"})
        ask(client, "one", "session.wait", id=session, **{"for": "text", "pattern": "no such line"})
        client.call("daemon.ping")
        ask(client, "send", "session.send", id=session, data="Cg==")
        found = answers(client, numbers | {"send"})
        assert {json.dumps(found[number]) for number in numbers} == {
            json.dumps({"exit_code": None, "exit_signal": None, "line": "the needle"})
        }
        ask(client, "send", "session.send", id=session, data="Cg==")
        error = answers(client, {"one", "send"})["one"]
    assert (error["code"], error["data"]["exit_code"]) == (1006, 0)


def test_a_search_goes_on_after_a_kill_of_the_screens_process(daemon: DaemonProcess) -> None:
    """Nothing that is printed while the picture is built again is missed."""
    with daemon.client() as client:
        session = started(client, "read x; echo one; read x; echo 'the needle'; seq 1000; read x")
        ask(client, "one", "session.wait", id=session, **{"for": "text", "pattern": "needle"})
        client.call("session.send", id=session, data="Cg==")
        client.call("session.wait", id=session, **{"for": "text", "pattern": "one"})
        for pid in screens_processes(daemon):
            os.kill(pid, signal.SIGKILL)
        ask(client, "send", "session.send", id=session, data="Cg==")
        assert answers(client, {"one", "send"})["one"]["line"] == "the needle"


def test_a_command_of_a_shell(daemon: DaemonProcess) -> None:
    """A command that prints OSC 133 as a shell does ends the wait with its exit code."""
    with daemon.client() as client:
        session = started(client, r"read x; printf '\033]133;C\007\033]133;D;3\007'; read x")
        ask(client, "one", "session.wait", id=session, **{"for": "command"})
        client.call("daemon.ping")
        ask(client, "send", "session.send", id=session, data="Cg==")
        answer = answers(client, {"one", "send"})["one"]
    assert (answer["exit_code"], answer["command"]["exit_code"]) == (3, 3)


def test_a_picture_of_a_session_live_ended_and_after_a_restart(daemon: DaemonProcess) -> None:
    """It is the same while the program runs, when it has ended, and when only its snapshot is left."""
    with daemon.client() as client:
        session = started(client, r"printf '\033[31mred\033[m and \344\270\226\n'; read x")
        client.call("session.wait", id=session, **{"for": "text", "pattern": "red and 世"})
        params = {"id": session, "format": "svg", "cursor": False}
        live = client.call("session.screen", **params)
        root = ElementTree.fromstring(live["data"])
        assert [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")] == ["red", "and", "世"]
        assert (live["cols"], live["rows"], live["first_line"], live["total_lines"]) == (40, 5, None, None)
        client.call("session.send", id=session, data="Cg==")
        client.call("session.wait", id=session)
        part = {**params, "format": "text", "first_line": 0, "lines": 1}
        assert client.call("session.screen", **part)["data"] == "red and 世\n"
    daemon.restart()
    with daemon.client() as client:
        again = client.call("session.screen", **params)
        assert again["data"] == live["data"]
