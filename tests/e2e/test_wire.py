"""The wire as any program sees it: lines, limits, concurrency, and clients that behave badly."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from live.screens_processes import descriptors
from support import DaemonProcess, RawClient

PING = b'{"jsonrpc": "2.0", "method": "daemon.ping", "id": %d}'


SMALL_STACK = ("bash", "-c", 'ulimit -s 256; exec "$@"', "bash")


def ping(request_id: int) -> bytes:
    return PING % request_id


def is_alive(daemon: DaemonProcess) -> bool:
    with daemon.client() as other:
        return bool(other.call("daemon.ping") == {"pong": True})


def memory_kib(daemon: DaemonProcess) -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


def test_an_answer_may_be_longer_than_a_request(home: Path, stopped_daemon: DaemonProcess) -> None:
    """The limit of a message is for what comes in: an answer over it is sent, alone and in a batch."""
    config = home / "config.toml"
    config.write_text("[daemon]\nmax_message_bytes = 1024\n")
    stopped_daemon.arguments = ("--config", str(config))
    discover = b'{"jsonrpc":"2.0","method":"rpc.discover","id":1}'
    with stopped_daemon.start().client() as client:
        assert "methods" in client.ask(discover)["result"]
        assert len(client.ask(b"[" + discover + b"," + ping(2) + b"]")) == 2


def test_nesting_has_a_limit_on_a_small_stack(stopped_daemon: DaemonProcess) -> None:
    """512 levels are read and 513 refused, with 256 KiB of C stack; the daemon and the connection go on."""
    stopped_daemon.prefix = SMALL_STACK
    stopped_daemon.start()
    inner = [(depth, b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth) for depth in (511, 512, 950)]
    with stopped_daemon.client() as client:
        for depth, *values in inner:
            for value in values:
                answers = [
                    client.ask(b'{"jsonrpc":"2.0","method":"daemon.ping","x":%s,"id":1}' % value),
                    client.ask(b'{"jsonrpc":"2.0","method":"daemon.ping","params":{"x":%s},"id":1}' % value),
                    client.ask(b'{"jsonrpc":"2.0","method":"daemon.ping","id":%s}' % value),
                    client.ask(b"[%s]" % value),
                    client.ask(b'\xff{"id":%s}' % value),
                ]
                codes = [one["error"]["code"] if "error" in one else 0 for one in answers if isinstance(one, dict)]
                # The second value stands one level deeper than the others.
                assert codes == ([0, -32700, -32600, -32700] if depth == 511 else [-32700] * 5)
        for kind in ("[", '{"a":'):
            layout = {"layout_type": "x", "config": None}
            config = kind * 500 + "1" + {"[": "]"}.get(kind, "}") * 500
            params = json.dumps({"name": f"w{kind}", "layout": layout}).replace("null", config)
            request = f'{{"jsonrpc":"2.0","method":"workspace.create","params":{params},"id":1}}'
            assert "result" in client.ask(request)
        assert len(client.ask('[{"jsonrpc":"2.0","method":"workspace.list","id":1}]')[0]["result"]["workspaces"]) == 2
        client.send(b"[" + b"[]," * 5_000_000 + b"[]]")  # flat, and as long as a message may be
        assert json.loads(client.read_line())["error"]["code"] == -32600
        assert client.call("daemon.ping") == {"pong": True}
    stopped_daemon.restart()  # workspaces of such a depth are read again
    with stopped_daemon.client() as client:
        assert len(client.call("workspace.list")["workspaces"]) == 2


@pytest.mark.parametrize(
    "garbage",
    [b"not json", b"\x00\x01\x02", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 50_000, b'"\\ud800"', b"{}", b"[]", b"0"],
    ids=["text", "NULs", "not UTF-8", "nested lists", "nested objects", "surrogate", "empty", "empty batch", "number"],
)
def test_a_garbage_line_is_answered_and_the_connection_goes_on(shared_client: RawClient, garbage: bytes) -> None:
    """One bad line costs one error; the next line is served."""
    answer = shared_client.ask(garbage)
    assert (answer["id"], answer["error"]["code"] in (-32700, -32600)) == (None, True)
    assert shared_client.call("daemon.ping") == {"pong": True}


def test_lines_may_end_as_on_windows_and_be_blank(shared_client: RawClient) -> None:
    """CR LF ends a line, and blank lines are skipped."""
    shared_client.socket.sendall(b"\n\r\n  \n" + ping(5) + b"\r\n")
    assert json.loads(shared_client.read_line())["id"] == 5


def test_requests_may_come_byte_by_byte_or_many_at_once(shared_client: RawClient) -> None:
    """How a request is cut into packets does not matter."""
    for byte in ping(1) + b"\n":
        shared_client.socket.sendall(bytes([byte]))
    assert json.loads(shared_client.read_line())["id"] == 1
    shared_client.socket.sendall(b"".join(ping(number) + b"\n" for number in range(100)))
    assert sorted(json.loads(shared_client.read_line())["id"] for _ in range(100)) == list(range(100))


def test_a_last_line_needs_no_ending(shared_client: RawClient) -> None:
    """A client may send, shut its side down and read: the answer comes, then the end."""
    shared_client.socket.sendall(ping(1))
    shared_client.socket.shutdown(socket.SHUT_WR)
    assert json.loads(shared_client.read_line())["id"] == 1
    assert shared_client.read_line() == b""


@pytest.mark.parametrize("extra", [1, 20 << 20], ids=["by a byte", "by 20 MiB"])
def test_a_message_over_the_limit_is_refused_and_the_connection_closed(shared_client: RawClient, extra: int) -> None:
    """The client that sends it all first still reads why, and then the end of the stream."""
    shared_client.socket.sendall(b'"' + b"x" * ((16 << 20) - 1 + extra) + b"\n")
    error = json.loads(shared_client.read_line())["error"]
    assert (error["code"], error["data"]["kind"]) == (-32600, "message_too_large")
    assert shared_client.read_line() == b""


def test_a_message_as_long_as_the_limit_is_taken(shared_client: RawClient) -> None:
    """16 MiB are a message; here one that is refused for what it says, not for its length."""
    answer = shared_client.ask(b'"' + b"x" * ((16 << 20) - 2) + b'"')
    assert answer["error"]["data"]["kind"] == "invalid_request"
    assert shared_client.call("daemon.ping") == {"pong": True}


@pytest.mark.slow
def test_endless_lines_cost_bounded_memory(daemon: DaemonProcess) -> None:
    """Clients that send lines without end are cut off, and the daemon's memory comes back."""
    before = memory_kib(daemon)
    chunk = b"x" * (1 << 20)
    for _ in range(4):
        with daemon.client() as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(64):
                client.socket.sendall(chunk)
    assert is_alive(daemon)
    assert memory_kib(daemon) - before < 80 * 1024


