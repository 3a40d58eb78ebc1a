"""Homes with long and odd paths: both programs find each other, and every socket has a path that fits."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from orbit_os.sockets import MAX_PATH_BYTES
from support import clean_environment


def long(home: Path, length: int) -> str:
    """Return the path of a folder of so many bytes."""
    path = str(home)
    while len(path) < length:
        path += "/" + "h" * min(200, length - len(path) - 1)
    return path


HOMES = {
    "76 bytes": lambda home: long(home, 76),
    "77 bytes": lambda home: long(home, 77),
    "300 bytes": lambda home: long(home, 300),
    "bytes": lambda home: os.fsdecode(os.fsencode(home) + b"/caf\xe9" + b"h" * 100),
    "blanks": lambda home: f"{home}/a  b\nc",
}


@pytest.mark.parametrize("name", HOMES)
def test_a_daemon_is_found_in_any_home(home: Path, name: str) -> None:
    """Without a runtime folder too: the default socket is a short one where the natural one is too long."""
    long_home = HOMES[name](home)
    os.makedirs(long_home, mode=0o700)
    environment = clean_environment(home, HOME=long_home)
    del environment["XDG_RUNTIME_DIR"]
    ctl = Orbitctl(home, environment)
    try:
        info = ctl.ok("daemon", "start", "--json").json
        socket = os.fsdecode(ctl.ok("config", "show", "--json").json["daemon"]["socket_path"])
        natural = f"{long_home}/.local/state/orbit/orbitd.sock"
        if len(os.fsencode(natural)) > MAX_PATH_BYTES:
            assert os.path.dirname(info["socket_path"]) == f"/tmp/orbit-{os.getuid()}"
            assert socket == info["socket_path"]
        created = ctl.ok("session", "create", "-q", "--name", "one").text
        assert ctl.ok("session", "list", "-q").text == created
        assert ctl.ok("daemon", "restart", "-q").text != ""
        assert ctl.ok("session", "list", "-q").text == created
    finally:
        ctl("daemon", "stop")
    assert not os.path.lexists(info["socket_path"])
    with contextlib.suppress(OSError):  # other daemons of this user may have theirs in it
        os.rmdir(f"/tmp/orbit-{os.getuid()}")


def test_two_spellings_of_a_home_are_one(home: Path) -> None:
    """A daemon that was started with slashes too many is found without."""
    environment = clean_environment(home, HOME=long(home, 200))
    os.makedirs(environment["HOME"], mode=0o700)
    del environment["XDG_RUNTIME_DIR"]
    ctl = Orbitctl(home, environment)
    try:
        pid = ctl.ok("daemon", "start", "-q", HOME=f"/{environment['HOME']}//").text
        assert ctl.ok("status", "-q").text == pid
    finally:
        ctl("daemon", "stop")
