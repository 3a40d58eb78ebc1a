"""Which history a window has: remembered by window and session."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest

from orbitctl.attach import mark
from orbitctl.attach.mark import MAX_SHOWN, Mark, Shown, marks_folder, window_name
from orbitctl.client.paths import ClientPaths


def test_a_mark_is_of_one_window_and_session(tmp_path: Path) -> None:
    """What is saved is loaded by the same pair alone."""
    folder = str(tmp_path / "windows")
    assert Mark(folder, "w", "s").load() is None
    Mark(folder, "w", "s").save(4711)
    assert Mark(folder, "w", "s").load() == 4711
    assert Mark(folder, "w", "other").load() is None
    assert Mark(folder, "other", "s").load() is None
    Mark(folder, "w", "s").save(5)
    assert Mark(folder, "w", "s").load() == 5
    (path,) = (tmp_path / "windows").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"x", b"-1", b"1" * 100, b"\xff", b"12 ", b"12 other"])
def test_a_damaged_mark_is_none(tmp_path: Path, content: bytes) -> None:
    """Then all is printed once more, and the next save mends it."""
    found = Mark(str(tmp_path), "w", "s")
    found.save(1)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert found.load() is None
    found.save(2)
    assert found.load() == 2


def test_two_marks_in_one_place_are_told_apart(tmp_path: Path) -> None:
    """Where the short names of two are equal the later one has the place, and the other prints all once more."""
    one, other = Mark(str(tmp_path), "w", "s"), Mark(str(tmp_path), "w", "t")
    other._path = one._path
    one.save(1)
    assert other.load() is None
    other.save(2)
    assert (one.load(), other.load()) == (None, 2)


def test_a_folder_that_cannot_be_used_does_no_harm(tmp_path: Path) -> None:
    """A link in the place of the mark, or of its folder, is neither followed nor an error."""
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "windows").symlink_to(target)
    found = Mark(str(tmp_path / "windows"), "w", "s")
    found.save(1)
    assert not list(target.iterdir())
    tmp_path.joinpath("file").touch()
    Mark(str(tmp_path / "file" / "windows"), "w", "s").save(1)


def test_old_marks_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are kept, the newest."""
    monkeypatch.setattr(mark, "MAX_MARKS", 3)
    for number in range(6):
        Mark(str(tmp_path), "w", str(number)).save(number)
        os.utime(Mark(str(tmp_path), "w", str(number))._path, (number, number))
    Mark(str(tmp_path), "w", "last").save(7)
    assert len(list(tmp_path.iterdir())) == 3
    assert [Mark(str(tmp_path), "w", str(number)).load() for number in range(6)] == [None] * 4 + [4, 5]


def test_a_later_window_is_another_one() -> None:
    """A device that is used again, and another pane, have another name; the same window has the same."""
    master, terminal = pty.openpty()
    first, made = window_name(terminal, {}), os.fstat(terminal).st_ctime_ns
    assert window_name(terminal, {}) == first
    assert window_name(terminal, {"TMUX_PANE": "%1"}) != first
    while os.fstat(terminal).st_ctime_ns == made:  # the clock of a file system ticks every few milliseconds
        os.close(master)
        os.close(terminal)
        master, terminal = pty.openpty()
    assert window_name(terminal, {}) != first
    os.close(master)
    os.close(terminal)


def test_marks_are_beside_the_socket(tmp_path: Path) -> None:
    """They are in the runtime folder, where there is one; where no folder can be decided, none is kept."""
    home, runtime = str(tmp_path / "home"), str(tmp_path / "run")
    (tmp_path / "home").mkdir()
    assert marks_folder(ClientPaths({"HOME": home, "XDG_RUNTIME_DIR": runtime}, None)) == f"{runtime}/orbit/windows"
    assert marks_folder(ClientPaths({"HOME": home}, None)) == f"{home}/.local/state/orbit/windows"
    mark = Mark(marks_folder(ClientPaths({"HOME": "home"}, None)), "w", "s")
    mark.save(4711)
    assert mark.load() is None


def test_a_window_knows_the_sessions_that_it_has_shown(tmp_path: Path) -> None:
    """The last one is first, each is there once, and a few are kept; another window and another machine have none."""
    shown = Shown(str(tmp_path), "w", "")
    assert shown.load() == []
    for session in ("a", "b", "c", "b"):
        shown.add(session)
    assert shown.load() == ["b", "c", "a"]
    assert Shown(str(tmp_path), "w", "ssh://host").load() == Shown(str(tmp_path), "other", "").load() == []
    for number in range(20):
        shown.add(f"0b1f7a6e-0000-4000-8000-{number:012}")
    assert len(shown.load()) == MAX_SHOWN
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]


@pytest.mark.parametrize("content", [b"", b"\xff,\0", b",,,", b"a,b", b"x" * 10_000, b"../../etc w", b"a\nb w"])
def test_damaged_sessions_of_a_window_are_none(tmp_path: Path, content: bytes) -> None:
    """What cannot be an id is left out, and the next one that is shown mends it."""
    shown = Shown(str(tmp_path), "w", "")
    shown.add("a")
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert shown.load() == []
    shown.add("b")
    assert shown.load() == ["b"]
