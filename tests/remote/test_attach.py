"""Live sessions of another machine: attached to through ssh."""

from __future__ import annotations

import pytest

from ssh_support import Machine, Near

pytestmark = pytest.mark.slow

ASKING = "echo ready; read word; echo got-$word"


def test_a_session_of_another_machine_is_attached_to(near: Near, far: Machine) -> None:
    """What is typed here reaches the program there, and what it shows and how it ends is seen here."""
    far.ctl.ok("session", "run", "--detach", "--name", "asking", "--", "sh", "-c", ASKING)
    shown = near.ctl.on_terminal("session", "attach", "asking", "--host", far.url, prompt=b"ready", typed=b"hello\r")
    assert shown.code == 0
    assert b"got-hello" in shown.out
    assert b"[asking ended: exit 0]" in shown.out


def test_leaving_keeps_the_far_session(near: Near, far: Machine) -> None:
    """The detach key leaves a session that goes on over there."""
    far.ctl.ok("session", "run", "--detach", "--name", "asking", "--", "sh", "-c", ASKING)
    shown = near.ctl.on_terminal("session", "attach", "asking", "--host", far.url, prompt=b"ready", typed=b"\x1c")
    assert b"[detached from asking]" in shown.out
    with far.daemon.client() as client:
        found = client.call("session.find", ref="asking")
        assert (found["live"], found["status"]) == (True, "detached")
