"""Several clients at one session, and none of them at the others' cost."""

from __future__ import annotations

import random

import pytest

from live.sessions import resident, start
from live_support import Viewer, encoded
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
        frozen = Viewer(one, session_id, frames="never")
        reader = Viewer(two, session_id, read_only=True, frames="never")
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


def test_the_client_names_its_attachment(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """It knows the id before the first notification; a second attachment of the connection needs another one."""
    session_id = start(shared_client, "sh -c 'while :; do echo tick; sleep .01; done'")
    with shared_daemon.client() as other:
        viewer = Viewer(other, session_id, attachment_id="mine")
        assert viewer.id == "mine"
        viewer.read_until("tick")
        refused = other.error("session.attach", id=session_id, cols=80, rows=24, attachment_id="mine")
        assert (refused["code"], "attachment_id" in refused["message"]) == (-32602, True)
        with shared_daemon.client() as third:  # unique on its connection, no further
            assert Viewer(third, session_id, attachment_id="mine").id == "mine"


def test_an_attach_that_starts(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """With `start` the program is run first, where it does not run; else the attach is refused."""
    config = {"session_type": "local", "command": "cat"}
    session_id = shared_client.call("session.create", config=config)["id"]
    assert shared_client.error("session.attach", id=session_id, cols=80, rows=24)["data"]["kind"] == "not_running"
    with shared_daemon.client() as one, shared_daemon.client() as two:
        first = Viewer(one, session_id, (90, 30), start=True)
        assert (first.session["live"], first.emulator.size) == (True, (90, 30))
        again = Viewer(two, session_id, (90, 30), start=True)
        assert again.session["pid"] == first.session["pid"]


def test_a_window_gets_its_history_once(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """A window that leaves learns how far it has got; when it comes back, only newer lines come before the screen."""
    session_id = start(shared_client, "sh -c 'seq 1 200; read x; seq 201 400; cat'")
    with shared_daemon.client() as one:
        viewer = Viewer(one, session_id, scrollback_lines=1000, after_line=0)
        while "200" not in viewer.text():
            viewer.step()
        line = one.call("session.leave", attachment_id=viewer.id)["history_line"]
    assert line == 177
    shared_client.call("session.send", id=session_id, data=encoded("\n"))
    with shared_daemon.client() as other:
        viewer = Viewer(other, session_id, scrollback_lines=1000, after_line=line)
        while "400" not in viewer.text():
            viewer.step()
        shown = viewer.emulator.screen("text", scrollback=True).decode().split()
        assert shown == [str(number) for number in range(line + 1, 401)]
    shared_client.call("session.terminate", id=session_id)


def test_a_refresh_brings_the_history(shared_client: RawClient) -> None:
    """A window that has lost it gets its lines again, and goes on with the output behind them."""
    session_id = start(shared_client, "sh -c 'seq 1 200; cat'")
    viewer = Viewer(shared_client, session_id)
    while "200" not in viewer.text():
        viewer.step()
    answer = shared_client.call("session.refresh", attachment_id=viewer.id, scrollback_lines=1000)
    viewer.redraw(answer["repaint"])
    viewer.type("more\n")
    while "more\nmore" not in viewer.text():
        viewer.step()
    shown = viewer.emulator.screen("text", scrollback=True).decode().split()
    assert [word for word in shown if word.isdigit()][-200:] == [str(number) for number in range(1, 201)]


def test_a_client_is_told_what_it_has_lost(daemon: DaemonProcess, client: RawClient) -> None:
    """The repaint for one that did not read says how many lines it has not seen: the others are in its output."""
    session_id = start(client, "sh -c 'read x; seq 1 400000; cat'")
    with daemon.client() as other:
        viewer = Viewer(other, session_id)
        viewer.type("\n")
        while "400000" not in client.call("session.screen", id=session_id)["data"]:
            pass
        viewer.read_until_repaint()
        lost = viewer.last_repaint["lost_lines"]
        seen = viewer.output_before_repaint.count(b"\r\n") - 23  # those are on its screen
        assert (viewer.reasons[-1], viewer.last_repaint["history_line"]) == ("behind", 399_978)
        assert seen + lost == 399_978


def test_an_id_like_one_of_the_daemons(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """A client may choose what the daemon would choose next; each of its attachments ends with its connection."""
    session_id = start(shared_client, "cat")
    with shared_daemon.client() as other:
        chosen = Viewer(other, session_id, attachment_id=f"{session_id}/1")
        again = other.call("session.attach", id=session_id, cols=80, rows=24)
        assert again["attachment_id"] != chosen.id
        assert again["session"]["clients"] == 2
    while shared_client.call("session.get", id=session_id)["clients"]:
        pass
