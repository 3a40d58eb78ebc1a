"""The disk is full, fails, or cannot be written: what clients see, what goes on, and that all is well afterwards."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import sys
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from faults import shim
from faults.asking import CORRUPT, FULL, LOCAL, READ_ONLY, doctor, look_again, names, snapshot
from faults.conftest import SmallDisk
from faults.shim import Shim
from orbitd import keeper
from support import DaemonProcess

pytestmark = pytest.mark.slow


def test_a_full_disk(disk: SmallDisk, daemon: DaemonProcess, hand: Shim) -> None:
    """Writes are 1900, retryable, with a hint; reads go on; with room all goes on, and nothing answered is lost."""
    with daemon.client() as client, daemon.client() as other:
        kept = client.call("session.create", config=LOCAL, name="kept")
        first = snapshot(client, kept["id"], 100_000)["result"]
        ballast = disk.fill()
        error = snapshot(client, kept["id"], 400_000)["error"]
        assert (error["code"], error["data"]["kind"], error["data"]["retryable"]) == (FULL, "storage_full", True)
        assert "Free room" in error["data"]["hint"]
        assert names(other) == ["kept"]
        assert other.call("snapshot.get", id=first["id"])["buffer_bytes"] == 100_000
        look_again(client, hand)
        daemon.wait_for_log("maintenance task failed")
        assert "is full" in doctor(daemon)
        ballast.unlink()
        assert "result" in snapshot(client, kept["id"], 400_000)
        look_again(client, hand)
        daemon.wait_for_log("maintenance task succeeds again")
        assert "is full" not in doctor(daemon)
        assert client.call("maintenance.check")["ok"]
    daemon.restart()
    with daemon.client() as client:
        assert len(client.call("snapshot.list", session_id=kept["id"])["snapshots"]) == 2


def test_many_writers_on_a_disk_that_fills_up(disk: SmallDisk, stopped_daemon: DaemonProcess) -> None:
    """However the room runs out, what was answered is there, and each failure is 1900."""
    daemon = stopped_daemon.start()
    answered: set[str] = set()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(daemon.client()) for _ in range(4)]
        session = clients[0].call("session.create", config=LOCAL)["id"]
        failures = 0
        for number in range(400):
            response = snapshot(clients[number % 4], session, 30_000, number)
            if "result" in response:
                answered.add(response["result"]["id"])
            else:
                failures += 1
                assert response["error"]["code"] == FULL, response
            if failures > 8:
                break
        assert failures > 8
    daemon.kill()
    disk.remount("size=16m")
    daemon.start()
    with daemon.client() as client:
        found = {one["id"] for one in client.call("snapshot.list", session_id=session, limit=1000)["snapshots"]}
        assert found == answered
        assert client.call("maintenance.check")["ok"]


def test_a_start_on_a_full_disk(disk: SmallDisk, stopped_daemon: DaemonProcess) -> None:
    """Where not even a start has room, orbitctl says so with a hint; with room, all is there."""
    daemon = stopped_daemon.start()
    with daemon.client() as client:
        client.call("session.create", config=LOCAL, name="kept")
    daemon.stop()
    ballast = disk.fill()
    failed = Orbitctl(daemon.home)("session", "list")
    assert failed.code == 3
    assert "is full" in failed.err
    assert "Free room" in failed.err
    ballast.unlink()
    daemon.start()
    with daemon.client() as client:
        assert names(client) == ["kept"]


def test_a_backup_on_a_full_disk(disk: SmallDisk, stopped_daemon: DaemonProcess) -> None:
    """The backup is 1900, nothing of it stays, and the one that it was to replace is whole."""
    daemon = stopped_daemon.start()
    with daemon.client() as client:
        session = client.call("session.create", config=LOCAL)["id"]
        path = disk.place / "copy.db"
        client.call("maintenance.backup", path=str(path))
        before = path.read_bytes()
        snapshot(client, session, 300_000)
        disk.fill()
        assert client.error("maintenance.backup", path=str(path))["code"] == FULL
        assert path.read_bytes() == before
        assert list(disk.place.glob(".orbit*")) == []


@pytest.mark.parametrize("calls", [shim.WRITE, shim.SYNC])
def test_a_quota_that_is_used_up(daemon: DaemonProcess, hand: Shim, calls: int) -> None:
    """EDQUOT is 1900 as ENOSPC is, of sessions and of backups; with room all goes on, and nothing is left behind."""
    with daemon.client() as client:
        hand.fail(calls, errno.EDQUOT)
        for method, params in (
            ("session.create", {"config": LOCAL}),
            ("maintenance.backup", {"path": str(daemon.database_path.with_name("copy.db"))}),
        ):
            error = client.error(method, **params)
            assert (error["code"], error["data"]["kind"], error["data"]["retryable"]) == (FULL, "storage_full", True)
        hand.heal()
        client.call("session.create", config=LOCAL, name="after")
        assert names(client) == ["after"]
    assert list(daemon.database_path.parent.glob(".orbit*")) == []


@pytest.mark.parametrize(("calls", "number"), [(shim.WRITE, errno.EIO), (shim.SYNC, errno.EIO)])
def test_a_disk_that_fails_to_write(daemon: DaemonProcess, hand: Shim, calls: int, number: int) -> None:
    """Writes are 1902 and name the disk; reads go on; when it works again, so do writes, and nothing is half there."""
    with daemon.client() as client:
        client.call("session.create", config=LOCAL, name="before")
        hand.fail(calls, number)
        for name in ("never", "neither"):
            error = client.error("session.create", config=LOCAL, name=name)
            assert (error["code"], error["data"]["kind"]) == (READ_ONLY, "storage_read_only")
            assert "disk fails" in error["data"]["hint"], error
        assert names(client) == ["before"]
        look_again(client, hand)
        daemon.wait_for_log("maintenance task failed")
        assert "disk fails" in doctor(daemon)
        hand.heal()
        client.call("session.create", config=LOCAL, name="after")
        assert client.call("maintenance.check")["ok"]
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        assert names(client) == ["before", "after"]


def test_a_disk_that_fails_to_read(daemon: DaemonProcess, hand: Shim) -> None:
    """What has to be read is 1901, what is in memory goes on; nothing is set aside, and later all is there."""
    with daemon.client() as client:
        session = client.call("session.create", config=LOCAL, name="a")["id"]
        saved = snapshot(client, session, 3_000_000)["result"]
    daemon.restart()
    with daemon.client() as client:
        hand.fail(shim.READ, errno.EIO)
        error = client.error("snapshot.get", id=saved["id"])
        assert (error["code"], error["data"]["kind"]) == (CORRUPT, "storage_corrupt")
        assert error["data"]["hint"]
        assert names(client) == ["a"]
        hand.heal()
        assert client.call("snapshot.get", id=saved["id"])["buffer_bytes"] == 3_000_000


@pytest.mark.parametrize("good", [0, 1, 3, 4, 7, 11])
@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_start_from_a_disk_that_fails_to_read(daemon: DaemonProcess, hand: Shim, good: int, ending: str) -> None:
    """Whichever read fails, no sound database is set aside for it: the start is refused, and later all is there."""
    with daemon.client() as client:
        for number in range(60):
            client.call("session.create", config=LOCAL, name=f"s{number}")
    getattr(daemon, ending)()
    hand.fail(shim.READ, errno.EIO, after=good)
    daemon.start(check=False)
    hand.heal()
    daemon.kill()
    assert list(daemon.database_path.parent.glob("*corrupt*")) == []
    daemon.start()
    with daemon.client() as client:
        assert len(names(client)) == 60


def test_a_database_that_becomes_read_only(daemon: DaemonProcess, hand: Shim) -> None:
    """Where the kernel lets nobody write any more (EROFS), writes are 1902 until it does again."""
    with daemon.client() as client:
        client.call("session.create", config=LOCAL, name="before")
        hand.fail(shim.CHANGES, errno.EROFS)
        error = client.error("session.create", config=LOCAL)
        assert error["code"] == READ_ONLY
        assert "mounted read-only" in error["data"]["hint"]
        folder = daemon.database_path.parent / "backups"
        error = client.error("maintenance.backup", path=str(folder / "one.db"))
        assert error["code"] == READ_ONLY
        assert f"The folder {folder} cannot be made" in error["message"]
        assert names(client) == ["before"]
        hand.heal()
        client.call("session.create", config=LOCAL, name="after")
        assert names(client) == ["before", "after"]


def test_a_start_on_a_read_only_disk(disk: SmallDisk, stopped_daemon: DaemonProcess) -> None:
    """A database that cannot be written is not served: orbitctl says why, and nothing is changed."""
    daemon = stopped_daemon.start()
    with daemon.client() as client:
        client.call("session.create", config=LOCAL, name="kept")
    daemon.stop()
    before = daemon.database_path.read_bytes()
    disk.remount("ro")
    failed = Orbitctl(daemon.home)("session", "list")
    assert failed.code == 3
    assert "ead-only" in failed.err, failed.err
    disk.remount("rw")
    assert daemon.database_path.read_bytes() == before
    daemon.start()
    with daemon.client() as client:
        assert names(client) == ["kept"]


def test_permission_that_is_lost(stopped_daemon: DaemonProcess) -> None:
    """What is in memory is served, all else is 1902 with what to do; given back, all goes on."""
    daemon = stopped_daemon
    daemon.environment["ORBIT_SHIM_MODES_BIND"] = "1"
    daemon.start()
    folder = daemon.database_path.parent
    with daemon.client() as client:
        client.call("session.create", config=LOCAL, name="before")
        folder.chmod(0o000)
        for method, params in (("session.create", {"config": LOCAL}), ("maintenance.check", {})):
            error = client.error(method, **params)
            assert (error["code"], error["data"]["kind"]) == (READ_ONLY, "storage_read_only")
            assert "access" in error["data"]["hint"]
        assert names(client) == ["before"]
        folder.chmod(0o700)
        assert client.call("maintenance.check")["ok"]
        client.call("session.create", config=LOCAL, name="after")
    daemon.stop()
    daemon.database_path.chmod(0o400)
    daemon.start(check=False)
    assert daemon.kill() == 1
    assert f"chmod 600 {daemon.database_path}" in daemon.log()
    daemon.database_path.chmod(0o600)
    daemon.start()
    with daemon.client() as client:
        assert names(client) == ["before", "after"]


CANNOT = [
    (shim.FOLDER_SYNC, errno.EINVAL),
    (shim.FOLDER_SYNC, errno.EOPNOTSUPP),
    (shim.MODE, errno.EPERM),
    (shim.MODE, errno.EOPNOTSUPP),
    (shim.LINK, errno.EPERM),
    (shim.LINK, errno.EOPNOTSUPP),
    (shim.FOLDER_SYNC | shim.MODE | shim.LINK, errno.EOPNOTSUPP),
]


@pytest.mark.parametrize(("calls", "number"), CANNOT)
def test_a_file_system_that_cannot_do_all(stopped_daemon: DaemonProcess, hand: Shim, calls: int, number: int) -> None:
    """A folder's fsync, a chmod and links are not needed: start, save, back up, restore and start again without."""
    daemon = stopped_daemon
    hand.fail(calls, number)
    daemon.start()
    backup = daemon.database_path.with_name("copy.db")
    with daemon.client() as client:
        kept = client.call("session.create", config=LOCAL, name="kept")
        assert "result" in snapshot(client, kept["id"], 1000)
        client.call("maintenance.backup", path=str(backup))
        client.call("session.create", config=LOCAL, name="later")
    daemon.stop()
    restored = Orbitctl(daemon.home, {**daemon.environment})("maintenance", "restore", str(backup), "--yes", "--json")
    assert restored.code == 0, restored.err
    assert restored.json["safety_copy"]
    daemon.restart()
    with daemon.client() as client:
        assert names(client) == ["kept"]
        assert client.call("maintenance.check")["ok"]


