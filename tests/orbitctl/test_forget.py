"""`orbitctl session forget` beside the real daemon, and what `stats` says of histories."""

from __future__ import annotations

from pathlib import Path

from ctl_support import Orbitctl


def test_one_of_before_and_all_is_required(ctl: Orbitctl) -> None:
    """Without --before and --all, and with both, nothing is erased."""
    ctl.ok("session", "create", "--name", "web", "--", "true")
    assert ctl("session", "forget", "web", "--yes").code == 2
    assert ctl("session", "forget", "web", "--all", "--before", "2h", "--yes").code == 2


def test_without_a_terminal_it_needs_yes(ctl: Orbitctl) -> None:
    """In a pipe nobody can be asked."""
    ctl.ok("session", "create", "--name", "web", "--", "true")
    refused = ctl("session", "forget", "web", "--all")
    assert refused.code == 2
    assert "--yes" in refused.err


def test_it_asks_on_a_terminal(ctl: Orbitctl) -> None:
    """On a terminal it asks, and `n` changes nothing."""
    ctl.ok("session", "create", "--name", "web", "--", "true")
    ended = ctl.on_terminal("session", "forget", "web", "--all", prompt=b"Erase", typed=b"n\n")
    assert ended.code != 0
    assert b"nothing was changed" in ended.out


def test_of_a_private_session_there_is_nothing(ctl: Orbitctl) -> None:
    """A private session is named as such, and stays as it is."""
    ctl.ok("new", "-d", "--private", "secret", "--", "sh", "-c", "echo one; exec cat")
    ctl.ok("session", "wait", "secret", "--for", "text", "one")
    ended = ctl("session", "forget", "secret", "--all", "--yes")
    assert ended.code == 4
    assert "is private: nothing of what it shows is kept" in ended.err
    assert ctl.ok("logs", "secret").lines == ["one"]


def test_it_names_the_backups_that_still_hold_it(process_ctl: Orbitctl, home: Path) -> None:
    """After it was erased, backups with the session are named."""
    ctl = process_ctl
    session = ctl.id("session", "run", "-d", "--", "sh", "-c", "echo shown; exec cat")
    ctl.ok("session", "wait", session, "--for", "text", "shown", "--timeout", "20")
    ctl.ok("maintenance", "auto-save")
    backup = str(home / "b.db")
    ctl.ok("maintenance", "backup", backup)
    erased = ctl.ok("session", "forget", session, "--all", "--yes")
    assert backup in erased.text + erased.err
    assert ctl.ok("--json", "session", "forget", session, "--all", "--yes").json["backups"] == [backup]
    erased = ctl.ok("session", "forget", session, "--all", "--yes")
    assert (erased.text + erased.err).startswith("nothing of ")


def test_stats_show_histories(ctl: Orbitctl) -> None:
    """`stats` shows what films and their text take, as sizes."""
    shown = ctl.ok("stats").text
    assert "recorded sessions" in shown
    assert "recording raw:" in shown
    assert "history:" in shown
