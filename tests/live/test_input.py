"""Input on its way to a program that does not read, and calls that wait: with a real terminal and a real daemon."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from live.sessions import Terminal, start
from live_support import Viewer, encoded
from support import DaemonProcess, RawClient

READ_LATE = Path(__file__).with_name("read_late.py")
NUMBERS = b"".join(b"%07d\n" % number for number in range(12_500))


class LateReader:
    """A session whose program reads nothing until `read` is called.

    Args:
        client: A client of the daemon.
        folder: Where its files are.
    """

    def __init__(self, client: RawClient, folder: Path) -> None:
        self._fifo, self._copy = folder / "fifo", folder / "copy"
        os.mkfifo(self._fifo)
        self.id = start(client, f"{sys.executable} {READ_LATE} {self._fifo} {self._copy}")
        Terminal(client, self.id).follow_until("ready")

    def read(self, client: RawClient) -> bytes:
        """Have it read; return all of its input, once a daemon has typed it."""
        os.close(os.open(self._fifo, os.O_WRONLY))
        client.call("session.send", id=self.id, data=encoded(b"\0"))
        client.call("session.wait", id=self.id)
        return self._copy.read_bytes()


def send(client: RawClient, method: str, request_id: Any = None, **params: Any) -> None:
    """Send a request without waiting for its answer; a notification without an id."""
    found = {"jsonrpc": "2.0", "method": method, "params": params}
    client.send(json.dumps(found if request_id is None else {**found, "id": request_id}).encode())


def answers(client: RawClient) -> dict[Any, Any]:
    """Return what has been answered before a last request is."""
    send(client, "daemon.ping", "last")
    found = answers_until(client, "last")
    del found["last"]
    return found


def answers_until(client: RawClient, request_id: Any = None) -> dict[Any, Any]:
    """Return the answers up to that of a request, or to the end of the connection."""
    found: dict[Any, Any] = {}
    while request_id not in found and (line := client.read_line()):
        message = json.loads(line)
        if "id" in message:
            found[message["id"]] = message
    return found


def type_numbers(client: RawClient, session_id: str) -> None:
    """Send 100,000 bytes in ten requests, without waiting for the answers."""
    for number in range(10):
        data = NUMBERS[number * 10_000 : (number + 1) * 10_000]
        send(client, "session.send", number, id=session_id, data=encoded(data))


def acknowledged(found: dict[Any, Any]) -> int:
    """Return how many bytes of the numbers the answers say were taken: those of requests that failed too."""
    count = 0
    for number in range(10):
        if number in found:
            error = found[number].get("error")
            count += 10_000 if error is None else error["data"].get("written", 0)
    return count


def test_acknowledged_input_survives_a_kill(daemon: DaemonProcess, client: RawClient, home: Path) -> None:
    """Of 100,000 bytes to a program that does not read, all that were answered arrive after kill -9, in order."""
    program = LateReader(client, home)
    type_numbers(client, program.id)
    found = answers(client)
    daemon.kill()
    with daemon.start().client() as again:
        arrived = program.read(again)
    assert 0 < acknowledged(found) <= len(arrived) < len(NUMBERS)
    assert arrived == NUMBERS[: len(arrived)]


def test_what_a_stop_has_not_typed_is_answered_as_such(daemon: DaemonProcess, client: RawClient, home: Path) -> None:
    """A stop in good order answers each call that waits, and says exactly how much of it the program will find."""
    program = LateReader(client, home)
    type_numbers(client, program.id)
    found = answers(client)
    assert len(found) < 10
    os.kill(daemon.pid, signal.SIGTERM)
    found |= answers_until(client)
    daemon.stop()
    kinds = {found[number]["error"]["data"]["kind"] for number in range(10) if "error" in found[number]}
    assert kinds == {"shutting_down"}
    with daemon.start().client() as again:
        arrived = program.read(again)
    assert arrived == NUMBERS[: acknowledged(found)]


def test_a_call_that_waits_ends_with_its_program(shared_client: RawClient, home: Path) -> None:
    """It is answered with how much of its input the terminal has taken."""
    program = LateReader(shared_client, home)
    type_numbers(shared_client, program.id)
    send(shared_client, "session.terminate", "end", id=program.id)
    found = answers_until(shared_client, "end")
    assert "result" in found["end"]
    assert {each["error"]["data"]["kind"] for each in found.values() if "error" in each} == {"not_running"}
    assert 0 < acknowledged(found) < len(NUMBERS)


def test_a_slow_program_gets_everything(shared_daemon: DaemonProcess, shared_client: RawClient, home: Path) -> None:
    """Calls that waited are answered as soon as the program reads, and all of their bytes arrive."""
    program = LateReader(shared_client, home)
    type_numbers(shared_client, program.id)
    found = answers(shared_client)
    assert len(found) < 10
    with shared_daemon.client() as other:
        assert program.read(other) == NUMBERS
    found |= answers(shared_client)
    assert ["result" in found[number] for number in range(10)] == [True] * 10


def test_cancelled_input_is_not_typed(shared_daemon: DaemonProcess, shared_client: RawClient, home: Path) -> None:
    """The answer to a call that is cancelled says how much of it was taken, and that much arrives."""
    program = LateReader(shared_client, home)
    send(shared_client, "session.send", 1, id=program.id, data=encoded(NUMBERS))
    send(shared_client, "session.send", 2, id=program.id, data=encoded("behind"))
    shared_client.call("daemon.ping")
    send(shared_client, "$/cancelRequest", id=1)
    error = answers_until(shared_client, 1)[1]["error"]
    assert error["code"] == -32800
    with shared_daemon.client() as other:
        assert program.read(other) == NUMBERS[: error["data"]["written"]] + b"behind"
    assert answers_until(shared_client, 2).keys() == {2}


def test_a_program_that_does_not_read_is_busy(shared_client: RawClient, home: Path) -> None:
    """Beyond a mebibyte that waits, input is refused at once, by way of any client; the connection goes on."""
    program = LateReader(shared_client, home)
    data = encoded(b"x" * 600 * 1024)
    send(shared_client, "session.send", 1, id=program.id, data=data)
    send(shared_client, "session.send", 2, id=program.id, data=data)
    found = answers(shared_client)
    assert 1 not in found
    assert (found[2]["error"]["code"], found[2]["error"]["data"]["written"]) == (-32000, 0)
    shared_client.call("session.get", id=program.id)


def test_a_key_beside_as_many_waits_as_may_be(shared_daemon: DaemonProcess) -> None:
    """With 256 calls that wait on a connection a key is answered as ever; one wait more is refused."""
    with shared_daemon.client() as client:
        session_id = start(client, "cat")
        for number in range(257):
            send(client, "session.wait", number, id=session_id)
        found = answers(client)
        client.call("session.send", id=session_id, data=encoded("x"))
        found |= answers(client)
        assert [number for number in range(257) if number in found] == [256]
        assert found[256]["error"]["data"]["kind"] == "busy"


@pytest.mark.parametrize("method", ["session.input", "session.send"])
def test_a_client_that_does_not_read_can_still_type(shared_daemon: DaemonProcess, method: str) -> None:
    """Behind more output than is kept for it, and requests that are held back, ^C reaches the program."""
    with shared_daemon.client() as client, shared_daemon.client() as other:
        session_id = start(client, "sh -c 'trap \"exit 3\" INT; while :; do echo noise; done'")
        viewer = Viewer(client, session_id)
        viewer.read_until("noise")  # the trap is set
        # Nothing is read by this client from here on. The answers to these are more than is kept for it.
        for number in range(100):
            send(client, "rpc.discover", number)
        target = {"attachment_id": viewer.id} if method == "session.input" else {"id": session_id}
        send(client, method, **target, data=encoded(b"\x03"))
        assert other.call("session.wait", id=session_id)["exit_code"] == 3


def test_an_escape_is_typed_before_what_follows_it(shared_client: RawClient, home: Path) -> None:
    """What may be the beginning of a terminal's answer is held for a moment, and overtaken by nothing."""
    session_id = start(shared_client, f"sh -c 'stty raw -echo; echo ready; head -c 2 > {home}/typed; echo done; cat'")
    viewer = Viewer(shared_client, session_id)
    viewer.read_until("ready")
    viewer.type("\x1b")
    shared_client.notify("session.send", id=session_id, data=encoded("x"))
    viewer.read_until("done")
    assert (home / "typed").read_bytes() == b"\x1bx"
