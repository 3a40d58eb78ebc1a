"""Modes of everything that is ever made, under a umask that forbids nothing."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from support import DaemonProcess, RawClient, clean_environment

pytestmark = pytest.mark.slow


def modes_below(home: Path) -> dict[str, int]:
    """Return the mode of all below a folder, links and the folder itself left out."""
    found = {path: path.lstat().st_mode for path in home.rglob("*") if not path.is_symlink()}
    return {str(path.relative_to(home)): mode for path, mode in found.items()}


def open_to_others(modes: dict[str, int]) -> dict[str, str]:
    wrong = {
        path: mode for path, mode in modes.items() if stat.S_IMODE(mode) != (0o700 if stat.S_ISDIR(mode) else 0o600)
    }
    return {path: oct(mode) for path, mode in wrong.items()}


@pytest.fixture
def careless(home: Path, request: pytest.FixtureRequest) -> Iterator[Orbitctl]:
    """The command line under umask 000; the daemon that it starts is ended with its programs."""
    environment = clean_environment(home)
    if request.param == "no runtime folder":
        del environment["XDG_RUNTIME_DIR"]
    ctl = Orbitctl(home, environment)
    ctl.command = ["sh", "-c", 'umask 000; exec "$0" "$@"', *ctl.command]
    yield ctl
    ctl("daemon", "stop")


def socket_of(ctl: Orbitctl) -> Path:
    return Path(ctl.ok("--json", "status").json["info"]["socket_path"])


@pytest.mark.parametrize("careless", ["runtime folder", "no runtime folder"], indirect=True)
def test_all_that_is_made_is_private(careless: Orbitctl, home: Path) -> None:
    """Started by orbitctl and used for everything, Orbit makes folders 0700, and files and sockets 0600, only."""
    (home / "screen").write_bytes(b"screen")
    careless.ok("session", "create", "--name", "web", "--", "/bin/cat")
    careless.ok("snapshot", "save", "web", "screen")
    careless.ok("maintenance", "backup")
    careless.ok("session", "start", "web")
    with RawClient(socket_of(careless)) as client:
        session = client.call("session.find", ref="web")["id"]
        client.call("session.send", id=session, data=base64.b64encode(b"typed\n").decode())
        client.call("session.attach", id=session, cols=80, rows=24)
        client.call("session.detach", id=session)
        modes = modes_below(home)
        client.call("session.terminate", id=session)
        client.call("session.wait", id=session, timeout_secs=20)
    del modes["screen"]
    assert open_to_others(modes) == {}
    names = {os.path.basename(path) for path in modes}
    expected = {"sessions.db", "sessions.db-wal", "sessions.db-shm", "sessions.db.lock", "orbitd.log", "start.lock"}
    assert expected | {".local", "share", "state", "backups", "orbitd.sock", "journal"} <= names
    assert any(name.startswith("manual-") for name in names)


@pytest.mark.parametrize("careless", ["runtime folder"], indirect=True)
def test_what_the_stop_leaves_is_private(careless: Orbitctl, home: Path) -> None:
    """After a stop, a start and a stop again nothing has been opened to others."""
    careless.ok("session", "create")
    careless.ok("daemon", "restart")
    careless.ok("daemon", "stop")
    assert open_to_others(modes_below(home)) == {}


@pytest.mark.parametrize("careless", ["runtime folder"], indirect=True)
def test_a_database_that_was_copied_carelessly_is_closed(careless: Orbitctl, home: Path) -> None:
    """A database that others can read, from a restore by hand, is theirs no longer once the daemon has it."""
    careless.ok("session", "create")
    careless.ok("daemon", "stop")
    database = home / ".local" / "share" / "orbit" / "sessions.db"
    database.chmod(0o666)
    careless.ok("session", "list")
    assert open_to_others(modes_below(home)) == {}


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_database_that_another_program_made_is_closed(daemon: DaemonProcess, suffix: str) -> None:
    """A restored database that is open to others, as umask 022 leaves it, is served and closed; doctor only warns."""
    with daemon.client() as client:
        client.call("session.create", config={"session_type": "local"}, name="web")
    daemon.kill()
    put_there = Path(f"{daemon.database_path}{suffix}")
    put_there.chmod(0o644)
    ctl = Orbitctl(daemon.home)
    found = [line for line in ctl.ok("doctor").lines if "is open to others" in line]
    expected = f"warn  database file: {put_there} is open to others (mode 0644)"
    assert found == ([expected] if suffix == "" else [])
    daemon.start()
    with daemon.client() as client:
        assert client.call("session.find", ref="web")["name"] == "web"
        assert open_to_others(modes_below(daemon.database_path.parent)) == {}
