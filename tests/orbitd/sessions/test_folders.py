"""The folder that a process is in: the name that the kernel has for it. This process enters real folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from needs import needs
from orbitd.sessions.folders import folder_of

pytestmark = needs(linux=True)


@pytest.mark.parametrize("name", ["x", "x (deleted)"])
@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, deleted: bool, again: bool
) -> None:
    """It has its own name, also where another folder has that, or one with the kernel's remark, by now."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    if deleted:
        folder.rmdir()
    if again:
        folder.mkdir(exist_ok=True)
        (tmp_path / f"{name} (deleted)").mkdir(exist_ok=True)
    assert folder_of(os.getpid()) == os.fsencode(folder)


def test_a_process_that_has_ended() -> None:
    """It is in no folder."""
    with pytest.raises(FileNotFoundError):
        folder_of(1 << 24)
