"""Several clients at one session, and none of them at the others' cost."""

from __future__ import annotations

import random

import pytest

from live.sessions import resident, start
from live_support import Viewer
from support import DaemonProcess, RawClient

FLOOD = "sh -c 'read x; seq -f \"a line of some length, the number is %.0f\" 200000; echo finished; read x'"
ROOM = 32 * 1024 * 1024
"""What the daemon may take for three clients: 1 MiB of unsent output each, history, and what Python leaves unused."""


@pytest.mark.slow
def test_three_clients_at_one_flood(daemon: DaemonProcess, client: RawClient) -> None:
    """One is frozen, one only reads, one resizes: the flood ends, memory is bounded, all screens are right."""
    dice = random.Random(7)
    session_id = start(client, FLOOD)
    before = resident(daemon.pid)
    most = before
    with daemon.client() as one, daemon.client() as two, daemon.client() as three:
        frozen = Viewer(one, session_id)
        reader = Viewer(two, session_id, read_only=True)
        resizing = Viewer(three, session_id)
        resizing.type("\n")
        while "finished" not in reader.text():
            reader.step()
            if dice.random() < 0.02:
                cols, rows = dice.randrange(20, 200), dice.randrange(5, 60)
                three.call("session.resize", attachment_id=resizing.id, cols=cols, rows=rows)
                most = max(most, resident(daemon.pid))
        three.call("session.resize", attachment_id=resizing.id, cols=100, rows=30)
        resizing.type("\n")
        for viewer in (resizing, reader, frozen):
            viewer.read_to_the_end()
            assert viewer.emulator.size == (100, 30)
        dumps = [viewer.emulator.dump() for viewer in (frozen, reader, resizing)]
        assert dumps[0] == dumps[1] == dumps[2]
        assert frozen.repaints < reader.repaints + 5
    assert resizing.text() == client.call("session.screen", id=session_id)["data"]
    assert most - before < ROOM


def test_a_resize_is_painted_for_everybody(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """Whoever resizes gets the screen anew as well: the two terminals need not wrap lines alike."""
    session_id = start(shared_client, 'sh -c \'seq 1 100 | tr "\\n" " "; cat\'')
    viewer = Viewer(shared_client, session_id)
    while "100" not in viewer.text():
        viewer.step()
    shared_client.call("session.resize", attachment_id=viewer.id, cols=33, rows=12)
    while not viewer.repaints:
        viewer.step()
    assert viewer.emulator.size == (33, 12)
    with shared_daemon.client() as other:
        assert Viewer(other, session_id, (33, 12)).emulator.dump() == viewer.emulator.dump()


def test_history_comes_with_the_attach(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """As many lines of history as were asked for scroll through the client's screen before it."""
    session_id = start(shared_client, "sh -c 'seq 1 200; cat'")
    first = Viewer(shared_client, session_id)
    while "200" not in first.text():
        first.step()
    with shared_daemon.client() as other:
        viewer = Viewer(other, session_id, scrollback_lines=50)
        text = viewer.emulator.screen("text", scrollback=True).decode().split()
    assert text == [str(number) for number in range(201 - len(text), 201)]
    assert 50 <= len(text) - 23 <= 51