@pytest.mark.slow
def test_a_client_that_never_reads_is_held_back(daemon: DaemonProcess) -> None:
    """Its requests wait in its own buffers; nobody else notices, and memory stays bounded."""
    before = memory_kib(daemon)
    with daemon.client() as silent:
        silent.socket.setblocking(False)
        line = b'{"jsonrpc": "2.0", "method": "rpc.discover", "id": 1}\n' * 1000
        sent = 0
        while select.select([], [silent.socket], [], 1.0)[1]:
            sent += silent.socket.send(line)
            assert sent < 64 << 20
        assert is_alive(daemon)
        assert memory_kib(daemon) - before < 80 * 1024


def test_a_slow_call_does_not_delay_the_next(shared_client: RawClient) -> None:
    """Requests of one connection run concurrently: a check and a ping are answered in either order."""
    check = b'{"jsonrpc": "2.0", "method": "maintenance.check", "id": 1}'
    shared_client.socket.sendall(check + b"\n" + ping(2) + b"\n")
    assert sorted(json.loads(shared_client.read_line())["id"] for _ in range(2)) == [1, 2]


def test_one_connection_too_many_is_told_so(home: Path, stopped_daemon: DaemonProcess) -> None:
    """Beyond max_connections and the reserve a client reads `busy`; when one leaves, there is room again."""
    config = home / "config.toml"
    config.write_text("[daemon]\nmax_connections = 2\n")
    stopped_daemon.arguments = ("--config", str(config))
    stopped_daemon.start()
    with stopped_daemon.client() as first, stopped_daemon.client() as second:
        assert [one.call("daemon.ping") for one in (first, second)] == [{"pong": True}] * 2
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                reserved = stack.enter_context(stopped_daemon.client())
                assert reserved.call("daemon.ping") == {"pong": True}
                assert reserved.error("stats.get")["code"] == -32000
            last = stack.enter_context(stopped_daemon.client())
            error = json.loads(last.read_line())["error"]
            assert (error["code"], error["data"]["retryable"]) == (-32000, True)
            assert last.read_line() == b""
        first.socket.shutdown(socket.SHUT_WR)
        assert first.read_line() == b""
        with stopped_daemon.client() as fourth:
            assert fourth.call("daemon.ping") == {"pong": True}


