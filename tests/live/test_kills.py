"""kill -9 of the daemon, again and again, while a program writes as fast as it can."""

from __future__ import annotations

import os
import random

import pytest
from live.sessions import Terminal, restarted, start
from support import DaemonProcess

KILLS = int(os.environ.get("ORBIT_TEST_KILLS", "20"))
LOOK_EVERY = 4
COUNTER = "seq -f %.0f 1000000000"


def numbers(text: str) -> list[int]:
    """Return what was counted; a line that is not whole yet is no number."""
    return [int(line) for line in text.split("\n")[:-2]]


@pytest.mark.timeout(300)  # twenty starts of the daemon, each beside a program that never rests
def test_every_line_is_there_once_and_in_order(daemon: DaemonProcess) -> None:
    """A counter runs on through twenty kills; history and screen have every line once, as far as they reach."""
    dice = random.Random(1)
    with daemon.client() as client:
        session_id = start(client, COUNTER)
        pid = client.call("session.get", id=session_id)["pid"]
    last = 0
    for round_ in range(KILLS):
        with daemon.client() as client:
            terminal = Terminal(client, session_id)
            for _ in range(dice.randrange(1, 40)):
                terminal.step()
        with restarted(daemon) as client:
            session = client.call("session.get", id=session_id)
            assert (session["live"], session["pid"]) == (True, pid)
            if round_ % LOOK_EVERY:
                continue
            found = numbers(client.call("session.screen", id=session_id, scrollback=True)["data"])
            assert found == list(range(found[0], found[0] + len(found)))
            assert found[-1] >= last
            last = found[-1]
    with daemon.client() as client:
        client.call("session.signal", id=session_id, signal="KILL")
        client.call("session.wait", id=session_id)
        text = client.call("session.screen", id=session_id, scrollback=True)["data"]
    found = numbers(text)
    assert found == list(range(found[0], found[0] + len(found)))
    assert found[-1] > max(last, 10_000)
    assert len(found) > 9_000
