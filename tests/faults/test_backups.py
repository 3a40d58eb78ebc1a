"""The automatic backup, and putting a backup back."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from faults import shim
from faults.asking import LOCAL, doctor, names
from faults.interrupting import is_whole
from faults.shim import Shim
from support import DaemonProcess, RawClient

pytestmark = pytest.mark.slow

DAY, YEAR = 86_400, 365 * 86_400
MADE, NOT_NEEDED = "backup made", "no backup needed"


class Calendar:
    """Lets days pass for a daemon."""

    def __init__(self, daemon: DaemonProcess, client: RawClient, hand: Shim) -> None:
        self._daemon, self._client, self._hand = daemon, client, hand
        self._seen = dict.fromkeys((MADE, NOT_NEEDED, "maintenance task failed"), 0)
        self._shift = 0
        self.folder = daemon.database_path.parent / "backups"

    def pass_day(self, expected: str, *, shift: int = DAY) -> None:
        """Let the clock show another day and the hourly look happen; wait until that led to what is expected."""
        self._shift += shift
        self._hand.shift_clock(self._shift)
        self._hand.pass_time(3_700)
        self._client.call("daemon.ping")
        self._seen[expected] += 1
        self._daemon.wait_for_log(expected, count=self._seen[expected])

    def change(self, name: str) -> None:
        self._client.call("session.create", config=LOCAL, name=name)

    def backups(self) -> list[Path]:
        return sorted(self.folder.glob("auto-*.db"))


@pytest.fixture
def calendar(daemon: DaemonProcess, client: RawClient, hand: Shim) -> Calendar:
    """Days of a daemon that has started."""
    return Calendar(daemon, client, hand)


def test_a_backup_is_made_each_day_that_something_changed(
    calendar: Calendar, daemon: DaemonProcess, client: RawClient
) -> None:
    """It is whole and private, told by daemon.info, status and doctor; three stay; without a change none is made."""
    calendar.change("a")
    calendar.pass_day(MADE)
    (first,) = calendar.backups()
    assert is_whole(first)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert client.call("daemon.info")["last_backup_path"] == str(first)
    assert client.call("daemon.info")["last_backup_at"].replace("-", "").replace(":", "")[:15] == first.stem[5:20]
    calendar.pass_day(NOT_NEEDED)
    assert calendar.backups() == [first]
    (calendar.folder / "sessions-by-hand.db").write_bytes(b"mine")
    for name in ("b", "c", "d"):
        calendar.change(name)
        calendar.pass_day(MADE)
    kept = calendar.backups()
    assert len(kept) == 3
    assert first not in kept
    assert (calendar.folder / "sessions-by-hand.db").read_bytes() == b"mine"
    assert "last backup" in Orbitctl(daemon.home).ok("status").text
    assert doctor(daemon) == ""


def test_a_restart_without_a_change_makes_no_backup(calendar: Calendar, daemon: DaemonProcess, hand: Shim) -> None:
    """What was backed up before the restart is known after it."""
    calendar.change("a")
    calendar.pass_day(MADE)
    daemon.restart()
    with daemon.client() as client:
        assert client.call("daemon.info")["last_backup_path"] == str(calendar.backups()[0])
        hand.shift_clock(2 * DAY)
        hand.pass_time(3_700)
        client.call("daemon.ping")
        daemon.wait_for_log(NOT_NEEDED)
    assert len(calendar.backups()) == 1


def test_an_empty_store_is_not_backed_up(calendar: Calendar) -> None:
    """Where there is nothing, nothing is written, and no backup of something is pushed out by it."""
    calendar.pass_day(NOT_NEEDED)
    assert not calendar.folder.exists()


def test_backups_when_the_clock_is_set_back(calendar: Calendar, client: RawClient) -> None:
    """The new backup is made and stays, though its name is the oldest."""
    for name in ("a", "b", "c"):
        calendar.change(name)
        calendar.pass_day(MADE)
    calendar.change("d")
    calendar.pass_day(MADE, shift=-YEAR)
    kept = calendar.backups()
    assert len(kept) == 3
    assert client.call("daemon.info")["last_backup_path"] == str(kept[0])


def test_a_backup_that_fails(calendar: Calendar, daemon: DaemonProcess, hand: Shim) -> None:
    """Doctor tells, the older ones and the store are whole, nothing half done stays, and the next try succeeds."""
    calendar.change("a")
    calendar.pass_day(MADE)
    before = {path: path.read_bytes() for path in calendar.backups()}
    calendar.change("b")
    hand.fail(shim.WRITE, errno.EIO)
    calendar.pass_day("maintenance task failed")
    assert "backup failed" in doctor(daemon)
    hand.heal()
    assert {path: path.read_bytes() for path in calendar.folder.iterdir()} == before
    calendar.pass_day(MADE)
    assert len(calendar.backups()) == 2


def test_no_backup_is_pruned_while_a_damaged_database_lies_there(calendar: Calendar, daemon: DaemonProcess) -> None:
    """The one that is wanted may be the oldest."""
    aside = Path(f"{daemon.database_path}.corrupt-20260101T000000Z")
    aside.write_bytes(b"damaged")
    for name in ("a", "b", "c", "d"):
        calendar.change(name)
        calendar.pass_day(MADE)
    assert len(calendar.backups()) == 4
    aside.unlink()
    calendar.change("e")
    calendar.pass_day(MADE)
    assert len(calendar.backups()) == 3


@pytest.fixture
def copy(daemon: DaemonProcess, client: RawClient) -> Path:
    """A backup with one session, of a store that has two now."""
    client.call("session.create", config=LOCAL, name="old")
    path = daemon.home / "copy.db"
    client.call("maintenance.backup", path=str(path))
    client.call("session.create", config=LOCAL, name="new")
    return path


def test_a_backup_is_put_back(daemon: DaemonProcess, client: RawClient, copy: Path) -> None:
    """The daemon is stopped and started, the store is the backup's, and what was there before is kept whole."""
    ctl = Orbitctl(daemon.home)
    pid = client.call("daemon.info")["pid"]
    told = ctl.ok("maintenance", "restore", "--yes", "--json", str(copy)).json
    with daemon.client() as again:
        assert names(again) == ["old"]
        assert again.call("daemon.info")["pid"] != pid
    assert (told["contents"]["sessions"], told["database_path"]) == (1, str(daemon.database_path))
    ctl.ok("maintenance", "restore", "--yes", told["safety_copy"])
    with daemon.client() as again:
        assert names(again) == ["old", "new"]
        again.call("daemon.shutdown")


