"""Windows that are switched from one session to another, and the sessions that they come back to."""

from __future__ import annotations

import base64
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attach_support import DETACH, SHELL, Window, settled
from ctl_support import Orbitctl
from orbit_protocol.errors import SessionNotFound
from orbitctl.attach.attachment import AttachResult
from orbitctl.attach.mark import Shown
from scripted_attach import ScriptedTerminal, attached, notice, running
from windows_support import SHELL as USERS_SHELL
from windows_support import UsersShell

ORBITCTL = f"{sys.executable} -m orbitctl"
INVALID = {"code": -32602, "message": "Object contains unknown field", "data": {"kind": "invalid_params"}}


def typed_into(request: tuple[str, dict[str, Any]]) -> tuple[str, bytes]:
    """Return the attachment and the keys of an input."""
    method, params = request
    assert method == "session.input"
    return params["attachment_id"], base64.b64decode(params["data"])


def test_what_is_typed_during_a_switch_is_for_the_new_session(tmp_path: Path) -> None:
    """The client attaches to the other session on the same connection, and sends it what was typed meanwhile."""
    terminal, shown = ScriptedTerminal(), Shown(str(tmp_path), "w", "")
    shown.add("earlier")
    with running(terminal, shown) as daemon:
        assert daemon.receive()[1]["before"] == ["earlier"]
        daemon.send(attached(1, "a", b"the old"))
        terminal.shown_until(b"the old")
        daemon.send(notice("detached", "a", reason="switched", session_id="t"))
        method, params = daemon.receive()
        assert method == "session.screen"
        terminal.type(b"keys")
        daemon.send({"id": 2, "error": INVALID})
        method, params = daemon.receive()
        assert (method, params["id"], params["before"]) == ("session.attach", "t", ["s", "earlier"])
        daemon.send(notice("output", "a", data=b"late"), attached(3, "b", b"the new"))
        assert typed_into(daemon.receive()) == ("b", b"keys")
        terminal.shown_until(b"the new")
        daemon.send(notice("exited", "b", exit_code=4, exit_signal=None))
    assert daemon.outcome == AttachResult(reason="exited", exit_code=4)
    assert b"late" not in terminal.shown


def test_an_earlier_daemon_is_not_asked_for_what_it_does_not_know(tmp_path: Path) -> None:
    """A param that is refused is left out in the next attempt, the newest one first."""
    terminal = ScriptedTerminal()
    with running(terminal, Shown(str(tmp_path), "w", "")) as daemon:
        params = [daemon.receive()[1]]
        for number in (1, 2):
            daemon.send({"id": number, "error": INVALID})
            params.append(daemon.receive()[1])
        daemon.send({"id": 3, "error": {"code": 1000, "message": "Gone", "data": {"kind": "session_not_found"}}})
    assert isinstance(daemon.outcome, SessionNotFound)
    assert [(each.get("before"), each.get("after_line")) for each in params] == [([], 0), (None, 0), (None, None)]


# With a real daemon, in real terminals


def run(window: Window, line: str) -> None:
    """Have the shell in a window run orbitctl, and say its exit code."""
    window.type(f"{ORBITCTL} {line}; echo co''de=$?\r")


def test_windows_are_switched_and_found_again(own_ctl: Orbitctl) -> None:
    """`a` is what this window has shown last; inside a session `a NAME` moves the window, and `a` moves it back."""
    for name in ("one", "two"):
        own_ctl.ok("session", "run", "-d", "--name", name, "--", *SHELL)
        own_ctl.ok("session", "send", name, f"PS1='<{name}> '", "--enter")
    with Window(UsersShell(own_ctl, USERS_SHELL), size=(120, 24)) as window:
        run(window, "a one")
        window.until("<one> ")
        window.type(DETACH)
        window.until("[detached from one]\r\n")
        window.until("code=0")
        run(window, "a")
        window.until("<one> ")
        settled(window)
        raw = window.settings()
        run(window, "a two")
        window.until("<two> ")
        settled(window)
        assert own_ctl.ok("session", "show", "two", "--json").json["clients"] == 1
        assert own_ctl.ok("session", "show", "one", "--json").json["clients"] == 0
        assert window.settings() == raw
        run(window, "session attach two")
        window.until("this window shows two already")
        window.until("code=0")
        run(window, "a")
        window.until("<one> ")
        settled(window)
        assert own_ctl.ok("session", "show", "one", "--json").json["clients"] == 1
        run(window, "a -c three -- sh -c 'echo beg\"\"un; read x; exit 5'")
        window.until("begun")
        window.type("\r")
        window.until("[three ended: exit 5]")
        window.until("code=5")


def test_clients_that_make_one_session_at_once_share_it(own_ctl: Orbitctl) -> None:
    """Of three `a -c` at the same moment one makes the session, and all are attached to it."""
    with ExitStack() as windows:
        opened = [windows.enter_context(Window(own_ctl, "a", "-c", "web", "--", *SHELL)) for _ in range(3)]
        for window in opened:
            settled(window)
        (found,) = own_ctl.ok("session", "list", "--status", "all", "--json").json["sessions"]
        assert (found["name"], found["clients"]) == ("web", 3)


def test_what_does_not_come_back_by_itself_is_asked_for(ctl: Orbitctl) -> None:
    """A program that has ended is run again under its screen if the user says so, and `attach` leaves as it does."""
    script = "echo begun; read x; kill -TERM $$"
    ctl.ok("session", "run", "-d", "--name", "job", "--", "sh", "-c", script)
    ctl.ok("session", "send", "job", "--enter")
    ctl.ok("session", "wait", "job")
    with Window(ctl, "a", "job", size=(120, 24)) as window:
        window.until("job ended: SIGTERM, ")
        window.until(f". Start `sh -c '{script}'` again? [y/N]: ")
        window.type("n\r")
        assert window.end() == 1
    with Window(ctl, "a", "job", size=(120, 24)) as window:
        window.until("[y/N]: ")
        window.type("y\r")
        window.until("started again")
        window.until("begun")
        window.type("\r")
        assert window.end() == 128 + signal.SIGTERM
    with Window(ctl, "a", "-c", "job", "--", "sh", "-c", "echo anew; exit 3") as window:
        assert window.end() == 3  # the name is free, and nothing is asked
    assert len(ctl.ok("session", "list", "--status", "all", "-q").lines) == 2


def test_a_session_that_was_ended_is_passed_over(ctl: Orbitctl) -> None:
    """Without a name, what was ended or deleted is not meant: the newest that runs is; without one, `a` says so."""
    for name in ("other", "gone"):
        ctl.ok("session", "run", "-d", "--name", name, "--", *SHELL)
    with Window(UsersShell(ctl, USERS_SHELL), size=(120, 24)) as window:
        run(window, "a gone")
        settled(window)
        window.type("exit\r")
        window.until("code=0")
        run(window, "a")
        settled(window)
        window.type("exit 4\r")
        window.until("[other ended: exit 4]")
        window.until("code=4")
        run(window, "a")
        window.until("no session runs")
        window.until("code=4")
