"""A daemon with one of everything, for a module's worth of fuzzing, and how long that takes.

In the suite every property runs with fixed seeds and few examples. The long mode multiplies
them and draws new ones: `ORBIT_FUZZ_FACTOR=100 pytest tests/fuzz -n 2`, or `python -m benchmarks.soak --fuzz N`.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.grammar import World
from fuzz.target import Target
from support import DaemonProcess

MAX_MESSAGE_BYTES = 256 * 1024


@pytest.fixture
def target(served: Target) -> Target:
    """The daemon under test, with a live session whatever was sent before."""
    with served.daemon.client() as client:
        client.request("session.start", id=served.world.live)
    return served


@pytest.fixture(scope="module")
def served() -> Iterator[Target]:
    """A daemon for many tests; in the end it has to stop as if nothing had been."""
    home = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
    config = home / "config.toml"
    config.write_text(f"[daemon]\nmax_message_bytes = {MAX_MESSAGE_BYTES}\n")
    daemon = DaemonProcess(home, "--config", str(config)).start()
    try:
        yield Target(daemon, _world(daemon), MAX_MESSAGE_BYTES)
        assert daemon.stop() == 0
        assert "request failed" not in daemon.log()
        assert "answering failed" not in daemon.log()
    finally:
        daemon.end()
        shutil.rmtree(home)


def _world(daemon: DaemonProcess) -> World:
    with daemon.client() as client:
        workspaces = [
            client.call("workspace.create", name=name, layout={"layout_type": "grid", "config": {"b": 1, "a": [2]}})
            for name in ("one", "two")
        ]
        config = {"session_type": "local", "workspace_id": workspaces[0]["id"]}
        sessions = [client.call("session.create", config=config, name=f"session-{number}") for number in range(3)]
        cat = client.call("session.create", config={"session_type": "local", "command": "/bin/cat"}, name="live")
        client.call("session.start", id=cat["id"])
        snapshots = [
            client.call("snapshot.save", session_id=session["id"], terminal_buffer=base64.b64encode(text).decode())
            for session in sessions
            for text in (b"first", b"second")
        ]
    kinds = {"workspace": workspaces, "session": [cat, *sessions], "snapshot": snapshots}
    ids = {kind: [one["id"] for one in found] for kind, found in kinds.items()}
    return World(ids=ids, live=cat["id"], folder=str(daemon.home))
