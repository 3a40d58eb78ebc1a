"""A client that frames its messages by Content-Length, as editors' JSON-RPC libraries do, beside clients of lines."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from support import WAIT_SECS, DaemonProcess, RawClient

PING = {"jsonrpc": "2.0", "method": "daemon.ping", "id": 1}


class HeaderClient:
    """A client that writes headers, and reads nothing else."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(WAIT_SECS)
        self.socket.connect(str(daemon.socket_path))
        self._stream = self.socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self.socket.close()

    def send(self, *messages: Any) -> None:
        """Send messages in one piece, each on several lines."""
        bodies = [json.dumps(message, indent=2).encode() for message in messages]
        self.socket.sendall(b"".join(b"Content-Length: %d\r\n\r\n%b" % (len(body), body) for body in bodies))

    def read(self) -> Any:
        """Return the next message, or None at the end of the stream."""
        header = self._stream.readline()
        if not header:
            return None
        assert header.startswith(b"Content-Length: ")
        assert self._stream.readline() == b"\r\n"
        body = self._stream.read(int(header[16:]))
        assert b"\n" not in body
        return json.loads(body)

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and return its result."""
        self.send({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
        return self.read()["result"]


@pytest.fixture
def headers(shared_daemon: DaemonProcess) -> Iterator[HeaderClient]:
    """A client that has sent nothing yet."""
    client = HeaderClient(shared_daemon)
    yield client
    client.close()


def test_requests_batches_and_notifications_come_behind_headers(
    headers: HeaderClient, shared_client: RawClient
) -> None:
    """Everything that a client of headers is sent has them, unasked messages too; another one is sent lines."""
    headers.send(PING, [PING, {**PING, "id": 2}])
    assert [headers.read()["id"], [one["id"] for one in headers.read()]] == [1, [1, 2]]
    session = headers.call("session.create", config={"session_type": "local", "command": "cat"})["id"]
    headers.call("session.attach", id=session, cols=80, rows=24, attachment_id="a", start=True)
    data = base64.b64encode(b"hello\r").decode()
    headers.send({"jsonrpc": "2.0", "method": "session.input", "params": {"attachment_id": "a", "data": data}})
    shown = b""
    while b"hello" not in shown:
        notice = headers.read()
        assert notice["method"] == "session.output"
        shown += base64.b64decode(notice["params"]["data"])
    assert shared_client.call("session.get", id=session)["clients"] == 1


def test_json_on_several_lines_is_one_message(headers: HeaderClient, shared_client: RawClient) -> None:
    """A layout that is written on several lines is kept on one: it runs as nothing, and breaks no other client."""
    config = {"left": ["a", "b"], "jsonrpc": "2.0", "method": "daemon.shutdown"}
    layout = {"layout_type": "grid", "config": config}
    workspace = headers.call("workspace.create", name="lines", layout=layout)
    assert workspace["layout"]["config"] == config
    assert shared_client.call("workspace.get", id=workspace["id"]) == workspace


def test_a_body_that_is_no_json_costs_one_error(headers: HeaderClient) -> None:
    """An empty body, and one that is no JSON, are answered; the next message is served."""
    headers.socket.sendall(b"Content-Length: 0\r\n\r\nContent-Length: 8\r\n\r\nnot json")
    assert [headers.read()["error"]["code"] for _ in range(2)] == [-32700] * 2
    assert headers.call("daemon.ping") == {"pong": True}


@pytest.mark.parametrize("tail", [0, 4 << 20], ids=["alone", "before 4 MiB"])
def test_what_cannot_be_followed_is_answered_and_the_connection_closed(headers: HeaderClient, tail: int) -> None:
    """Where no header stands in front of a message the client reads why, and then the end of the stream."""
    headers.send(PING)
    headers.socket.sendall(b"garbage\r\n" + b"x" * tail)
    assert headers.read()["id"] == 1
    answer = headers.read()
    assert (answer["id"], answer["error"]["code"], answer["error"]["data"]["kind"]) == (None, -32700, "parse_error")
    assert "Content-Length" in answer["error"]["message"]
    assert headers.read() is None


@pytest.mark.parametrize("extra", [1, 20 << 20], ids=["by a byte", "by 20 MiB"])
def test_a_body_over_the_limit_is_refused_and_the_connection_closed(headers: HeaderClient, extra: int) -> None:
    """The client that sends it all first, newlines too, still reads why, and then the end of the stream."""
    size = (16 << 20) + extra
    headers.socket.sendall(b"Content-Length: %d\r\n\r\n" % size + b"\n" * size)
    error = headers.read()["error"]
    assert (error["code"], error["data"]["kind"]) == (-32600, "message_too_large")
    assert headers.read() is None
