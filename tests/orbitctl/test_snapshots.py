"""`orbitctl snapshot` beside the real daemon: bytes in, the same bytes out."""

from __future__ import annotations

import os

import pytest

from ctl_support import Orbitctl

SCREEN = bytes(range(256)) * 16 + b"\x1b[31mred\r\n\xff\x00"


@pytest.fixture
def web(ctl: Orbitctl) -> str:
    return ctl.id("session", "create", "--name", "web")


@pytest.mark.parametrize("words", ["snapshot save web", "snapshot save web -", "session snapshot web"])
def test_a_screen_comes_back_byte_for_byte(ctl: Orbitctl, web: str, words: str) -> None:
    """What came from stdin is written to stdout as it was, by --latest and by id."""
    found = ctl.ok("-q", *words.split(), stdin=SCREEN).text.strip()
    assert ctl.ok("snapshot", "show", "--latest", "web").out == SCREEN
    assert ctl.ok("snapshot", "show", found).out == SCREEN


def test_a_screen_is_read_from_a_file_with_its_scrollback(ctl: Orbitctl, web: str) -> None:
    """Files, size and scrollback are saved, and shown again apart from each other."""
    (ctl.home / "screen").write_bytes(SCREEN)
    (ctl.home / "above").write_bytes(b"lines above\n")
    words = ["screen", "--scrollback", "above", "--cols", "80", "--rows", "24"]
    info = ctl.ok("--json", "snapshot", "save", "web", *words).json
    assert (info["session_id"], info["cols"], info["rows"]) == (web, 80, 24)
    assert (info["buffer_bytes"], info["scrollback_bytes"]) == (len(SCREEN), 12)
    assert ctl.ok("snapshot", "show", "--latest", "web").out == SCREEN
    assert ctl.ok("snapshot", "show", "--latest", "web", "--scrollback").out == b"lines above\n"


def test_a_large_screen_passes(ctl: Orbitctl, web: str) -> None:
    """Eight megabytes of noise go in and come out."""
    noise = os.urandom(8 << 20)
    ctl.ok("snapshot", "save", "web", stdin=noise)
    assert ctl.ok("snapshot", "show", "--latest", "web").out == noise


def test_too_large_a_screen_is_refused_with_the_daemons_words(ctl: Orbitctl, web: str) -> None:
    """The daemon's answer is read although it closes while the message is being sent."""
    ended = ctl("snapshot", "save", "web", stdin=b"\0" * (24 << 20))
    assert ended.code == 1
    assert "16777216" in ended.err
    assert "hint: " in ended.err


def test_snapshots_are_listed_newest_first(ctl: Orbitctl, web: str) -> None:
    """List shows every snapshot in a row; --limit shows the newest."""
    first = ctl.id("snapshot", "save", "web", stdin=b"1")
    second = ctl.id("snapshot", "save", "web", stdin=b"22")
    assert ctl.ok("snapshot", "list", "web", "-q").lines == [second, first]
    assert ctl.ok("snapshot", "list", "web", "-q", "--limit", "1").lines == [second]
    title, newest, _ = ctl.ok("snapshot", "list", "web").lines
    assert title.split()[:3] == ["ID", "TAKEN", "FORMAT"]
    assert newest.split()[0] == second


def test_a_session_without_snapshots_says_so(ctl: Orbitctl, web: str) -> None:
    """--latest of nothing is exit code 4; with --json it is the daemon's null."""
    ended = ctl("snapshot", "show", "--latest", "web")
    assert (ended.code, ended.out) == (4, b"")
    assert "web has no snapshot" in ended.err
    assert ctl.ok("snapshot", "show", "--latest", "web", "--json").text == "null\n"


def test_a_snapshot_is_deleted_with_yes(ctl: Orbitctl, web: str) -> None:
    """Delete needs --yes in a pipe, and the snapshot is gone then."""
    found = ctl.id("snapshot", "save", "web", stdin=b"1")
    assert ctl("snapshot", "delete", found).code == 2
    ctl.ok("snapshot", "delete", found, "-y")
    assert ctl("snapshot", "show", found).code == 4
    assert ctl("snapshot", "delete", found, "-y").code == 4


def test_memory_is_taken_for_what_is_read(process_ctl: Orbitctl) -> None:
    """Three bytes of a file or a pipe need no room for the most that may be read."""
    process_ctl.ok("session", "create", "--name", "web")
    (process_ctl.home / "three").write_bytes(b"abc")
    process_ctl.command = ["bash", "-c", 'ulimit -v 800000; exec "$@"', "bash", *process_ctl.command]
    process_ctl.ok("snapshot", "save", "web", "three", "--scrollback", "three")
    process_ctl.ok("snapshot", "save", "web", "-", stdin=b"abc")
    process_ctl.ok("snapshot", "save", "web", "three", "--scrollback", "-", stdin=b"abc")
    assert process_ctl.ok("snapshot", "show", "--latest", "web", "--scrollback").out == b"abc"
    process_ctl.ok("rpc", "call", "daemon.ping", "-", stdin=b"{}")
    process_ctl.ok("workspace", "create", "shop", "--config", "-", stdin=b"{}")
    assert process_ctl("session", "send", "web", "-", stdin=b"abc").code == 5  # it does not run
