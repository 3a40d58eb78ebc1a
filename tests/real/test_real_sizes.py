"""Buffers as large as there are: 15 MiB, and the largest that fits the default limit of a message."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import pytest

from orbit_protocol.types import SessionConfig
from orbitd.manager import SessionManager
from support import DaemonProcess, RawClient

pytestmark = pytest.mark.slow

MIB = 1 << 20
DEFAULT_LIMIT = 16 * MIB
KINDS = ["noise", "screen", "NULs"]


def buffer(kind: str, size: int) -> bytes:
    """Return bytes that do not compress, that compress as screens do, or that are all the same."""
    if kind == "noise":
        return random.Random(size).randbytes(size)
    line = b"\x1b[32mline %d\x1b[0m \xff\xfe \xe6\x97\xa5\r\n"
    pattern = b"".join(line % number for number in range(10_000)) if kind == "screen" else b"\0"
    return (pattern * (size // len(pattern) + 1))[:size]


@pytest.mark.parametrize("kind", KINDS)
async def test_fifteen_mebibytes_in_the_store(tmp_path: Path, kind: str) -> None:
    """The store takes 15 MiB of anything, and has them still after it was closed and opened again."""
    data = buffer(kind, 15 * MIB)
    async with SessionManager.open(str(tmp_path / "s.db")) as manager:
        session = await manager.create_session(SessionConfig(session_type="local"))
        await manager.save_snapshot(session.id, data, data[: 2 * MIB])
    async with SessionManager.open(str(tmp_path / "s.db")) as manager:
        latest = await manager.load_latest_snapshot(session.id)
        assert latest is not None
        assert latest.terminal_buffer == data
        assert latest.scrollback == data[: 2 * MIB]


def save(client: RawClient, data: bytes) -> bytes:
    """Save a buffer in a new session and return it as the daemon has it."""
    session = client.call("session.create", config={"session_type": "local"})["id"]
    client.call("snapshot.save", session_id=session, terminal_buffer=base64.b64encode(data).decode())
    found = client.call("snapshot.latest", session_id=session)["terminal_buffer"]
    return base64.b64decode(found)


@pytest.mark.parametrize("kind", KINDS)
def test_fifteen_mebibytes_through_a_roomy_socket(stopped_daemon: DaemonProcess, kind: str) -> None:
    """Where max_message_bytes is 32 MiB, 15 MiB (20 MiB of base64) go through and come back."""
    config = stopped_daemon.home / "config.toml"
    config.write_text("[daemon]\nmax_message_bytes = 33554432\n")
    stopped_daemon.arguments = ("--config", str(config))
    data = buffer(kind, 15 * MIB)
    with stopped_daemon.start().client() as client:
        assert save(client, data) == data


def request(session: str, encoded: str) -> bytes:
    """Return a snapshot.save as short as it can be written."""
    params = {"session_id": session, "terminal_buffer": encoded}
    message = {"jsonrpc": "2.0", "method": "snapshot.save", "params": params, "id": 1}
    return json.dumps(message, separators=(",", ":")).encode()


def test_the_largest_that_fits_by_default(client: RawClient) -> None:
    """A message of nearly 16 MiB is taken: 12 MiB of buffer, less the envelope; three bytes more are refused."""
    session = client.call("session.create", config={"session_type": "local"})["id"]
    room = (DEFAULT_LIMIT - len(request(session, ""))) // 4 * 3
    assert 12 * MIB - room < 256
    data = buffer("noise", room + 3)
    largest, over = (request(session, base64.b64encode(data[:size]).decode()) for size in (room, room + 3))
    assert len(largest) <= DEFAULT_LIMIT < len(over)
    assert client.ask(largest)["result"]["buffer_bytes"] == room
    found = client.call("snapshot.latest", session_id=session)["terminal_buffer"]
    assert base64.b64decode(found) == data[:room]
    error = client.ask(over)["error"]
    assert (error["code"], error["data"]["kind"]) == (-32600, "message_too_large")