NEEDED = [
    (shim.LOCK, errno.ENOLCK, "no locks"),
    (shim.LOCK, errno.EOPNOTSUPP, "no locks"),
    (shim.MAP, errno.ENODEV, "shared memory"),
    (shim.MAP, errno.EINVAL, "shared memory"),
]


@pytest.mark.parametrize(("calls", "number", "what"), NEEDED)
def test_a_file_system_that_cannot_do_what_is_needed(
    stopped_daemon: DaemonProcess, hand: Shim, calls: int, number: int, what: str
) -> None:
    """Without locks or shared memory the start is refused, and the message says what is missing and the remedy."""
    hand.fail(calls, number)
    said = stopped_daemon.refused()
    assert what in said
    assert "local" in said
    assert str(stopped_daemon.database_path) in said or "set database_path" in said
    assert "Traceback" not in said
    hand.heal()
    stopped_daemon.start()


NO_SOCKETS = pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])


@NO_SOCKETS
def test_a_socket_folder_without_sockets(stopped_daemon: DaemonProcess, hand: Shim, number: int) -> None:
    """Where the daemon's socket cannot be made, the start is refused with its path and the setting to change."""
    stopped_daemon.arguments = ("--socket", str(stopped_daemon.database_path.with_name("orbitd.sock")))
    hand.fail(shim.BIND, number)
    said = stopped_daemon.refused()
    assert f"{stopped_daemon.database_path.with_name('orbitd.sock')} cannot be made" in said
    assert "configure a socket_path" in said


