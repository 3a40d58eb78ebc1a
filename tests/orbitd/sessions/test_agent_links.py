"""The links to ssh agents where they cannot be made: only the link fails, and that is logged."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orbitd.sessions.ssh_agent import AgentLinks

AGENT = {b"SSH_AUTH_SOCK": b"/agents/one"}


def is_file(folder: Path) -> None:
    folder.write_text("x")


def is_link(folder: Path) -> None:
    folder.with_name("other").mkdir(0o700)
    folder.symlink_to("other")


def dangles(folder: Path) -> None:
    folder.symlink_to("nowhere")


def is_open(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


def is_below_a_file(folder: Path) -> None:
    folder.parent.rmdir()
    folder.parent.write_text("x")


@pytest.mark.parametrize("spoil", [is_file, is_link, dangles, is_open, is_below_a_file], ids=lambda each: each.__name__)
def test_a_link_that_cannot_be_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    """Whatever is in the folder's place stays, no link is made there, and nothing is raised."""
    folder = tmp_path / "state" / "agent"
    folder.parent.mkdir(0o700)
    spoil(folder)
    before = sorted(tmp_path.rglob("*"))
    links = AgentLinks(str(folder))
    with caplog.at_level(logging.WARNING):
        links.update("one", AGENT)
    assert [record.message for record in caplog.records] == ["agent link not updated"]
    assert not links.exists("one")
    links.remove("one")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO])
@pytest.mark.parametrize("call", ["mkdir", "symlink", "replace", "unlink"])
def test_a_file_system_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str, number: int
) -> None:
    """A full disk, or a folder that cannot be written, costs the link alone."""
    links = AgentLinks(str(tmp_path / "agent"))
    with monkeypatch.context() as patched:

        def fail(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        patched.setattr(os, call, fail)
        with caplog.at_level(logging.WARNING):
            links.update("one", AGENT)
            links.remove("one")
    assert [record.message for record in caplog.records] == ["agent link not updated"]
    links.update("one", AGENT)
    assert os.readlink(links.path("one")) == "/agents/one"


@pytest.mark.parametrize("target", [b"/a\0b", b"/" + b"n" * 5000, b"/agents/\xff"], ids=["NUL", "long", "no UTF-8"])
def test_an_agent_with_an_odd_path(tmp_path: Path, target: bytes) -> None:
    """A path that no link can hold leaves the one before; bytes that are no text are bytes."""
    links = AgentLinks(str(tmp_path / "agent"))
    links.update("one", AGENT)
    inside = os.fsencode(tmp_path / "agent") + b"/" + target.replace(b"/", b"")
    links.update("one", {b"SSH_AUTH_SOCK": inside})
    links.update("one", {b"SSH_AUTH_SOCK": target})
    assert os.readlink(os.fsencode(links.path("one"))) == (target if target.endswith(b"\xff") else b"/agents/one")