@pytest.mark.slow
def test_a_thousand_clients_come_and_go(stopped_daemon: DaemonProcess) -> None:
    """1,000 connections in turn, most of them vanishing in mid-request, leave no descriptor behind."""
    stopped_daemon.arguments = ("--log-level", "debug")
    daemon = stopped_daemon.start()
    with daemon.client() as client:
        assert client.call("daemon.ping") == {"pong": True}
        before = sockets_of(daemon)
        for number in range(1000):
            with daemon.client() as other:
                other.send(ping(number)[: number % 60])
        daemon.wait_for_log("connection closed", "all are used", count=1000)
        deadline = time.monotonic() + 30
        while sockets_of(daemon) != before and time.monotonic() < deadline:
            assert client.call("daemon.ping") == {"pong": True}  # turns of the loop that closes the last
        assert sockets_of(daemon) == before


def sockets_of(daemon: DaemonProcess) -> set[str]:
    """Return the sockets of a daemon. What it opens to read its store, when it first does, is none."""
    return {each for each in descriptors(daemon.pid).values() if each.startswith("socket:")}


def test_a_vanishing_client_disturbs_nobody(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """A client that leaves with calls in flight has them done; others are served on."""
    for number in range(20):
        with shared_daemon.client() as leaving:
            params = {"config": {"session_type": "local"}, "name": f"left-{number}"}
            leaving.send(json.dumps({"jsonrpc": "2.0", "method": "session.create", "params": params, "id": 1}).encode())
    assert shared_client.call("daemon.ping") == {"pong": True}


def test_a_buffer_comes_back_byte_by_byte(shared_client: RawClient) -> None:
    """Every byte value, NULs and invalid UTF-8 survive the wire and the store."""
    import base64

    session = shared_client.call("session.create", config={"session_type": "local"})
    buffer = bytes(range(256)) * 40_000
    encoded = base64.b64encode(buffer).decode()
    info = shared_client.call("snapshot.save", session_id=session["id"], terminal_buffer=encoded, scrollback="AAH//g==")
    snapshot: dict[str, Any] = shared_client.call("snapshot.latest", session_id=session["id"])
    assert base64.b64decode(snapshot["terminal_buffer"]) == buffer
    assert (snapshot["scrollback"], snapshot["id"], info["buffer_bytes"]) == ("AAH//g==", info["id"], len(buffer))


def test_a_layout_is_kept_to_the_letter(shared_client: RawClient) -> None:
    """Order of keys, spelling of numbers and spaces inside the JSON come back as they were sent."""
    config = '{"z":1.0,"a":[1e5, -0.0, 123456789012345678901234567890],"é":"\\u00e9"}'
    layout = f'{{"layout_type":"grid","config":{config}}}'
    shared_client.send(
        f'{{"jsonrpc":"2.0","method":"workspace.create","params":{{"name":"w","layout":{layout}}},"id":1}}'.encode()
    )
    assert config.encode() in shared_client.read_line()
    shared_client.send(b'{"jsonrpc":"2.0","method":"workspace.list","id":2}')
    assert config.encode() in shared_client.read_line()


def test_discover_describes_what_is_served(shared_client: RawClient) -> None:
    """rpc.discover lists exactly the methods that are answered."""
    names = [method["name"] for method in shared_client.call("rpc.discover")["methods"]]
    assert "session.create" in names
    assert shared_client.error("no.such.method")["code"] == -32601
