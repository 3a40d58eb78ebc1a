"""What is said once: that history is kept, and where the switch is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctl_support import InProcess, Orbitctl
from support import DaemonProcess

SAID = "orbit keeps the history of sessions for 30 days"


def marker(home: Path) -> Path:
    """Return where it is remembered."""
    return home / "state" / "orbit" / "history-noted"


@pytest.fixture
def new_user(shared_daemon: DaemonProcess, home: Path) -> Orbitctl:
    """The command line of somebody who has started no session yet."""
    return InProcess(home, {**shared_daemon.environment, "XDG_STATE_HOME": str(home / "state")})


@pytest.mark.parametrize("words", [("new", "-d"), ("run", "-d"), ("session", "run", "-d")], ids=" ".join)
def test_it_is_said_once(new_user: Orbitctl, home: Path, words: tuple[str, ...]) -> None:
    """In one line of stderr, with the commands and the switch; then never again, in a private empty file."""
    first = new_user.ok(*words, "--", "true")
    assert first.err.count("\n") == 1
    assert first.err.startswith(SAID)
    for word in ("orbitctl search", "session replay", "--private", "[history] in config.toml"):
        assert word in first.err
    found = marker(home).stat()
    assert (found.st_mode & 0o777, found.st_size) == (0o600, 0)
    assert new_user.ok(*words, "--", "true").err == ""


@pytest.mark.parametrize("option", ["--json", "-q"])
def test_scripts_are_not_told(new_user: Orbitctl, home: Path, option: str) -> None:
    """With --json and -q: the user has still to be told."""
    assert new_user.ok(option, "run", "-d", "true").err == ""
    assert not marker(home).exists()
    assert new_user.ok("run", "-d", "true").err.startswith(SAID)


def test_recording_a_session_says_nothing(new_user: Orbitctl) -> None:
    """`session create` starts nothing."""
    assert new_user.ok("session", "create").err == ""


def test_where_it_cannot_be_remembered_it_is_not_said(new_user: Orbitctl, home: Path) -> None:
    """A state folder that cannot be used is no reason to say it each time, nor to fail."""
    (home / "blocked").write_text("")
    assert new_user.ok("run", "-d", "true", XDG_STATE_HOME=str(home / "blocked")).err == ""
    assert new_user.ok("run", "-d", "true").err.startswith(SAID)


def test_a_link_in_the_markers_place_is_not_followed(new_user: Orbitctl, home: Path) -> None:
    """What it leads to is not made."""
    marker(home).parent.mkdir(parents=True, mode=0o700)
    marker(home).symlink_to(home / "elsewhere")
    assert new_user.ok("run", "-d", "true").err == ""
    assert not (home / "elsewhere").exists()


def test_it_says_how_long_the_configuration_keeps_it(new_user: Orbitctl, home: Path) -> None:
    """In days, where that is more than one."""
    config = home / "config.toml"
    config.write_text("[history]\nrecording_retention_secs = 604800\n")
    config.chmod(0o600)
    assert "for 7 days" in new_user.ok("run", "-d", "true", ORBITD_CONFIG=str(config)).err
