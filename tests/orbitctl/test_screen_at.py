"""`orbitctl session screen --at`: the screen as it was at a moment."""

from __future__ import annotations

import time

from ctl_support import Orbitctl


def test_a_screen_is_shown_as_it_was(ctl: Orbitctl) -> None:
    """What has been printed since is not in it; --json, --lines and --format are as without --at."""
    ctl.ok(
        "session", "run", "--detach", "--name", "web", "--", "sh", "-c", "echo first; read go; clear; echo second; cat"
    )
    ctl.ok("session", "wait", "web", "--for", "text", "first")
    silence = ("session", "wait", "web", "--for", "silence", "--silence", "0.3")  # times are recorded every 100 ms
    ctl.ok(*silence)
    between = time.time()
    ctl.ok(*silence)
    ctl.ok("session", "send", "web", "--enter")
    ctl.ok("session", "wait", "web", "--for", "text", "second")

    assert ctl.ok("session", "screen", "web").lines == ["second"]
    assert ctl.ok("session", "screen", "web", "--at", f"@{between:.3f}").lines[0] == "first"
    assert ctl.ok("session", "screen", "web", "--at", "now").lines == ["second"]
    assert "first" in ctl.ok("session", "screen", "web", "--at", f"@{between:.3f}", "--json").json["data"]
    assert "<span" in ctl.ok("session", "screen", "web", "--at", f"@{between:.3f}", "--format", "html").text


def test_a_moment_before_the_film_is_an_error_that_says_when_it_begins(ctl: Orbitctl) -> None:
    """A session that has run is shown from its start on."""
    ctl.ok("session", "run", "--detach", "--name", "early", "--", "sh", "-c", "echo hello; cat")
    ctl.ok("session", "wait", "early", "--for", "text", "hello")
    failed = ctl("session", "screen", "early", "--at", "3 days ago")
    assert (failed.code, failed.text) == (4, "")
    assert "no film of early is kept of 20" in failed.err
    assert "it begins at 20" in failed.err


def test_a_session_that_has_never_run_has_no_film(ctl: Orbitctl) -> None:
    """The message says so in plain words, and how its screen is shown."""
    ctl.ok("session", "create", "--name", "never")
    failed = ctl("session", "screen", "never", "--at", "1m")
    assert failed.code == 4
    assert "no film of never is kept" in failed.err
    assert "`orbitctl session screen never`" in failed.err


def test_a_moment_that_cannot_be_read_is_a_usage_error(offline: Orbitctl) -> None:
    """No daemon is asked."""
    failed = offline("session", "screen", "web", "--at", "soon")
    assert failed.code == 2
    assert "'soon' is no moment" in failed.err


def test_a_moment_to_come_is_an_error(ctl: Orbitctl) -> None:
    """The screen of now is not shown in its place."""
    ctl.ok("session", "run", "--detach", "--name", "later", "--", "cat")
    failed = ctl("session", "screen", "later", "--at", "2099-01-01")
    assert (failed.code, failed.text) == (1, "")
    assert "in the future" in failed.err