def test_a_restore_asks_first(daemon: DaemonProcess, client: RawClient, copy: Path) -> None:
    """Without --yes nobody is asked in a pipe and nothing is done; on a terminal, no means no."""
    ctl = Orbitctl(daemon.home)
    assert ctl("maintenance", "restore", str(copy)).code == 2
    answered = ctl.on_terminal("maintenance", "restore", str(copy), typed=b"n\n")
    assert answered.code == 1
    assert "1 session" in answered.text
    assert names(client) == ["old", "new"]


@pytest.mark.parametrize("what", ["missing", "no database", "damaged", "foreign", "newer", "a folder", "a FIFO"])
def test_what_is_no_good_backup_is_refused(daemon: DaemonProcess, client: RawClient, copy: Path, what: str) -> None:
    """It is refused at once with the reason, before the daemon is stopped or anything is changed.

    What is said is about the file that was named: no advice is about the database or its disk.
    """
    bad = daemon.home / "bad.db"
    if what == "no database":
        bad.write_text("hello" * 1000)
    elif what == "a folder":
        bad.mkdir()
    elif what == "a FIFO":
        os.mkfifo(bad)
    elif what != "missing":
        content = bytearray(copy.read_bytes())
        if what == "damaged":
            content[4096:8192] = bytes(4096)
        place = {"foreign": 68, "newer": 60, "damaged": 4096}[what]
        content[place : place + 4] = b"\x00\x00\x03\xe7"
        bad.write_bytes(content)
    failed = Orbitctl(daemon.home)("maintenance", "restore", "--yes", str(bad))
    assert failed.code == 1
    assert str(bad) in failed.err, failed.err
    assert not any(words in failed.err for words in ("doctor", "write access", "dmesg")), failed.err
    assert names(client) == ["old", "new"]
    assert client.call("daemon.info")["pid"] == daemon.pid


@pytest.mark.parametrize("state", ["absent", "damaged", "empty", "folder absent"])
def test_a_backup_is_put_back_where_nothing_good_is(daemon: DaemonProcess, copy: Path, state: str) -> None:
    """Also over a database that is damaged or gone; a damaged one is kept as it is."""
    daemon.kill()
    path = daemon.database_path
    Path(f"{path}-wal").unlink()
    if state == "absent":
        path.unlink()
    elif state == "folder absent":
        shutil.rmtree(path.parent)
    else:
        path.write_bytes(b"damaged" * 1000 if state == "damaged" else b"")
    Orbitctl(daemon.home).ok("maintenance", "restore", "--yes", str(copy))
    kept = list(path.parent.glob("*.before-restore-*"))
    assert [one.read_bytes() for one in kept] == ([b"damaged" * 1000] if state == "damaged" else [])
    daemon.start()
    with daemon.client() as client:
        assert names(client) == ["old"]


def test_a_restore_under_a_daemon_is_refused(daemon: DaemonProcess, client: RawClient, copy: Path) -> None:
    """`orbitd --restore` takes the lock that a serving daemon holds, so that it never swaps a file in use."""
    ctl = Orbitctl(daemon.home)
    ctl.command[2] = "orbitd"
    failed = ctl("--restore", str(copy))
    assert (failed.code, "another orbitd serves this database" in failed.err) == (1, True)
    assert names(client) == ["old", "new"]
