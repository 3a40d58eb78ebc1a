"""Random bytes and random resizes through the daemon, with fixed seeds; shpool's fuzz.rs is the model."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from live.sessions import create, drawn, restarted
from live_support import Viewer
from orbitd.screens.model import Screen
from support import DaemonProcess, RawClient
from terminal_support import noise, play, restored, shown

pytestmark = pytest.mark.slow

SEEDS = range(int(os.environ.get("ORBIT_TEST_SEEDS", "8")))
PLAYER = f"{sys.executable} {Path(__file__).with_name('player.py')}"


class Listener(Viewer):
    """A viewer that counts what the program wrote."""

    received = 0

    def step(self) -> None:
        notice = self.client.notice()
        if notice["method"] == "session.output":
            self.received += len(base64.b64decode(notice["params"]["data"]))


def play_through(client: RawClient, seed: int) -> str:
    """Let it all happen to a session, one thing after the other, as `terminal_support.play` does; return its id."""
    operations = noise(seed)
    cols, rows = next(operations)
    session_id = create(client, f"{PLAYER} {seed}")
    client.call("session.start", id=session_id, cols=cols, rows=rows)
    listener = Listener(client, session_id, (cols, rows))
    written = 0
    if "!" not in listener.text():
        while not listener.received:
            listener.step()
        listener.received = 0
    for operation in operations:
        if isinstance(operation, tuple):
            client.call("session.resize", attachment_id=listener.id, cols=operation[0], rows=operation[1])
            continue
        listener.type("\n")
        written += len(operation)
        while listener.received < written:
            listener.step()
    client.call("session.leave", attachment_id=listener.id)
    return session_id


def reference(seed: int) -> Screen:
    """Return what the noise leaves on an emulator that nothing ever happened to."""
    operations = noise(seed)
    size = next(operations)
    with play(item for part in ([size], [b"!"], operations) for item in part) as emulator:
        return shown(restored(emulator.dump()))


def screens(client: RawClient, ids: list[str]) -> list[dict[str, Any]]:
    return [client.call("session.screen", id=session_id, format="vt") for session_id in ids]


def test_noise_comes_back_as_it_was(daemon: DaemonProcess) -> None:
    """After random output and resizes a restored screen equals the original; restoring again changes nothing."""
    with daemon.client() as client:
        ids = [play_through(client, seed) for seed in SEEDS]
        before = screens(client, ids)
    for seed, screen in zip(SEEDS, before, strict=True):
        found = drawn(base64.b64decode(screen["data"]), (screen["cols"], screen["rows"]))
        assert found == reference(seed), f"seed {seed}"
    for _ in range(2):
        with restarted(daemon) as client:
            assert screens(client, ids) == before
