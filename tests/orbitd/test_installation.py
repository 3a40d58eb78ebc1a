"""An installation that is upgraded, moved or removed while orbitd runs: what is noticed, and how it is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orbit_protocol import VERSION
from orbitd.installation import Installation


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of an installation; the first has the version."""
    found = [tmp_path / "orbit_protocol.py", tmp_path / "keeper.py"]
    found[0].write_text(f'PROTOCOL_VERSION = 1\n\nVERSION = "{VERSION}"\n')
    found[1].write_text("run()\n")
    return found


@pytest.fixture
def installation(files: list[Path]) -> Installation:
    return Installation([str(path) for path in files], str(files[0]))


def put(path: Path, text: str) -> None:
    """Replace a file as installers do, by another one of its name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_the_same_files_are_no_change(installation: Installation) -> None:
    """Nothing is said as long as every file is the one that it was."""
    assert installation.change() is None
    assert installation.warnings() == []


def test_another_version(files: list[Path], installation: Installation) -> None:
    """An upgrade is told with both versions, and with the command that ends it."""
    put(files[0], 'VERSION = "99.1"\n')
    (warning,) = installation.warnings()
    assert f"version 99.1 is installed, {VERSION} runs" in warning
    assert "`orbitctl daemon restart`" in warning


def test_the_same_version_again(files: list[Path], installation: Installation) -> None:
    """A reinstallation of one version is told by the file that is another one."""
    put(files[1], "walk()\n")
    assert f"{files[1]} is another file" in str(installation.change())


@pytest.mark.parametrize("text", ["", "VERSION = None\n", 'VERSION = "\x1b[31m"\n', 'VERSION = "' + "9" * 100 + '"\n'])
def test_a_version_that_cannot_be_read(files: list[Path], installation: Installation, text: str) -> None:
    """What stands in the file is shown only if it looks like a version."""
    put(files[0], text)
    assert f"{files[0]} is another file" in str(installation.change())


@pytest.mark.parametrize("number", [0, 1])
def test_a_file_that_is_gone(files: list[Path], installation: Installation, number: int) -> None:
    """An installation that was moved or removed is told by its path; brought back, it is no change."""
    aside = files[number].with_suffix(".aside")
    files[number].rename(aside)
    assert f"moved or removed ({files[number]})" in str(installation.change())
    aside.rename(files[number])
    assert installation.change() is None


def test_a_file_that_never_was(files: list[Path], tmp_path: Path) -> None:
    """What cannot be found at the start, as in an archive, is not compared later."""
    installation = Installation([str(tmp_path / "none"), str(files[1])], str(tmp_path / "none"))
    assert installation.change() is None
    put(tmp_path / "none", "here now")
    assert installation.change() is None
