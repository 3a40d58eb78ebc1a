"""When the daemon has a window's new size, and what becomes of a picture for another one. With a scripted daemon."""

from __future__ import annotations

import base64
import re

from orbit_protocol.errors import NotRunning
from orbitctl.attach.attachment import AttachResult
from scripted_attach import ScriptedDaemon, ScriptedTerminal, attached, notice, running


def begin(daemon: ScriptedDaemon, terminal: ScriptedTerminal) -> None:
    """Attach; on return the first picture is shown."""
    assert daemon.receive()[0] == "session.attach"
    daemon.send(attached(1, "a", b"first"))
    terminal.shown_until(b"first")


def end(daemon: ScriptedDaemon, attachment_id: str = "a") -> None:
    """End the program."""
    daemon.send(notice("exited", attachment_id, exit_code=3, history_line=105))


def size(message: tuple[str, dict[str, object]]) -> tuple[str, object, object]:
    method, params = message
    return method.removeprefix("session."), params["cols"], params["rows"]


def test_the_first_of_many_sizes_is_sent_at_once_and_the_last_one_later() -> None:
    """Those between are not: a drag is many."""
    terminal = ScriptedTerminal()
    with running(terminal) as daemon:
        begin(daemon, terminal)
        terminal.resize(81, 24)
        assert size(daemon.receive()) == ("resize", 81, 24)
        for cols in range(82, 90):
            terminal.resize(cols, 24)
        assert size(daemon.receive()) == ("resize", 89, 24)
        end(daemon)
    assert daemon.outcome == AttachResult(reason="exited", exit_code=3)


def test_a_key_comes_at_the_size_that_the_user_sees() -> None:
    """It does not overtake the size, which is sent at once then."""
    terminal = ScriptedTerminal()
    with running(terminal) as daemon:
        begin(daemon, terminal)
        terminal.resize(81, 24)
        terminal.resize(82, 24)
        assert size(daemon.receive()) == ("resize", 81, 24)
        terminal.type(b"k")
        assert size(daemon.receive()) == ("resize", 82, 24)
        method, params = daemon.receive()
        assert (method, base64.b64decode(params["data"])) == ("session.input", b"k")
        end(daemon)


def test_a_window_that_has_its_size_again_is_drawn_again() -> None:
    """It may have lost rows in between, and the daemon draws nothing for a size that it has."""
    terminal = ScriptedTerminal()
    with running(terminal) as daemon:
        begin(daemon, terminal)
        terminal.resize(80, 20)
        assert size(daemon.receive()) == ("resize", 80, 20)
        terminal.resize(80, 10)
        terminal.resize(80, 20)
        assert daemon.receive()[0] == "session.leave"
        assert size(daemon.receive()) == ("attach", 80, 20)
        daemon.send(attached(2, "b", b"once more"))
        end(daemon, "b")
    assert daemon.outcome == AttachResult(reason="exited", exit_code=3)
    assert terminal.shown.endswith(b"once more")


def test_a_first_picture_of_another_size_comes_with_a_new_attachment() -> None:
    """It asks for all that the first one did; output for that is not shown."""
    terminal = ScriptedTerminal()
    with running(terminal) as daemon:
        assert size(daemon.receive()) == ("attach", 80, 24)
        terminal.resize(70, 24)
        daemon.send(attached(1, "a", b"late"), notice("output", "a", data=b"too early"))
        assert daemon.receive()[0] == "session.leave"
        assert size(message := daemon.receive()) == ("attach", 70, 24)
        assert message[1]["scrollback_lines"] == 0
        daemon.send(
            notice("output", "a", data=b"too late"),
            attached(2, "b", b"in its size"),
            notice("output", "b", data=b"and on"),
        )
        end(daemon, "b")
    assert daemon.outcome == AttachResult(reason="exited", exit_code=3)
    assert terminal.shown.endswith(b"in its sizeand on")
    assert not re.search(rb"late|too early", terminal.shown)


def test_a_program_that_ends_meanwhile_has_its_last_screen_shown() -> None:
    """What it printed last has not been shown: the caller does that, as where it ended without a daemon."""
    terminal = ScriptedTerminal()
    with running(terminal) as daemon:
        assert daemon.receive()[0] == "session.attach"
        terminal.resize(70, 24)
        daemon.send(attached(1, "a", b"late"), notice("output", "a", data=b"last words"))
        end(daemon)
    assert isinstance(daemon.outcome, NotRunning)


def test_a_last_picture_that_is_dropped_is_shown_too() -> None:
    """A program may end at the size that it is given, and its last picture be for a size before that."""
    terminal = ScriptedTerminal()
    with running(terminal) as daemon:
        begin(daemon, terminal)
        terminal.resize(81, 24)
        terminal.resize(82, 24)
        assert size(daemon.receive()) == ("resize", 81, 24)
        last = {"cols": 81, "rows": 24, "reason": "resized", "history_line": 104}
        daemon.send(notice("repaint", "a", data=b"last words", **last))
        end(daemon)
    assert isinstance(daemon.outcome, NotRunning)


def test_a_client_that_is_detached_meanwhile_stays_detached() -> None:
    """It does not attach itself again."""
    terminal = ScriptedTerminal()
    with running(terminal) as daemon:
        assert daemon.receive()[0] == "session.attach"
        terminal.resize(70, 24)
        daemon.send(attached(1, "a", b"late"), notice("detached", "a", reason="requested", history_line=104))
    assert daemon.outcome == AttachResult(reason="detached_elsewhere")
    assert b"late" not in terminal.shown