@NO_SOCKETS
def test_a_keeper_where_no_sockets_are(home: Path, hand: Shim, number: int) -> None:
    """Where the keeper's socket cannot be made, it reports what its file system lacks, and which setting to change."""
    folder = home / ".local" / "share"
    folder.mkdir(parents=True, mode=0o700)
    hand.fail(shim.BIND, number)
    command = [sys.executable, "-I", "-S", keeper.__path__[0] + "/__main__.py", str(folder / "sessions.db.keeper")]
    ended = subprocess.run(command, env=hand.environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "holds no sockets" in ended.stderr
    assert "set database_path to a local one" in ended.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_log_either(home: Path, number: int) -> None:
    """Where the log is on the disk that is full, too, whoever starts orbitd still hears why it does not start."""
    hand = Shim(home, home)
    ctl = Orbitctl(home)
    assert ctl("session", "list").code == 0  # the log's file is there from now on
    assert ctl("daemon", "stop").code == 0
    hand.fail(shim.CHANGES, number)
    failed = ctl("session", "list", **hand.environment)
    assert failed.code == 3
    expected = {
        errno.ENOSPC: "The disk of the database is full",
        errno.EDQUOT: "The quota of the database's disk is used up",
        errno.EROFS: "The file system is mounted read-only",
    }[number]
    assert expected in failed.err
    assert "lost sys.stderr" not in failed.err
